"""Jump cuts: something is left out, and the picture is framed as before. No difference between two frames shows that.

But all of it changes at once, and nothing before or after: neither heads nor bodies can move that far within one frame
and stand still in the next. So both must stand out against the third of a second on either side: how much the picture
changes, and how far some face moves.

The trade-off: where people hold still, or what else moves in the picture moves more, a jump is missed; the motion then
has a step as small as that. Frames lost in a recording count as jumps, which they are for the motion.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from visavis.schemas.face_rows import Track

_AROUND = 8  # frames
# Product of how often the picture's change and a face's step are their largest ones around. In rendered dialogues with
# parts left out: 4 and more there, 1.7 and less elsewhere.
_STANDS_OUT = 3.0


def jumps_of(change_T: np.ndarray, tracks: Sequence[Track], first: int) -> list[int]:
    """Frames that begin after something was left out.

    Args:
        change_T: of the picture against the one before, from frame `first` on; any measure.
    """
    face_T = np.zeros(len(change_T))
    for track in tracks:
        begin = track.first - first
        here = np.s_[begin : begin + len(track.valid)]
        face_T[here] = np.maximum(face_T[here], _outstanding(_steps(track)))
    picture_T = _outstanding(change_T)
    found_T = (picture_T > 1) & (face_T > 1) & (picture_T * face_T > _STANDS_OUT)
    return [int(n) + first for n in np.flatnonzero(found_T)]


def picture_change(rgb_HW3: np.ndarray, before_HW3: np.ndarray | None) -> float:
    """Mean difference of two thumbnails, grey levels; 0 where there is none before."""
    import cv2

    return 0.0 if before_HW3 is None else float(cv2.norm(rgb_HW3, before_HW3, cv2.NORM_L1)) / rgb_HW3.size


def _steps(track: Track) -> np.ndarray:
    """How far the landmarks move into each frame, pixels; NaN where that is not seen."""
    points_TL2 = track.landmarks[..., :2].astype(np.float32)
    step_T = np.full(len(points_TL2), np.nan)
    step_T[1:] = np.linalg.norm(np.diff(points_TL2, axis=0), axis=2).mean(axis=1)
    step_T[1:][~(track.valid[1:] & track.valid[:-1])] = np.nan
    return step_T


def _outstanding(value_T: np.ndarray) -> np.ndarray:
    """Each value in units of the largest one around it; 0 where too little is known around."""
    padded_T = np.pad(value_T.astype(np.float64), _AROUND, constant_values=np.nan)
    around_TK = np.lib.stride_tricks.sliding_window_view(padded_T, 2 * _AROUND + 1).copy()
    around_TK[:, _AROUND] = np.nan
    known_T = np.isfinite(around_TK).sum(axis=1) >= _AROUND
    largest_T = np.where(np.isfinite(around_TK), around_TK, 0.0).max(axis=1)
    known_T &= np.isfinite(value_T) & (largest_T > 0)
    return np.where(known_T, np.nan_to_num(value_T) / np.maximum(largest_T, 1e-12), 0.0)
