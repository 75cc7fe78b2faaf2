"""How frames are distributed, whatever their order."""

from __future__ import annotations

import math
import warnings

import numpy as np
from jaxtyping import Float
from scipy.cluster.vq import kmeans2, vq

from visavis.training.metrics.windows import QUIET

ND = Float[np.ndarray, "N D"]
MD = Float[np.ndarray, "M D"]
CLUSTERS = {"expression": 40, "pose": 20}
"""K of DIM's SID. Avatar Forcing's appendix says 15 and 9, but its Table 1 prints 3.972, above log₂ 15."""


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


@QUIET
def frame_sums(points_ND: ND) -> np.ndarray:
    """What `frechet` needs, [D + 1, D + 1]: sums of products of the dimensions and of a constant 1."""
    points = np.concatenate([np.ones((len(points_ND), 1)), points_ND.astype(np.float64)], axis=1)
    return np.asarray(points.T @ points)


@QUIET
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


def _root(matrix: np.ndarray) -> np.ndarray:
    """Square root of a symmetric positive semi-definite matrix."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)
