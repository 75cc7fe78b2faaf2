"""Preference pairs: motion that a listener should make, beside motion that it should not.

    recorded windows ─► reference statistics ───────┐
    windows ─► decode ─► generate (two motions) ─► gate ─► shard of pairs

Both motions belong to one window. Those pairs that would teach nothing or the wrong thing are left out and counted by
reason; what was measured is in every pair's record and, as histograms, in the manifest. `stages.pairing` has the parts.

Sampling is what costs time, so nothing else waits for it: a thread reads and decodes ahead, members that do not change
are copied as they are, and the gate judges a batch at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path

from pydantic import Field

from visavis.schemas.errors import DatasetError
from visavis.schemas.manifest import FileEntry, ShardEntry
from visavis.schemas.pairs import PairOrigin, PairRecord, PairsConfig
from visavis.schemas.plain import dump_record
from visavis.schemas.rows import Row
from visavis.schemas.sample import encode_pair
from visavis.schemas.sampling import Sampling
from visavis.schemas.storage.store import Store
from visavis.schemas.train import DpoConfig
from visavis.stages.base import Resources, Stage
from visavis.stages.face.decode import conversation_of, read_faces
from visavis.stages.pairing.agreement import agreed
from visavis.stages.pairing.candidates import Candidates, Generator, SourceWindow
from visavis.stages.pairing.gate import Counts, Gate, Judged, ranges
from visavis.stages.pairing.measurements import ReferenceStatistics
from visavis.stages.pairing.scoring import ReactivityScorer, Scorer
from visavis.stages.pairing.shortfall import rounded
from visavis.stages.pairing.voted import Ballots, VotedPairs
from visavis.stages.shard import write_faces, write_shard
from visavis.training.checkpoint import checkpoint_id
from visavis.training.dataset import Dataset
from visavis.training.loader import prefetch
from visavis.training.preferences.groups import groups_of
from visavis.training.shards import Members


class PairsPlan(Row):
    """A run of windows [first, last) of one source shard, to become one shard of pairs at `path`."""

    source: ShardEntry
    first: int
    last: int
    path: str


class PairsInput(PairsPlan):
    """With the reference statistics of the shard's class, and of these windows what people decided, if they did."""

    reference: ReferenceStatistics
    voted: tuple[VotedPairs, ...] = ()


class PairsRow(Row):
    """The written shard; how many windows were not wanted or not expressive enough; how many pairs the gate left out,
    by reason; histogram counts of every measurement (`stages.pairing.gate.ranges`) and, by group of dimensions, sums of
    responses (`stages.pairing.shortfall`), over all pairs that were made; how many pairs have each label; and how
    motion was sampled, if it was."""

    entry: ShardEntry
    passed_over: int
    gated: dict[str, int]
    figures: dict[str, tuple[int, ...]]
    responses: dict[str, tuple[tuple[float, ...], ...]]
    labels: dict[str, int] = Field(default_factory=dict)
    sampling: Sampling | None = None


_REACTIVITY = ReactivityScorer()
Source = Iterable[tuple[str, Members]]
"""Keys and undecoded members of windows."""
Pair = tuple[str, dict[str, bytes]]
"""Key and members."""


class PairsStage(Stage[PairsInput, PairsRow]):
    """Makes the pairs of windows, gates them, and writes what is left as a shard."""

    name = "pairs"
    version = 8
    config: PairsConfig

    def __init__(
        self,
        config: PairsConfig,
        dataset: str,
        checkpoint: str,
        out: str,
        scorer: Scorer | Ballots = _REACTIVITY,
        record: tuple[str, str] | None = None,
    ) -> None:
        """record: the run's folder and a path in it, where the first worker writes down how all of them sample."""
        super().__init__(config)
        self._record = record
        self._scorer, self._ranges = scorer, ranges(scorer.apart)
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
        if isinstance(self._scorer, Ballots):  # nothing is generated
            digests = (checkpoint_id(Path(self._checkpoint)),) * 2
        else:
            known = {"agreed": partial(agreed, Store(self._record[0]), self._record[1])} if self._record else {}
            self._generator = Generator(self.config, self._checkpoint, self._data.manifest.window, **known)
            digests = self._generator.digests
        self._origin = PairOrigin.of(self.config, self._data.hash, *digests, self._scorer.name)

    def process(self, item: PairsInput) -> Iterator[PairsRow]:
        counts = Counts()
        source = self._shard(item.source)[item.first : item.last]
        pairs = self.pairs(source, item.reference, counts)
        if item.voted:
            pairs = self._voted(source, item.voted[0], item.reference, counts)
        size, digest, count = write_shard(Store(self._out), item.path, pairs)
        made = {"path": item.path, "samples": count, "bytes": size, "sha256": digest}
        made |= {"split": "train"}  # whatever windows people were shown
        entry = item.source.model_copy(update=made | {"faces": self._faces(item, counts.conversations)})
        yield PairsRow(
            entry=entry,
            passed_over=counts.passed_over,
            gated=dict(sorted(counts.gated.items())),
            figures={name: tuple(counts.figures[name].tolist()) for name in self._ranges},
            responses=rounded(counts.responses),
            labels=dict(sorted(counts.labels.items())),
            sampling=self.sampling,
        )

    @property
    def sampling(self) -> Sampling | None:
        """How motion is sampled, once set up; None: what people decided is there already."""
        return None if isinstance(self._scorer, Ballots) else self._generator.sampling

    def facts(self, rows: Sequence[PairsRow]) -> str:
        """The row itself."""
        return rows[0].model_dump_json()

    def pairs(self, source: Source, reference: ReferenceStatistics, counts: Counts) -> Iterator[Pair]:
        """The pairs of windows that the gate lets through, in the order of windows and seeds."""
        with closing(prefetch(self._decode(source, reference.least_expressive, counts), depth=1)) as decoded:
            yield from self._gate(self._generator.generate(decoded), reference, counts)

    def _decode(self, source: Source, least: float, counts: Counts) -> Iterator[list[SourceWindow]]:
        """Batches of windows that are wanted (`where`), expressive enough, and have a user to react to."""

        def expressive() -> Iterator[SourceWindow]:
            for key, members in source:
                sample = self._data.decode(key, members)
                alone = not (sample.valid[:, 1].any() or sample.user_audio.any())
                unwanted = alone or not self.config.where.wants(sample.meta.labels)
                if unwanted or sample.meta.expressiveness < least:
                    counts.passed_over += 1
                else:
                    yield SourceWindow(sample, members)

        found = expressive()
        while batch := list(islice(found, self._generator.sampling.batch)):
            yield batch

    def _gate(self, made: Iterable[Candidates], reference: ReferenceStatistics, counts: Counts) -> Iterator[Pair]:
        assert not isinstance(self._scorer, Ballots)
        manifest = self._data.manifest
        groups = groups_of(manifest.motion, manifest.columns, DpoConfig())
        gate = Gate(self.config, manifest.motion, reference, self._scorer, groups)
        for candidates in made:
            samples = [window.sample for window in candidates.windows]
            judged = gate.judge(samples, candidates.motions)
            for numbers, own in candidates.own:
                counts.add_responses(gate.responses([samples[n] for n in numbers], own))
            for each in judged:
                counts.add(each, self._ranges)
            for i, window in enumerate(candidates.windows):
                for each in judged:
                    if not each.reasons[i]:
                        _keep(counts, window)
                        yield self._pair(window, i, each)

    def _voted(
        self, source: Source, voted: VotedPairs, reference: ReferenceStatistics, counts: Counts
    ) -> Iterator[Pair]:
        """The pairs that people decided, in the order of the shard's windows."""
        at: dict[str, list[int]] = {}
        for n, key in enumerate(voted.windows):
            at.setdefault(key, []).append(n)
        gate = Gate(self.config, self._data.manifest.motion, reference)
        for key, members in source:
            for n in at.pop(key, ()):
                window, one = SourceWindow(self._data.decode(key, members), members), slice(n, n + 1)
                shown, seed = (voted.chosen[one], voted.rejected[one]), self.config.sampler.seed
                judged = gate.voted([window.sample], [voted.keys[n]], shown, seed, voted.shares[one])
                counts.add(judged, self._ranges)
                if not judged.reasons[0]:
                    _keep(counts, window)
                    yield self._pair(window, 0, judged)
        if at:
            raise DatasetError(f"windows of the study are not in their shard, first {next(iter(at))}")

    def _pair(self, window: SourceWindow, i: int, judged: Judged) -> Pair:
        config, (chosen_seed, seed), (chosen, rejected) = self.config, judged.seeds[i].tolist(), judged.motions
        origin = dict(self._origin) | {"sampler": config.sampler.model_copy(update={"seed": seed})}
        noise = None if self._origin.chosen in ("ground_truth", "voted") else chosen_seed
        record = PairRecord(window=window.sample.key, chosen_seed=noise, **origin, **judged.numbers(i))
        members = dict(window.members) | {"meta.json": dump_record(window.sample.meta)}  # as it is spelt today
        return judged.keys[i], encode_pair(members, chosen[i], rejected[i], record)

    def _faces(self, item: PairsInput, conversations: set[str]) -> FileEntry | None:
        """The faces of the conversations that are in some pair, beside the shard; a source without faces has none."""
        if item.source.faces is None:
            return None
        people = read_faces(Store(self._dataset), item.source)
        return write_faces(
            Store(self._out), item.path, [each for name, each in people.items() if name in conversations]
        )

    def forget(self) -> None:
        """Let go of the source shard that was read last."""
        self._held = ("", [])

    def _shard(self, entry: ShardEntry) -> list[tuple[str, Members]]:
        """A source shard's samples. The last one is kept: it is cut into several tasks."""
        if self._held[0] != entry.path:
            self._held = (entry.path, self._data.shard(entry))
        return self._held[1]


def _keep(counts: Counts, window: SourceWindow) -> None:
    """Count a window that a pair was made of."""
    counts.conversations.add(conversation_of(window.sample.key))
    counts.labels.update(window.sample.meta.labels or ())
