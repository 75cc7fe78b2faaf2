"""How one recording runs along another: the line on which most of their equal landmarks lie.

Landmarks that are equal by chance lie anywhere; those of the same sound at (time in one, time in the other) on a line
whose slope is the speed. M landmarks that are equal.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from visavis.stages.duplicates.landmarks import FRAMES_PER_SECOND

MOST_SPEED = 0.025
"""By which one may run faster or slower."""
LEAST_VOTES = 6
"""Anchors on one line below which chance is not excluded."""

_NEAR = 0.1  # seconds from the line
_BRIDGED = 15.0  # seconds without a common landmark, as in a long silence, that do not end an overlap
_SEARCHED = 2000  # landmarks by which the line is looked for; all vote


class Alignment(NamedTuple):
    """What is at t s of the second recording is at offset + speed · t of the first. votes: anchors that say so.
    overlap: seconds of the first that are in both."""

    votes: int
    offset: float
    speed: float
    overlap: float

    @property
    def turned(self) -> Alignment:
        """Of the first in the second."""
        return Alignment(self.votes, -self.offset / self.speed, 1 / self.speed, self.overlap)


def align(one_M: np.ndarray, other_M: np.ndarray) -> Alignment | None:
    """The best line; None: chance could have made it. Frames of equal landmarks in both recordings, int [M]."""
    if len(one_M) < LEAST_VOTES:
        return None
    one, other = one_M / FRAMES_PER_SECOND, other_M / FRAMES_PER_SECOND
    every = -(-len(one) // _SEARCHED)
    line = _densest(one[::every], other[::every])
    for wide in (2, 1, 1):
        near = np.abs(one - line[0] - line[1] * other) <= wide * _NEAR
        line = _fitted(one[near], other[near]) or line
    near = np.abs(one - line[0] - line[1] * other) <= _NEAR
    anchors = np.unique(one[near])
    votes = min(len(anchors), len(np.unique(other[near])))
    if votes < LEAST_VOTES or abs(line[1] - 1) > 1.2 * MOST_SPEED:
        return None
    gaps = np.diff(anchors)
    return Alignment(votes, line[0], line[1], float(gaps[gaps <= _BRIDGED].sum()))


def _densest(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Offset and speed that most landmarks agree on to 0.2 s; of several the speed next to 1."""
    steps = math.ceil(MOST_SPEED * float(np.ptp(other)) / _NEAR) + 1
    best, line = 0, (0.0, 1.0)
    for step in sorted(range(-steps, steps + 1), key=abs):
        speed = 1 + step / steps * MOST_SPEED
        bins = np.floor((one - speed * other) / _NEAR).astype(np.int64)
        first = int(bins.min())
        counts = np.bincount(bins - first)
        counts[:-1] += counts[1:]
        if (most := int(counts.max())) > best:
            best, line = most, ((first + int(counts.argmax()) + 1) * _NEAR, speed)
    return line


def _fitted(one: np.ndarray, other: np.ndarray) -> tuple[float, float] | None:
    """Least squares; None where all lie at one place."""
    if len(one) < 2 or np.ptp(other) < 1:
        return None
    centre = other - other.mean()
    speed = float((centre @ one) / (centre @ centre))
    return float(one.mean() - speed * other.mean()), speed
