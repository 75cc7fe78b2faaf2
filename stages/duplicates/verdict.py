"""Which recordings are one too many, and of which other one: the same whatever order they came in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from visavis.stages.duplicates.alignment import Alignment, align
from visavis.stages.duplicates.matches import Matches

MIN_OVERLAP = 0.5
"""Share of the shorter of two recordings that is in both: more than a jingle or a shared question."""

_AS_LONG = 1.1  # times as long, within which place decides


class Duplicate(NamedTuple):
    """A recording that is one too many. kept: the one that stays. share: of the shorter one. alignment: of the
    duplicate's time in that of the kept one."""

    number: int
    kept: int
    share: float
    alignment: Alignment

    def told(self, name: str) -> str:
        """In words. name: of the one that stays."""
        return (
            f"{self.alignment.overlap:.0f} s are the sound of {name}, from {self.alignment.offset:+.2f} s on,"
            f" at {self.alignment.speed:.3f} times its speed"
        )


def near_duplicates(
    matches: Matches, seconds: Sequence[float], place: Sequence[int] | None = None, min_overlap: float = MIN_OVERLAP
) -> list[Duplicate]:
    """Of two with the same sound the longer one stays; where both are about as long, the one that is listed first.

    Nobody is one too many for the sake of one that is so itself: of three that overlap as links of a chain do, the
    first and the last stay.

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
    order_C = np.lexsort((place_C, -np.round(np.log(long_C) / np.log(_AS_LONG))))
    rank_C = np.empty(len(long_C), np.int64)
    rank_C[order_C] = np.arange(len(long_C))
    alike: dict[int, list[Duplicate]] = {}
    for pair in matches.pairs(rank_C):
        found = align(pair.frame_M, pair.other_frame_M)
        share = found.overlap / float(min(long_C[pair.one], long_C[pair.other])) if found else 0.0
        if found and share >= min_overlap:
            alike.setdefault(pair.other, []).append(Duplicate(pair.other, pair.one, min(share, 1.0), found))
    gone: dict[int, Duplicate] = {}
    for number in sorted(alike, key=lambda number: rank_C[number]):
        stays = [each for each in alike[number] if each.kept not in gone]
        if stays:
            gone[number] = min(stays, key=lambda each: rank_C[each.kept])
    return [gone[number] for number in sorted(gone)]
