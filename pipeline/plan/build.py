"""The build: from sources to a dataset of shards, by the graph of stages (`pipeline.plan.graph`).

    conversations   as far as their voices and words          one workflow per conversation, all overlapping
    fit             the corpus' codec
    dyads           what needs the codec, to the windows      one workflow per conversation
    census          the windows counted, part by part
    shard           balance → shards → codec and manifest

Only what needs the whole corpus waits for all of it. The driver holds ids, paths and small metadata, never frames,
audio or motion, and spools to a local file what it knows of each conversation between two phases.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from itertools import islice
from typing import Any

import numpy as np

from visavis.pipeline.engine.executor import Engine
from visavis.pipeline.engine.paths import for_workers, in_full
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.engine.run import Run, Workflow, as_long_as, made_of, next_stage
from visavis.pipeline.plan.copies import Heard, leave_out
from visavis.pipeline.plan.dataset import Dyads, buckets_of, build_dataset, collect, landmark_motion, read_made
from visavis.pipeline.plan.file_names import DATASET
from visavis.pipeline.plan.graph import Graph
from visavis.pipeline.plan.outputs import read_codec
from visavis.pipeline.plan.people import people_by_prints
from visavis.pipeline.plan.run_folder import difference, opened, read_settings
from visavis.pipeline.plan.sources import Sources, access_to, source_key, source_name, source_seconds
from visavis.pipeline.plan.summary import BuildSummary, held_out_seconds, nothing_left
from visavis.pipeline.plan.twins import Listed, Twins
from visavis.pipeline.plan.workflow import Judge, Made, Subject, follow
from visavis.pipeline.state.account import account_of, rejections
from visavis.pipeline.state.index import ItemIndex, parse_facts
from visavis.pipeline.state.ledger import Ledger
from visavis.pipeline.state.spool import Spool
from visavis.pipeline.state.tasks import CODEC, Artifact, Task, artifact_path, content_digest
from visavis.schemas import FPS
from visavis.schemas.access import Access
from visavis.schemas.artifact import dump_rows, load_row
from visavis.schemas.config import BuildConfig
from visavis.schemas.dyads import Codec, CodecStatistics
from visavis.schemas.errors import UsageError
from visavis.schemas.markers import shaping
from visavis.schemas.rows import Address, Outline, Source
from visavis.schemas.storage.store import Store
from visavis.schemas.words import counted
from visavis.stages.balance import held_out
from visavis.stages.encode import network_digest
from visavis.stages.face.codec import fit_codec, merge_statistics
from visavis.stages.faces import pieces_of
from visavis.stages.filmprint import FilmprintStage
from visavis.stages.ingest import IngestStage, addresses_of
from visavis.stages.motion import FitStage
from visavis.stages.people import PeopleStage
from visavis.stages.separate import SeparateStage
from visavis.stages.soundprint import SoundprintStage
from visavis.stages.windows import WindowsStage

CODECS = f"artifacts/{CODEC}"
_FIT_CHUNK = 64  # conversations whose statistics are summed by one task, in a large corpus …
_FIT_PARTS = 4  # … and so many tasks at least, or a small corpus would wait for one worker


@dataclass(frozen=True)
class Bound:
    """A conversation whose faces have their voices. made: by stage, what is needed of it from here on.

    addresses: where a stage of the user's own still opens its files.
    """

    id: str
    item: str
    place: int  # in the list
    seconds: float
    made: Made
    addresses: tuple[Address, ...] = ()


class _List:
    """Which conversations of a list were begun."""

    def __init__(self, size: int) -> None:
        self.begun, self.left = bytearray(size), size  # by place
        self.keys: set[int] = set()
        self._again: Counter[str] = Counter()  # the very same files, listed once more: duplicates to be told of

    def begin(self, place: int, key: str) -> str:
        """The item of ingest."""
        self.begun[place] = True
        self.left -= 1
        if (number := int(key, 16)) in self.keys:
            self._again[key] += 1
        self.keys.add(number)
        return f"{key}-{self._again[key]}" if key in self._again else key


class Build:
    """One build of a corpus into a run's folder."""

    def __init__(
        self, config: BuildConfig, root: str, engine: Engine, reporter: Reporter, access: Access | None = None
    ) -> None:
        """access: what sources may be, as `pipeline.plan.sources.access_to` makes it; None: by the settings alone."""
        self.config = config
        self.root = in_full(root)
        self._engine = engine
        self._reporter = reporter
        self.graph = Graph(config)
        self.stages = self.graph.stages(for_workers(config), f"{self.root.rstrip('/')}/{DATASET}")
        for stage in self.stages.values():
            stage.access = access or access_to(config.sources, ())
        self.fingerprints = self.graph.fingerprints
        self._network = network_digest(config.encode) if config.motion.kind == "network" else ""
        self._to_voices, self._to_windows = (self.graph.of_conversation(codec=codec) for codec in (False, True))
        later = [step for step in self.graph.steps.values() if step not in self._to_voices]
        prints = {SoundprintStage.name, FilmprintStage.name}
        self._kept = {source for step in later for source in step.takes.values()} | prints
        self._opens_later = any(s.plugin and IngestStage.name in s.takes.values() for s in self._to_windows)

    def run(self, sources: Collection[Source], *, reconfigure: bool = False) -> BuildSummary:
        """Build everything that is not built yet.

        Raises:
            UsageError: the folder is in use, or belongs to other settings.
            RunFailed: too many failures, or nothing left to train on.
        """
        limits, say, settings = self.config.run, self._reporter, self.settings
        with opened(self.root, self._engine, self.stages, limits, settings, say, reconfigure=reconfigure) as run:
            return self._build(run, sources)

    @property
    def settings(self) -> dict[str, Any]:
        """What run.json says of a build."""
        config = shaping(self.config)
        if not self.config.plugins:  # runs of before there were any go on
            del config["plugins"]
        if not self.config.voiceprints.enabled:  # nor those of before there were voiceprints, …
            del config["voiceprints"]
        if not self.config.faceprints.weights:  # … or faceprints
            del config["faceprints"], config["split"]["face_threshold"]
        if not self.config.voiceprints.enabled and not self.config.faceprints.weights:
            del config["split"]
        for name in ("duplicates", "dnsmos"):
            if not getattr(self.config, name).enabled:
                del config[name]
        for name, step in self.graph.steps.items():
            if step.plugin:  # typed by its own class, which says what does not shape the data
                config["plugins"][name]["settings"] = shaping(step.plugin.settings)
        return {"config": config, "fingerprints": self.fingerprints}

    def changes(self) -> tuple[str, list[str]]:
        """The first setting that differs from those that made what lies in the folder, and the stages that it and the
        others do anew; empty where nothing differs or lies there."""
        store = Store(self.root)
        changed = difference(store, self.settings)
        if not changed:
            return "", []
        before = read_settings(store)["fingerprints"]
        return changed, [stage for stage, now in self.fingerprints.items() if before.get(stage) != now]

    def remaining(self, sources: Collection[Source]) -> Counter[str]:
        """How many conversations have which stage next on their way to `bind`; those that are there do not count.

        Writes nothing and starts nobody; may be asked while a run goes on.
        """
        store = Store(self.root)
        index = ItemIndex(Ledger(store), store)
        return Counter(filter(None, (next_stage(workflow, index) for workflow in self.workflows(sources))))

    def _build(self, run: Run, sources: Collection[Source]) -> BuildSummary:
        with Spool(Bound) as bound:
            self._bind_all(run, sources, bound)
            if not len(bound):
                raise nothing_left(run, self.fingerprints, "conversation")
            if self.config.duplicates.enabled:
                self._leave_out_copies(run, bound)
            codec = self._codec(run, bound)
            ended = run.follow("dyads", (self.workflow_to_dyad(b, codec) for b in bound), len(bound))
            made = partial(self._task, also=codec.digest)
            dyads = collect(
                (dyad for dyad in ended if dyad),
                lambda identity: made("windows", identity, "").path,
                lambda identity: self._task("separate", identity, "").path,
            )
            if not len(dyads):
                raise nothing_left(run, self.fingerprints, "window")
            held = self._held_by_prints(run, dyads, bound) if PeopleStage.name in self.stages else None
        motion = landmark_motion(run.store, codec)
        manifest = build_dataset(run, dyads, motion, self.config, made, self.graph, held)
        run.ledger.flush()
        return BuildSummary(
            dataset=f"{self.root.rstrip('/')}/{DATASET}",
            sources=len(sources),
            kept=len(dyads),
            rejected=rejections(account_of(run.ledger, self.fingerprints)),
            plan=manifest.plan,
            held_out=held_out_seconds(manifest),
            samples=sum(s.samples for s in manifest.shards),
            processed=run.processed,
        )

    def _held_by_prints(self, run: Run, dyads: Dyads, bound: Iterable[Bound]) -> np.ndarray:
        """Which dyads are held out, where voices or faces say who is one person."""
        sources = self.graph.steps[PeopleStage.name].takes.values()
        prints = {int(b.id, 16): {name: b.made[name][0] for name in sources} for b in bound}
        people_N2 = people_by_prints(run, dyads.rows, prints, self.config.split, self._task, self.graph)
        return held_out(people_N2, self.config.balance.val_share)

    def _bind_all(self, run: Run, sources: Collection[Source], bound: Spool[Bound]) -> None:
        twins, listed = self._twins(run), _List(len(sources))
        begun = run.index.count(self.fingerprints["ingest"])  # how far earlier runs came, if the list is the same
        new = self.workflows(sources, run, twins, listed, begun)
        before = self.workflows(sources, run, twins, listed) if begun else ()
        ended = run.follow("conversations", new, len(sources), before)
        for conversation in filter(None, ended):
            bound.append(conversation)
        if twins.overtaken:
            bound.keep(lambda b: twins.has(b.id, b.place))

    def _leave_out_copies(self, run: Run, bound: Spool[Bound]) -> None:
        """Near-duplicates, of which the longest or the first stays."""

        def heard() -> Iterator[Heard]:
            for b in bound:
                task = self._task(SoundprintStage.name, b.id, b.item)
                yield Heard(b.id, b.place, task, *(b.made[s.name][0] for s in (SoundprintStage, FilmprintStage)))

        gone = leave_out(run, heard, len(bound), self.config.duplicates.min_overlap)
        bound.keep(lambda b: b.id not in gone)

    def _twins(self, run: Run | None) -> Twins:
        return Twins(run, lambda listed: self._task("ingest", listed.key, listed.name, guessed=True))

    def workflows(
        self,
        sources: Collection[Source],
        run: Run | None = None,
        twins: Twins | None = None,
        listed: _List | None = None,
        first: int = 0,
    ) -> Iterator[Workflow[Bound | None]]:
        """Each conversation's way to `bind`.

        run: where outcomes are recorded. twins: who has which content. first: only conversations from this place of the
        list on, of which nothing is known; a second iterator from its beginning yields the others (`listed` is shared).
        """
        twins, listed = twins or self._twins(run), listed or _List(len(sources))
        rest = sources.starting_at(first) if isinstance(sources, Sources) else islice(sources, first, None)
        for place, source in enumerate(rest, first):
            if not listed.left:
                return
            if listed.begun[place]:
                continue
            key = source_key(source)
            if first and run and (int(key, 16) in listed.keys or run.index.has("ingest", key)):
                continue
            yield self._ingest_one(run, source, Listed(place, listed.begin(place, key), source_name(source)), twins)

    def _ingest_one(self, run: Run | None, source: Source, mine: Listed, twins: Twins) -> Workflow[Bound | None]:
        inline, seconds = source.model_dump(mode="json"), source_seconds(source)
        (ingested,) = yield [self._task("ingest", mine.key, mine.name, inline=inline, seconds=seconds, guessed=True)]
        if ingested is None:
            return None
        outline = parse_facts(ingested.facts, Outline)
        if not twins.take(outline.id, mine):
            return None
        workflow = self._bind_one(run, source, mine, ingested, outline)
        return (yield from as_long_as(lambda: twins.has(outline.id, mine.place), workflow))

    def _bind_one(
        self, run: Run | None, source: Source, mine: Listed, ingested: Artifact, outline: Outline
    ) -> Workflow[Bound | None]:
        seconds, pieces = outline.frames / FPS, pieces_of(outline, source.uris, self.config.faces)
        subject = Subject(outline.id, mine.name, seconds, addresses_of(source), pieces)
        # What a conversation is, wherever its files lie: moving a corpus redoes nothing but ingest.
        made: Made = {IngestStage.name: (Artifact(ingested.path, outline.identity),)}
        judge = Judge(source, self.config.quality, run)
        if not (yield from follow(self._to_voices[1:], subject, made, self._task, judge)):
            return None
        kept = {name: tuple([a.bare for a in made[name]]) for name in self._kept if name in made}
        addresses = subject.addresses if self._opens_later else ()
        return Bound(outline.id, mine.name, mine.place, seconds, kept, addresses)

    def workflow_to_dyad(self, b: Bound, codec: Artifact) -> Workflow[tuple[str, Artifact, Artifact] | None]:
        """A bound conversation's way to its windows. Returns its id, them, and its voices."""
        made = b.made | {FitStage.name: (codec,)}
        make = partial(self._task, also=codec.digest)
        if not (yield from follow(self._to_windows, Subject(b.id, b.item, b.seconds, b.addresses), made, make)):
            return None
        return b.id, made[WindowsStage.name][0], made[SeparateStage.name][0]

    def codecs(self) -> list[Artifact]:
        """The codecs that builds in this folder made or were given."""
        store = Store(self.root)
        paths = [f"{CODECS}/{name}" for name in store.list(CODECS)]
        return [Artifact(path, content_digest(store.read(path))) for path in paths]

    def _codec(self, run: Run, bound: Iterable[Bound]) -> Artifact:
        """The corpus' codec: given by the config, or fitted on its conversations."""
        given = self.config.motion.codec
        data = read_codec(given) if given else self._fit(run, bound)
        codec = load_row(data, Codec)
        wanted, found = f"{self.config.motion.kind} {self._network}", f"{codec.kind} {codec.network}"
        if found != wanted:
            raise UsageError(f"motion.codec: {given} is a codec of kind {found.strip()}, not {wanted.strip()}")
        path = f"{CODECS}/{codec.id}.safetensors"
        if not run.store.exists(path):
            run.store.write(path, data)
        return Artifact(path, content_digest(data))

    def _fit(self, run: Run, bound: Iterable[Bound]) -> bytes:
        chosen = set(heapq.nsmallest(self.config.motion.fit_conversations, (b.id for b in bound)))
        # By hash, so that a corpus that grows changes few chunks.
        ids = np.array(sorted(int(identity, 16) for identity in chosen), np.uint64)
        buckets = buckets_of(ids, _FIT_CHUNK, _FIT_PARTS)
        bucket_of = {identity: name for name, members in buckets.items() for identity in members.tolist()}
        chunks: dict[str, list[Bound]] = defaultdict(list)
        for conversation in bound:
            if conversation.id in chosen:
                chunks[bucket_of[int(conversation.id, 16)]].append(conversation)
        tasks = []
        for name, members in sorted(chunks.items()):
            members.sort(key=lambda b: b.id)
            made = {name: [a for b in members for a in b.made.get(name, ())] for name in self._kept}
            inputs = self.graph.steps["fit"].inputs(made)
            whom = counted(len(members), "conversation")
            tasks.append(self._task("fit", name, whom, inputs, seconds=sum(b.seconds for b in members)))
        parts = run.execute("fit", tasks, len(tasks))
        statistics = (load_row(read_made(run.store, made), CodecStatistics) for made in made_of(parts))
        whole = reduce(lambda one, other: merge_statistics([one, other]), statistics)  # 16 MB each: one at a time
        return dump_rows([fit_codec(whole, self.config.motion, self._network)])

    def _task(
        self,
        stage: str,
        key: str,
        item: str,
        inputs: Mapping[str, tuple[Artifact, ...]] | None = None,
        *,
        also: str = "",
        **more: Any,
    ) -> Task:
        print_ = f"{self.fingerprints[stage]}{also and '-' + also[:8]}"
        path = artifact_path(stage, self.stages[stage].version, print_, key)
        return Task(stage, key, item, path, print_, inputs=inputs or {}, **more)
