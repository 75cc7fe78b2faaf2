"""What the gate of pairs measures with, learnt from the recorded windows of a class: no labels, no network.

    how avatars react   lagged   mean correlation of the avatar with the user, per lag and dimension
                        event    mean motion of the avatar after the ends of the user's phrases, per frame and dimension
    where frames lie    mean and inverse covariance (Mahalanobis), and how far off the truth's own windows get

Correlating a side with its user at whatever lag fits best says next to nothing in 2 s: of 24 · 41 correlations some are
large by chance. Knowing from the corpus which lags and dimensions count, one predicts the reaction (`Expected`), and
asks how well a side correlates with that: the matched filter of radio, the event-related average of physiology. On the
corpus of a known rule the recorded listener beats another window's in 94 % of windows, where the largest lagged
correlation gave 56 % (`benchmarks.gate`).

A window that helped to learn how avatars react would fit that too well, so there are two folds by conversation, and
each is judged by what the other one taught. The trade-off: some hundred windows are read before work starts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from visavis.schemas.errors import DatasetError
from visavis.schemas.manifest import MotionSpec
from visavis.schemas.rows import Array, Row
from visavis.schemas.sample import Sample

LAGS = 41
"""Frames 0 … 40 (1.6 s) after the user that a reaction is looked for."""
SOON = 16
"""Frames of a window that must follow the end of a phrase: a nod takes as long to begin."""
USUAL = 0.99
"""Share of the truth's windows that are as near to the corpus' frames as the yardstick's `usual`."""
_SHRINK = 0.01  # of the covariance towards a multiple of the identity: dimensions may hardly move
_DIGITS = 6


class Yardstick(Row):
    """Of one class of windows. Motion is normalised by the corpus; L = LAGS.

    lagged_2LD, event_2LD: float32, by the fold that is judged by them. mean_D, whiten_DD: float64,
    |(z − mean) · whiten|² is the squared Mahalanobis distance over D. usual: see USUAL. dull: expressiveness below
    which windows are passed over. windows: how many it was learnt from.
    """

    lagged: Array
    event: Array
    mean: Array
    whiten: Array
    usual: float
    dull: float
    windows: int


@dataclass(frozen=True)
class Windows:
    """Windows as arrays; motion normalised by the corpus, [W, T, D] float32."""

    truth: np.ndarray
    user: np.ndarray
    valid: np.ndarray  # [W, T, 2] bool
    phrase_end: np.ndarray  # [W, T] bool: first frame after a phrase of the user
    fold: np.ndarray  # [W] 0 or 1

    @classmethod
    def of(cls, samples: Sequence[Sample], motion: MotionSpec) -> Windows:
        speaks = np.stack([s.state for s in samples]) & 2 > 0
        ends = np.zeros_like(speaks)
        ends[:, 1:] = speaks[:, :-1] & ~speaks[:, 1:]
        return cls(
            truth=normalised(np.stack([s.avatar_motion for s in samples]), motion),
            user=normalised(np.stack([s.user_motion for s in samples]), motion),
            valid=np.stack([s.valid for s in samples]),
            phrase_end=ends,
            fold=np.array([fold_of(s.meta.conversation) for s in samples]),
        )


@np.errstate(over="ignore")  # what is beyond float32 is not finite, and the gate says so
def normalised(motion_WTD: np.ndarray, spec: MotionSpec) -> np.ndarray:
    """Mean 0 and deviation 1 over the corpus, float32."""
    return ((motion_WTD - np.array(spec.mean)) / np.array(spec.std)).astype(np.float32)


def fold_of(conversation: str) -> int:
    return hashlib.sha256(conversation.encode()).digest()[0] & 1


def learn(samples: Sequence[Sample], motion: MotionSpec, passed_over: float = 0.0) -> Yardstick:
    """A yardstick from recorded windows of one class.

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
    return Yardstick(
        lagged=np.round(np.stack(lagged), _DIGITS).astype(np.float32),
        event=np.round(np.stack(event), _DIGITS).astype(np.float32),
        mean=mean,
        whiten=whiten,
        usual=round(float(np.nanquantile(distance, USUAL)), _DIGITS),
        dull=round(float(np.quantile(expressiveness, passed_over)), _DIGITS) if passed_over else 0.0,
        windows=len(samples),
    )


def unit(motion_WTD: np.ndarray, valid_WT: np.ndarray) -> np.ndarray:
    """Each dimension of each window with mean 0 and length 1 over valid frames; 0 elsewhere and where nothing moves."""
    weight = valid_WT[..., None].astype(np.float32)
    count = np.maximum(weight.sum(axis=1, keepdims=True), 1)
    centred = (motion_WTD - (motion_WTD * weight).sum(axis=1, keepdims=True) / count) * weight
    length = np.sqrt((centred * centred).sum(axis=1, keepdims=True))
    return np.asarray(centred / np.where(length > 1e-4, length, np.inf))


def off_manifold(motion_WTD: np.ndarray, valid_WT: np.ndarray, mean_D: np.ndarray, whiten_DD: np.ndarray) -> np.ndarray:
    """Root mean square Mahalanobis distance of each window's valid frames, per dimension, [W]; NaN of none."""
    squared_WT = np.where(valid_WT, np.square((motion_WTD - mean_D) @ whiten_DD).sum(axis=2), 0.0)
    count = valid_WT.sum(axis=1)
    return np.asarray(np.sqrt(squared_WT.sum(axis=1) / np.where(count, count, np.nan)))


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
