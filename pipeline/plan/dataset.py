"""From dyads to a dataset: the census, the balance plan, the shards, and the manifest last.

A corpus has a thousand windows an hour and more. The driver only knows how many of which class each dyad has, 56 bytes
each; the windows themselves are looked at by the workers that count them and write them.

Two runs may be at it in one folder at once. A shard is named by what its bytes depend on, so that those of two plans
lie side by side; the manifest is created, never replaced: who comes second with another one is told so in a line.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from visavis.pipeline.engine.run import Run, made_of
from visavis.pipeline.plan.file_names import DATASET, named_files, unnamed_files
from visavis.pipeline.plan.graph import Graph, Settings
from visavis.pipeline.plan.workflow import MakeTask
from visavis.pipeline.state.index import parse_facts
from visavis.pipeline.state.tasks import CENSUS, Artifact, Task, content_digest
from visavis.schemas import FPS, SAMPLE_RATE
from visavis.schemas.artifact import dump_rows, load_row
from visavis.schemas.dyads import Census, Codec, DyadFacts, WindowClass
from visavis.schemas.errors import RunFailed
from visavis.schemas.manifest import (
    MANIFEST_NAME,
    FileEntry,
    Manifest,
    MotionColumn,
    MotionSpec,
    ShardEntry,
    Split,
    dump_manifest,
    faces_path,
)
from visavis.schemas.plain import to_json
from visavis.schemas.storage.store import Store
from visavis.schemas.words import counted
from visavis.stages.balance import held_out, name_number, plan_balance
from visavis.stages.census import merge, scale
from visavis.stages.face.codec import motion_spec, named_columns
from visavis.stages.shard import ShardRow, Slice, capacity, cut_series

_MANIFEST = f"{DATASET}/{MANIFEST_NAME}"
_CENSUS = f"artifacts/{CENSUS}"
_CENSUS_CHUNK = 256  # dyads that one task counts

_DYAD = np.dtype(
    [("id", "u8"), ("digest", "u8"), ("voices", "u8"), ("names", "u8", 2), ("windows", "u4", len(WindowClass))]
)


@dataclass(frozen=True)
class Dyads:
    """The dyads of a corpus as columns, by id, and how to find their artifacts and those of their voices."""

    rows: np.ndarray
    path_of: Callable[[str], str]
    voices_path_of: Callable[[str], str]

    def __len__(self) -> int:
        return len(self.rows)

    def artifact(self, identity: str) -> Artifact:
        return Artifact(self.path_of(identity), f"{int(self._row(identity)['digest']):016x}")

    def voices(self, identity: str) -> Artifact:
        return Artifact(self.voices_path_of(identity), f"{int(self._row(identity)['voices']):016x}")

    def _row(self, identity: str) -> np.void:
        row: np.void = self.rows[np.searchsorted(self.rows["id"], np.uint64(int(identity, 16)))]
        return row


def collect(
    made: Iterable[tuple[str, Artifact, Artifact]], path_of: Callable[[str], str], voices_path_of: Callable[[str], str]
) -> Dyads:
    """Dyads as they are made: conversation, what became of its windows, and its voices."""

    def plain(identity: str, dyad: Artifact, voices: Artifact) -> tuple[Any, ...]:
        facts = parse_facts(dyad.facts, DyadFacts)
        one, other = facts.participants
        names = (name_number(one), name_number(other))
        return int(identity, 16), int(dyad.digest, 16), int(voices.digest, 16), names, facts.windows

    rows = np.fromiter((plain(*dyad) for dyad in made), _DYAD)
    return Dyads(rows[np.argsort(rows["id"])], path_of, voices_path_of)


class Labelled(Protocol):
    """What writes a shard says of it."""

    @property
    def entry(self) -> ShardEntry: ...

    @property
    def labels(self) -> dict[str, int]: ...


@dataclass(frozen=True)
class MotionKind:
    """What the motion of a dataset is.

    digest: of all that it depends on beside the windows. spec: what the manifest says, of its mean and deviation.
    decoder: bytes of its codec; None of coefficients, which have none.
    """

    digest: str
    spec: Callable[[np.ndarray, np.ndarray], MotionSpec]
    columns: Callable[[MotionSpec], tuple[MotionColumn, ...]]
    decoder: bytes | None = None


def landmark_motion(store: Store, codec: Artifact) -> MotionKind:
    """Motion of a codec that a build fitted or was given."""
    decoder = store.read(codec.path)
    fitted = load_row(decoder, Codec)
    return MotionKind(
        digest=codec.digest,
        spec=lambda mean, std: motion_spec(fitted.id, len(mean), mean, std),
        columns=lambda _: named_columns(fitted),
        decoder=decoder,
    )


def build_dataset(
    run: Run,
    dyads: Dyads,
    motion: MotionKind,
    config: Settings,
    task: MakeTask,
    graph: Graph,
    held: np.ndarray | None = None,
) -> Manifest:
    """Plan, write and publish the shards of `dyads`.

    Args:
        held: bool, which are held out; None: by participant (`balance.val_share`).

    Raises:
        RunFailed: a part could not be counted, or a shard not be written; or another run was faster.
    """
    held = held_out(dyads.rows["names"], config.balance.val_share) if held is None else held
    described = np.ones(len(held), bool) if held.all() else ~held  # a test set alone is described by itself
    takes = graph.steps["shard"].takes
    census, whole = _take_census(run, dyads, dyads.rows["id"][described], task, graph)
    print_ = graph.fingerprints["shard"]
    spec = motion.spec(*scale(whole))
    room = capacity(config.windows.length, spec.dim, config.shard)

    def tasks() -> Iterator[Task]:
        for split, label, number, slices in _shards(dyads, held, room):
            name = f"{split}/{label.value}-{number:06d}"
            parts = [part.model_dump() for part in slices]
            drawn = config.balance.dull_keep, *([config.balance.labels] if config.balance.labels else [])
            path = shard_path(name, print_, motion.digest, census.digest, *drawn, parts)
            windows = sum(part.count for part in slices)
            yield task(
                "shard",
                name.replace("/", "-"),
                path,
                graph.steps["shard"].inputs(
                    {
                        takes["dyads"]: [dyads.artifact(part.conversation) for part in slices],
                        takes["voices"]: [dyads.voices(part.conversation) for part in slices],
                        takes["census"]: [census],
                    }
                ),
                inline={
                    "path": path,
                    "split": split,
                    "label": label,
                    "slices": parts,
                    "dull_keep": config.balance.dull_keep,
                    "emphasis": config.balance.labels,
                },
                files=files_of(path, faces=motion.decoder is not None),
                seconds=windows * config.windows.length / FPS,
            )

    rows, before = write_shards(run, "shard", tasks, ShardRow)
    windows = {label: int(n) for label, n in zip(WindowClass, dyads.rows["windows"][described].sum(0), strict=True)}
    kept = dict.fromkeys(WindowClass, 0.0)
    for row in rows:
        if row.entry.split == "train" or held.all():
            kept[row.entry.label] += row.weight
    manifest = Manifest(
        kind="windows",
        fingerprint=print_,
        fps=FPS,
        sample_rate=SAMPLE_RATE,
        window=config.windows.length,
        motion=spec,
        columns=motion.columns(spec),
        codec=codec_entry(motion.decoder) if motion.decoder else None,
        conversations=len(dyads),
        participants=len(np.unique(dyads.rows["names"])),
        plan=plan_balance(
            {label: n * config.windows.length / FPS for label, n in windows.items()},
            {label: kept[label] / n if n else 0.0 for label, n in windows.items()},
            config.balance,
        ),
        shards=tuple(row.entry for row in rows),
        labels=count_labels(rows),
    )
    publish(run, manifest, motion.decoder, before)
    return manifest


def count_labels(rows: Iterable[Labelled]) -> dict[str, dict[Split, int]] | None:
    """Samples of each split by label; None where nobody looked."""
    found: dict[str, dict[Split, int]] = {}
    for row in rows:
        for label, count in row.labels.items():
            of = found.setdefault(label, {"train": 0, "val": 0})
            of[row.entry.split] += count
    return dict(sorted(found.items())) or None


def shard_path(name: str, *content: Any) -> str:
    """A shard's path in the dataset. content: plain data on which its bytes depend.

    What depends on where a corpus lies must not be among it, or a copy would have other names.
    """
    return f"{name}-{content_digest(to_json(content).encode())[:8]}.tar"


def files_of(shard: str, *, faces: bool = True) -> tuple[str, ...]:
    """What the task that writes a shard leaves in the run's folder beside its artifact."""
    return (f"{DATASET}/{shard}", *([f"{DATASET}/{faces_path(shard)}"] if faces else []))


def codec_entry(data: bytes) -> FileEntry:
    """The codec's file as the manifest names it."""
    digest = hashlib.sha256(data).hexdigest()
    return FileEntry(path=f"codec-{digest[:8]}.safetensors", bytes=len(data), sha256=digest)


def write_shards(
    run: Run, name: str, tasks: Callable[[], Iterable[Task]], kind: type[Any]
) -> tuple[list[Any], bytes | None]:
    """Carry out tasks that each write a shard and whose facts are their row.

    Args:
        tasks: makes them, anew for each look at them: a large corpus has hundreds of thousands.

    Returns:
        The rows in their order; and the manifest that stood there, which `publish` may replace.

    Raises:
        RunFailed: one of them could not be written.
    """
    if run.pending(tasks()):  # what is about to change is no dataset until it is whole again
        run.store.delete(_MANIFEST)
    before = _read(run.store, _MANIFEST)
    done = run.execute(name, tasks(), sum(1 for _ in tasks()))
    failed = sum(made is None for made in done.values())
    if failed:
        raise RunFailed(f"{counted(failed, 'shard')} could not be written; see `visavis status {run.root}`")
    return [parse_facts(made.facts, kind) for made in made_of(done)], before


def publish(run: Run, manifest: Manifest, codec: bytes | None, before: bytes | None) -> None:
    """The codec, and the manifest last; then files that it does not name are removed.

    Args:
        before: the manifest that may be replaced; any other one is of a run that was faster.

    Raises:
        RunFailed: of another run, that published or removed shards of this one meanwhile. The folder holds the
            dataset of one of them, or none.
    """
    data, store = dump_manifest(manifest), run.store
    if codec is not None and manifest.codec is not None and not store.exists(f"{DATASET}/{manifest.codec.path}"):
        store.write(f"{DATASET}/{manifest.codec.path}", codec)
    there = set(store.names(DATASET))
    if missing := named_files(manifest) - there:
        raise RunFailed(f"{run.root}: another run removed {min(missing)} meanwhile; let it end, then run again")
    if before not in (None, data) and _read(store, _MANIFEST) == before:
        store.delete(_MANIFEST)
    if not store.create(_MANIFEST, data) and _read(store, _MANIFEST) != data:
        raise RunFailed(f"{run.root}: another run published its dataset meanwhile; run again to publish this one")
    for path in unnamed_files(there, manifest):
        store.delete(f"{DATASET}/{path}")


def _read(store: Store, path: str) -> bytes | None:
    return store.read(path) if store.exists(path) else None


def read_made(store: Store, artifact: Artifact) -> bytes:
    """An artifact that is of many conversations: its name does not say of which, and another run may have others.

    Raises:
        RunFailed: it is not the one that was made. It is removed, and made anew next time.
    """
    data = store.read(artifact.path)
    if content_digest(data) != artifact.digest:
        store.delete(artifact.path)
        raise RunFailed(f"{store.root}: another run wrote over {artifact.path} meanwhile; run again")
    return data


def buckets_of(numbers: np.ndarray, chunk: int, least: int = 1) -> dict[str, np.ndarray]:
    """Cut a set of hashes into a power of two of buckets of about `chunk` each, by their last bits, with a name each.

    A corpus that grows changes few of them. Empty ones are left out.
    """
    buckets = 1 << max(least - 1, (len(numbers) - 1) // chunk).bit_length()
    bucket = (numbers % np.uint64(buckets)).astype(np.int64)
    order = np.argsort(bucket, kind="stable")
    parts = np.split(numbers[order], np.flatnonzero(np.diff(bucket[order])) + 1)
    return {f"{buckets}-{int(part[0]) % buckets:06d}": part for part in parts if len(part)}


def _take_census(run: Run, dyads: Dyads, train: np.ndarray, task: MakeTask, graph: Graph) -> tuple[Artifact, Census]:
    """Count the dyads of these ids. Returns the sum, and where it is kept for those who write the shards."""
    source = graph.steps["census"].takes["dyads"]
    tasks = [
        task(
            "census",
            name,
            counted(len(part), "conversation"),
            graph.steps["census"].inputs({source: [dyads.artifact(f"{number:016x}") for number in part.tolist()]}),
        )
        for name, part in buckets_of(train, _CENSUS_CHUNK).items()
    ]
    done = run.execute("census", tasks, len(tasks))
    if None in done.values():
        raise RunFailed(f"the census could not be taken; see `visavis status {run.root}`")
    whole = merge(load_row(read_made(run.store, made), Census) for _, made in sorted(done.items()) if made)
    data = dump_rows([whole])
    artifact = Artifact(f"{_CENSUS}/{content_digest(data)}.safetensors", content_digest(data))
    if not run.store.exists(artifact.path):
        run.store.write(artifact.path, data)
    return artifact, whole


def _shards(dyads: Dyads, held: np.ndarray, room: int) -> Iterator[tuple[Split, WindowClass, int, tuple[Slice, ...]]]:
    """Every shard of every series (split, class): number and content."""
    sides: tuple[tuple[Split, np.ndarray], ...] = (("train", dyads.rows[~held]), ("val", dyads.rows[held]))
    for split, rows in sides:
        ids = rows["id"].tolist()
        for label, counts in zip(WindowClass, rows["windows"].T, strict=True):
            # By id, which is a hash: neighbours in the list of inputs do not share shards.
            series = ((f"{identity:016x}", count) for identity, count in zip(ids, counts.tolist(), strict=True))
            for number, slices in enumerate(cut_series(series, room)):
                yield split, label, number, slices
