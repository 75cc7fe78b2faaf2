"""Dynamic time warping, without a loop over pairs of frames."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist


def dynamic_time_warping(one_TD: Float[np.ndarray, "T D"], two_UD: Float[np.ndarray, "U D"]) -> float:
    """√ of the least sum of squared distances along a path through both from end to end (Sakoe and Chiba 1978; the
    root as tslearn has it, whose numbers REACT prints).

    The table of least sums is filled diagonal by diagonal: cells of one do not depend on each other.
    """
    cost = cdist(one_TD, two_UD, "sqeuclidean")
    rows, columns = cost.shape
    last = before = np.full(rows + 1, np.inf)  # of the two diagonals before, by row; row 0 lies outside
    for n in range(rows + columns - 1):
        low, high = max(0, n - columns + 1), min(rows, n + 1)
        i = np.arange(low, high)
        best = np.minimum(np.minimum(last[i], last[i + 1]), before[i])
        if n == 0:
            best = np.zeros(1)
        found = np.full(rows + 1, np.inf)
        found[i + 1] = cost[i, n - i] + best
        before, last = last, found
    return float(np.sqrt(last[rows]))
