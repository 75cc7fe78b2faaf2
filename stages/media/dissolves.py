"""Dissolves and fades: shots that go over into each other, which no difference between two frames shows.

In a dissolve every picture is a mixture of the one before it began and the one after: halfway, the whole picture has
gone the same part of its way. Where things or the camera move, edges pass, and it has not. So a picture is held against
those half a second and a second before it, on thumbnails of 32 × 18.

The trade-off: thumbnails, so a dissolve between two shots that look alike from afar is missed, and so is one that
begins in one piece of a video and ends in the next.
"""

from __future__ import annotations

import numpy as np

EVERY = 3  # frames
_THUMBNAIL = (128, 72)  # cuts on five clips, three with cuts or walkers: scores of 256 × 144 to within 0.4
_SIZE = (32, 18)
_HALVES = (2, 4, 8)  # half of the time that is looked at, in steps of `EVERY`: a dissolve takes 0.5 to 2 s
_LEAST = 18.0  # grey levels, mean over the picture, from its beginning to its end
_MIDST = (0.25, 0.75)  # part of the way that lies behind it halfway
_ASTRAY = 0.06  # share of the change halfway that is not on the way
_ALIKE, _FLAT = 0.9, 3.0  # correlation of a picture with itself in another light; deviation of one that shows nothing


def thumbnail(rgb_HW3: np.ndarray) -> np.ndarray:
    """What cuts and dissolves are found on: bilinear, as PySceneDetect does it itself. One of a thumbnail is itself."""
    import cv2

    size = rgb_HW3.shape[1::-1]
    return rgb_HW3 if size == _THUMBNAIL else np.asarray(cv2.resize(rgb_HW3, _THUMBNAIL))


class DissolveDetector:
    """Feed frames in order; the spans in which one shot goes over into another come out at the end."""

    def __init__(self) -> None:
        self._recent: list[np.ndarray] = []
        self._spans: list[tuple[int, int]] = []

    def add(self, n: int, rgb_HW3: np.ndarray, *, new_shot: bool) -> None:
        if new_shot:
            self._recent = []
        if n % EVERY:
            return
        import cv2

        small = cv2.resize(thumbnail(rgb_HW3), _SIZE, interpolation=cv2.INTER_AREA)
        self._recent = [*self._recent, small.astype(np.float32).ravel()][-2 * max(_HALVES) - 1 :]
        for half in _HALVES:
            if len(self._recent) > 2 * half and _is_mixture(*self._recent[-1 - 2 * half :: half]):
                self._spans.append((n - 2 * half * EVERY, n + 1))

    def spans(self) -> list[tuple[int, int]]:
        """(first, last): frames first … last − 1 show two shots, those before and after one each."""
        joined: list[tuple[int, int]] = []
        for first, last in sorted(self._spans):
            if joined and first <= joined[-1][1]:
                first, last = joined[-1][0], max(last, joined.pop()[1])
            joined.append((first, last))
        return joined


def _is_mixture(before_K: np.ndarray, midst_K: np.ndarray, after_K: np.ndarray) -> bool:
    change_K, so_far_K = after_K - before_K, midst_K - before_K
    if float(np.abs(change_K).mean()) < _LEAST or _is_lit_anew(before_K, after_K):
        return False
    part = float(so_far_K @ change_K) / float(change_K @ change_K)
    astray_K = so_far_K - part * change_K
    return _MIDST[0] <= part <= _MIDST[1] and float(astray_K @ astray_K) <= _ASTRAY * float(so_far_K @ so_far_K)


def _is_lit_anew(before_K: np.ndarray, after_K: np.ndarray) -> bool:
    """The same picture, lighter or darker by less than half; or nothing before and nothing after."""
    was, now = float(before_K.std()), float(after_K.std())
    if max(was, now) < _FLAT:
        return True
    if min(was, now) < max(was, now) / 2:
        return False
    return float(np.corrcoef(before_K, after_K)[0, 1]) > _ALIKE
