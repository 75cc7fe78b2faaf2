"""scikit-learn's k-means as public scripts call it (`random_state=0`, `n_init="auto"`), with its start found sooner.

Most of a small fit's time goes into the start: for each of forty centres scikit-learn converts all frames to float64
and works out their norms again. Here that is done once; draws, distances and their rounding are those of its
`_kmeans_plusplus` (version 1.5 to 1.9), operation by operation, so the same centres are chosen, and its own `fit` goes
on from them.

Shape suffixes: N frames, D dimensions, K centres, L candidates for the next one.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

ND = Float[np.ndarray, "N D"]


def kmeans_labels(fitted_ND: ND, counted_MD: Float[np.ndarray, "M D"], clusters: int) -> Int[np.ndarray, "M"]:
    """Which cluster of `fitted_ND` each frame of `counted_MD` is nearest to: `KMeans(…).fit(fitted).predict(counted)`.

    Raises ValueError, as scikit-learn does, for fewer frames than clusters.
    """
    from sklearn.cluster import KMeans

    if len(fitted_ND) < clusters:
        raise ValueError(f"n_samples={len(fitted_ND)} should be >= n_clusters={clusters}.")
    if fitted_ND.dtype != np.float32:  # half floats, too, as it does itself
        fitted_ND = fitted_ND.astype(np.float64, copy=False)
    fitted_ND = np.ascontiguousarray(fitted_ND)
    start_KD = fitted_ND[plus_plus(fitted_ND - fitted_ND.mean(axis=0), clusters)]
    means = KMeans(n_clusters=clusters, init=start_KD, n_init=1).fit(fitted_ND)
    return np.asarray(means.predict(counted_MD))


def plus_plus(points_ND: ND, clusters: int, seed: int = 0) -> Int[np.ndarray, "K"]:
    """The frames with which greedy k-means++ begins (Arthur and Vassilvitskii 2007); points are centred.

    Distances of float32 points are worked out in float64 and rounded to float32.
    """
    random, kind = np.random.RandomState(seed), points_ND.dtype
    weight_N = np.ones(len(points_ND), kind)
    exact_ND = points_ND.astype(np.float64, copy=False)
    norms_N = np.einsum("ij,ij->i", exact_ND, exact_ND)

    def squared_distances(chosen_L: np.ndarray) -> np.ndarray:
        some_LD = exact_ND[chosen_L]
        found_LN = -2 * (some_LD @ exact_ND.T)
        found_LN += np.einsum("ij,ij->i", some_LD, some_LD)[:, None]
        found_LN += norms_N
        return np.asarray(np.maximum(found_LN.astype(kind, copy=False), 0))

    chosen = [int(random.choice(len(points_ND), p=weight_N / weight_N.sum()))]
    nearest_N = squared_distances(np.array(chosen))[0]
    potential = (nearest_N[None] @ weight_N)[0]
    tries = 2 + int(np.log(clusters))
    for _ in range(1, clusters):
        drawn_L = random.uniform(size=tries) * potential
        candidates_L = np.searchsorted(np.cumsum(weight_N * nearest_N), drawn_L)
        np.minimum(candidates_L, len(points_ND) - 1, out=candidates_L)
        then_LN = np.minimum(nearest_N, squared_distances(candidates_L))
        potentials_L = (then_LN @ weight_N[:, None])[:, 0]
        best = int(np.argmin(potentials_L))
        potential, nearest_N = potentials_L[best], then_LN[best]
        chosen.append(int(candidates_L[best]))
    return np.array(chosen)
