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

Shape suffixes: W windows, T frames, D dimensions. Arrays are numpy float; `valid` is bool [W, T], and frames that are
not valid are left out everywhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
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
    covariance, avatar_power, user_power = _moments(avatar_WTD, user_WTD, valid_WT)
    return float(np.mean(_ratio(covariance, avatar_power, user_power)))


def rpcc(truth_WTD: np.ndarray, generated_WTD: np.ndarray, user_WTD: np.ndarray, valid_WT: np.ndarray) -> float:
    return abs(pcc(truth_WTD, user_WTD, valid_WT) - pcc(generated_WTD, user_WTD, valid_WT))


def rpcc_flat(truth_WTD: np.ndarray, generated_WTD: np.ndarray, user_WTD: np.ndarray, valid_WT: np.ndarray) -> float:
    user = user_WTD[valid_WT].ravel()
    return abs(_flat(truth_WTD[valid_WT].ravel(), user) - _flat(generated_WTD[valid_WT].ravel(), user))


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
    """Correlation at every lag from 0 to 2 s, or as far as the windows reach.

    Covariances (about each window's own mean) are summed over windows before the division, so that short overlaps
    at long lags do not count as much as long ones; then the mean over dimensions.
    """
    frames = avatar_WTD.shape[1]
    found = []
    for lag in range(max(1, min(MAX_LAG, frames - MIN_OVERLAP) + 1)):
        end = frames - lag
        both = valid_WT[:, lag:] & valid_WT[:, :end]
        parts = _moments(avatar_WTD[:, lag:], user_WTD[:, :end], both)
        found.append(float(np.mean(_ratio(*(part.sum(axis=0) for part in parts)))))
    return Lagged(tuple(found))


def var(motion_WTD: np.ndarray, valid_WT: np.ndarray) -> float:
    _, power, _ = _moments(motion_WTD, motion_WTD, valid_WT)
    return float(np.mean(power))


def jerk(motion_WTD: np.ndarray, valid_WT: np.ndarray) -> float:
    third = np.abs(np.diff(motion_WTD, n=3, axis=1)) * float(FPS) ** 3
    whole = valid_WT[:, 3:] & valid_WT[:, 2:-1] & valid_WT[:, 1:-2] & valid_WT[:, :-3]
    return float(third[whole].mean()) if whole.any() else 0.0


def sid(truth_ND: np.ndarray, generated_ND: np.ndarray, clusters: int, seed: int = 0) -> float:
    """Entropy in bits of generated frames over clusters that were fitted on the truth's frames; ≤ log2(clusters)."""
    centres = kmeans(truth_ND, clusters, seed)
    counts = np.bincount(_nearest(generated_ND, centres), minlength=len(centres))
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum())


def fd(truth_ND: np.ndarray, generated_ND: np.ndarray) -> float:
    """‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½) between Gaussians fitted to both sets of frames."""
    mean_gap = truth_ND.mean(axis=0) - generated_ND.mean(axis=0)
    one, two = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (truth_ND, generated_ND))
    root = _root(one)
    cross = np.trace(_root(root @ two @ root))
    return float(max(0.0, mean_gap @ mean_gap + np.trace(one) + np.trace(two) - 2 * cross))


def compare(
    truth_WTD: np.ndarray, generated_WTD: np.ndarray, user_WTD: np.ndarray, valid_WT: np.ndarray, motion: MotionSpec
) -> dict[str, float]:
    """All metrics, expression and pose apart: names are `metric_expression` and `metric_pose`."""
    figures: dict[str, float] = {}
    for part, chosen in columns(motion).items():
        truth, generated, user = truth_WTD[..., chosen], generated_WTD[..., chosen], user_WTD[..., chosen]
        timing = lagged(generated, user, valid_WT)
        values: Mapping[str, float] = {
            "pcc": pcc(generated, user, valid_WT),
            "rpcc": rpcc(truth, generated, user, valid_WT),
            "rpcc_flat": rpcc_flat(truth, generated, user, valid_WT),
            "pcc_truth": pcc(generated, truth, valid_WT),
            "lagged_best": timing.correlation[timing.best],
            "lagged_delay": timing.delay,
            "var": var(generated, valid_WT),
            "sid": sid(truth[valid_WT], generated[valid_WT], CLUSTERS[part]),
            "fd": fd(truth[valid_WT], generated[valid_WT]),
            "jerk": jerk(generated, valid_WT),
        }
        figures |= {f"{name}_{part}": value for name, value in values.items()}
    return figures


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


def _flat(a: np.ndarray, b: np.ndarray) -> float:
    if a.std() < 1e-5 or b.std() < 1e-5:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _root(matrix: np.ndarray) -> np.ndarray:
    """Square root of a symmetric positive semi-definite matrix."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)
