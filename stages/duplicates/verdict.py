"""Which recordings are one too many, and of which other one: the same whatever order they came in.

Recordings that share most of the longer one are one group, of which the first that is listed stays. A group that is a
part of a longer one goes with all it has; for the sake of one that goes itself nobody goes.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from visavis.stages.duplicates.alignment import Alignment, align
from visavis.stages.duplicates.matches import Matches

MIN_OVERLAP = 0.5
"""Share of the shorter of two recordings that is in both: more than a jingle or a shared question."""

_SAME = 0.8  # of the longer one


class Duplicate(NamedTuple):
    """A recording that is one too many. kept: the one that stays. share: of the shorter one. alignment: of the
    duplicate's time in that of the kept one."""

    number: int
    kept: int
    share: float
    alignment: Alignment

    def told(self, name: str) -> str:
        """In words. name: of the one that stays."""
        line = self.alignment
        begin = round(line.offset, 1) + 0.0  # never −0.0
        return f"{line.overlap:.0f} s are the sound of {name}, from {begin} s on, at {line.speed:.3f} times its speed"


Beside = dict[int, list[Duplicate]]
"""Of each recording those that have its sound, as if it were the one that stays."""


def near_duplicates(
    matches: Matches, seconds: Sequence[float], place: Sequence[int] | None = None, min_overlap: float = MIN_OVERLAP
) -> list[Duplicate]:
    """Of two with the same sound the longer one stays; where they share most of it, the one that is listed first.

    Args:
        matches: landmarks of all recordings.
        seconds: of each recording, by its number, without the silence around it (`Landmarks.seconds`).
        place: of each in the list; none: their numbers.
        min_overlap: share of the shorter one that must be in both.

    Returns:
        By number.
    """
    long_C = np.maximum(np.asarray(seconds, np.float64), 1e-3)
    place_C = np.arange(len(long_C)) if place is None else np.asarray(place)
    rank_C = np.empty(len(long_C), np.int64)
    rank_C[np.lexsort((place_C, -long_C))] = np.arange(len(long_C))
    beside: Beside = defaultdict(list)
    for pair in matches.pairs(rank_C):
        found = align(pair.frame_M, pair.other_frame_M)
        share = found.overlap / float(min(long_C[pair.one], long_C[pair.other])) if found else 0.0
        if found and share >= min_overlap:
            beside[pair.one].append(Duplicate(pair.other, pair.one, min(share, 1.0), found))
            beside[pair.other].append(Duplicate(pair.one, pair.other, min(share, 1.0), found.turned))
    stays, members = dict[int, int](), dict[int, int]()  # of each, who stays; the same of groups that do
    for group in sorted(_groups(beside, long_C), key=lambda group: min(rank_C[each] for each in group)):
        longer = [members[pair.number] for each in group for pair in beside[each] if pair.number in members]
        leader = min(longer, key=lambda each: rank_C[each]) if longer else min(group, key=lambda each: place_C[each])
        stays |= dict.fromkeys(group, leader)
        members |= {} if longer else dict.fromkeys(group, leader)
    leaders = {leader for leader in stays.values() if stays[leader] == leader}
    return sorted(found for leader in leaders for found in _followers(leader, beside, stays))


def _groups(beside: Beside, long_C: np.ndarray) -> Iterator[list[int]]:
    """Recordings that are one, by links of two that share most of the longer one."""
    seen = set[int]()
    for first in beside:
        if first in seen:
            continue
        seen.add(first)
        group = [first]
        for each in group:  # grows
            for pair in beside[each]:
                if pair.number not in seen and pair.alignment.overlap >= _SAME * max(long_C[[each, pair.number]]):
                    group.append(pair.number)
                    seen.add(pair.number)
        yield group


def _followers(leader: int, beside: Beside, stays: dict[int, int]) -> Iterator[Duplicate]:
    """Those that go for the sake of one, and where they lie in it, by way of others where they have to."""
    reached, waiting = {leader}, deque([(leader, 0.0, 1.0)])
    while waiting:
        each, offset, speed = waiting.popleft()
        for pair in beside[each]:
            if pair.number not in reached and stays[pair.number] == leader:
                reached.add(pair.number)
                line = pair.alignment
                line = line._replace(offset=offset + speed * line.offset, speed=speed * line.speed)
                waiting.append((pair.number, line.offset, line.speed))
                yield Duplicate(pair.number, leader, pair.share, line)
