"""Metrics of generated listening, on motion normalised by the corpus (mean 0, deviation 1 per dimension).

Published figures under one name differ 100-fold between variants, so each variant has its own name here:

    pcc        Pearson correlation of avatar and user over time, per window and dimension, then the mean
    rpcc       |pcc(truth, user) − pcc(generated, user)|: Avatar Forcing's rPCC per dimension; lower is better
    rpcc_flat  the same with all windows and dimensions flattened into one vector first (DIM's code)
    lagged     correlation of the avatar with the user `lag` earlier, pooled over windows; neither rPCC tests timing
    var        variance over time, mean over dimensions; rewards wrong motion too, never to be read alone
    sid        entropy (bits) over k-means clusters of the truth's frames: 40 expression, 20 pose, as DIM's K
    fd_pooled  Fréchet distance between all frames of truth and of generated motion; published FD is per sequence
    jerk       mean absolute third difference, per second³

Where there is no motion there is no correlation: a constant dimension counts as 0, so holding still scores badly.
What cannot be said is NaN, never 0 by accident:

    a window with fewer than 2 valid frames    has no pcc and no var, and is left out of their means
    no such window, or no frame at all         every figure
    fd                                         of no more frames than dimensions, whose covariance has no full rank
    jerk                                       without four valid frames in a row
    lagged, at a lag                           without a window of 10 frames that are valid on both sides
    delay                                      where no correlation over lags is more than chance (`Lagged.delay`)
    a number that is not finite in a valid frame of any side    every figure of the set

Lags reach 2 s, or as far as windows of T frames do: T − 10 frames, which is 1.6 s for windows of 2 s.

A metric's text says its formula, its source, the space of its motion, its floor (what other windows of the truth score
beside their own users, and white noise of the truth's mean and deviation; `python -m benchmarks.floors`, 600 windows of
2 s of made listeners, expression and pose) and its answers to one frame, to a constant dimension and to no frames.

Each metric is made of parts that add up over windows, so that `training.accumulators` can take a corpus in batch by
batch; the functions of the same name do it all at once.

Shape suffixes: W windows, T frames, D dimensions, N frames of all windows, L lags. Arrays are numpy float; `valid` is
bool [W, T], and frames that are not valid are left out everywhere, whatever they hold.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from scipy.cluster.vq import kmeans2, vq
from scipy.stats import t as student

from visavis.schemas import FPS
from visavis.schemas.manifest import MotionSpec

WTD = Float[np.ndarray, "W T D"]
ND = Float[np.ndarray, "N D"]
MD = Float[np.ndarray, "M D"]
ValidWT = Bool[np.ndarray, "W T"]
_QUIET = np.errstate(invalid="ignore", over="ignore")
"""What is not finite comes out as NaN, without a warning."""
CLUSTERS = {"expression": 40, "pose": 20}
"""K of DIM's SID. Avatar Forcing's appendix says 15 and 9, but its Table 1 prints 3.972, above log₂ 15."""
MAX_LAG = 2 * FPS
"""Frames; the longest reaction looked for is 2 s."""
MIN_OVERLAP = 10
"""Frames that a window must still have at a lag to be counted there."""
CHANCE = 0.05
"""Share of sets of windows without any reaction in which a delay is found all the same."""


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


@_QUIET
def mean_defined(values_W: Float[np.ndarray, "W"]) -> float:
    """The mean of those that are not NaN; NaN of none."""
    defined = values_W[~np.isnan(values_W)]
    return float(defined.mean()) if len(defined) else math.nan


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
    return _where_seen(_ratio(*_moments(avatar_WTD, user_WTD, valid_WT)), valid_WT)


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


@_QUIET
def flat_sums(avatar_WTD: WTD, user_WTD: WTD, valid_WT: ValidWT) -> np.ndarray:
    """What `flat_pcc` needs of each window, [W, 6]: count, sums, sums of squares and of products of all numbers."""
    a, b = _valid_part(avatar_WTD, valid_WT), _valid_part(user_WTD, valid_WT)
    count = np.broadcast_to(valid_WT[..., None], a.shape)
    return np.stack([part.sum(axis=(1, 2)) for part in (count, a, b, a * a, b * b, a * b)], axis=1)


@_QUIET
def flat_pcc(sums_6: np.ndarray) -> float:
    """Correlation of everything with everything, windows and dimensions alike."""
    count, a, b, aa, bb, ab = (float(value) for value in sums_6)
    if count < 2 or not np.isfinite(sums_6).all():
        return math.nan
    power = (aa / count - (a / count) ** 2, bb / count - (b / count) ** 2)
    return (ab / count - a * b / count**2) / float(np.sqrt(power[0] * power[1])) if min(power) > 1e-10 else 0.0


@dataclass(frozen=True)
class Lagged:
    """correlation[i] is that of the avatar with the user i frames earlier; `best` is where it is largest.

    surprise: Student's t of the covariance at `best`, over windows (a mean over its standard error; windows count as
    independent draws, as for standard errors), and how large it must be to be more than chance, corrected for the
    number of lags that were tried.
    """

    correlation: tuple[float, ...]
    surprise: tuple[float, float] = (math.nan, math.nan)

    @property
    def best(self) -> int:
        """0 where no correlation is defined."""
        defined = [-math.inf if math.isnan(value) else value for value in self.correlation]
        return int(np.argmax(defined))

    @property
    def delay(self) -> float:
        """Seconds; NaN where the best correlation is not positive, or no more than chance gives."""
        found, needed = self.surprise
        return self.best / FPS if self.correlation[self.best] > 0 and found > needed else math.nan


def lagged(avatar_WTD: WTD, user_WTD: WTD, valid_WT: ValidWT) -> Lagged:
    """How alike the avatar moves to what the user did some time earlier: `max(correlation)` and `delay`.

    Formula: at each lag covariance over root of both variances, sums over windows first, then the mean over dimensions;
        lags from 0 to 2 s, or as far as windows reach. The delay is named where Student's t of the covariance over
        windows is beyond chance, corrected for the number of lags.
    Source: ours.
    Space: normalised; expression or pose.
    Floor: noise .007 and .005, strangers .011 and .032, none of them with a delay; the recorded avatar .203 at .32 s,
        and of the pose, where nothing is mirrored, .005.
    Edges: one frame NaN, as fewer than 10 at a lag; a constant dimension counts as 0; no frames NaN.
    """
    if broken(valid_WT, avatar_WTD, user_WTD).any():
        return Lagged((math.nan,) * _lags(valid_WT.shape[1]))
    return lagged_from(lag_sums(avatar_WTD, user_WTD, valid_WT))


def _lags(frames: int) -> int:
    return max(1, min(MAX_LAG, frames - MIN_OVERLAP) + 1)


@_QUIET
def lag_sums(avatar_WTD: WTD, user_WTD: WTD, valid_WT: ValidWT) -> np.ndarray:
    """What `lagged_from` needs, [L, 3 D + 3]: covariances (about each window's own mean) and both variances; then how
    many windows, and the sum and the sum of squares of their covariances (mean over dimensions).

    They are summed over windows before the division, so that short overlaps at long lags do not count as much as long
    ones.
    """
    frames, dims = avatar_WTD.shape[1:]
    found = []
    for lag in range(_lags(frames)):
        end = max(0, frames - lag)
        both_WT = valid_WT[:, lag:] & valid_WT[:, :end]
        enough = both_WT.sum(axis=1) >= MIN_OVERLAP
        parts = _moments(avatar_WTD[enough, lag:], user_WTD[enough, :end], both_WT[enough])
        score_W = parts[0].sum(axis=1) / max(dims, 1)
        scores = [enough.sum(), score_W.sum(), (score_W * score_W).sum()]
        found.append(np.concatenate([*(part.sum(axis=0) for part in parts), scores]))
    return np.stack(found)


def lagged_from(sums_LX: Float[np.ndarray, "L X"]) -> Lagged:
    """The mean over dimensions at each lag."""
    dims = (sums_LX.shape[1] - 3) // 3
    correlation = tuple(
        mean_defined(_ratio(*sums_X[:-3].reshape(3, dims))) if sums_X[-3] else math.nan for sums_X in sums_LX
    )
    found = Lagged(correlation)
    return replace(found, surprise=_surprise(sums_LX[found.best, -3:], len(correlation)))


def _surprise(sums_3: np.ndarray, tries: int) -> tuple[float, float]:
    """Student's t of a mean, and the one that chance exceeds in a share CHANCE of cases in as many tries."""
    count, total, squares = sums_3.tolist()
    if count < 2 or not math.isfinite(squares):
        return math.nan, math.nan
    variance = max(squares / count - (total / count) ** 2, 0.0) * count / (count - 1)
    error = max(math.sqrt(variance / count), 1e-12)  # windows that are all alike
    return total / count / error, float(student.isf(CHANCE / tries, count - 1))


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
    return _where_seen(_moments(motion_WTD, motion_WTD, valid_WT)[1], valid_WT)


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


@_QUIET
def jerk_sums(motion_WTD: WTD, valid_WT: ValidWT) -> np.ndarray:
    """Sum and number of the absolute third differences whose four frames are valid, [2]; NaN, if a valid frame is."""
    third = np.abs(np.diff(motion_WTD.astype(np.float64), n=3, axis=1)) * float(FPS) ** 3
    whole = valid_WT[:, 3:] & valid_WT[:, 2:-1] & valid_WT[:, 1:-2] & valid_WT[:, :-3]
    total = third[whole].sum(dtype=np.float64) if np.isfinite(motion_WTD[valid_WT]).all() else math.nan
    return np.array([total, third[whole].size])


def sid(truth_ND: ND, generated_MD: MD, clusters: int, seed: int = 0) -> float:
    """How many kinds of the truth's frames are shown; only beside the truth's, and ≤ log₂ clusters.

    Formula: −Σ p log₂ p in bits, p the share of generated frames in each k-means cluster of the truth's frames.
    Source: SID of Learning to Listen (Ng et al. 2022), K as DIM's; DualTalk's is the other way round.
    Space: normalised frames; 40 clusters of the expression, 20 of the pose.
    Floor: the truth itself 5.29 and 4.27, other windows of it 5.27 and 4.28, noise 5.24 and 4.20: it is no judge of
        made motion.
    Edges: one generated frame 0; a constant dimension as any; no frames of either side NaN.
    """
    return entropy(histogram(generated_MD, kmeans(truth_ND, clusters, seed)))


def histogram(points_ND: ND, centres_KD: Float[np.ndarray, "K D"]) -> np.ndarray:
    """How many points are nearest to each centre, float64 [K]; NaN where a point is not finite."""
    if not np.isfinite(points_ND).all():
        return np.full(len(centres_KD), math.nan)
    if not len(points_ND) or not len(centres_KD):
        return np.zeros(len(centres_KD))
    return np.bincount(_nearest(points_ND, centres_KD), minlength=len(centres_KD)).astype(np.float64)


def entropy(counts_K: Float[np.ndarray, "K"]) -> float:
    """Bits; NaN of no counts at all."""
    total = float(counts_K.sum())
    if not total > 0:
        return math.nan
    share = counts_K[counts_K > 0] / total
    return max(0.0, float(-(share * np.log2(share)).sum()))


def fd(truth_ND: ND, generated_MD: MD) -> float:
    """How far apart the distributions of frames are, whatever their order.

    Formula: ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½), covariances over n − 1.
    Source: Heusel et al. 2017, Eq. 6; of all frames together, where published ones are per sequence.
    Space: normalised frames; expression or pose. `fd_pooled` in tables.
    Floor: the truth itself 0, other windows of it .007 and .011, noise of the same mean and deviation .004 and .10.
    Edges: no more frames than dimensions NaN, so one frame and none; a constant dimension as any.
    """
    return frechet(frame_sums(truth_ND), frame_sums(generated_MD))


@_QUIET
def frame_sums(points_ND: ND) -> np.ndarray:
    """What `frechet` needs, [D + 1, D + 1]: sums of products of the dimensions and of a constant 1."""
    points = np.concatenate([np.ones((len(points_ND), 1)), points_ND.astype(np.float64)], axis=1)
    return np.asarray(points.T @ points)


@_QUIET
def frechet(one: np.ndarray, two: np.ndarray) -> float:
    """‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½), from `frame_sums`; NaN of no more frames than dimensions."""
    if min(one[0, 0], two[0, 0]) < len(one) or not (np.isfinite(one).all() and np.isfinite(two).all()):
        return math.nan
    (mean_1, cov_1), (mean_2, cov_2) = (_gaussian(sums) for sums in (one, two))
    root = _root(cov_1)
    product = root @ cov_2 @ root
    if not np.isfinite(product).all():
        return math.nan
    gap = mean_1 - mean_2
    found = float(gap @ gap + np.trace(cov_1) + np.trace(cov_2) - 2 * np.trace(_root(product)))
    return max(0.0, found) if math.isfinite(found) else math.nan


def _gaussian(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    count, mean = sums[0, 0], sums[0, 1:] / sums[0, 0]
    return mean, (sums[1:, 1:] - count * np.outer(mean, mean)) / (count - 1)


def kmeans(points_ND: ND, clusters: int, seed: int, rounds: int = 50) -> np.ndarray:
    """Centres [K, D] of k-means from k-means++ seeds; K ≤ clusters, no more than distinct points.

    There are none of no points, nor of points that are not finite.
    """
    if not len(points_ND) or not np.isfinite(points_ND).all():
        return np.empty((0, points_ND.shape[1]))
    distinct = min(clusters, len(np.unique(points_ND, axis=0)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="One of the clusters is empty")  # it keeps its place
        centres: np.ndarray = kmeans2(points_ND.astype(np.float64), distinct, iter=rounds, minit="++", seed=seed)[0]
    return centres


def _nearest(points_ND: ND, centres_KD: Float[np.ndarray, "K D"]) -> np.ndarray:
    nearest: np.ndarray = vq(points_ND.astype(np.float64), centres_KD)[0]
    return nearest


def _valid_part(motion_WTD: WTD, valid_WT: ValidWT) -> np.ndarray:
    """float64, 0 in frames that are not valid."""
    return np.where(valid_WT[..., None], motion_WTD, 0.0).astype(np.float64)


@_QUIET
def _moments(a_WTD: WTD, b_WTD: WTD, valid_WT: ValidWT) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Covariance and both variances over valid frames, each [W, D]; 0 of none."""
    weight_WT1 = valid_WT[..., None]
    count = np.maximum(weight_WT1.sum(axis=1, keepdims=True), 1)
    a, b = _valid_part(a_WTD, valid_WT), _valid_part(b_WTD, valid_WT)
    a = (a - a.sum(axis=1, keepdims=True) / count) * weight_WT1
    b = (b - b.sum(axis=1, keepdims=True) / count) * weight_WT1
    total = count[:, 0]
    return (a * b).sum(axis=1) / total, (a * a).sum(axis=1) / total, (b * b).sum(axis=1) / total


@_QUIET
def _where_seen(values_WD: Float[np.ndarray, "W D"], valid_WT: ValidWT) -> np.ndarray:
    """Mean over dimensions, [W]; NaN for a window of fewer than two valid frames."""
    mean_W = values_WD.sum(axis=1) / max(values_WD.shape[1], 1)
    return np.where(valid_WT.sum(axis=1) >= 2, mean_W, math.nan)


@_QUIET
def _ratio(covariance: np.ndarray, one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Correlation; 0 where one of the two does not move, NaN where one is not finite."""
    still = (one <= 1e-10) | (two <= 1e-10)
    return np.asarray(np.where(still, 0.0, covariance / np.sqrt(np.where(still, 1.0, one * two))))


def _root(matrix: np.ndarray) -> np.ndarray:
    """Square root of a symmetric positive semi-definite matrix."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)
