"""Fresh pictures: whether a frame shows a face anew, or an old picture of it once more.

A camera of 12 pictures a second, a call that froze, a film that somebody stretched to 25: between two pictures nothing
moves, and then everything at once. Time stamps tell where a file says so; where it was encoded anew, or only a part of
the picture stands still, the pixels do. So the pixels of each face are asked. A repeat is

    a dip       the face changes far less than it did soon before and does soon after: real motion has no such brakes
    a freeze    it hardly changes by anything for half a second

Someone who keeps still is neither: what little the picture changes by (the camera's noise, breath, the encoder) is
about the same from frame to frame.

Mean change of a face in grey levels, faces of five real clips (H.264 at CRF 18 to 35, VP9): 0.6 to 12 in 90 % of
frames; of repeats at 12 a second, encoded anew: 0 to 0.9, against 1 to 10 and more between pictures.

The trade-off: an encoder that is short of bits mixes held pictures with their neighbours; then the face does move, and
most of that goes unseen (12 a second at CRF 33: a fifth of the frames is noticed, not half).
"""

from __future__ import annotations

import numpy as np

from schemas import FPS

# Frames that are soon before or after, and the part of their largest change below which a change is a dip: what changes
# in the next frame changes in this one, too; in half a second much may come and go. In 5 faces at a true 25 a second,
# encoded anew at CRF 20 and 33, these take at most 3 % of the frames; six frames reach down to 4 pictures a second.
_DIPS = ((1, 0.25), (2, 0.15), (6, 0.08))
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
    return np.isfinite(change_T) & (dips_T | _long(known_T <= _NOTHING))


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
    edges = np.flatnonzero(np.diff(np.concatenate([[False], still_T, [False]]).astype(np.int8))).reshape(-1, 2)
    long_T = np.zeros(len(still_T), np.bool_)
    for first, last in edges[edges[:, 1] - edges[:, 0] >= _FREEZE]:
        long_T[first:last] = True
    return long_T
