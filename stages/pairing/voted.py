"""Pairs that people decided: the motion that more of them preferred, and the other, as both were shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from visavis.schemas.rows import Array, Row


class VotedPairs(Row):
    """Pairs of windows of one shard.

    keys: of the pairs, which differ. windows: their windows' keys. chosen, rejected: [P, T, D] float32 in codec units.
    shares: [P, 2] of the votes, of chosen and of rejected; no difference counts half for each.
    """

    keys: tuple[str, ...]
    windows: tuple[str, ...]
    chosen: Array
    rejected: Array
    shares: Array


@dataclass(frozen=True)
class Ballots:
    """What people said in a study, as pairs by the path of their windows' shard.

    digest: sha256 of what was shown, and of what they said. left_out: comparisons that are no pairs, by reason.
    dataset: sha256 of the manifest of the windows. seed: of the noise of what was shown.
    """

    pairs: Mapping[str, VotedPairs]
    left_out: Mapping[str, int]
    digest: str
    dataset: str
    seed: int

    apart = 1.0  # shares of votes differ by no more

    @property
    def windows(self) -> int:
        """Of which there are pairs."""
        return sum(len(set(each.windows)) for each in self.pairs.values())

    @property
    def name(self) -> str:
        """Who scored, as the pairs' origin has it."""
        return f"votes:{self.digest}"
