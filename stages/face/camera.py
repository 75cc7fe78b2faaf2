"""Camera: how the picture as a whole moves within a shot, so that a zoom or a pan is not taken for the head's motion.

Every fifth frame, corners of what is nobody's head or body are followed from a picture of the same shot (Lucas and
Kanade's method, on small grey pictures), and a similarity is fitted to most of them (RANSAC): turn, zoom and shift.
They are followed from one picture as long as most are still there, not from frame to frame, so that slow zooms count
and errors do not add up. In between the camera moves evenly.

The trade-off: where less than most of the background moves as one, or there is too little of it to tell, the camera
stands still, and what it does counts as the head's. So it is in close-ups before a plain wall, and where of two
pictures in one frame only one is filmed by hand. A shake quicker than 2.5 Hz is not seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from visavis.schemas.face_rows import FaceTracks

EVERY = 5  # frames
_PATIENCE = 25  # frames until corners are looked for again where there were too few
_SIDE = 320  # pixels; of the small pictures' longer side
_MOST_CORNERS = 400  # of the whole picture
_FEWEST_FOUND, _FEWEST_CORNERS = 10, 6  # of the background: to begin with, to go on with
_CLEAR = 0.01  # of the clearest corner (Shi and Tomasi's measure)
_AGREE = 0.6  # share of the corners that must move as one
_OFF = 0.7  # small pixels by which a corner may miss that motion
_LEFT = 0.6  # share of the corners that must be left, or others are looked for
_SPREAD = 0.3  # of the small picture's longer side: corners that lie closer together tell no zoom
_STILL = 0.0015  # of the picture's width: what moves the picture less over a whole shot is no motion of the camera
_HEAD, _BODY = (1.0, 0.6), 1.9  # in sizes of a face: hair beside and above it; shoulders and arms beside it

_Pose = tuple[complex, complex]  # (turn, shift): what was at z = x + i y when the shot began is at turn · z + shift
_AT_REST: _Pose = (1 + 0j, 0j)


@dataclass
class _Key:
    """A picture whose corners are followed, and how the camera stood then. Places are in small pixels."""

    grey_HW: np.ndarray
    pose: _Pose
    corners_K2: np.ndarray
    now_K2: np.ndarray  # where they were seen last
    found: int


class CameraPath:
    """Feed the frames of a piece in order; `path` says how the camera stood in each."""

    def __init__(self) -> None:
        self._key: _Key | None = None
        self._knots: dict[int, _Pose] = {}
        self._cuts: list[int] = []
        self._small_width, self._next_key = _SIDE, 0

    def add(self, n: int, rgb_HW3: np.ndarray, boxes_F4: np.ndarray, *, new_shot: bool, last: bool = False) -> None:
        """boxes_F4: of the faces in this picture, x0 y0 x1 y1, in shares of its width and height."""
        if not (new_shot or last or n % EVERY == 0):
            return
        grey_HW = _small(rgb_HW3)
        self._small_width = grey_HW.shape[1]
        if new_shot or self._key is None:
            self._cuts.append(n)
            pose, enough = _AT_REST, False
        else:
            pose, enough = _followed(self._key, grey_HW, self._knots[next(reversed(self._knots))])
        self._knots[n] = pose
        if new_shot or (not enough and n >= self._next_key):
            corners_K2 = _corners(grey_HW, boxes_F4)
            self._next_key = n if len(corners_K2) >= _FEWEST_FOUND else n + _PATIENCE
            self._key = _Key(grey_HW, pose, corners_K2, corners_K2, len(corners_K2))

    def path(self, first: int, last: int, width: int) -> np.ndarray:
        """float32 [last − first + 1, 4]: turn and shift, real and imaginary; for a picture of this width in pixels."""
        knots = sorted(self._knots)
        poses_K2 = np.array([self._knots[n] for n in knots]) * (1, width / self._small_width)
        frames_T = np.arange(first, last + 1)
        shots_K, shots_T = (np.searchsorted(self._cuts, n, side="right") for n in (knots, frames_T))
        path_T2 = np.empty((len(frames_T), 2), np.complex128)
        for shot in np.unique(shots_T):
            mine_K, mine_T = shots_K == shot, shots_T == shot
            for column in (0, 1):
                path_T2[mine_T, column] = np.interp(frames_T[mine_T], np.array(knots)[mine_K], poses_K2[mine_K, column])
        return path_T2.view(np.float64).astype(np.float32)


def _small(rgb_HW3: np.ndarray) -> np.ndarray:
    """Its green, nearly all of what grey is: a tenth of the time that means of all pixels take."""
    import cv2

    height, width = rgb_HW3.shape[:2]
    step = max(1, max(height, width) // (2 * _SIDE))
    scale = _SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    green_HW = np.ascontiguousarray(rgb_HW3[::step, ::step, 1])
    return np.asarray(cv2.resize(green_HW, size, interpolation=cv2.INTER_AREA))


def _corners(grey_HW: np.ndarray, boxes_F4: np.ndarray) -> np.ndarray:
    """float32 [K, 2], x and y of what can be followed and is nobody's.

    They are chosen among all there are, eyes and hair included: beside those a wall's noise is no corner.
    """
    import cv2

    found = cv2.goodFeaturesToTrack(grey_HW, _MOST_CORNERS, _CLEAR, 6)
    corners_K2 = np.zeros((0, 2), np.float32) if found is None else np.asarray(found[:, 0])
    x_K, y_K = corners_K2.astype(int).T
    free: np.ndarray = corners_K2[_background(grey_HW.shape, boxes_F4)[y_K, x_K]]
    return free


def _background(size: tuple[int, ...], boxes_F4: np.ndarray) -> np.ndarray:
    """True where nobody's head or body is."""
    mask_HW = np.ones(size, np.bool_)
    for x0, y0, x1, y1 in boxes_F4 * (size[1], size[0], size[1], size[0]):
        side, middle = max(x1 - x0, y1 - y0), (x0 + x1) / 2
        beside, above = _HEAD
        top = max(0, int(y0 - above * side))
        for reach, start in ((beside, top), (_BODY, max(0, int(y1 - side / 4)))):
            mask_HW[start:, max(0, int(middle - reach * side)) : max(0, int(middle + reach * side))] = False
    return mask_HW


def _followed(key: _Key, grey_HW: np.ndarray, before: _Pose) -> tuple[_Pose, bool]:
    """How the camera stands in this picture, `before` where that cannot be told; and whether the key is still good."""
    if key.found < _FEWEST_FOUND or len(key.now_K2) < _FEWEST_CORNERS:
        return before, False  # nothing to follow, or it was lost
    import cv2

    now_K2, found, _ = cv2.calcOpticalFlowPyrLK(
        key.grey_HW, grey_HW, key.corners_K2, key.now_K2.copy(), winSize=(13, 13), maxLevel=2,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )  # fmt: skip
    there = found[:, 0].astype(bool)
    fit, agrees = _similarity(key.corners_K2[there], now_K2[there])
    if fit is None or agrees.sum() < max(_FEWEST_CORNERS, _AGREE * len(key.now_K2)):
        key.now_K2 = key.now_K2[:0]
        return before, False
    key.corners_K2, key.now_K2 = key.corners_K2[there][agrees], now_K2[there][agrees]
    turn, shift = fit
    return (turn * key.pose[0], turn * key.pose[1] + shift), len(key.now_K2) >= max(_LEFT * key.found, _FEWEST_CORNERS)


def _similarity(was_K2: np.ndarray, is_K2: np.ndarray) -> tuple[_Pose | None, np.ndarray]:
    """What takes most of some points to where they are now, and which of them it takes there."""
    import cv2

    nothing = None, np.zeros(len(was_K2), np.bool_)
    if len(was_K2) < _FEWEST_CORNERS or np.ptp(was_K2, axis=0).max() < _SPREAD * _SIDE:
        return nothing
    fit, inliers = cv2.estimateAffinePartial2D(was_K2, is_K2, ransacReprojThreshold=_OFF)
    if fit is None:
        return nothing
    return (complex(fit[0, 0], fit[1, 0]), complex(fit[0, 2], fit[1, 2])), inliers[:, 0].astype(bool)


@dataclass
class Filmed:
    """What the camera does to one person over a conversation: add the pieces of their file, in order."""

    frames: int
    cuts: list[int]  # frames at which a shot begins, or another piece than the next: nobody looked in between
    camera_T2: np.ndarray  # complex: see `Heads.steadied`
    _end: tuple[int, np.ndarray]  # of the piece before: the frame after it, and how the camera stood then

    @classmethod
    def of(cls, frames: int) -> Filmed:
        return cls(frames, [], np.tile(np.array(_AT_REST), (frames, 1)), (0, np.array(_AT_REST)))

    def add(self, row: FaceTracks) -> None:
        first, last = row.piece.first, row.piece.last
        if first != self._end[0]:
            self.cuts += [self._end[0], first]
        begins = first in self.cuts
        self.cuts += row.cuts
        path_T2 = np.tile(np.array(_AT_REST), (last - first + 1, 1))
        if row.camera is not None:
            path_T2 = row.camera.astype(np.float64).view(np.complex128)
        if not begins:
            goes_on = np.arange(first, last + 1) < min(row.cuts, default=last + 1)
            path_T2[goes_on] = _after(path_T2[goes_on], self._end[1])
        part_T2 = self.camera_T2[first:last]
        part_T2[:] = path_T2[: len(part_T2)]
        self._end = last, path_T2[-1]

    def shots(self, where_V: np.ndarray) -> np.ndarray:
        """The number of the shot in which a frame lies."""
        return np.searchsorted(np.unique(self.cuts), where_V, side="right")

    def path(self, width: int, height: int) -> np.ndarray:
        """`camera_T2`; a shot in which the picture hardly moves is one in which the camera stands still."""
        path_T2, shot_T = self.camera_T2.copy(), self.shots(np.arange(self.frames))
        for shot in np.unique(shot_T):
            if _excursion(path_T2[shot_T == shot], width, height) < _STILL * width:
                path_T2[shot_T == shot] = _AT_REST
        return path_T2


def _after(path_T2: np.ndarray, before_2: np.ndarray) -> np.ndarray:
    """A path that begins where the piece before ended."""
    turn_T, shift_T = path_T2.T
    return np.stack([turn_T * before_2[0], turn_T * before_2[1] + shift_T], axis=1)


def _excursion(path_T2: np.ndarray, width: int, height: int) -> float:
    """By how much any corner of the picture moves: pixels."""
    corners_C = np.array([0, width, 1j * height, width + 1j * height])
    seen_TC = path_T2[:, :1] * corners_C + path_T2[:, 1:]
    return float(max(np.ptp(seen_TC.real, axis=0).max(), np.ptp(seen_TC.imag, axis=0).max()))
