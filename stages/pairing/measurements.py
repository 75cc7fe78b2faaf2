"""What is measured of a pair: how far its two motions differ in their reaction to the user, and whether both are sound.

    reactivity_margin  how much more chosen reacts to its user than rejected: lagged + event
      lagged_margin      correlation with the reaction that the user's motion predicts, chosen minus rejected
      event_margin       correlation with the response to the ends of the user's phrases; none where none ends in time
    energy_margin      log ratio of motion energy (variance over time, summed over dimensions)
    distance           root mean square difference, in corpus deviations
    jerk_ratio         mean absolute third difference over that of the recorded motion
    off_manifold       Mahalanobis distance from the corpus' frames, over the truth's usual

All of a batch are computed at once. Those of one motion are taken on frames in which the avatar's face is valid, those
of reactions where the user's is, too. Where nothing moves there is no reaction: 0. A window without four such frames in
a row has no measurements: NaN.

Correlating a motion with its user at whatever lag fits best says next to nothing in 2 s: of 24 · 41 correlations some
are large by chance. Knowing from the corpus which lags and dimensions count, one predicts the reaction (`Expected`),
and asks how well a motion correlates with that: the matched filter of radio, the event-related average of physiology.
On the corpus of a known rule the recorded listener beats another window's in 94 % of windows, where the largest lagged
correlation gave 56 % (`benchmarks.gate`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from visavis.schemas.manifest import MotionSpec
from visavis.schemas.rows import Array, Row
from visavis.schemas.sample import USER_SPEAKS, Sample

SOON = 16
"""Frames of a window that must follow the end of a phrase: a nod takes as long to begin."""

Motions = tuple[np.ndarray, np.ndarray]
"""Chosen and rejected, [W, T, D] float32 each."""
Measurements = Mapping[str, np.ndarray]
"""By name, [W] float64, NaN where there is none; `jerk_ratio` and `off_manifold` [W, 2] of (chosen, rejected)."""


class ReferenceStatistics(Row):
    """What pairs of one class of windows are measured against. Motion is normalised by the corpus.

    lagged_2LD, event_2LD: float32, L lags, by the fold that is judged by them. mean_D, whiten_DD: float64,
    |(z − mean) · whiten|² is the squared Mahalanobis distance over D. usual: the distance that 99 % of the truth's
    windows stay below. least_expressive: expressiveness below which windows are passed over. windows: how many it was
    learnt from. held_out: whether each fold is judged by the other one, and conversations are enough to tell what
    they have in common.
    """

    lagged: Array
    event: Array
    mean: Array
    whiten: Array
    usual: float
    least_expressive: float
    windows: int
    held_out: bool = True


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
        speaks = np.stack([s.state for s in samples]) & USER_SPEAKS > 0
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


class Expected:
    """Windows, and the reactions that the corpus predicts for their users: what motions are held against."""

    def __init__(self, windows: Windows, reference: ReferenceStatistics) -> None:
        self.windows, self.reference = windows, reference
        self._valid_WT = windows.valid[..., 0]
        user_WTD = unit(windows.user, windows.valid[..., 1])
        self.lagged_WTD = self._centred(_spread_out(user_WTD, reference.lagged[windows.fold]))
        impulse_WT1 = windows.phrase_end[..., None].astype(np.float32)
        self.event_WTD = self._centred(_spread_out(impulse_WT1, reference.event[windows.fold]))
        self.event_W = windows.phrase_end[:, :-SOON].any(axis=1)  # one has time to react to

    def fit(self, motion_WTD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Correlation with the lagged reaction and with the response to events, [W] each, −1…1; 0 of nothing."""
        moves_WTD = unit(motion_WTD, self._valid_WT)
        return _correlation(moves_WTD, self.lagged_WTD), _correlation(moves_WTD, self.event_WTD)

    def _centred(self, expected_WTD: np.ndarray) -> np.ndarray:
        weight = self._valid_WT[..., None].astype(np.float32)
        mean = (expected_WTD * weight).sum(axis=1, keepdims=True) / np.maximum(weight.sum(axis=1, keepdims=True), 1)
        return np.asarray((expected_WTD - mean) * weight)


@np.errstate(invalid="ignore", over="ignore")  # what is measured of motion that is not finite is not finite either
def measure(expected: Expected, chosen_WTD: np.ndarray, rejected_WTD: np.ndarray) -> Measurements:
    """Measurements of pairs; both motions are normalised like the windows."""
    motions, reference = (chosen_WTD, rejected_WTD), expected.reference
    valid_WT = expected.windows.valid[..., 0]
    (lagged, event), (lagged_bad, event_bad) = (expected.fit(motion) for motion in motions)
    event_margin = np.where(expected.event_W, event - event_bad, np.nan)
    energy, energy_bad = (_energy(motion, valid_WT) for motion in motions)
    usual = max(reference.usual, 1e-9)
    jerk = np.maximum(_jerk(expected.windows.truth, valid_WT), 1e-9)
    return {
        "reactivity_margin": lagged - lagged_bad + np.where(expected.event_W, event_margin, 0.0),
        "lagged_margin": lagged - lagged_bad,
        "event_margin": event_margin,
        "energy_margin": np.log((energy + 1e-9) / (energy_bad + 1e-9)),
        "distance": np.sqrt(_mean(np.square(chosen_WTD - rejected_WTD).mean(axis=2), valid_WT)),
        "jerk_ratio": np.stack([_jerk(motion, valid_WT) / jerk for motion in motions], axis=1),
        "off_manifold": np.stack(
            [off_manifold(motion, valid_WT, reference.mean, reference.whiten) / usual for motion in motions], axis=1
        ),
    }


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


def _spread_out(cause_WTX: np.ndarray, response_WLD: np.ndarray) -> np.ndarray:
    """Σ over lags of the cause l frames earlier times the response at l, [W, T, D]."""
    frames = cause_WTX.shape[1]
    found = np.zeros((len(cause_WTX), frames, response_WLD.shape[2]), np.float32)
    for lag in range(min(response_WLD.shape[1], frames)):
        found[:, lag:] += cause_WTX[:, : frames - lag] * response_WLD[:, lag, None]
    return found


def _correlation(moves_WTD: np.ndarray, expected_WTD: np.ndarray) -> np.ndarray:
    """Of what has length 1 in each dimension that moves with what has any."""
    product = (moves_WTD * expected_WTD).sum(axis=(1, 2), dtype=np.float64)
    power = np.square(moves_WTD).sum(axis=(1, 2), dtype=np.float64) * np.square(expected_WTD).sum(
        axis=(1, 2), dtype=np.float64
    )
    return np.asarray(product / np.sqrt(np.where(power > 1e-12, power, np.inf)))


def _energy(motion_WTD: np.ndarray, valid_WT: np.ndarray) -> np.ndarray:
    weight = valid_WT[..., None]
    count = np.maximum(weight.sum(axis=1, keepdims=True), 1)
    centred = (motion_WTD - (motion_WTD * weight).sum(axis=1, keepdims=True) / count) * weight
    energy_W = (np.square(centred).sum(axis=1, dtype=np.float64) / count[:, 0]).sum(axis=1)
    return np.where(valid_WT.any(axis=1), energy_W, np.nan)


def _jerk(motion_WTD: np.ndarray, valid_WT: np.ndarray) -> np.ndarray:
    """Mean absolute third difference over spans of four valid frames, [W]."""
    whole_WT = valid_WT[:, 3:] & valid_WT[:, 2:-1] & valid_WT[:, 1:-2] & valid_WT[:, :-3]
    return _mean(np.abs(np.diff(motion_WTD, n=3, axis=1)).mean(axis=2), whole_WT)


def _mean(value_WT: np.ndarray, valid_WT: np.ndarray) -> np.ndarray:
    """Over valid frames; NaN of none."""
    total, count = np.where(valid_WT, value_WT, 0).sum(axis=1, dtype=np.float64), valid_WT.sum(axis=1)
    return np.asarray(total / np.where(count, count, np.nan))
