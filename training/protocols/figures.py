"""Figures that DIM and DualTalk both print: of a sequence, or of all of them as one."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from visavis.training.protocols.clips import TD, Clip

_EPS = 1e-6  # within the logarithm of every script's entropy
_STEP = 0.1  # by which STS divides, whatever the frame rate


def frechet_distance(one_TD: TD, two_TD: TD) -> float:
    """FD of two sets of frames.

    Formula: ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½), covariances over n − 1.
    Source: Heusel et al. 2017, Eq. 6; DIM, DualTalk, TIMAR.
    Space: raw; a part.
    Floor: `dim`.
    Edges: one frame or none NaN; a constant dimension as any.

    The trace of the root is the sum of the singular values of R₁R₂ᵀ, where Σ = RᵀR from a QR decomposition: exact to
    rounding where a covariance has no full rank, too, as that of 50 frames in 100 dimensions.
    """
    if min(len(one_TD), len(two_TD)) < 2:
        return math.nan
    gap = one_TD.mean(axis=0) - two_TD.mean(axis=0)
    one, two = _root(one_TD), _root(two_TD)
    crossed = np.linalg.svd(one @ two.T, compute_uv=False).sum()
    return max(0.0, float(gap @ gap + (one * one).sum() + (two * two).sum() - 2 * crossed))


def _root(motion_TD: TD) -> np.ndarray:
    """R of a covariance RᵀR."""
    centred = motion_TD - motion_TD.mean(axis=0)
    return np.asarray(np.linalg.qr(centred, mode="r")) / math.sqrt(len(motion_TD) - 1)


def clusters_of(part: str, others: int) -> int:
    """K of SID: 40 of the expression, by whatever name that begins with exp, `others` of any other part."""
    return 40 if part.startswith("exp") else others


def entropy_over_clusters(fitted_TD: TD, counted_TD: TD, clusters: int) -> float:
    """SID.

    Formula: −Σ p log₂(p + 1e-6), p the share of `counted_TD` in each of the k-means clusters of `fitted_TD`:
        scikit-learn's with random_state 0 and n_init "auto", as all scripts have it.
    Source: DIM, DualTalk, TIMAR.
    Space: raw; a part.
    Floor: `dim`, `dualtalk`.
    Edges: fewer fitted frames than clusters NaN, so one frame and none; a constant dimension as any.
    """
    from sklearn.cluster import KMeans

    if len(fitted_TD) < clusters or not len(counted_TD):
        return math.nan
    means = KMeans(n_clusters=clusters, random_state=0, n_init="auto").fit(fitted_TD)
    share_K = np.bincount(means.predict(counted_TD), minlength=clusters) / len(counted_TD)
    return float(-(share_K * np.log2(share_K + _EPS)).sum())


def sts(truth_TD: TD, generated_TD: TD) -> float:
    """STS, which grows with the length.

    Formula: √(Σ (Δ truth − Δ generated)² / 0.1), over frames and dimensions.
    Source: DIM, DualTalk; they divide by 0.1 whatever the frame rate.
    Space: raw; a part.
    Floor: `dim`.
    Edges: one frame or none NaN; a constant dimension adds what the other side moves.
    """
    if len(truth_TD) < 2:
        return math.nan
    return math.sqrt(float(((np.diff(truth_TD, axis=0) - np.diff(generated_TD, axis=0)) ** 2).sum()) / _STEP)


def _fd(clip: Clip) -> float:
    return frechet_distance(clip.truth, clip.generated)


def _paired_fd(clip: Clip) -> float:
    """FD of user and avatar together, so of how they move with each other."""
    pairs = (clip.user, clip.truth), (clip.partner, clip.generated)
    return frechet_distance(*(np.concatenate(pair, axis=1) for pair in pairs))


def _mse(clip: Clip) -> float:
    return float(((clip.truth - clip.generated) ** 2).mean()) if clip.truth.size else math.nan


DISTANCES: dict[str, Callable[[Clip], float]] = {"FD": _fd, "P-FD": _paired_fd, "MSE": _mse}


def rpcc(clip: Clip) -> float:
    """rPCC: how far the correlation with the user is from the recorded avatar's; lower is better.

    Formula: |corr(truth, user) − corr(generated, user)|, frames and dimensions as one vector.
    Source: DIM, DualTalk, TIMAR.
    Space: raw; a part.
    Floor: `dim`, `dualtalk`.
    Edges: one frame of several columns has a value, of one NaN; NaN where a side is all constant; no frames NaN.
    """
    if not clip.truth.size:
        return math.nan
    pairs = (clip.truth, clip.user), (clip.generated, clip.partner)
    real, made = (float(_correlations(a.reshape(-1, 1), b.reshape(-1, 1))[0]) for a, b in pairs)
    return abs(real - made)


def _correlations(a_TD: TD, b_TD: TD) -> np.ndarray:
    """Of each dimension, [D]; NaN where one of the two does not move."""
    a, b = a_TD - a_TD.mean(axis=0), b_TD - b_TD.mean(axis=0)
    power = np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
    return np.divide((a * b).sum(axis=0), power, out=np.full(a.shape[1], math.nan), where=power > 0)
