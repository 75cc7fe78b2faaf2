"""Fresh pictures: whether a frame shows a face anew, or an old picture of it once more.

A camera of 12 pictures a second, a call that froze, a film that somebody stretched to 25: between two pictures nothing
moves, and then everything at once. Time stamps tell where a file says so; where it was encoded anew, or only a part of
the picture stands still, the pixels do. So the pixels of each face are asked. A repeat is

    a dip       the face changes far less than it did soon before and does soon after: real motion has no such brakes
    a freeze    it hardly changes by anything for half a second
    a beat      for five seconds it changes as it does where a lower rate of pictures was brought to 25: which frames
                are repeats follows from rate and phase alone, so a hundred faint differences add up to a sure one

Someone who keeps still is neither: what little the picture changes by (the camera's noise, breath, the encoder) is
about the same from frame to frame.

Mean change of a face in grey levels, faces of five real clips (H.264 at CRF 18 to 35, VP9): 0.6 to 12 in 90 % of
frames; of repeats at 12 a second, encoded anew: 0 to 0.9, against 1 to 10 and more between pictures.

The trade-off: an encoder that is short of bits mixes held pictures with their neighbours; then the face does move, and
12 a second at CRF 33 is noticed in one face of five.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from visavis.schemas import FPS
from visavis.training.runs import runs

# Frames that are soon before or after, and the part of their largest change below which a change is a dip: what changes
# in the next frame changes in this one, too; in half a second much may come and go. In 5 faces at a true 25 a second,
# encoded anew at CRF 20 and 33, these take at most 3 % of the frames; six frames reach down to 4 pictures a second.
_SOON = 6
_DIPS = ((1, 0.25), (2, 0.15), (_SOON, 0.08))
_RATES = tuple(n / 4 for n in range(20, 81))  # pictures a second, so that none drifts by a phase within a block
_PHASES = 10
_BLOCK = 5 * FPS  # frames in which a beat keeps its phase, and is looked for
_SURE = 8.0  # nats, after those that so many patterns have by chance
_LESS = 0.7  # of a frame's usual change
_NOISE = 0.05  # grey levels, added before the logarithm
_NOTHING = 0.1  # grey levels, mean over the face
_FREEZE = FPS // 2  # frames
_WINDOW = FPS  # frames, over which repeats are counted
MOST_REPEATS = 0.25  # of the frames in the second around: 24 and 20 pictures a second lose nothing, 18 lose a third


def change_of(rgb_HW3: np.ndarray, before_HW3: np.ndarray | None, box_4: np.ndarray) -> float:
    """Mean difference of two pictures within a box (x0 y0 x1 y1, pixels): grey levels; NaN without a picture before."""
    if before_HW3 is None or before_HW3.shape != rgb_HW3.shape:
        return float("nan")
    if before_HW3 is rgb_HW3:
        return 0.0
    import cv2

    x0, y0, x1, y1 = np.clip(np.rint(box_4), 0, np.array(rgb_HW3.shape[1::-1] * 2)).astype(int).tolist()
    now, then = (picture[y0:y1:2, x0:x1] for picture in (rgb_HW3, before_HW3))
    return cv2.norm(now, then, cv2.NORM_L1) / now.size if now.size else float("nan")


def repeated(change_T: np.ndarray) -> np.ndarray:
    """Where a face is seen in an old picture.

    Args:
        change_T: `change_of` frame by frame, NaN where nobody knows.

    Returns:
        bool [T].
    """
    known_T = np.where(np.isfinite(change_T), change_T, 0.0)
    dips_T = np.any([known_T < part * _around(known_T, soon) for soon, part in _DIPS], axis=0)
    for first in range(0, len(change_T), _BLOCK):
        block = slice(max(0, min(first, len(change_T) - _BLOCK)), first + _BLOCK)
        beat_T = _beat(change_T[block])
        if beat_T.any():
            dips_T[block] = beat_T
    return np.isfinite(change_T) & (dips_T | _long(known_T <= _NOTHING))


def _beat(change_T: np.ndarray) -> np.ndarray:
    """The repeats of the pattern that fits best, where it is sure; else none: bool [T].

    A new picture shows the motion of 25 / rate frames, and a repeat, whatever the encoder makes of it, less than one:
    the two kinds differ by more than that ratio. (What was brought from 30 to 25 has a beat as well, of uneven steps;
    of nine faces at a true 25 one has: it set `_LESS`.)
    """
    if len(change_T) < FPS:  # too short for any
        return np.zeros(len(change_T), np.bool_)
    known_T = np.isfinite(change_T).astype(np.float64)
    level_T = _detrended(np.log(np.where(known_T > 0, change_T, 0.0) + _NOISE), known_T)
    repeats_MT, ratio_M = _patterns(len(change_T))
    count_M = np.maximum(repeats_MT @ known_T, 1.0)
    others_M = np.maximum(known_T.sum() - count_M, 1.0)
    low_M = repeats_MT @ level_T
    high_M = (level_T.sum() - low_M) / others_M
    low_M = low_M / count_M
    within_M = np.maximum((level_T**2).sum() - count_M * low_M**2 - others_M * high_M**2, 1e-9)
    around = max(float((level_T**2).sum() - level_T.sum() ** 2 / max(known_T.sum(), 1.0)), 1e-9)
    nats_M = np.where(high_M - low_M > np.log(ratio_M / _LESS), known_T.sum() / 2 * np.log(around / within_M), 0.0)
    best = int(nats_M.argmax())
    found_T: np.ndarray = (repeats_MT[best] > 0) & (nats_M[best] > _SURE + np.log(len(nats_M)))
    return found_T


def _detrended(level_T: np.ndarray, known_T: np.ndarray) -> np.ndarray:
    """Less the mean of the half second around; 0 where nothing is known."""
    window = np.ones(2 * _SOON + 1)
    mean_T = np.convolve(level_T * known_T, window, "same") / np.maximum(np.convolve(known_T, window, "same"), 1.0)
    return np.asarray((level_T - mean_T) * known_T)


@cache
def _patterns(frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Which frames are repeats, float [M, T], 0 or 1, for each rate and phase; frames to a picture [M]."""
    grid = np.arange(-1, frames)
    pairs = [(rate, phase / _PHASES) for rate in _RATES for phase in range(_PHASES)]
    repeats = [np.diff(np.floor(grid * rate / FPS + phase + 1e-9)) == 0 for rate, phase in pairs]
    return np.array(repeats, np.float64), np.array([FPS / rate for rate, _ in pairs])


def harmful(repeated_T: np.ndarray) -> np.ndarray:
    """Those repeats that are more than now and then: bool [T].

    Four real people whose pictures were held (root mean square of the third difference of the head's rotation; 99th
    percentile of its steps; against 25 a second): 24 pictures × 1.0 to 1.1; 1.0 to 1.1. 20: 1.2 to 1.35; 1.0 to 1.35.
    18: 1.3 to 1.6; 1.2 to 1.3. 15: 1.2 to 1.9; 1.3 to 1.45. 12: 1.5 to 2.2; 1.3 to 1.5. 6: 1.6 to 2.5; 1.7 to 2.05.
    """
    around_T = np.convolve(repeated_T.astype(np.int64), np.ones(_WINDOW, np.int64))[_WINDOW // 2 :][: len(repeated_T)]
    harmful_T: np.ndarray = repeated_T & (around_T > MOST_REPEATS * _WINDOW)
    return harmful_T


def not_frozen(fresh_T: np.ndarray) -> np.ndarray:
    """Where a picture that is not fresh is one now and then, and no part of a freeze: bool [T]."""
    return ~_long(~fresh_T)


def _around(change_T: np.ndarray, soon: int) -> np.ndarray:
    """The largest of so many changes before a frame or of those after it, whichever is less."""
    blank = np.zeros(soon)
    views = np.lib.stride_tricks.sliding_window_view(np.concatenate([blank, change_T, blank]), soon)
    less_T: np.ndarray = np.minimum(views[: len(change_T)].max(axis=1), views[soon + 1 :].max(axis=1))
    return less_T


def _long(still_T: np.ndarray) -> np.ndarray:
    """Runs of `_FREEZE` frames and more."""
    long_T = np.zeros(len(still_T), np.bool_)
    for first, last in runs(still_T):
        long_T[first:last] = last - first >= _FREEZE
    return long_T
