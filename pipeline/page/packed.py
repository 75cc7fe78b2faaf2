"""Arrays as text for a page: rounded, differences over time, deflated, base64. The browser unpacks them itself.

A minute of both people's motion takes some 25 kB so, a quarter of what plain base64 would.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np

_STEPS = 1000  # between the least and the largest value of a column


def packed_over_time(array_TD: np.ndarray, steps: int = _STEPS) -> dict[str, Any]:
    """[T, D] finite numbers as what `visavis.unpack` reads, each column to within a part in `steps` of its range.

    Raises:
        ValueError: a number that is not finite.
    """
    values_TD = array_TD.astype(np.float64)
    if not np.isfinite(values_TD).all():
        raise ValueError("an array for a page has numbers that are not finite")
    frames, dims = values_TD.shape
    low_D = values_TD.min(axis=0, initial=np.inf) if frames else np.zeros(dims)
    high_D = values_TD.max(axis=0, initial=-np.inf) if frames else np.zeros(dims)
    step_D = np.maximum(high_D - low_D, 1e-9) / steps
    whole_DT = np.rint((values_TD - low_D) / step_D).astype(np.int16).T
    first_DT = np.diff(whole_DT, axis=1, prepend=np.zeros((dims, 1), np.int16))  # small numbers: they deflate well
    folded = ((first_DT << 1) ^ (first_DT >> 15)).astype("<u2")
    planes = np.stack([folded & 255, folded >> 8]).astype(np.uint8)  # all low bytes, then all high ones
    return {
        "rows": frames,
        "columns": dims,
        "low": [float(f"{value:.4g}") for value in low_D],
        "step": [float(f"{value:.5g}") for value in step_D],
        "data": base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode(),
    }


def packed_bytes(array_N: np.ndarray) -> str:
    """uint8 [N], deflated, in base64: what `visavis.unpackBytes` reads."""
    return base64.b64encode(zlib.compress(array_N.astype(np.uint8).tobytes(), 9)).decode()
