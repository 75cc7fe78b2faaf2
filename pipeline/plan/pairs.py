"""Building a set of preference pairs: the run machinery around `stages.pairs`.

A set of pairs is a dataset like any other, with its own manifest, in a run's folder of its own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from visavis.pipeline.engine.executor import Engine
from visavis.pipeline.engine.paths import in_full, pairs_for_workers
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.engine.run import Run, fingerprint
from visavis.pipeline.plan.dataset import codec_entry, files_of, publish, shard_path, write_shards
from visavis.pipeline.plan.file_names import DATASET
from visavis.pipeline.plan.run_folder import opened
from visavis.pipeline.state.tasks import Artifact, Task, artifact_path, content_digest
from visavis.schemas.artifact import dump_rows
from visavis.schemas.config import RunConfig
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import RunFailed, UsageError
from visavis.schemas.manifest import SCHEMA_VERSION, AudioSpec, Histogram, Manifest, PairsInfo
from visavis.schemas.pairs import PairsConfig
from visavis.schemas.storage.store import Store
from visavis.schemas.words import in_words
from visavis.stages.face.decode import read_file
from visavis.stages.pairing.gate import RANGES, histograms
from visavis.stages.pairs import PairsPlan, PairsRow, PairsStage, learn_from, plan_pairs
from visavis.training.candidates import DROPPED, check_checkpoints
from visavis.training.dataset import Dataset

_SECONDS_PER_SIDE = 5.0  # that sampling one may take, as media time in time limits
_PLACES = {"device", "resources", "encoder", "rejected_encoder", "rejected_checkpoint"}
"""Settings that say where something lies or runs, and may change."""


@dataclass(frozen=True)
class PairsSummary:
    """What came of the windows that were looked at: so many passed over as dull, so many pairs tried and kept."""

    dataset: str
    windows: int
    passed_over: int
    tried: int
    kept: int
    gated: dict[str, int]
    figures: dict[str, Histogram]
    processed: int


@dataclass(frozen=True)
class Order:
    """What is to be made, checked: of which windows, by whom."""

    dataset: Dataset
    checkpoint: str
    config: PairsConfig
    planned: list[PairsPlan]
    digests: tuple[str, str]  # who the pairs are for, and who makes the losing side
    heard: tuple[AudioSpec, AudioSpec]

    @property
    def windows(self) -> int:
        return sum(item.last - item.first for item in self.planned)

    @property
    def classes(self) -> tuple[WindowClass, ...]:
        """Those that there are any windows of."""
        return tuple(dict.fromkeys(item.source.label for item in self.planned))


def check_pairs(dataset: str, checkpoint: str, config: PairsConfig, limit: int | None = None) -> Order:
    """See that there is something to do, and everything to do it with.

    Raises:
        UsageError: no such dataset or checkpoint, another codec, or nothing to pair.
    """
    source = Dataset(dataset)
    digests, heard = check_checkpoints(config, checkpoint, source.manifest.motion)
    planned = plan_pairs(source, config, limit)
    if not planned:
        raise UsageError(f"{dataset} has no training windows of class {', '.join(config.classes)} to make pairs from")
    return Order(source, checkpoint, config, planned, digests, heard)


def build_pairs(
    dataset: str,
    checkpoint: str,
    root: str,
    config: PairsConfig,
    engine: Engine,
    reporter: Reporter,
    *,
    limit: int | None = None,
    reconfigure: bool = False,
) -> PairsSummary:
    """Make pairs of a dataset's training windows with a checkpoint's model.

    Raises:
        UsageError: as `check_pairs`, or the folder is in use.
        RunFailed: too many failures, or the gate left nothing.
    """
    root, dataset, checkpoint = in_full(root), in_full(dataset), in_full(checkpoint)
    order = check_pairs(dataset, checkpoint, config, limit)
    places = dict.fromkeys(("encoder", "rejected_encoder", "rejected_checkpoint"))  # their digests shape the pairs
    shaping = config.model_copy(update=places)
    print_ = fingerprint(PairsStage, shaping, order.dataset.hash, *order.digests)
    stage = PairsStage(pairs_for_workers(config), dataset, checkpoint, f"{root.rstrip('/')}/{DATASET}")
    settings = {
        "config": config.model_dump(mode="json", exclude=_PLACES)
        | {"generator": order.digests[0], "rejected_generator": order.digests[1], "dataset": order.dataset.hash},
        "fingerprints": {"pairs": print_},
        "places": {"dataset": dataset, "checkpoint": checkpoint, "rejected_checkpoint": config.rejected_checkpoint},
    }
    limits = RunConfig(max_failure_share=0.0)
    with opened(root, engine, {stage.name: stage}, limits, settings, reporter, reconfigure=reconfigure) as run:
        tasks = _tasks(run, order, print_)
        rows, before = write_shards(run, "pairs", lambda: tasks, PairsRow)
        summary = _summary(run, order, rows)
        if summary.kept == 0:
            raise RunFailed(nothing_left(summary))
        codec = read_file(Store(order.dataset.location), order.dataset.manifest.codec)
        publish(run, _manifest(order, rows, print_, summary, codec), codec, before)
    return summary


_ADVICE = {
    "not_finite": "look at the checkpoint's training (metrics.jsonl), or use an earlier checkpoint",
    "not_measured": "the avatar's face is seen in too few frames of these windows; use others (classes, --limit)",
    "too_similar": "leave the losing side with less (--set drop=none), or lower gate.min_distance",
    "broken_motion": "the model's motion shakes, as that of a young model does: train it for longer; or raise"
    " gate.max_jerk_ratio",
    "off_manifold": "the model moves as nobody in the dataset does, as a young model does: train it for longer; or"
    " raise gate.max_off_manifold",
    "not_less_reactive": "the losing side reacts to its user as well as the chosen one: where chosen is recorded, use"
    " another class or more windows; where it is generated, train the model for longer",
    "less_lively": "lower gate.min_energy_margin",
}
"""What to do, by the reason for which most pairs are left out."""


def nothing_left(summary: PairsSummary) -> str:
    """Why there is no pair, and what to do."""
    if not summary.gated:
        return f"all {summary.windows} windows were passed over as too little expressive; lower min_expressiveness"
    most = min(summary.gated, key=lambda reason: (-summary.gated[reason], reason))
    return f"the gate left none of {summary.tried} pairs: {in_words(summary.gated)}; {_ADVICE[most]}"


def _tasks(run: Run, order: Order, print_: str) -> list[Task]:
    yardsticks = {label: _yardstick(run, order, label) for label in order.classes}
    sides = 2 if order.config.chosen == "full" else 1

    def task(item: PairsPlan) -> Task:
        name = item.path.removesuffix(".tar")
        item = item.model_copy(update={"path": shard_path(name, print_, item.model_dump(mode="json"))})
        key = name.replace("/", "-")
        return Task(
            stage="pairs",
            key=key,
            item=item.path,
            path=artifact_path("pairs", PairsStage.version, print_, key),
            fingerprint=print_,
            inputs={"yardstick": (yardsticks[item.source.label],)},
            inline=item.model_dump(mode="json"),
            files=files_of(item.path, faces=item.source.faces is not None),
            seconds=_SECONDS_PER_SIDE * sides * order.config.per_window * (item.last - item.first),
        )

    return [task(item) for item in order.planned]


def _yardstick(run: Run, order: Order, label: WindowClass) -> Artifact:
    data = dump_rows([learn_from(order.dataset, label, order.config)])
    artifact = Artifact(f"artifacts/yardstick/{content_digest(data)}.safetensors", content_digest(data))
    if not run.store.exists(artifact.path):
        run.store.write(artifact.path, data)
    return artifact


def _summary(run: Run, order: Order, rows: list[PairsRow]) -> PairsSummary:
    gated = sum((Counter(row.gated) for row in rows), Counter[str]())
    figures = {name: np.sum([row.figures[name] for row in rows], axis=0) for name in RANGES}
    kept = sum(row.entry.samples for row in rows)
    return PairsSummary(
        dataset=f"{run.root.rstrip('/')}/{DATASET}",
        windows=order.windows,
        passed_over=sum(row.passed_over for row in rows),
        tried=kept + gated.total(),
        kept=kept,
        gated=dict(sorted(gated.items())),
        figures=histograms(figures),
        processed=run.processed,
    )


def _manifest(order: Order, rows: list[PairsRow], print_: str, summary: PairsSummary, codec: bytes | None) -> Manifest:
    source, config = order.dataset, order.config
    shares = Counter[str]()
    for row in rows:
        shares[row.entry.label] += row.entry.samples
    plan = source.manifest.plan.model_copy(
        update={"mixture": {label: round(shares[label] / summary.kept, 9) for label in source.manifest.plan.mixture}}
    )
    made: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "kind": "pairs",
        "codec": codec and codec_entry(codec),
        "fingerprint": print_,
        "plan": plan,
        "shards": tuple(row.entry for row in rows),
        "pairs": PairsInfo(
            dataset=source.hash,
            generator=order.digests[0],
            rejected_generator=order.digests[1],
            audio=order.heard[0],
            rejected_audio=order.heard[1],
            chosen=config.chosen,
            rejected=config.rejected,
            dropped=DROPPED[config.left],
            solver="euler",
            sampler=config.sampler,
            seeds=config.seeds,
            classes=config.classes,
            min_expressiveness=config.min_expressiveness,
            gate=config.gate.model_dump(),
            windows=summary.windows,
            passed_over=summary.passed_over,
            kept=summary.kept,
            gated=summary.gated,
            figures=summary.figures,
        ),
    }
    return source.manifest.model_copy(update=made)
