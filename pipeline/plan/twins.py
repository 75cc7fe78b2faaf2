"""Listed conversations of the same content: the one that is listed first is built, and nobody waits to find out.

Who comes first takes the content; one that is listed earlier and comes later takes it over, and the other gives up at
its next step. So the same is built whichever was faster, and one file on which ingest hangs holds up nobody else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from visavis.pipeline.engine.run import Run
from visavis.pipeline.state.tasks import Task
from visavis.schemas.errors import Reason


class Listed(NamedTuple):
    """A listed conversation: its place in the list, its item of ingest, and what a person calls it."""

    place: int
    key: str
    name: str


class Twins:
    """Who has which content."""

    def __init__(self, run: Run | None, ingest: Callable[[Listed], Task]) -> None:
        """run: where duplicates are recorded. ingest: the task of a listed conversation, inputs apart."""
        self.overtaken = False  # somebody had to give up
        self._run, self._ingest = run, ingest
        self._first: dict[int, Listed] = {}

    def take(self, identity: str, mine: Listed) -> bool:
        """Whether this conversation is the one to be built, as far as is known now."""
        other = self._first.get(int(identity, 16))
        winner, loser = (other, mine) if other and other.place < mine.place else (mine, other)
        self._first[int(identity, 16)] = winner
        self.overtaken |= winner is mine and loser is not None
        if self._run and winner is mine:
            self._run.keep(self._ingest(mine))
        if self._run and loser:
            self._run.reject(self._ingest(loser), Reason.DUPLICATE_CONTENT, f"same content as {winner.name}")
        return winner is mine

    def has(self, identity: str, place: int) -> bool:
        """Whether the conversation at this place of the list has the content still."""
        return self._first[int(identity, 16)].place == place
