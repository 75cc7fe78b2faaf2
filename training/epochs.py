"""The samples of one class without end: whose they are, in which order, which of them are kept, and read in time.

Order and thinning are hashes of (seed, epoch, name). Each of `world_size` ranks takes one part of an epoch, cut at
sample counts that the manifest tells: in every epoch each sample is looked at by exactly one rank, and a rank opens its
own shards and at most two that it shares. Nothing is exchanged between ranks, and none waits for another: what thinning
keeps differs, so one may be an epoch ahead.

The trade-off: a shard is held in memory, undecoded, and samples are shuffled inside it, not across. The next one is
fetched and hashed by a thread while the last AHEAD samples of this one are drawn, and taken apart a few samples at a
time, so memory holds two for that long. Taking 4,096 windows apart costs 1.8 s of a core: all at once, the trainer
would wait for it, and in a thread of its own it would keep the trainer's Python from running.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from itertools import chain, count, islice
from typing import NamedTuple

from visavis.schemas.errors import DatasetError
from visavis.schemas.manifest import ShardEntry
from visavis.schemas.plain import read_strict
from visavis.schemas.untrusted import parsing
from visavis.training.dataset import Dataset
from visavis.training.shards import Members

EMPTY_EPOCHS = 1000
"""Passes over a class in which nothing was kept, after which it counts as empty."""
AHEAD = 1024
"""Samples of a shard that are left when the next one is asked for."""


class Span(NamedTuple):
    """What a rank reads of a shard in an epoch: samples [first, last) of the epoch's order in it.

    start: samples of the rank's part of the epoch that come before.
    """

    epoch: int
    start: int
    entry: ShardEntry
    first: int
    last: int

    @property
    def end(self) -> int:
        return self.start + self.last - self.first


class ClassStream:
    """Endless undecoded samples of one class; `position` is (epoch, samples looked at in the rank's part of it)."""

    def __init__(
        self,
        dataset: Dataset,
        shards: Sequence[ShardEntry],
        seed: int,
        rank: int,
        world_size: int,
        position: Sequence[int],
        readers: Executor,
    ) -> None:
        """Raises DatasetError, from `next`, for a broken shard, or where no sample has a weight above 0."""
        self.dataset, self.shards, self.seed, self.rank, self.world_size = dataset, shards, seed, rank, world_size
        self.position = tuple(position)
        self._readers = readers
        self._iterator = self._run()

    def __next__(self) -> tuple[str, Members]:
        return next(self._iterator)

    def _run(self) -> Iterator[tuple[str, Members]]:
        unkept, patience = 0, EMPTY_EPOCHS * sum(s.samples for s in self.shards)
        route = self._route(*self.position)
        here = next(route)
        shard, coming = _Shard(self.dataset, here.entry, self._readers), None
        for following in route:
            groups = self._order(shard.groups(), here.epoch)
            for i, (key, members) in enumerate(groups[here.first : here.last], here.start):
                if (here.epoch, i) < self.position:
                    continue
                if following.entry != here.entry and here.end - i <= AHEAD:
                    coming = coming or _Shard(self.dataset, following.entry, self._readers)
                    coming.advance(here.end - i)
                self.position = (here.epoch, i + 1)
                unkept += 1
                if keeps(self.seed, here.epoch, key, members):
                    unkept = 0
                    yield key, members
                elif unkept >= patience:
                    raise DatasetError(f"no sample of class {here.entry.label} has a weight above 0")
            here, shard, coming = following, coming or shard, None

    def _order(self, groups: list[tuple[str, Members]], epoch: int) -> list[tuple[str, Members]]:
        return sorted(groups, key=lambda g: chance(self.seed, epoch, g[0]))

    def _route(self, epoch: int, done: int) -> Iterator[Span]:
        """What is read from here on."""
        everything = (spans(self.shards, self.seed, e, self.rank, self.world_size) for e in count(epoch))
        return (span for span in chain.from_iterable(everything) if (span.epoch, span.end) > (epoch, done))


class _Shard:
    """A shard that is needed, or will be: fetched by a thread, taken apart by whoever asks."""

    def __init__(self, dataset: Dataset, entry: ShardEntry, readers: Executor) -> None:
        self.dataset, self.entry = dataset, entry
        self._data = readers.submit(dataset.fetch, entry)
        self._groups: list[tuple[str, Members]] = []
        self._rest: Iterator[tuple[str, Members]] | None = None

    def advance(self, steps: int) -> None:
        """Do so much that as many steps complete it; nothing as long as it is being fetched."""
        if self._data.done():
            self._take(-(-(self.entry.samples - len(self._groups)) // steps))

    def groups(self) -> list[tuple[str, Members]]:
        """Keys and undecoded members, in the shard's order. Raises DatasetError, as `Dataset.shard`."""
        self._take(None)
        return self._groups

    def _take(self, samples: int | None) -> None:
        if self._rest is None:
            self._rest = self.dataset.groups(self.entry, self._data.result())
        self._groups += islice(self._rest, samples)


def spans(shards: Sequence[ShardEntry], seed: int, epoch: int, rank: int, world_size: int) -> Iterator[Span]:
    """A rank's part of an epoch.

    Parts go round from epoch to epoch: where there are fewer samples than ranks, each rank gets some in its turn.
    """
    order = sorted(shards, key=lambda s: chance(seed, epoch, s.path))
    total, turn = sum(s.samples for s in order), (rank + epoch) % world_size
    begin, end = turn * total // world_size, (turn + 1) * total // world_size
    place = 0
    for entry in order:
        first, last = max(begin - place, 0), min(end - place, entry.samples)
        if first < last:
            yield Span(epoch, place + first - begin, entry, first, last)
        place += entry.samples


def chance(seed: int, epoch: int, name: str) -> float:
    """A number in [0, 1) that depends on its arguments alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{epoch}/{name}".encode()).digest()[:8], "big") / 2**64


def keeps(seed: int, epoch: int, key: str, members: Members) -> bool:
    """Does this epoch keep the sample? With probability `meta.weight`. Unreadable ones are kept, to be counted."""
    try:
        with parsing(DatasetError):
            weight = float(read_strict(members["meta.json"])["weight"])
    except DatasetError:
        return True
    return chance(seed, epoch, f"keep/{key}") < weight
