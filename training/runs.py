"""Runs of frames in which something holds."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool


def runs(mask_T: Bool[np.ndarray, "T"]) -> list[tuple[int, int]]:
    """First frame, and the one after the last, of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask_T, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
