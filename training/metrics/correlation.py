"""How alike avatar and user move at once."""

from __future__ import annotations

import math

import numpy as np

from visavis.training.metrics.windows import (
    QUIET,
    WTD,
    ValidWT,
    broken,
    mean_defined,
    moments,
    ratio,
    valid_part,
    where_seen,
)


def pcc(avatar_WTD: WTD, user_WTD: WTD, valid_WT: ValidWT) -> float:
    """How alike avatar and user move at once, −1 to 1. No judge by itself: who mirrors late has little of it.

    Formula: Pearson's correlation over time of each window and dimension, then the mean.
    Source: the part of rPCC in Avatar Forcing (arXiv 2601.00664), per dimension.
    Space: normalised; expression or pose.
    Floor: noise .002 and .004, strangers .010 and −.003; the recorded avatar .036 and .002.
    Edges: one frame NaN; a constant dimension counts as 0; no frames NaN.
    """
    if broken(valid_WT, avatar_WTD, user_WTD).any():
        return math.nan
    return mean_defined(window_pcc(avatar_WTD, user_WTD, valid_WT))


def window_pcc(avatar_WTD: WTD, user_WTD: WTD, valid_WT: ValidWT) -> np.ndarray:
    """`pcc` of each window, [W]."""
    return where_seen(ratio(*moments(avatar_WTD, user_WTD, valid_WT)), valid_WT)


def rpcc(truth_WTD: WTD, generated_WTD: WTD, user_WTD: WTD, valid_WT: ValidWT) -> float:
    """How far the correlation with the user is from the recorded avatar's; lower is better.

    Formula: |pcc(truth, user) − pcc(generated, user)|.
    Source: Avatar Forcing (arXiv 2601.00664), per dimension; not DIM's, which is `rpcc_flat`.
    Space: normalised; expression or pose.
    Floor: the truth itself 0, other windows of it .012 and .001, noise .035 and .002: what is below tells nothing.
    Edges: one frame NaN; a constant dimension counts as a correlation of 0; no frames NaN.
    """
    return abs(pcc(truth_WTD, user_WTD, valid_WT) - pcc(generated_WTD, user_WTD, valid_WT))


def rpcc_flat(truth_WTD: WTD, generated_WTD: WTD, user_WTD: WTD, valid_WT: ValidWT) -> float:
    """`rpcc` by one correlation of everything, which sees means of dimensions and of people as well.

    Formula: |corr(truth, user) − corr(generated, user)|, windows, frames and dimensions as one vector.
    Source: DIM's script, as Avatar Forcing's table has it.
    Space: normalised; expression or pose. DIM's are raw: stand beside published ones only by `--protocol dim`.
    Floor: the truth itself 0, other windows of it .013 and .004, noise .055 and .004.
    Edges: one frame of two dimensions or more has a value, of one NaN; of what is all constant a correlation counts as
        0; no frames NaN.
    """
    if broken(valid_WT, truth_WTD, generated_WTD, user_WTD).any():
        return math.nan
    truth, generated = (flat_sums(side, user_WTD, valid_WT).sum(axis=0) for side in (truth_WTD, generated_WTD))
    return abs(flat_pcc(truth) - flat_pcc(generated))


@QUIET
def flat_sums(avatar_WTD: WTD, user_WTD: WTD, valid_WT: ValidWT) -> np.ndarray:
    """What `flat_pcc` needs of each window, [W, 6]: count, sums, sums of squares and of products of all numbers."""
    a, b = valid_part(avatar_WTD, valid_WT), valid_part(user_WTD, valid_WT)
    count = np.broadcast_to(valid_WT[..., None], a.shape)
    return np.stack([part.sum(axis=(1, 2)) for part in (count, a, b, a * a, b * b, a * b)], axis=1)


@QUIET
def flat_pcc(sums_6: np.ndarray) -> float:
    """Correlation of everything with everything, windows and dimensions alike."""
    count, a, b, aa, bb, ab = (float(value) for value in sums_6)
    if count < 2 or not np.isfinite(sums_6).all():
        return math.nan
    power = (aa / count - (a / count) ** 2, bb / count - (b / count) ** 2)
    return (ab / count - a * b / count**2) / float(np.sqrt(power[0] * power[1])) if min(power) > 1e-10 else 0.0
