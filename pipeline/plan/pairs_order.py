"""What `visavis pairs` is asked for, checked and cut into tasks: before anything is made or written."""

from __future__ import annotations

from dataclasses import dataclass, replace

from visavis.pipeline.engine.paths import in_full, pairs_for_workers
from visavis.pipeline.plan.score_files import read_scores
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import UsageError
from visavis.schemas.labels import unknown_label
from visavis.schemas.manifest import AudioSpec
from visavis.schemas.pairs import PairOrigin, PairsConfig
from visavis.schemas.words import candidates, in_words
from visavis.stages.pairing.candidates import check_checkpoints
from visavis.stages.pairing.gate import Ranges, ranges
from visavis.stages.pairing.reference_statistics import some_of
from visavis.stages.pairing.scoring import FunctionScorer, ReactivityScorer, Scorer
from visavis.stages.pairing.voted import Ballots
from visavis.stages.pairs import PairsPlan, PairsStage
from visavis.training.dataset import Dataset

_TRIED = 16  # recorded windows that a function is tried on


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

    def stage(self, out: str, record: tuple[str, str] | None = None) -> PairsStage:
        """What makes the pairs, and writes them into a folder. record: as of `PairsStage`."""
        config = pairs_for_workers(self.config)
        scorer = replace(self.scorer, pairs={}) if isinstance(self.scorer, Ballots) else self.scorer
        return PairsStage(config, self.request.dataset, self.request.checkpoint, out, scorer, record)


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
    check_where(source, config)
    planned = plan_pairs(source, config, request.limit)
    if not planned:
        wanted = ", ".join(config.classes)
        raise UsageError(f"{request.dataset} has no training windows of class {wanted} to make pairs from")
    config = config.of_windows(sum(item.last - item.first for item in planned))
    request = replace(request, config=config)
    scorer = scorer_of(config, source, planned[0].source.label)
    return Order(request, source, planned, PairOrigin.of(config, source.hash, *digests, scorer.name), heard, scorer)


def check_where(dataset: Dataset, config: PairsConfig) -> None:
    """Raises UsageError where labels are wanted that no window of the dataset can have."""
    wanted = (*config.where.labels, *config.where.without)
    known = dataset.manifest.labels or {}
    if wanted and not known:
        raise UsageError(
            f"{dataset.location} has no labels, so `where` has none to go by; build it again with a newer one"
        )
    if name := unknown_label(wanted, known):
        raise UsageError(f"where: no window of {dataset.location} has {name}; {candidates(name, known, 'label')}")


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
