"""Metrics of generated listening, on motion normalised by the corpus (mean 0, deviation 1 per dimension).

Published figures under one name differ 100-fold between variants, so each variant has its own name here:

    pcc        Pearson correlation of avatar and user over time, per window and dimension, then the mean
    rpcc       |pcc(truth, user) − pcc(generated, user)|: Avatar Forcing's rPCC per dimension; lower is better
    rpcc_flat  the same with all windows and dimensions flattened into one vector first (DIM's code)
    lagged     correlation of the avatar with the user `lag` earlier, pooled over windows; neither rPCC tests timing
    var        variance over time, mean over dimensions; rewards wrong motion too, never to be read alone
    sid        entropy (bits) of the histogram over K-means clusters of the truth's frames: 15 expression, 9 pose
    fd         Fréchet distance between frames of truth and generated motion
    jerk       mean absolute third difference, per second³

Where there is no motion there is no correlation: a constant dimension counts as 0, so holding still scores badly.

Each metric is made of parts that add up over windows, so that `training.tally` can take a corpus in batch by batch;
the functions of the same name do it all at once.

Shape suffixes: W windows, T frames, D dimensions, N frames of all windows, L lags. Arrays are numpy float; `valid` is
bool [W, T], and frames that are not valid are left out everywhere.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.cluster.vq import kmeans2, vq

from schemas import FPS
from schemas.manifest import MotionSpec

CLUSTERS = {"expression": 15, "pose": 9}
MAX_LAG = 2 * FPS
"""Frames; the longest reaction looked for is 2 s."""
MIN_OVERLAP = 10
"""Frames that a window must still have at a lag to be counted there."""


def columns(motion: MotionSpec) -> dict[str, np.ndarray]:
    """Column numbers of expression and of pose (rotation and translation)."""
    parts = {
        "expression": np.arange(*motion.expression),
        "pose": np.concatenate([np.arange(*motion.rotation), np.arange(*motion.translation)]),
    }
    return {name: part for name, part in parts.items() if len(part)}


def pcc(avatar_WTD: np.ndarray, user_WTD: np.ndarray, valid_WT: np.ndarray) -> float:
    """Mean over windows and dimensions of the correlation over time, −1…1."""
    return float(np.mean(window_pcc(avatar_WTD, user_WTD, valid_WT)))


def window_pcc(avatar_WTD: np.ndarray, user_WTD: np.ndarray, valid_WT: np.ndarray) -> np.ndarray:
    """`pcc` of each window, [W]."""
    return np.asarray(_ratio(*_moments(avatar_WTD, user_WTD, valid_WT)).mean(axis=1))


def rpcc(truth_WTD: np.ndarray, generated_WTD: np.ndarray, user_WTD: np.ndarray, valid_WT: np.ndarray) -> float:
    return abs(pcc(truth_WTD, user_WTD, valid_WT) - pcc(generated_WTD, user_WTD, valid_WT))


def rpcc_flat(truth_WTD: np.ndarray, generated_WTD: np.ndarray, user_WTD: np.ndarray, valid_WT: np.ndarray) -> float:
    truth, generated = (flat_sums(side, user_WTD, valid_WT).sum(axis=0) for side in (truth_WTD, generated_WTD))
    return abs(flat_pcc(truth) - flat_pcc(generated))


def flat_sums(avatar_WTD: np.ndarray, user_WTD: np.ndarray, valid_WT: np.ndarray) -> np.ndarray:
    """What `flat_pcc` needs of each window, [W, 6]: count, sums, sums of squares and of products of all numbers."""
    weight = np.broadcast_to(valid_WT[..., None], avatar_WTD.shape).astype(np.float64)
    a, b = avatar_WTD * weight, user_WTD * weight
    return np.stack([part.sum(axis=(1, 2)) for part in (weight, a, b, a * a, b * b, a * b)], axis=1)


def flat_pcc(sums_6: np.ndarray) -> float:
    """Correlation of everything with everything, windows and dimensions alike."""
    count, a, b, aa, bb, ab = (float(value) for value in sums_6)
    if count == 0:
        return 0.0
    power = (aa / count - (a / count) ** 2, bb / count - (b / count) ** 2)
    return (ab / count - a * b / count**2) / float(np.sqrt(power[0] * power[1])) if min(power) > 1e-10 else 0.0


@dataclass(frozen=True)
class Lagged:
    """correlation[i] is that of the avatar with the user i frames earlier; `best` is where it is largest."""

    correlation: tuple[float, ...]

    @property
    def best(self) -> int:
        return int(np.argmax(self.correlation))

    @property
    def delay(self) -> float:
        """Seconds."""
        return self.best / FPS


def lagged(avatar_WTD: np.ndarray, user_WTD: np.ndarray, valid_WT: np.ndarray) -> Lagged:
    """Correlation at every lag from 0 to 2 s, or as far as the windows reach."""
    return lagged_from(lag_sums(avatar_WTD, user_WTD, valid_WT))


def lag_sums(avatar_WTD: np.ndarray, user_WTD: np.ndarray, valid_WT: np.ndarray) -> np.ndarray:
    """What `lagged_from` needs, [L, 3, D]: covariances (about each window's own mean) and both variances.

    They are summed over windows before the division, so that short overlaps at long lags do not count as much as long
    ones.
    """
    frames = avatar_WTD.shape[1]
    found = []
    for lag in range(max(1, min(MAX_LAG, frames - MIN_OVERLAP) + 1)):
        end = frames - lag
        both = valid_WT[:, lag:] & valid_WT[:, :end]
        parts = _moments(avatar_WTD[:, lag:], user_WTD[:, :end], both)
        found.append(np.stack([part.sum(axis=0) for part in parts]))
    return np.stack(found)


def lagged_from(sums_L3D: np.ndarray) -> Lagged:
    """The mean over dimensions at each lag."""
    return Lagged(tuple(float(np.mean(_ratio(*sums_3D))) for sums_3D in sums_L3D))


def var(motion_WTD: np.ndarray, valid_WT: np.ndarray) -> float:
    return float(np.mean(window_var(motion_WTD, valid_WT)))


def window_var(motion_WTD: np.ndarray, valid_WT: np.ndarray) -> np.ndarray:
    """`var` of each window, [W]."""
    return np.asarray(_moments(motion_WTD, motion_WTD, valid_WT)[1].mean(axis=1))


def jerk(motion_WTD: np.ndarray, valid_WT: np.ndarray) -> float:
    total, count = jerk_sums(motion_WTD, valid_WT)
    return float(total / count) if count else 0.0


def jerk_sums(motion_WTD: np.ndarray, valid_WT: np.ndarray) -> np.ndarray:
    """Sum and number of the absolute third differences whose four frames are valid, [2]."""
    third = np.abs(np.diff(motion_WTD, n=3, axis=1)) * float(FPS) ** 3
    whole = valid_WT[:, 3:] & valid_WT[:, 2:-1] & valid_WT[:, 1:-2] & valid_WT[:, :-3]
    return np.array([third[whole].sum(dtype=np.float64), third[whole].size])


def sid(truth_ND: np.ndarray, generated_ND: np.ndarray, clusters: int, seed: int = 0) -> float:
    """Entropy in bits of generated frames over clusters that were fitted on the truth's frames; ≤ log2(clusters)."""
    return entropy(histogram(generated_ND, kmeans(truth_ND, clusters, seed)))


def histogram(points_ND: np.ndarray, centres_KD: np.ndarray) -> np.ndarray:
    """How many points are nearest to each centre, [K]."""
    return np.bincount(_nearest(points_ND, centres_KD), minlength=len(centres_KD))


def entropy(counts_K: np.ndarray) -> float:
    """Bits; 0 of no counts at all."""
    share = counts_K[counts_K > 0] / max(counts_K.sum(), 1)
    return float(-(share * np.log2(share)).sum())


def fd(truth_ND: np.ndarray, generated_ND: np.ndarray) -> float:
    """Fréchet distance between Gaussians fitted to both sets of frames."""
    return frechet(frame_sums(truth_ND), frame_sums(generated_ND))


def frame_sums(points_ND: np.ndarray) -> np.ndarray:
    """What `frechet` needs, [D + 1, D + 1]: sums of products of the dimensions and of a constant 1."""
    points = np.concatenate([np.ones((len(points_ND), 1)), points_ND.astype(np.float64)], axis=1)
    return np.asarray(points.T @ points)


def frechet(one: np.ndarray, two: np.ndarray) -> float:
    """‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½), from `frame_sums`; NaN of fewer than two frames."""
    if min(one[0, 0], two[0, 0]) < 2:
        return float("nan")
    (mean_1, cov_1), (mean_2, cov_2) = (_gaussian(sums) for sums in (one, two))
    root = _root(cov_1)
    cross = np.trace(_root(root @ cov_2 @ root))
    gap = mean_1 - mean_2
    return float(max(0.0, gap @ gap + np.trace(cov_1) + np.trace(cov_2) - 2 * cross))


def _gaussian(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    count, mean = sums[0, 0], sums[0, 1:] / sums[0, 0]
    return mean, (sums[1:, 1:] - count * np.outer(mean, mean)) / (count - 1)


def kmeans(points_ND: np.ndarray, clusters: int, seed: int, rounds: int = 50) -> np.ndarray:
    """Centres [K, D] of k-means from k-means++ seeds; K ≤ clusters, no more than distinct points."""
    distinct = min(clusters, len(np.unique(points_ND, axis=0)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="One of the clusters is empty")  # it keeps its place
        centres: np.ndarray = kmeans2(points_ND.astype(np.float64), distinct, iter=rounds, minit="++", seed=seed)[0]
    return centres


def _nearest(points_ND: np.ndarray, centres_KD: np.ndarray) -> np.ndarray:
    nearest: np.ndarray = vq(points_ND.astype(np.float64), centres_KD)[0]
    return nearest


def _moments(a_WTD: np.ndarray, b_WTD: np.ndarray, valid_WT: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Covariance and both variances over valid frames, each [W, D] (weighted by the window's valid share)."""
    weight = valid_WT[..., None].astype(np.float64)
    count = np.maximum(weight.sum(axis=1, keepdims=True), 1.0)
    a = (a_WTD - (a_WTD * weight).sum(axis=1, keepdims=True) / count) * weight
    b = (b_WTD - (b_WTD * weight).sum(axis=1, keepdims=True) / count) * weight
    total = count[:, 0]
    return (a * b).sum(axis=1) / total, (a * a).sum(axis=1) / total, (b * b).sum(axis=1) / total


def _ratio(covariance: np.ndarray, one: np.ndarray, two: np.ndarray) -> np.ndarray:
    moving = (one > 1e-10) & (two > 1e-10)
    return np.where(moving, covariance / np.sqrt(np.where(moving, one * two, 1.0)), 0.0)


def _root(matrix: np.ndarray) -> np.ndarray:
    """Square root of a symmetric positive semi-definite matrix."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)
