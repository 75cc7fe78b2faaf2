"""What the gate of pairs measures with, learnt from the recorded windows of a class: no labels, no network.

    how avatars react   lagged   mean correlation of the avatar with the user, per lag and dimension
                        event    mean motion of the avatar after the ends of the user's phrases, per frame and dimension
    where frames lie    mean and inverse covariance (Mahalanobis), and how far off the truth's own windows get

A window that helped to learn how avatars react would fit that too well, so there are two folds by conversation, and
each is judged by what the other one taught. The trade-off: some hundred windows are read before work starts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import DatasetError
from visavis.schemas.manifest import MotionSpec
from visavis.schemas.pairs import PairsConfig
from visavis.schemas.sample import Sample
from visavis.stages.pairing.measurements import ReferenceStatistics, Windows, off_manifold, unit
from visavis.training.dataset import Dataset, choose
from visavis.training.shards import Members

LAGS = 41
"""Frames 0 … 40 (1.6 s) after the user that a reaction is looked for."""
_LEARNT_FROM = 1024
"""Recorded windows of a class that are learnt from, from up to eight shards."""
FEWEST = 10
"""Conversations of which fewer are no sample: their windows are not independent, and a model knows them by heart."""
_USUAL = 0.99
"""Share of the truth's windows that are as near to the corpus' frames as `usual`."""
_SHRINK = 0.01  # of the covariance towards a multiple of the identity: dimensions may hardly move
_DIGITS = 6


def learn_from(dataset: Dataset, label: WindowClass, config: PairsConfig | None = None) -> ReferenceStatistics:
    """The reference statistics of a class of training windows.

    Args:
        config: of pairs, which may pass over the least expressive windows.

    Raises:
        DatasetError: a shard or sample cannot be read, or there is no training window of the class.
    """
    if not any(entry.samples for entry in dataset.manifest.of("train", label)):
        raise DatasetError(f"{dataset.location} has no training windows of class {label} to learn from")
    samples = [dataset.decode(key, members) for key, members in some_of(dataset, label, _LEARNT_FROM)]
    return learn(samples, dataset.manifest.motion, config.min_expressiveness if config else 0.0)


def some_of(dataset: Dataset, label: WindowClass, count: int) -> list[tuple[str, Members]]:
    """So many training windows of a class, undecoded, from up to eight of its shards, whose order is random."""
    return list(dataset.first(choose(dataset.manifest.of("train", label), count)))


def learn(samples: Sequence[Sample], motion: MotionSpec, passed_over: float = 0.0) -> ReferenceStatistics:
    """Reference statistics from recorded windows of one class.

    Args:
        passed_over: share of windows that is not expressive enough.

    Raises:
        DatasetError: no window has a frame in which the avatar's face is valid.
    """
    windows = Windows.of(samples, motion)
    if not windows.valid[..., 0].any():
        raise DatasetError(f"the avatar's face is valid in no frame of {len(samples)} windows: nothing to learn from")
    with threadpool_limits(1):  # sums then do not depend on how many cores there are
        avatar, user = unit(windows.truth, windows.valid[..., 0]), unit(windows.user, windows.valid[..., 1])
        lagged, event = [], []
        for judged in (0, 1):
            others = windows.fold != judged
            some = others if others.any() else ~others  # a corpus of one conversation judges itself
            lagged.append(_lagged(avatar[some], user[some]))
            event.append(_after(avatar[some], windows.phrase_end[some]))
        mean, whiten = _spread(windows.truth[windows.valid[..., 0]])
        distance = off_manifold(windows.truth, windows.valid[..., 0], mean, whiten)
    expressiveness = np.array([s.meta.expressiveness for s in samples])
    return ReferenceStatistics(
        lagged=np.round(np.stack(lagged), _DIGITS).astype(np.float32),
        event=np.round(np.stack(event), _DIGITS).astype(np.float32),
        mean=mean,
        whiten=whiten,
        usual=round(float(np.nanquantile(distance, _USUAL)), _DIGITS),
        least_expressive=round(float(np.quantile(expressiveness, passed_over)), _DIGITS) if passed_over else 0.0,
        windows=len(samples),
        held_out=len({s.meta.conversation for s in samples}) >= FEWEST and len(set(windows.fold.tolist())) > 1,
    )


def _lagged(avatar_WTD: np.ndarray, user_WTD: np.ndarray) -> np.ndarray:
    """Mean over windows of the correlation with the user l frames earlier, [L, D]."""
    frames = avatar_WTD.shape[1]
    found = np.zeros((LAGS, avatar_WTD.shape[2]))
    for lag in range(min(LAGS, frames)):
        product = avatar_WTD[:, lag:].astype(np.float64) * user_WTD[:, : frames - lag]
        found[lag] = product.sum(axis=1).mean(axis=0)
    return found


def _after(avatar_WTD: np.ndarray, event_WT: np.ndarray) -> np.ndarray:
    """Mean motion l frames after an event, [L, D]; 0 where none is seen that long."""
    frames = avatar_WTD.shape[1]
    found = np.zeros((LAGS, avatar_WTD.shape[2]))
    for lag in range(min(LAGS, frames)):
        then = avatar_WTD[:, lag:][event_WT[:, : frames - lag]]
        found[lag] = then.sum(axis=0, dtype=np.float64) / max(len(then), 1)
    return found


def _spread(frames_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean, and a root of the inverse covariance over D."""
    mean = frames_ND.mean(axis=0, dtype=np.float64)
    centred = frames_ND - mean
    dim = len(mean)
    covariance = centred.T @ centred / max(len(frames_ND), 1)
    covariance = (1 - _SHRINK) * covariance + _SHRINK * max(np.trace(covariance) / dim, 1e-9) * np.eye(dim)
    root = np.linalg.cholesky(np.linalg.inv(covariance) / dim)
    return mean, np.asarray(root)
