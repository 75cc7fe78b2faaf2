"""Groups of what is linked, directly or by way of others."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def groups_of(links_E2: np.ndarray, size: int) -> np.ndarray:
    """The group of each of `size` members, int32 [size]: by E links between two, int [E, 2], of any direction."""
    ties = coo_array((np.ones(len(links_E2), bool), (links_E2[:, 0], links_E2[:, 1])), shape=(size, size))
    _, group_N = connected_components(ties, directed=False)
    found: np.ndarray = group_N
    return found
