"""What the metrics share: which frames count, and moments over the valid ones."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float

from visavis.schemas.manifest import MotionSpec

WTD = Float[np.ndarray, "W T D"]
ValidWT = Bool[np.ndarray, "W T"]
QUIET = np.errstate(invalid="ignore", over="ignore")
"""What is not finite comes out as NaN, without a warning."""


def columns(motion: MotionSpec) -> dict[str, np.ndarray]:
    """Column numbers of expression and of pose (rotation and translation)."""
    parts = {
        "expression": np.arange(*motion.expression),
        "pose": np.concatenate([np.arange(*motion.rotation), np.arange(*motion.translation)]),
    }
    return {name: part for name, part in parts.items() if len(part)}


def broken(valid_WT: ValidWT, *sides_WTD: WTD) -> np.ndarray:
    """Windows in which a side has a number that is not finite in a valid frame, bool [W]."""
    finite_WT = np.all([np.isfinite(side_WTD).all(axis=2) for side_WTD in sides_WTD], axis=0)
    return np.asarray((valid_WT & ~finite_WT).any(axis=1))


@QUIET
def mean_defined(values_W: Float[np.ndarray, "W"]) -> float:
    """The mean of those that are not NaN; NaN of none."""
    defined = values_W[~np.isnan(values_W)]
    return float(defined.mean()) if len(defined) else math.nan


def valid_part(motion_WTD: WTD, valid_WT: ValidWT) -> np.ndarray:
    """float64, 0 in frames that are not valid."""
    return np.where(valid_WT[..., None], motion_WTD, 0.0).astype(np.float64)


@QUIET
def moments(a_WTD: WTD, b_WTD: WTD, valid_WT: ValidWT) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Covariance and both variances over valid frames, each [W, D]; 0 of none."""
    weight_WT1 = valid_WT[..., None]
    count = np.maximum(weight_WT1.sum(axis=1, keepdims=True), 1)
    a, b = valid_part(a_WTD, valid_WT), valid_part(b_WTD, valid_WT)
    a = (a - a.sum(axis=1, keepdims=True) / count) * weight_WT1
    b = (b - b.sum(axis=1, keepdims=True) / count) * weight_WT1
    total = count[:, 0]
    return (a * b).sum(axis=1) / total, (a * a).sum(axis=1) / total, (b * b).sum(axis=1) / total


@QUIET
def where_seen(values_WD: Float[np.ndarray, "W D"], valid_WT: ValidWT) -> np.ndarray:
    """Mean over dimensions, [W]; NaN for a window of fewer than two valid frames."""
    mean_W = values_WD.sum(axis=1) / max(values_WD.shape[1], 1)
    return np.where(valid_WT.sum(axis=1) >= 2, mean_W, math.nan)


@QUIET
def ratio(covariance: np.ndarray, one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Correlation; 0 where one of the two does not move, NaN where one is not finite."""
    still = (one <= 1e-10) | (two <= 1e-10)
    return np.asarray(np.where(still, 0.0, covariance / np.sqrt(np.where(still, 1.0, one * two))))
