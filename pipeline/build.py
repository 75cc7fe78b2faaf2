"""The build: from sources to a dataset of shards.

    ingest → diarize ─┐
           → faces  ──┴→ bind → fit → motion → windows → balance → shard → manifest

Stages follow each other; inside a stage all items are independent. The driver holds ids, paths and small
metadata, never frames, audio or motion.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any, get_args, get_origin

import numpy as np

from pipeline.engine import Engine
from pipeline.progress import Reporter
from pipeline.run import Run, fingerprint, locked, remember_settings
from pipeline.sources import source_key, source_name
from pipeline.status import account, rejections
from pipeline.task import WHOLE, AnyStage, Artifact, Task, artifact_path, content_digest
from schemas import FPS, SAMPLE_RATE
from schemas.artifact import dump_rows, load_plain, load_rows
from schemas.config import BalanceConfig, BuildConfig, Section, ShardConfig
from schemas.errors import Reason, RunFailed, UsageError
from schemas.manifest import MANIFEST_NAME, BalancePlan, Manifest, dump_manifest
from schemas.rows import Codec, CodecStatistics, Conversation, Source, Window
from stages.balance import DyadSummary, plan_windows
from stages.bind import BindStage
from stages.diarize import DiarizeStage
from stages.faces import FacesStage, pieces_of
from stages.ingest import IngestStage
from stages.motion import FitStage, MotionStage, fit_codec, merge_statistics, motion_spec
from stages.shard import ShardRow, ShardStage, plan_shards
from stages.store import Store
from stages.transcribe import TranscribeStage
from stages.windows import WindowsStage

DATASET = "dataset"
_NOT_THE_DATA: Any = {"run": True, "diarize": {"device"}, "transcribe": {"device"}}  # where and how it runs
_FIT_CHUNK = 64  # conversations whose statistics are summed by one task


@dataclass(frozen=True)
class BuildSummary:
    """What a build made. `processed` counts the items that needed work this time."""

    dataset: str
    sources: int
    kept: int
    rejected: dict[str, int]
    plan: BalancePlan
    samples: int
    processed: int


class Build:
    """One build of a corpus into a run's folder."""

    def __init__(self, config: BuildConfig, root: str, engine: Engine, reporter: Reporter) -> None:
        self.config = config
        self.root = root
        self._engine = engine
        self._reporter = reporter
        self._stages = _Stages(config, f"{root.rstrip('/')}/{DATASET}")
        self._prints = _fingerprints(config)

    def run(self, sources: Sequence[Source], *, reconfigure: bool = False) -> BuildSummary:
        """Build everything that is not built yet.

        Raises:
            UsageError: the folder is in use, or belongs to other settings.
            RunFailed: too many failures, or nothing left to train on.
        """
        check_chain()
        with locked(self.root):
            run = Run(self.root, self._engine, self.config.run, self._reporter)
            settings = {
                "config": self.config.model_dump(mode="json", exclude=_NOT_THE_DATA),
                "fingerprints": self._prints,
            }
            remember_settings(run.store, settings, replace_old=reconfigure)
            try:
                return self._build(run, sources)
            finally:
                run.ledger.flush()

    def _build(self, run: Run, sources: Sequence[Source]) -> BuildSummary:
        conversations = self._ingest(run, sources)
        whole = {c.id: (artifact,) for c, artifact in conversations}
        names = {c.id: _name(c) for c, _ in conversations}
        diarized = run.execute(
            self._stages.diarize,
            [self._task("diarize", c.id, names[c.id], {WHOLE: whole[c.id]}) for c, _ in conversations],
        )
        if self.config.transcribe.enabled:
            spoken = [
                self._task(
                    "transcribe", c.id, names[c.id], {"conversation": whole[c.id], "diarization": (diarized[c.id],)}
                )
                for c, _ in conversations
                if c.id in diarized
            ]
            run.execute(self._stages.transcribe, spoken)
        faces = self._faces(run, [c for c, _ in conversations if c.id in diarized])
        bound = run.execute(
            self._stages.bind,
            [
                self._task(
                    "bind",
                    c.id,
                    names[c.id],
                    {"conversation": whole[c.id], "diarization": (diarized[c.id],), "faces": faces[c.id]},
                )
                for c, _ in conversations
                if c.id in faces
            ],
        )
        codec = self._codec(run, bound, faces)
        motion = self._motion(run, codec, bound, faces, names)
        dyads = run.execute(
            self._stages.windows,
            [
                self._task(
                    "windows",
                    key,
                    names[key],
                    {
                        "conversation": whole[key],
                        "diarization": (diarized[key],),
                        "binding": (bound[key],),
                        "motion": motion[key],
                    },
                    codec.digest,
                )
                for key in motion
            ],
        )
        manifest = self._shards(run, dyads, codec)
        return BuildSummary(
            dataset=f"{self.root.rstrip('/')}/{DATASET}",
            sources=len(sources),
            kept=len(dyads),
            rejected=rejections(account(run.ledger, self._prints)),
            plan=manifest.plan,
            samples=sum(s.samples for s in manifest.shards),
            processed=run.processed,
        )

    def _task(
        self,
        stage: str,
        key: str,
        item: str,
        inputs: dict[str, tuple[Artifact, ...]] | None = None,
        also: str = "",
        **more: Any,
    ) -> Task:
        kind: type[AnyStage] = type(getattr(self._stages, stage))
        print_ = f"{self._prints[stage]}{also and '-' + also[:8]}"
        return Task(
            key=key,
            item=item,
            path=artifact_path(stage, kind.version, print_, key),
            fingerprint=print_,
            inputs=inputs or {},
            **more,
        )

    def _ingest(self, run: Run, sources: Sequence[Source]) -> list[tuple[Conversation, Artifact]]:
        tasks = [self._task("ingest", source_key(s), source_name(s), inline=s.model_dump(mode="json")) for s in sources]
        artifacts = run.execute(self._stages.ingest, tasks)
        first: dict[str, str] = {}
        conversations = []
        for task in tasks:
            if task.key not in artifacts:
                continue
            conversation = load_rows(run.store.read(artifacts[task.key].path), Conversation)[0]
            if conversation.id in first:
                run.reject("ingest", task, Reason.DUPLICATE_CONTENT, f"same content as {first[conversation.id]}")
                continue
            run.keep("ingest", task)
            first[conversation.id] = task.item
            conversations.append((conversation, Artifact(artifacts[task.key].path, _identity(conversation))))
        return sorted(conversations, key=lambda pair: pair[0].id)

    def _faces(self, run: Run, conversations: Iterable[Conversation]) -> dict[str, tuple[Artifact, ...]]:
        """Artifacts of all pieces, by conversation; conversations with a piece missing are left out."""
        tasks, keys = [], {}
        for conversation in conversations:
            pieces = pieces_of(conversation, self.config.faces)
            keys[conversation.id] = [f"{p.conversation}-{p.media}-{p.first:07d}" for p in pieces]
            for key, piece in zip(keys[conversation.id], pieces, strict=True):
                inline = piece.model_dump(mode="json")
                tasks.append(self._task("faces", key, _name(conversation), inline=inline, places=("uri",)))
        done = run.execute(self._stages.faces, tasks)
        return {c: tuple(done[k] for k in own) for c, own in keys.items() if all(k in done for k in own)}

    def _codec(self, run: Run, bound: dict[str, Artifact], faces: dict[str, tuple[Artifact, ...]]) -> Artifact:
        """The corpus' codec: given by the config, or fitted on all bound conversations."""
        if not bound:
            raise RunFailed(
                f"no conversation is left to train on ({self._reasons(run)}); see `visavis status {self.root}`"
            )
        given = self.config.motion.codec
        data = _read_codec(given) if given else self._fit(run, bound, faces)
        path = f"artifacts/codec/{load_rows(data, Codec)[0].id}.safetensors"
        if not run.store.exists(path):
            run.store.write(path, data)
        return Artifact(path, content_digest(data))

    def _fit(self, run: Run, bound: dict[str, Artifact], faces: dict[str, tuple[Artifact, ...]]) -> bytes:
        # By hash, so that a corpus that grows changes few chunks.
        buckets = 1 << max(0, (len(bound) - 1) // _FIT_CHUNK).bit_length()
        chunks: dict[int, list[str]] = defaultdict(list)
        for key in sorted(bound):
            chunks[int(key, 16) % buckets].append(key)
        tasks = [
            self._task(
                "fit",
                f"{buckets}-{number:06d}",
                f"{len(keys)} conversations",
                {"bindings": tuple(bound[k] for k in keys), "faces": tuple(a for k in keys for a in faces[k])},
            )
            for number, keys in sorted(chunks.items())
        ]
        parts = run.execute(self._stages.fit, tasks)
        statistics = [load_rows(run.store.read(a.path), CodecStatistics)[0] for a in parts.values()]
        return dump_rows([fit_codec(merge_statistics(statistics), self.config.motion)])

    def _motion(
        self,
        run: Run,
        codec: Artifact,
        bound: dict[str, Artifact],
        faces: dict[str, tuple[Artifact, ...]],
        names: dict[str, str],
    ) -> dict[str, tuple[Artifact, ...]]:
        tasks = [
            self._task(
                "motion",
                f"{key}-{participant}",
                f"{names[key]}, participant {participant}",
                {"codec": (codec,), "binding": (bound[key],), "faces": faces[key]},
                codec.digest,
                inline={"participant": participant},
            )
            for key in bound
            for participant in (0, 1)
        ]
        done = run.execute(self._stages.motion, tasks)
        both = {key: [done.get(f"{key}-{p}") for p in (0, 1)] for key in bound}
        return {key: tuple(a for a in pair if a) for key, pair in both.items() if all(pair)}

    def _reasons(self, run: Run) -> str:
        found = rejections(account(run.ledger, self._prints))
        return ", ".join(f"{n} × {reason}" for reason, n in found.items()) or "nothing was given"

    def _shards(self, run: Run, dyads: dict[str, Artifact], codec: Artifact) -> Manifest:
        if not dyads:
            raise RunFailed(f"no window is left to train on ({self._reasons(run)}); see `visavis status {self.root}`")
        plain = {key: load_plain(partial(run.store.read_head, a.path))[0] for key, a in dyads.items()}
        summaries = [_summary(p) for p in plain.values()]
        planned, plan = plan_windows(summaries, self.config.balance)
        train = {e.conversation for e in planned if e.split == "train"}
        mean, std = _scale([m for key in sorted(train) for m in plain[key]["moments"]])
        spec = motion_spec(load_rows(run.store.read(codec.path), Codec)[0].id, len(mean), mean, std)
        tasks = []
        for shard in plan_shards(planned, spec.dim, self.config.shard):
            inline = shard.model_dump(mode="json", exclude={"dyads"})
            keys = sorted({pick.conversation for pick in shard.picks})
            key = shard.path.removesuffix(".tar").replace("/", "-")
            inputs = {"dyads": tuple(dyads[k] for k in keys)}
            files = (f"{DATASET}/{shard.path}",)
            tasks.append(self._task("shard", key, shard.path, inputs, codec.digest, inline=inline, files=files))
        if run.pending(self._stages.shard, tasks):  # what is about to change is no dataset until it is whole again
            run.store.delete(f"{DATASET}/{MANIFEST_NAME}")
        done = run.execute(self._stages.shard, tasks)
        if len(done) < len(tasks):
            raise RunFailed(f"{len(tasks) - len(done)} shards could not be written; see `visavis status {self.root}`")
        entries = tuple(load_rows(run.store.read(a.path), ShardRow)[0].entry for a in done.values())
        manifest = Manifest(
            kind="windows",
            fingerprint=self._prints["shard"],
            fps=FPS,
            sample_rate=SAMPLE_RATE,
            window=self.config.windows.length,
            motion=spec,
            conversations=len(summaries),
            participants=len({name for s in summaries for name in s.participants}),
            plan=plan,
            shards=entries,
        )
        publish(run, manifest)
        return manifest


class _Stages:
    """The stages of a build, made from its config."""

    def __init__(self, config: BuildConfig, dataset: str) -> None:
        self.ingest = IngestStage(config.ingest)
        self.diarize = DiarizeStage(config.diarize)
        self.transcribe = TranscribeStage(config.transcribe)
        self.faces = FacesStage(config.faces)
        self.bind = BindStage(config.bind)
        self.fit = FitStage(config.motion)
        self.motion = MotionStage()
        self.windows = WindowsStage(config.windows)
        self.shard = ShardStage(config.shard, dataset)


def _fingerprints(config: BuildConfig) -> dict[str, str]:
    """Each stage's settings together with those of the stages before it."""
    prints: dict[str, str] = {}

    def add(stage: type[AnyStage], settings: Section, *upstream: str) -> None:
        prints[stage.name] = fingerprint(stage, settings, *(prints[name] for name in upstream))

    add(IngestStage, config.ingest)
    add(DiarizeStage, config.diarize, "ingest")
    add(TranscribeStage, config.transcribe, "diarize")
    add(FacesStage, config.faces, "ingest")
    add(BindStage, config.bind, "diarize", "faces")
    add(FitStage, config.motion, "bind")
    add(MotionStage, Section(), "bind")
    add(WindowsStage, config.windows, "motion", "diarize")
    add(ShardStage, _ShardSettings(shard=config.shard, balance=config.balance), "windows")
    return prints


class _ShardSettings(Section):
    shard: ShardConfig
    balance: BalanceConfig


_EDGES: tuple[tuple[type[AnyStage], str, type[AnyStage]], ...] = (
    (DiarizeStage, WHOLE, IngestStage),
    (TranscribeStage, "conversation", IngestStage),
    (TranscribeStage, "diarization", DiarizeStage),
    (BindStage, "conversation", IngestStage),
    (BindStage, "diarization", DiarizeStage),
    (BindStage, "faces", FacesStage),
    (FitStage, "bindings", BindStage),
    (FitStage, "faces", FacesStage),
    (MotionStage, "binding", BindStage),
    (MotionStage, "faces", FacesStage),
    (WindowsStage, "conversation", IngestStage),
    (WindowsStage, "diarization", DiarizeStage),
    (WindowsStage, "binding", BindStage),
    (WindowsStage, "motion", MotionStage),
    (ShardStage, "dyads", WindowsStage),
)
"""(stage, field of its In, stage that makes what goes there)."""


def check_chain() -> None:
    """Assert that what a stage takes is what the stage before it makes, before anything starts."""
    for stage, name, source in _EDGES:
        takes, makes = stage.types()[0], source.types()[1]
        wanted: Any = takes if name == WHOLE else takes.model_fields[name].annotation
        if get_origin(wanted) is tuple:
            wanted = get_args(wanted)[0]
        if wanted is not makes:
            raise TypeError(f"{stage.name}.{name} takes {wanted.__name__}, but {source.name} makes {makes.__name__}")


def publish(run: Run, manifest: Manifest) -> None:
    """The manifest last, and only if it changed; then shards that it no longer names are removed."""
    data = dump_manifest(manifest)
    path = f"{DATASET}/{MANIFEST_NAME}"
    if not run.store.exists(path) or run.store.read(path) != data:
        run.store.write(path, data)
    named = {entry.path for entry in manifest.shards}
    for split in ("train", "val"):
        for name in run.store.list(f"{DATASET}/{split}", ".tar"):
            if f"{split}/{name}" not in named:
                run.store.delete(f"{DATASET}/{split}/{name}")


def _summary(plain: dict[str, Any]) -> DyadSummary:
    windows = tuple(Window.model_validate(w) for w in plain["windows"])
    one, other = plain["participants"]
    return DyadSummary(plain["conversation"], (one, other), windows)


def _scale(moments: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the motion over the training split."""
    total = np.sum(np.array(moments, np.float64), axis=0)
    dim = (len(total) - 1) // 2
    mean = total[1 : 1 + dim] / total[0]
    variance = total[1 + dim :] / total[0] - mean**2
    return mean, np.sqrt(np.clip(variance, 1e-8, None))


def _identity(conversation: Conversation) -> str:
    """Digest of what a conversation is, wherever its files lie: moving a corpus redoes nothing but ingest."""
    media = tuple(m.model_copy(update={"uri": ""}) for m in conversation.media)
    return content_digest(dump_rows([conversation.model_copy(update={"media": media})]))


def _name(conversation: Conversation) -> str:
    return " + ".join(PurePosixPath(m.uri).name for m in conversation.media)


def _read_codec(path: str) -> bytes:
    name = PurePosixPath(path)
    try:
        return Store(str(name.parent)).read(name.name)
    except FileNotFoundError as error:
        raise UsageError(f"motion.codec: {path}: no such file") from error
