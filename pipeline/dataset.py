"""From dyads to a dataset: the balance plan, the shards, and the manifest last."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from pipeline.run import Run
from pipeline.task import Artifact, Task
from schemas import FPS, SAMPLE_RATE
from schemas.artifact import load_plain, load_rows
from schemas.config import BuildConfig
from schemas.errors import RunFailed
from schemas.manifest import MANIFEST_NAME, Manifest, dump_manifest
from schemas.rows import Codec, Window
from stages.balance import DyadSummary, plan_windows
from stages.motion import motion_spec
from stages.shard import ShardRow, plan_shards

DATASET = "dataset"


def build_dataset(
    run: Run,
    dyads: Mapping[str, Artifact],
    codec: Artifact,
    config: BuildConfig,
    shard_task: Callable[..., Task],
    fingerprint: str,
) -> Manifest:
    """Plan, write and publish the shards of `dyads` (artifacts by conversation).

    Args:
        shard_task: makes a task of the shard stage from its key, what people call it, and a `Task`'s other fields.

    Raises:
        RunFailed: a shard could not be written.
    """
    plain = {key: load_plain(partial(run.store.read_head, a.path))[0] for key, a in dyads.items()}
    summaries = [_summary(p) for p in plain.values()]
    planned, plan = plan_windows(summaries, config.balance)
    train = {e.conversation for e in planned if e.split == "train"}
    mean, std = _scale([m for key in sorted(train) for m in plain[key]["moments"]])
    spec = motion_spec(load_rows(run.store.read(codec.path), Codec)[0].id, len(mean), mean, std)
    tasks = []
    for shard in plan_shards(planned, spec.dim, config.shard):
        keys = sorted({pick.conversation for pick in shard.picks})
        tasks.append(
            shard_task(
                shard.path.removesuffix(".tar").replace("/", "-"),
                shard.path,
                inputs={"dyads": tuple(dyads[key] for key in keys)},
                inline=shard.model_dump(mode="json", exclude={"dyads"}),
                files=(f"{DATASET}/{shard.path}",),
                seconds=len(shard.picks) * config.windows.length / FPS,
            )
        )
    entries = write_shards(run, "shard", tasks, ShardRow)
    manifest = Manifest(
        kind="windows",
        fingerprint=fingerprint,
        fps=FPS,
        sample_rate=SAMPLE_RATE,
        window=config.windows.length,
        motion=spec,
        conversations=len(summaries),
        participants=len({name for s in summaries for name in s.participants}),
        plan=plan,
        shards=tuple(row.entry for row in entries),
    )
    publish(run, manifest)
    return manifest


def write_shards(run: Run, name: str, tasks: Sequence[Task], kind: Any) -> list[Any]:
    """Carry out tasks that each write a shard, and give back their rows.

    Raises:
        RunFailed: one of them could not be written.
    """
    if run.pending(tasks):  # what is about to change is no dataset until it is whole again
        run.store.delete(f"{DATASET}/{MANIFEST_NAME}")
    done = run.execute(name, tasks)
    if len(done) < len(tasks):
        raise RunFailed(f"{len(tasks) - len(done)} shards could not be written; see `visavis status {run.root}`")
    return [load_rows(run.store.read(artifact.path), kind)[0] for artifact in done.values()]


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


def _summary(plain: Mapping[str, Any]) -> DyadSummary:
    windows = tuple(Window.model_validate(w) for w in plain["windows"])
    one, other = plain["participants"]
    return DyadSummary(plain["conversation"], (one, other), windows)


def _scale(moments: Iterable[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the motion over the training split."""
    total = np.sum(np.array(list(moments), np.float64), axis=0)
    dim = (len(total) - 1) // 2
    mean = total[1 : 1 + dim] / total[0]
    variance = total[1 + dim :] / total[0] - mean**2
    return mean, np.sqrt(np.clip(variance, 1e-8, None))
