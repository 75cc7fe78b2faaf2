"""Stretches in which one square, cut out of a film at a fixed place, shows a person's face.

So do those who train renderers crop (talking_face_preprocessing, `extract_cropped_faces.py`): the square's middle is
the median of the face's, its side 1.6 times the median of the longer side of the face's box; it is no larger than the
picture, and moved into it where it would reach over an edge, so nothing is padded. The head moves, the camera stands.

A stretch has no gap, no cut, one track and at most 20 s. Where a landmark leaves the square it is halved, and each half
gets a square of its own.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from visavis.schemas import FPS
from visavis.stages.face.ibug import IBUG_68

SHORTEST = FPS + 1
"""Frames of a stretch: IMTalker's loader leaves out those of 25 and fewer."""
_LONGEST = 20 * FPS
_WIDER = 1.6
TOO_SHORT, MOVES, SMALL = "too_short", "leaves_the_square", "small"
"""Why a stretch is left out."""


class Square(NamedTuple):
    """A part of a picture, pixels: its upper left corner and its side."""

    x: int
    y: int
    side: int


class FaceClip(NamedTuple):
    """Frames [first, first + T) of the grid, cropped to one square. points_TP2: float32 [T, 68, 2], pixels of the
    square."""

    first: int
    square: Square
    points_TP2: np.ndarray

    @property
    def last(self) -> int:
        """The frame after the last."""
        return self.first + len(self.points_TP2)


class Followed(NamedTuple):
    """One person in one piece of a film, frames in order.

    where_V: frames of the grid. points_VL3: landmarks, box_V4: x0 y0 x1 y1, pixels. begins_V: a track or shot begins.
    size: width and height of the picture.
    """

    where_V: np.ndarray
    points_VL3: np.ndarray
    box_V4: np.ndarray
    begins_V: np.ndarray
    size: tuple[int, int]


def face_clips(seen: Followed, smallest: int, left_out: Counter[str]) -> Iterator[FaceClip]:
    """All stretches of a person that are long enough, in order.

    Args:
        smallest: side of the square in pixels, below which a stretch is left out.
        left_out: gets how many stretches are left out, by reason.
    """
    if not len(seen.where_V):
        return
    points_VP2 = seen.points_VL3[:, IBUG_68, :2]
    breaks = np.flatnonzero((np.diff(seen.where_V) != 1) | seen.begins_V[1:]) + 1
    for begin, end in itertools.pairwise([0, *breaks.tolist(), len(seen.where_V)]):
        borders = np.linspace(begin, end, -(-(end - begin) // _LONGEST) + 1).astype(int).tolist()
        for part in itertools.pairwise(borders):
            yield from _halved(seen, points_VP2, part, smallest, left_out)


def square_around(box_T4: np.ndarray, size: tuple[int, int]) -> Square:
    """Where a face is cut out. size: width and height of the picture, pixels."""
    x0, y0, x1, y1 = np.moveaxis(box_T4.astype(np.float64), -1, 0)
    longer = max(float(np.median(x1 - x0)), float(np.median(y1 - y0)))
    side = max(1, min(int(_WIDER * longer), *size))
    middle = float(np.median(x0 + x1)) / 2, float(np.median(y0 + y1)) / 2
    x, y = (min(max(0, int(at - side / 2)), whole - side) for at, whole in zip(middle, size, strict=True))
    return Square(x, y, side)


def _halved(
    seen: Followed, points_VP2: np.ndarray, part: tuple[int, int], smallest: int, left_out: Counter[str]
) -> Iterator[FaceClip]:
    begin, end = part
    if end - begin < SHORTEST:
        left_out[TOO_SHORT] += 1
        return
    square = square_around(seen.box_V4[begin:end], seen.size)
    if square.side < smallest:
        left_out[SMALL] += 1
        return
    points_TP2 = points_VP2[begin:end] - np.array(square[:2], np.float32)
    if ((points_TP2 >= 0) & (points_TP2 < square.side)).all():
        yield FaceClip(int(seen.where_V[begin]), square, points_TP2)
    elif end - begin < 2 * SHORTEST:
        left_out[MOVES] += 1
    else:
        middle = (begin + end) // 2
        yield from _halved(seen, points_VP2, (begin, middle), smallest, left_out)
        yield from _halved(seen, points_VP2, (middle, end), smallest, left_out)
