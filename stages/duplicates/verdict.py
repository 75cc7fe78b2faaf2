"""Which recordings are one too many, and of which other one: the same whatever order they came in.

Sound and pictures are asked one after the other, and either is enough: a copy with other sound is still a copy.

Recordings that share most of the longer one are one group, of which the first that is listed stays. A group that is a
part of a longer one goes with all it has; for the sake of one that goes itself nobody goes.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, MutableSequence, Sequence
from typing import NamedTuple

import numpy as np

from visavis.stages.duplicates.alignment import Alignment, align
from visavis.stages.duplicates.matches import Matches

MIN_OVERLAP = 0.5
"""Share of the shorter of two recordings that is in both: more than a jingle or a shared question."""

_SAME = 0.8  # of the longer one


class Prints(NamedTuple):
    """Landmarks of all recordings. what: they are of, as in "the sound". seconds: of each recording, by its number,
    without what has no landmarks before and after (`Landmarks.seconds`)."""

    what: str
    matches: Matches
    seconds: MutableSequence[float]


class Duplicate(NamedTuple):
    """A recording that is one too many. kept: the one that stays. share: of the shorter one. alignment: of the
    duplicate's time in that of the kept one, by the first that tells. most: whether most of the longer one is in both.
    what: tells that it is one."""

    number: int
    kept: int
    share: float
    alignment: Alignment
    most: bool
    what: str

    def told(self, name: str) -> str:
        """In words. name: of the one that stays."""
        line = self.alignment
        begin = round(line.offset, 1) + 0.0  # never −0.0
        return f"{line.overlap:.0f} s are {self.what} of {name}, from {begin} s on, at {line.speed:.3f} times its speed"


Beside = dict[int, dict[int, Duplicate]]
"""Of each recording those that are the same, by number, as if it were the one that stays."""


def near_duplicates(
    prints: Sequence[Prints], place: Sequence[int] | None = None, min_overlap: float = MIN_OVERLAP
) -> list[Duplicate]:
    """Of two that are the same the longer one stays; where they share most of it, the one that is listed first.

    Args:
        prints: of all recordings, the most exact first.
        place: of each in the list; none: their numbers.
        min_overlap: share of the shorter one that must be in both.

    Returns:
        By number.
    """
    long_C = np.max([_long(each) for each in prints], axis=0)
    place_C = np.arange(len(long_C)) if place is None else np.asarray(place)
    rank_C = np.empty(len(long_C), np.int64)
    rank_C[np.lexsort((place_C, -long_C))] = np.arange(len(long_C))
    beside: Beside = defaultdict(dict)
    for each in prints:
        _put(each, rank_C, min_overlap, beside)
    stays, members = dict[int, int](), dict[int, int]()  # of each, who stays; the same of groups that do
    for group in sorted(_groups(beside), key=lambda group: min(rank_C[each] for each in group)):
        longer = [members[pair.number] for each in group for pair in beside[each].values() if pair.number in members]
        leader = min(longer, key=lambda each: rank_C[each]) if longer else min(group, key=lambda each: place_C[each])
        stays |= dict.fromkeys(group, leader)
        members |= {} if longer else dict.fromkeys(group, leader)
    leaders = {leader for leader in stays.values() if stays[leader] == leader}
    return sorted(found for leader in leaders for found in _followers(leader, beside, stays))


def _long(prints: Prints) -> np.ndarray:
    return np.maximum(np.asarray(prints.seconds, np.float64), 1e-3)


def _put(prints: Prints, rank_C: np.ndarray, min_overlap: float, beside: Beside) -> None:
    """Note who has whose sound, or pictures; who is noted already has them, too."""
    long_C = _long(prints)
    for one, other, frame_M, other_frame_M in prints.matches.pairs(rank_C):
        line = align(frame_M, other_frame_M)
        shorter, longer = sorted((float(long_C[one]), float(long_C[other])))
        if not line or line.overlap < min_overlap * shorter:
            continue
        share, most = min(line.overlap / shorter, 1.0), line.overlap >= _SAME * longer
        for number, kept, turned in ((other, one, line), (one, other, line.turned)):
            new = Duplicate(number, kept, share, turned, most, prints.what)
            if known := beside[kept].get(number):
                new = known._replace(what=f"{known.what} and {new.what}", most=known.most or most)
            beside[kept][number] = new


def _groups(beside: Beside) -> Iterator[list[int]]:
    """Recordings that are one, by links of two that share most of the longer one."""
    seen = set[int]()
    for first in beside:
        if first in seen:
            continue
        seen.add(first)
        group = [first]
        for each in group:  # grows
            for pair in beside[each].values():
                if pair.number not in seen and pair.most:
                    group.append(pair.number)
                    seen.add(pair.number)
        yield group


def _followers(leader: int, beside: Beside, stays: dict[int, int]) -> Iterator[Duplicate]:
    """Those that go for the sake of one, and where they lie in it, by way of others where they have to."""
    reached, waiting = {leader}, deque([(leader, 0.0, 1.0)])
    while waiting:
        each, offset, speed = waiting.popleft()
        for pair in beside[each].values():
            if pair.number not in reached and stays[pair.number] == leader:
                reached.add(pair.number)
                line = pair.alignment
                line = line._replace(offset=offset + speed * line.offset, speed=speed * line.speed)
                waiting.append((pair.number, line.offset, line.speed))
                yield pair._replace(kept=leader, alignment=line)
