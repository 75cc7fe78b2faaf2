"""Do two faces move as one? A copy of a person does, mirrored or not, at once or a while later.

What counts is how gestures change within a second (blinks, nods, syllables), not where a head rests. Two people share
some of it by chance, and more the shorter they are seen; how much, the same two faces say themselves at other delays.
A copy is like the other at one delay and at no other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from visavis.schemas import FPS
from visavis.stages.face.identity import learned
from visavis.stages.face.people import Person

_LATEST = 3 * FPS  # frames
_ASIDE = FPS // 2  # frames from a delay from which another counts as another
_COMMON = 2 * FPS  # frames in which both must be seen
_LONGEST = 600 * FPS  # frames; ten minutes show it
_QUICK, _SLOW = 3, 2 * FPS + 1  # frames; gestures are smoothed over the one, less their mean over the other
_DISTINCT = 0.5  # above the best at other delays. Copies had .77 and more, different people .26 and less
_ALIKE = 0.85  # in any case
_LOOKS = 0.1  # at most that looks add to either
_MIRRORED = np.array([-1, 1, 1, 1, 1, 1, 1.0])  # gestures in a mirror: the nose points to the other side …
_MIRROR_ORDER = [0, 1, 2, 3, 5, 4, 6]  # … and the eyes change places


class Likeness(NamedTuple):
    """best: correlation of the gestures at the best delay, −1…1; chance: the best at quite other delays."""

    best: float
    chance: float


def is_copy(a: Person, b: Person) -> bool:
    """Both show one person. Looks count a little: a copy may be grey, drawn or small."""
    moves = same_moves(a, b)
    looks = _LOOKS * float(np.tanh(learned().same(a.appearance, b.appearance) / 2))
    return max(moves.best - moves.chance - _DISTINCT, moves.best - _ALIKE) + looks > 0


def same_moves(a: Person, b: Person) -> Likeness:
    """How alike two faces move, as seen or in a mirror, whichever is later."""
    one_TG, other_TG = (_quick(person.gesture_TG) for person in (a, b))
    found = [_over_delays(one_TG, other_TG), _over_delays(one_TG, other_TG[:, _MIRROR_ORDER] * _MIRRORED)]
    best = int(max(found, key=max).argmax())
    aside = np.abs(np.arange(2 * _LATEST + 1) - best) > _ASIDE
    return Likeness(float(max(f.max() for f in found)), float(max(f[aside].max() for f in found)))


def _quick(gesture_TG: np.ndarray) -> np.ndarray:
    """The quick part of gestures, each in units of its own deviation; NaN where the face is not seen."""
    gesture_TG = gesture_TG[:_LONGEST].astype(np.float64)
    quick_TG = _smooth(gesture_TG, _QUICK) - _smooth(gesture_TG, _SLOW)
    seen_T = np.isfinite(quick_TG).all(axis=1)
    if not seen_T.any():
        return quick_TG
    quick: np.ndarray = quick_TG / np.maximum(quick_TG[seen_T].std(axis=0), 1e-9)
    return quick


def _smooth(values_TG: np.ndarray, frames: int) -> np.ndarray:
    """Mean over what is seen of so many frames; NaN where the middle one is not seen."""
    from scipy.ndimage import uniform_filter1d

    seen_TG = np.isfinite(values_TG)
    total = uniform_filter1d(np.where(seen_TG, values_TG, 0.0), frames, axis=0, mode="constant")
    count = uniform_filter1d(seen_TG.astype(np.float64), frames, axis=0, mode="constant")
    return np.where(seen_TG, total / np.maximum(count, 1e-9), np.nan)


def _over_delays(a_TG: np.ndarray, b_TG: np.ndarray) -> np.ndarray:
    """Correlation at delays of −`_LATEST` … `_LATEST` frames of a behind b; 0 where they are hardly seen together."""
    return np.array([_at_delay(a_TG, b_TG, delay) for delay in range(-_LATEST, _LATEST + 1)])


def _at_delay(a_TG: np.ndarray, b_TG: np.ndarray, delay: int) -> float:
    frames = len(a_TG) - abs(delay)
    if frames < _COMMON:
        return 0.0
    a_TG, b_TG = a_TG[max(delay, 0) :][:frames], b_TG[max(-delay, 0) :][:frames]
    both_T = np.isfinite(a_TG[:, 0]) & np.isfinite(b_TG[:, 0])
    if np.count_nonzero(both_T) < _COMMON:
        return 0.0
    a_VG, b_VG = a_TG[both_T], b_TG[both_T]
    product = float(np.sqrt((a_VG**2).sum() * (b_VG**2).sum()))
    return float((a_VG * b_VG).sum()) / product if product > 0 else 0.0
