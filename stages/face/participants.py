"""Participants: which two of the people in a video hold the conversation.

Not everybody with a face is in the conversation. Left out are, in this order,

    still pictures    a photograph, a thumbnail: nothing in the face moves against the rest of it
    copies            the same person shown several times, mirrored, late, larger or drawn by another hand: moves as
                      the other does, all the time (`stages.face.copies`); the most present stays
    renders           a grey three-dimensional head beside people in colour

and of the others the two that take most of the picture over time together are chosen: people who walk by are small and
short. Two who are never seen at once may be one, in another light, and there is nothing to learn from them; so only
where nobody is seen with anybody are the two most present chosen.

The trade-off: numbers from landmarks and thumbnails, no network. A photograph that is held and tilted by hand moves as
a head does; two renderings of one person that move differently are two people.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from visavis.schemas.errors import Reason, Rejected
from visavis.stages.face.copies import is_copy
from visavis.stages.face.crops import colour
from visavis.stages.face.people import Person, seen_together

# Deviation over time of the gesture that moves most, in face heights. Photographs (noisy, panned, zoomed) had at most
# 0.0021; thirteen faces over 8 s and more, five of them rendered, at least 0.023.
_STILL = 0.006
_MANY = 12  # people, the most present, among whom the pair is looked for
_GREY, _COLOURED = 4.0, 10.0  # mean distance from grey in CIELAB


def is_still(person: Person) -> bool:
    """Nothing in this face ever moves: a photograph, however it is moved or zoomed as a whole."""
    return liveliness(person) < _STILL


def liveliness(person: Person) -> float:
    """Standard deviation over time of the gesture that moves most, in face heights."""
    seen_VG = person.gesture_TG[person.seen_T]
    return float(seen_VG.std(axis=0).max()) if len(seen_VG) else 0.0


def _pair(people: Sequence[Person]) -> list[Person]:
    """The two that take most of the picture while both are seen; the first two where no two are."""
    pairs = list(itertools.combinations(people[:_MANY], 2))
    most = max(pairs, key=lambda pair: _presence_together(*pair))  # the first of several that are alike
    return list(most)


def _presence_together(a: Person, b: Person) -> float:
    return float(np.mean(a.seen_T & b.seen_T)) * min(a.place[1], b.place[1]) if seen_together(a, b) else 0.0


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
        if not any(is_copy(person, other) for other in different):
            different.append(person)
    coloured = [colour(person.portrait) for person in different]
    real = [p for p, c in zip(different, coloured, strict=True) if c > _GREY or max(coloured) < _COLOURED]
    if len(real) >= wanted:
        participants = real[:1] if wanted == 1 else _pair(real)
        return Chosen(participants, [person for person in real if not any(person is p for p in participants)])
    shown = f"{where}: {len(people)} faces"
    if len(different) < len(alive):
        raise Rejected(Reason.COPIED_FACE, f"{shown}, of which {len(alive) - len(different)} are copies of another")
    if len(alive) < len(people):
        raise Rejected(Reason.NOT_ALIVE, f"{shown}, of which {len(people) - len(alive)} never move")
    if len(real) < len(different):
        raise Rejected(Reason.ONE_FACE, f"{shown}, of which {len(different) - len(real)} are grey beside a real one")
    raise Rejected(Reason.ONE_FACE, f"{where}: seen in {people[0].visible:.0%}")
