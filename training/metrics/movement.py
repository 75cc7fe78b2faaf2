"""How much is moved, and how smoothly."""

from __future__ import annotations

import math

import numpy as np

from visavis.schemas import FPS
from visavis.training.metrics.windows import QUIET, WTD, ValidWT, broken, mean_defined, moments, where_seen


def var(motion_WTD: WTD, valid_WT: ValidWT) -> float:
    """How much is moved; only beside the recorded avatar's, and never alone: wrong motion has it, too.

    Formula: variance over time (n) of each window and dimension, then the mean.
    Source: DualTalk (arXiv 2505.18096), there of whole sequences.
    Space: normalised; expression or pose. Windows are shorter than the corpus, so the recorded avatar's is below 1.
    Floor: the recorded avatar .59 and .78, noise .83 and 1.06, a face that holds still 0.
    Edges: one frame NaN; a constant dimension 0; no frames NaN.
    """
    if broken(valid_WT, motion_WTD).any():
        return math.nan
    return mean_defined(window_var(motion_WTD, valid_WT))


def window_var(motion_WTD: WTD, valid_WT: ValidWT) -> np.ndarray:
    """`var` of each window, [W]."""
    return where_seen(moments(motion_WTD, motion_WTD, valid_WT)[1], valid_WT)


def jerk(motion_WTD: WTD, valid_WT: ValidWT) -> float:
    """How much motion trembles; only beside the recorded avatar's.

    Formula: mean absolute third difference times 25³, per s³.
    Source: after Flash and Hogan (1985), whose measure is of squares.
    Space: normalised; expression or pose.
    Floor: the recorded avatar 673 and 276 on made motion, which is smooth; noise 50,700 and 57,600.
    Edges: fewer than four valid frames in a row NaN; a constant dimension 0; no frames NaN.
    """
    return mean_jerk(jerk_sums(motion_WTD, valid_WT))


def mean_jerk(sums_2: np.ndarray) -> float:
    total, count = sums_2.tolist()
    return total / count if count and math.isfinite(total) else math.nan


@QUIET
def jerk_sums(motion_WTD: WTD, valid_WT: ValidWT) -> np.ndarray:
    """Sum and number of the absolute third differences whose four frames are valid, [2]; NaN, if a valid frame is."""
    third = np.abs(np.diff(motion_WTD.astype(np.float64), n=3, axis=1)) * float(FPS) ** 3
    whole = valid_WT[:, 3:] & valid_WT[:, 2:-1] & valid_WT[:, 1:-2] & valid_WT[:, :-3]
    total = third[whole].sum(dtype=np.float64) if np.isfinite(motion_WTD[valid_WT]).all() else math.nan
    return np.array([total, third[whole].size])
