"""Arrays in a page's JSON: base64 of little-endian numbers, floats in steps of a row's own."""

from __future__ import annotations

import base64
from typing import Any, Literal

import numpy as np


def packed(numbers: np.ndarray) -> str:
    """Non-negative integers below 65,536, base64 of uint16."""
    return base64.b64encode(np.ascontiguousarray(numbers, "<u2").tobytes()).decode()


def packed_rows(rows_RK: np.ndarray, bits: Literal[8, 16] = 8) -> dict[str, Any]:
    """Finite floats as integers of so many bits: `steps` [R], what one of each row's is worth, and `data`, base64.

    The error is half a step: 1/254 of a row's largest number with 8 bits, 1/65,534 with 16.
    """
    most = 2 ** (bits - 1) - 1
    steps_R = np.maximum(np.abs(rows_RK).max(axis=1, initial=0.0), 1e-12).astype(np.float64) / most
    numbers = np.rint(rows_RK / steps_R[:, None]).astype("<i1" if bits == 8 else "<i2")
    return {"steps": steps_R.tolist(), "bits": bits, "data": base64.b64encode(numbers.tobytes()).decode()}
