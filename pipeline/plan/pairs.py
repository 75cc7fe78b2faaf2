"""Building a set of preference pairs, around `stages.pairs`: tasks, what came of them, and the manifest.

A set of pairs is a dataset like any other, with its own manifest, in a run's folder of its own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from visavis.pipeline.engine.executor import Engine
from visavis.pipeline.engine.paths import in_full
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.engine.run import Run, fingerprint
from visavis.pipeline.plan.dataset import codec_entry, count_labels, files_of, publish, shard_path, write_shards
from visavis.pipeline.plan.file_names import DATASET
from visavis.pipeline.plan.pairs_order import Order, PairsRequest, check_pairs
from visavis.pipeline.plan.run_folder import opened
from visavis.pipeline.state.tasks import (
    ARTIFACT_SUFFIX,
    PAIRS,
    REFERENCE,
    SAMPLING,
    Artifact,
    Task,
    artifact_path,
    content_digest,
)
from visavis.schemas.artifact import dump_rows
from visavis.schemas.config import RunConfig
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import RunFailed
from visavis.schemas.manifest import SCHEMA_VERSION, Histogram, Manifest, PairsInfo
from visavis.schemas.markers import shaping
from visavis.schemas.rows import Row
from visavis.schemas.sampling import Sampling
from visavis.schemas.storage.store import Store
from visavis.schemas.words import in_words
from visavis.stages.face.decode import read_file
from visavis.stages.pairing.gate import histograms
from visavis.stages.pairing.reference_statistics import learn_from
from visavis.stages.pairing.shortfall import shortfall
from visavis.stages.pairs import PairsPlan, PairsRow, PairsStage

_SECONDS_PER_MOTION = 5.0  # that sampling one may take, as media time in time limits


@dataclass(frozen=True)
class PairsSummary:
    """What came of the windows that were looked at: so many passed over as too little expressive, so many pairs tried
    and kept."""

    dataset: str
    windows: int
    passed_over: int
    tried: int
    kept: int
    gated: dict[str, int]
    figures: dict[str, Histogram]
    shortfall: dict[str, float | None]
    sampling: tuple[Sampling, ...]
    processed: int


class NothingLeft(RunFailed):
    """There is no pair, and what to do."""

    def __init__(self, summary: PairsSummary) -> None:
        super().__init__(nothing_left(summary))
        self.summary = summary


def build_pairs(
    request: PairsRequest, root: str, engine: Engine, reporter: Reporter, *, reconfigure: bool = False
) -> PairsSummary:
    """Make pairs in a run's folder.

    Raises:
        UsageError: as `check_pairs`, or the folder is in use.
        RunFailed: too many failures; NothingLeft: no pair.
    """
    root = in_full(root)
    order = check_pairs(request.in_full())
    print_ = _fingerprint(order)
    stage = order.stage(f"{root.rstrip('/')}/{DATASET}", record=(root, f"artifacts/{SAMPLING}/{print_}.json"))
    limits = RunConfig(max_failure_share=0.0)
    settings = _settings(order, print_)
    with opened(root, engine, {stage.name: stage}, limits, settings, reporter, reconfigure=reconfigure) as run:
        tasks = _tasks(run, order, print_)
        rows, before = write_shards(run, PAIRS, lambda: tasks, PairsRow)
        summary = _summary(run, order, rows)
        if summary.kept == 0:
            raise NothingLeft(summary)
        codec = read_file(Store(order.dataset.location), order.dataset.manifest.codec)
        publish(run, _manifest(order, rows, print_, summary, codec), codec, before)
    return summary


def _fingerprint(order: Order) -> str:
    """Of all that shapes the pairs. A checkpoint names its encoder's weights by their digest."""
    origin = order.origin
    parts = origin.dataset, origin.generator, origin.rejected_generator, origin.scorer
    return fingerprint(PairsStage, order.config, *parts)


def _settings(order: Order, print_: str) -> dict[str, Any]:
    """What the run's folder remembers of the request."""
    request, origin = order.request, order.origin
    digests = {name: getattr(origin, name) for name in ("generator", "rejected_generator", "dataset", "scorer")}
    return {
        "config": shaping(request.config) | digests,
        "fingerprints": {PAIRS: print_},
        "places": {
            "dataset": request.dataset,
            "checkpoint": request.checkpoint,
            "rejected_checkpoint": request.config.rejected_checkpoint,
            "scorer": request.config.scorer,
            "scores": request.config.scores,
        },
    }


_ADVICE = {
    "not_finite": "look at the checkpoint's training (metrics.jsonl), or use an earlier checkpoint",
    "not_measured": "the avatar's face is seen in too few frames of these windows; use others (classes, --limit)",
    "too_similar": "leave less to the rejected motion (--set rejected_conditions=none), or lower gate.min_distance",
    "broken_motion": "the model's motion shakes, as that of a young model does: train it for longer; or raise"
    " gate.max_jerk_ratio",
    "off_manifold": "the model moves as nobody in the dataset does, as a young model does: train it for longer; or"
    " raise gate.max_off_manifold",
    "not_less_reactive": "the rejected motion reacts to its user as well as the chosen one: where chosen is recorded,"
    " use another class or more windows; where it is generated, train the model for longer",
    "too_few_votes": "more people have to vote, or lower votes.min_votes",
    "no_agreement": "people do not agree; lower votes.min_share",
    "not_scored": "the file of scores names other keys than those of these pairs",
    "not_scored_higher": "the scorer does not prefer the chosen motion; lower gate.min_score_margin, or reject another",
    "less_motion_energy": "lower gate.min_energy_margin",
}
"""What to do, by the reason for which most pairs are left out."""


def nothing_left(summary: PairsSummary) -> str:
    """Why there is no pair, and what to do."""
    if not summary.gated:
        return (
            f"all {summary.windows} windows were passed over, as without the labels of where or too little expressive;"
            " want other labels, or lower min_expressiveness"
        )
    most = min(summary.gated, key=lambda reason: (-summary.gated[reason], reason))
    return f"the gate left none of {summary.tried} pairs: {in_words(summary.gated)}; {_ADVICE[most]}"


def _tasks(run: Run, order: Order, print_: str) -> list[Task]:
    references = {label: _reference(run, order, label) for label in order.classes}
    ballots = order.request.ballots.pairs if order.request.ballots else {}
    voted = {path: {"voted": (_stored(run, each),)} for path, each in ballots.items()}
    motions = 2 if order.config.chosen == "full" else 1

    def task(item: PairsPlan) -> Task:
        name = item.path.removesuffix(".tar")
        item = item.model_copy(update={"path": shard_path(name, print_, item.model_dump(mode="json"))})
        key = name.replace("/", "-")
        return Task(
            stage=PAIRS,
            key=key,
            item=item.path,
            path=artifact_path(PAIRS, PairsStage.version, print_, key),
            fingerprint=print_,
            inputs={"reference": (references[item.source.label],), **voted.get(item.source.path, {})},
            inline=item.model_dump(mode="json"),
            files=files_of(item.path, faces=item.source.faces is not None),
            seconds=_SECONDS_PER_MOTION * motions * order.config.per_window * (item.last - item.first),
        )

    return [task(item) for item in order.planned]


def _reference(run: Run, order: Order, label: WindowClass) -> Artifact:
    return _stored(run, learn_from(order.dataset, label, order.config))


def _stored(run: Run, row: Row) -> Artifact:
    """What tasks take, under the name of its content."""
    data = dump_rows([row])
    artifact = Artifact(f"artifacts/{REFERENCE}/{content_digest(data)}{ARTIFACT_SUFFIX}", content_digest(data))
    if not run.store.exists(artifact.path):
        run.store.write(artifact.path, data)
    return artifact


def _summary(run: Run, order: Order, rows: list[PairsRow]) -> PairsSummary:
    gated = sum((Counter(row.gated) for row in rows), Counter[str]())
    named = order.ranges
    if order.request.ballots is not None:
        gated += Counter(order.request.ballots.left_out)
    figures = {name: np.sum([row.figures[name] for row in rows], axis=0) for name in named}
    kept = sum(row.entry.samples for row in rows)
    return PairsSummary(
        dataset=f"{run.root.rstrip('/')}/{DATASET}",
        windows=order.windows,
        passed_over=sum(row.passed_over for row in rows),
        tried=kept + gated.total(),
        kept=kept,
        gated=dict(sorted(gated.items())),
        figures=histograms(figures, named),
        shortfall=shortfall(row.responses for row in rows),
        sampling=tuple(sorted({row.sampling for row in rows if row.sampling}, key=str)),
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
        "labels": count_labels(rows),
        "pairs": PairsInfo(
            **dict(order.origin),
            **{
                name: getattr(summary, name)
                for name in ("windows", "passed_over", "kept", "gated", "figures", "shortfall", "sampling")
            },
            **{name: getattr(config, name) for name in ("seeds", "classes", "min_expressiveness")},
            audio=order.heard[0],
            rejected_audio=order.heard[1],
            gate=config.gate.model_dump(),
        ),
    }
    return source.manifest.model_copy(update=made)
