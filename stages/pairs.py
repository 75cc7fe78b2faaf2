"""Preference pairs: what a listener should do, and what a model does when it cannot perceive the user.

    windows ─ expressive enough? ─┬─► sides (two models' motion, same noise) ─► gate ─► shard of pairs
    recorded windows ─► yardstick ┴──────────────────────────────────────────────┘

Both sides belong to one window. Those pairs that would teach nothing or the wrong thing are left out and counted by
reason; what `stages.pairing.gate` measured is in every pair's record and, as histograms, in the manifest. TRL's words:
`chosen` and `rejected`.

Sampling is what costs time, so nothing else waits for it: a thread reads and decodes ahead, members that do not change
are copied as they are, and the gate judges a batch at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from visavis.schemas.dyads import WindowClass
from visavis.schemas.manifest import FileEntry, ShardEntry
from visavis.schemas.pairs import PairsConfig
from visavis.schemas.plain import dump_record
from visavis.schemas.rows import Row
from visavis.schemas.sample import PairRecord, Sample, encode_pair
from visavis.schemas.storage.store import Store
from visavis.stages.base import Resources, Stage
from visavis.stages.face.decode import conversation_of, read_faces
from visavis.stages.pairing.gate import BINS, RANGES, Expected, Figures, counts, measure, verdicts
from visavis.stages.pairing.reference_statistics import Windows, Yardstick, learn, normalised
from visavis.stages.shard import write_faces, write_shard
from visavis.training.candidates import DROPPED, Sides
from visavis.training.dataset import Dataset, choose
from visavis.training.loader import prefetch
from visavis.training.shards import Members

LEARNT_FROM = 1024
"""Recorded windows of a class that the yardstick is made from, from up to eight shards."""

_DIGITS = 6


class PairsPlan(Row):
    """A run of windows [first, last) of one source shard, to become one shard of pairs at `path`."""

    source: ShardEntry
    first: int
    last: int
    path: str


class PairsInput(PairsPlan):
    """With the yardstick of the shard's class."""

    yardstick: Yardstick


class PairsRow(Row):
    """The written shard; how many windows were not expressive enough; how many pairs the gate left out, by reason;
    histogram counts of every figure (`stages.pairing.gate.RANGES`) over all pairs that were made."""

    entry: ShardEntry
    passed_over: int
    gated: dict[str, int]
    figures: dict[str, tuple[int, ...]]


@dataclass
class Tally:
    """What became of windows and pairs so far."""

    passed_over: int = 0
    gated: Counter[str] = field(default_factory=Counter)
    figures: dict[str, np.ndarray] = field(default_factory=lambda: {name: np.zeros(BINS + 1, int) for name in RANGES})


Pair = tuple[str, dict[str, bytes]]
"""Key and members."""


class PairsStage(Stage[PairsInput, PairsRow]):
    """Samples both sides of each window's pairs, gates them, and writes what is left as a shard."""

    name = "pairs"
    version = 5
    config: PairsConfig

    def __init__(self, config: PairsConfig, dataset: str, checkpoint: str, out: str) -> None:
        super().__init__(config)
        self._dataset = dataset
        self._checkpoint = checkpoint
        self._out = out
        self._held: tuple[str, list[tuple[str, Members]]]
        self.forget()

    @property
    def resources(self) -> Resources:
        wanted = self.config.resources
        return Resources(wanted.cpus, wanted.gpus, wanted.memory_gb)

    def setup(self) -> None:
        self._data = Dataset(self._dataset)
        self._sides = Sides(self.config, self._checkpoint)

    def process(self, item: PairsInput) -> Iterator[PairsRow]:
        tally = Tally()
        groups = self._shard(item.source)[item.first : item.last]
        shown: set[str] = set()
        kept = _noting(self.pairs(groups, item.yardstick, tally), shown)
        size, digest, count = write_shard(Store(self._out), item.path, kept)
        made = {"path": item.path, "samples": count, "bytes": size, "sha256": digest}
        entry = item.source.model_copy(update=made | {"faces": self._faces(item, shown)})
        yield PairsRow(
            entry=entry,
            passed_over=tally.passed_over,
            gated=dict(sorted(tally.gated.items())),
            figures={name: tuple(found.tolist()) for name, found in tally.figures.items()},
        )

    def facts(self, rows: Sequence[PairsRow]) -> str:
        """The row itself."""
        return rows[0].model_dump_json()

    def pairs(self, groups: Iterable[tuple[str, Members]], yardstick: Yardstick, tally: Tally) -> Iterator[Pair]:
        """The pairs of windows that the gate lets through, in the order of windows and seeds."""
        config = self.config
        motion = self._data.manifest.motion
        with closing(prefetch(self._decoded(groups, yardstick.dull, tally), depth=1)) as parts:
            for part in parts:
                samples = [sample for sample, _ in part]
                windows, batch = Windows.of(samples, motion), self._sides.batch(samples)
                expected = Expected(windows, yardstick)
                made: list[list[Pair]] = [[] for _ in part]
                for number, seed in enumerate(config.seeds):
                    chosen, rejected = self._sides.make(batch, seed)
                    good, bad = normalised(chosen, motion), normalised(rejected, motion)
                    figures = measure(windows, good, bad, yardstick, expected)
                    for name, found in counts(figures).items():
                        tally.figures[name] += found
                    for i, reason in enumerate(verdicts(figures, good, bad, config.gate)):
                        if reason:
                            tally.gated[reason] += 1
                            continue
                        key = samples[i].key if config.per_window == 1 else f"{samples[i].key}-r{number}"
                        record = self._record(samples[i].key, seed, figures, i)
                        members = dict(part[i][1]) | {"meta.json": dump_record(samples[i].meta)}  # as it is spelt today
                        made[i].append((key, encode_pair(members, chosen[i], rejected[i], record)))
                for of_window in made:
                    yield from of_window

    def _faces(self, item: PairsInput, shown: set[str]) -> FileEntry | None:
        """The faces of the conversations that are in some pair, beside the shard; a source without faces has none."""
        if item.source.faces is None:
            return None
        people = read_faces(Store(self._dataset), item.source)
        return write_faces(Store(self._out), item.path, [each for name, each in people.items() if name in shown])

    def forget(self) -> None:
        """Let go of the source shard that was read last."""
        self._held = ("", [])

    def _shard(self, entry: ShardEntry) -> list[tuple[str, Members]]:
        """A source shard's samples. The last one is kept: it is cut into several tasks."""
        if self._held[0] != entry.path:
            self._held = (entry.path, self._data.shard(entry))
        return self._held[1]

    def _decoded(
        self, groups: Iterable[tuple[str, Members]], dull: float, tally: Tally
    ) -> Iterator[list[tuple[Sample, Members]]]:
        """Batches of windows that are expressive enough."""
        source = iter(groups)

        def expressive() -> Iterator[tuple[Sample, Members]]:
            for key, members in source:
                sample = self._data.decode(key, members)
                if sample.meta.expressiveness < dull:
                    tally.passed_over += 1
                else:
                    yield sample, members

        found = expressive()
        while part := list(islice(found, self.config.batch)):
            yield part

    def _record(self, key: str, seed: int, figures: Figures, i: int) -> PairRecord:
        config = self.config
        numbers = {name: np.round(found[i], _DIGITS).tolist() for name, found in figures.items()}
        if np.isnan(numbers["event_margin"]):
            numbers["event_margin"] = None
        return PairRecord(
            window=key,
            chosen=config.chosen,
            rejected=config.rejected,
            dropped=DROPPED[config.left],
            generator=self._sides.generator,
            rejected_generator=self._sides.rejected_generator,
            dataset=self._data.hash,
            solver="euler",
            sampler=config.sampler.model_copy(update={"seed": seed}),
            **numbers,
        )


def _noting(pairs: Iterable[Pair], conversations: set[str]) -> Iterator[Pair]:
    """The same pairs; which conversations they are of is noted."""
    for key, members in pairs:
        conversations.add(conversation_of(key))
        yield key, members


def plan_pairs(dataset: Dataset, config: PairsConfig, limit: int | None = None) -> list[PairsPlan]:
    """Cut the training shards of the wanted classes into tasks of `unit` windows, at most `limit` windows in all."""
    tasks = []
    left = limit if limit is not None else sum(s.samples for s in dataset.manifest.shards)
    for label in config.classes:
        for entry in dataset.manifest.of("train", label):
            for number, first in enumerate(range(0, min(entry.samples, left), config.unit)):
                last = min(first + config.unit, entry.samples, first + left)
                path = entry.path.removesuffix(".tar") + f"-{number:04d}.tar"
                tasks.append(PairsPlan(source=entry, first=first, last=last, path=path))
                left -= last - first
    return tasks


def learn_from(dataset: Dataset, label: WindowClass, config: PairsConfig) -> Yardstick:
    """The yardstick of a class of training windows.

    Raises:
        DatasetError: a shard or sample cannot be read.
    """
    samples = [dataset.decode(key, members) for key, members in some_of(dataset, label, LEARNT_FROM)]
    return learn(samples, dataset.manifest.motion, config.min_expressiveness)


def some_of(dataset: Dataset, label: WindowClass, count: int) -> list[tuple[str, Members]]:
    """So many training windows of a class, undecoded, from up to eight of its shards, whose order is random."""
    return list(dataset.first(choose(dataset.manifest.of("train", label), count)))
