"""Building a set of preference pairs: what is asked for, checked and cut into tasks, around `stages.pairs`.

A set of pairs is a dataset like any other, with its own manifest, in a run's folder of its own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from visavis.pipeline.engine.executor import Engine
from visavis.pipeline.engine.paths import in_full, pairs_for_workers
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.engine.run import Run, fingerprint
from visavis.pipeline.plan.dataset import codec_entry, files_of, publish, shard_path, write_shards
from visavis.pipeline.plan.file_names import DATASET
from visavis.pipeline.plan.run_folder import opened
from visavis.pipeline.plan.score_files import read_scores
from visavis.pipeline.state.tasks import (
    ARTIFACT_SUFFIX,
    PAIRS,
    REFERENCE,
    Artifact,
    Task,
    artifact_path,
    content_digest,
)
from visavis.schemas.artifact import dump_rows
from visavis.schemas.config import RunConfig
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import RunFailed, UsageError
from visavis.schemas.manifest import SCHEMA_VERSION, AudioSpec, Histogram, Manifest, PairsInfo
from visavis.schemas.markers import shaping
from visavis.schemas.pairs import PairOrigin, PairsConfig
from visavis.schemas.rows import Row
from visavis.schemas.storage.store import Store
from visavis.schemas.words import in_words
from visavis.stages.face.decode import read_file
from visavis.stages.pairing.candidates import check_checkpoints
from visavis.stages.pairing.gate import Ranges, histograms, ranges
from visavis.stages.pairing.reference_statistics import learn_from, some_of
from visavis.stages.pairing.scoring import FunctionScorer, ReactivityScorer, Scorer
from visavis.stages.pairing.shortfall import shortfall
from visavis.stages.pairing.voted import Ballots
from visavis.stages.pairs import PairsPlan, PairsRow, PairsStage
from visavis.training.dataset import Dataset

_SECONDS_PER_MOTION = 5.0  # that sampling one may take, as media time in time limits
_TRIED = 16  # recorded windows that a function is tried on


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
    shortfall: dict[str, float]
    processed: int


class NothingLeft(RunFailed):
    """There is no pair, and what to do."""

    def __init__(self, summary: PairsSummary) -> None:
        super().__init__(nothing_left(summary))
        self.summary = summary


@dataclass(frozen=True)
class PairsRequest:
    """Pairs of a dataset's training windows, for a checkpoint's model; or those that people decided in a study.

    limit: windows at most; none: all.
    """

    dataset: str
    checkpoint: str
    config: PairsConfig
    limit: int | None = None
    ballots: Ballots | None = None

    def in_full(self) -> PairsRequest:
        """The same with paths that mean the same to every process."""
        return replace(self, dataset=in_full(self.dataset), checkpoint=in_full(self.checkpoint))


@dataclass(frozen=True)
class Order:
    """A request that was checked: of which windows pairs are made, by whom."""

    request: PairsRequest
    dataset: Dataset
    planned: list[PairsPlan]
    origin: PairOrigin
    heard: tuple[AudioSpec, AudioSpec]  # by the generator, and by that of the rejected motion
    scorer: Scorer | Ballots

    @property
    def config(self) -> PairsConfig:
        return self.request.config

    @property
    def windows(self) -> int:
        if self.request.ballots is not None:
            return self.request.ballots.windows
        return sum(item.last - item.first for item in self.planned)

    @property
    def ranges(self) -> Ranges:
        """Of the histograms of what is measured."""
        return ranges(self.scorer.apart)

    @property
    def classes(self) -> tuple[WindowClass, ...]:
        """Those that there are any windows of."""
        return tuple(dict.fromkeys(item.source.label for item in self.planned))

    def stage(self, out: str) -> PairsStage:
        """What makes the pairs, and writes them into a folder."""
        config = pairs_for_workers(self.config)
        scorer = replace(self.scorer, pairs={}) if isinstance(self.scorer, Ballots) else self.scorer
        return PairsStage(config, self.request.dataset, self.request.checkpoint, out, scorer)


def check_pairs(request: PairsRequest) -> Order:
    """See that there is something to do, and everything to do it with.

    Raises:
        UsageError: no such dataset or checkpoint, another codec, nothing to pair, or a scorer that does not work.
    """
    source, config = Dataset(request.dataset), request.config
    digests, heard = check_checkpoints(config, request.checkpoint, source.manifest.motion)
    if request.ballots is not None:
        origin = PairOrigin.of(config, source.hash, *digests, request.ballots.name)
        return Order(request, source, plan_voted(source, request.ballots), origin, heard, request.ballots)
    planned = plan_pairs(source, config, request.limit)
    if not planned:
        wanted = ", ".join(config.classes)
        raise UsageError(f"{request.dataset} has no training windows of class {wanted} to make pairs from")
    scorer = scorer_of(config, source, planned[0].source.label)
    return Order(request, source, planned, PairOrigin.of(config, source.hash, *digests, scorer.name), heard, scorer)


def scorer_of(config: PairsConfig, dataset: Dataset, label: WindowClass) -> Scorer:
    """Who scores, by the settings; a function is tried on recorded windows of a class.

    Raises:
        UsageError: it is not there, or does not work.
    """
    if config.scorer is not None:
        some = [dataset.decode(key, members) for key, members in some_of(dataset, label, _TRIED)]
        return FunctionScorer(config.scorer).tried(some)
    if config.scores is not None:
        return read_scores(config.scores)
    return ReactivityScorer()


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


def plan_voted(dataset: Dataset, ballots: Ballots) -> list[PairsPlan]:
    """A task for each shard of which people saw windows, of whatever split.

    Raises:
        UsageError: the study is of another dataset, or people decided nothing.
    """
    if ballots.dataset != dataset.hash:
        was, now = ballots.dataset[:12], dataset.hash[:12]
        raise UsageError(f"the study is of another dataset than {dataset.location}: its manifest is {was}, not {now}")
    if not ballots.pairs:
        why = in_words(dict(ballots.left_out)) or "no vote that counts"
        raise UsageError(f"people decided nothing in this study: {why}; lower votes.min_votes or votes.min_share")
    there = {entry.path: entry for entry in dataset.manifest.shards}
    if missing := next((path for path in ballots.pairs if path not in there), None):
        raise UsageError(f"the study is of shard {missing}, which {dataset.location} does not have")
    return [
        PairsPlan(source=there[path], first=0, last=there[path].samples, path=f"train/{path.replace('/', '-')}")
        for path in sorted(ballots.pairs)
    ]


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
    stage = order.stage(f"{root.rstrip('/')}/{DATASET}")
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
        return f"all {summary.windows} windows were passed over as too little expressive; lower min_expressiveness"
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
            **dict(order.origin),
            **{
                name: getattr(summary, name)
                for name in ("windows", "passed_over", "kept", "gated", "figures", "shortfall")
            },
            **{name: getattr(config, name) for name in ("seeds", "classes", "min_expressiveness")},
            audio=order.heard[0],
            rejected_audio=order.heard[1],
            gate=config.gate.model_dump(),
        ),
    }
    return source.manifest.model_copy(update=made)
