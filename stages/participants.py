"""Participants: which two of the people in a video hold the conversation.

Not everybody with a face is in the conversation. Left out are, in this order,

    still pictures    a photograph, a thumbnail: nothing in the face moves against the rest of it
    copies            the same face shown several times, mirrored or not: it moves as the other does, all the time;
                      the largest stays
    renders           a grey three-dimensional head beside people in colour

and of the others the two that take most of the picture over time are chosen: people who walk by are small and short.

The trade-off: numbers from landmarks and thumbnails, no network. A photograph that is held and tilted by hand moves as
a head does; two different renderings of one and the same person are two people.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from schemas import FPS
from schemas.errors import Reason, Rejected
from stages.looks import colour
from stages.people import Person

# Deviation over time of the gesture that moves most, in face heights. Photographs (noisy, panned, zoomed) had at most
# 0.0021; thirteen faces over 8 s and more, five of them rendered, at least 0.023.
_STILL = 0.006
_SAME_MOVES = 0.9  # correlation of gestures over time. Copies had 0.97 and more, different people at most 0.22
_COMMON = 2 * FPS  # frames in which both must be seen to be called copies
_GREY, _COLOURED = 4.0, 10.0  # mean distance from grey in CIELAB
_MIRRORED = np.array([-1, 1, 1, 1, 1, 1, 1.0])  # gestures in a mirror: the nose points to the other side …
_MIRROR_ORDER = [0, 1, 2, 3, 5, 4, 6]  # … and the eyes change places


def is_still(person: Person) -> bool:
    """Nothing in this face ever moves: a photograph, however it is moved or zoomed as a whole."""
    return liveliness(person) < _STILL


def liveliness(person: Person) -> float:
    """Standard deviation over time of the gesture that moves most, in face heights."""
    seen_VG = person.gesture_TG[person.seen_T]
    return float(seen_VG.std(axis=0).max()) if len(seen_VG) else 0.0


def same_moves(a: Person, b: Person) -> float:
    """Correlation of two faces' gestures over time, as seen or in a mirror; 0 where they are hardly seen together."""
    both_T = a.seen_T & b.seen_T
    if np.count_nonzero(both_T) < _COMMON:
        return 0.0
    one_VG, other_VG = (p.gesture_TG[both_T].astype(np.float64) for p in (a, b))
    return max(_correlation(one_VG, other_VG), _correlation(one_VG, other_VG[:, _MIRROR_ORDER] * _MIRRORED))


def _correlation(a_VG: np.ndarray, b_VG: np.ndarray) -> float:
    """Of all gestures together, so that what moves much counts much."""
    a_VG, b_VG = a_VG - a_VG.mean(axis=0), b_VG - b_VG.mean(axis=0)
    product = float(np.sqrt((a_VG**2).sum() * (b_VG**2).sum()))
    return float((a_VG * b_VG).sum()) / product if product > 0 else 0.0


class Chosen(NamedTuple):
    """The participants, and the other people who are in the picture."""

    participants: list[Person]
    others: list[Person]


def choose(people: Sequence[Person], wanted: int, where: str) -> Chosen:
    """The `wanted` (one or two) participants among all people of a video.

    Args:
        people: the likeliest first. where: what to call the video in a rejection.

    Raises:
        Rejected: NO_FACE, ONE_FACE, NOT_ALIVE, COPIED_FACE.
    """
    if not people:
        raise Rejected(Reason.NO_FACE, where)
    alive = [person for person in people if not is_still(person)]
    different: list[Person] = []
    for person in alive:
        if all(same_moves(person, other) < _SAME_MOVES for other in different):
            different.append(person)
    coloured = [colour(person.portrait) for person in different]
    real = [p for p, c in zip(different, coloured, strict=True) if c > _GREY or max(coloured) < _COLOURED]
    if len(real) >= wanted:
        return Chosen(real[:wanted], real[wanted:])
    shown = f"{where}: {len(people)} faces"
    if len(different) < len(alive):
        raise Rejected(Reason.COPIED_FACE, f"{shown}, of which {len(alive) - len(different)} are copies of another")
    if len(alive) < len(people):
        raise Rejected(Reason.NOT_ALIVE, f"{shown}, of which {len(people) - len(alive)} never move")
    if len(real) < len(different):
        raise Rejected(Reason.ONE_FACE, f"{shown}, of which {len(different) - len(real)} are grey beside a real one")
    raise Rejected(Reason.ONE_FACE, f"{where}: seen in {people[0].visible:.0%}")
