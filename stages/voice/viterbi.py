"""The most likely path of two states."""

from __future__ import annotations

import numpy as np


def viterbi(evidence_F: np.ndarray, switch: float) -> np.ndarray:
    """The path of two states that gathers most: +evidence on state one, −evidence on the other, −switch per change.

    Returns:
        bool [F], True on state one.
    """
    one = two = 0.0
    came_one, came_two = np.zeros(len(evidence_F), bool), np.zeros(len(evidence_F), bool)  # from the other state
    for i, e in enumerate(evidence_F.tolist()):
        came_one[i], came_two[i] = two - switch > one, one - switch > two
        one, two = max(one, two - switch) + e, max(two, one - switch) - e
    path = np.zeros(len(evidence_F), bool)
    state = one >= two
    for i in range(len(path) - 1, -1, -1):
        path[i] = state
        state ^= bool(came_one[i] if state else came_two[i])
    return path
