"""Building a set of preference pairs: the run machinery around `stages.pairs`.

A set of pairs is a dataset like any other, with its own manifest, in a run's folder of its own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from pipeline.crew import Engine
from pipeline.dataset import DATASET, publish, write_shards
from pipeline.progress import Reporter
from pipeline.run import fingerprint, opened
from pipeline.task import Task, artifact_path
from schemas.config import RunConfig
from schemas.errors import RunFailed, UsageError
from schemas.manifest import AudioSpec, Manifest, PairsInfo
from schemas.pairs import PairsConfig
from stages.pairs import DROPPED, PairsRow, PairsStage, plan_pairs
from training.checkpoint import checkpoint_id, load_checkpoint
from training.data import Dataset
from training.encoder import load_encoder

_SECONDS_PER_WINDOW = 5.0  # that sampling may take, as media time in time limits


@dataclass(frozen=True)
class PairsSummary:
    """What came of the windows that were tried."""

    dataset: str
    tried: int
    kept: int
    gated: dict[str, int]
    processed: int


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
        UsageError: no such dataset or checkpoint, another codec, nothing to pair, or the folder is in use.
        RunFailed: too many failures, or the gate left nothing.
    """
    source = Dataset(dataset)
    made_by = load_checkpoint(Path(checkpoint))
    codec = made_by.motion.codec
    if codec != source.manifest.motion.codec:
        raise UsageError(f"{checkpoint} speaks codec {codec}, {dataset} has {source.manifest.motion.codec}")
    load_encoder(made_by.config.features, weights=config.encoder)  # a wrong one is told before work starts
    planned = plan_pairs(source, config, limit)
    if not planned:
        raise UsageError(f"{dataset} has no training windows of class {', '.join(config.classes)} to make pairs from")
    generator = checkpoint_id(Path(checkpoint))
    shaping = config.model_copy(update={"encoder": None})  # its digest is in the checkpoint
    print_ = fingerprint(PairsStage, shaping, source.hash, generator)
    stage = PairsStage(config, dataset, checkpoint, f"{root.rstrip('/')}/{DATASET}")
    tasks = [
        Task(
            stage="pairs",
            key=item.path.removesuffix(".tar").replace("/", "-"),
            item=item.path,
            path=artifact_path("pairs", PairsStage.version, print_, item.path.removesuffix(".tar").replace("/", "-")),
            fingerprint=print_,
            inline=item.model_dump(mode="json"),
            files=(f"{DATASET}/{item.path}",),
            seconds=_SECONDS_PER_WINDOW * (item.last - item.first),
        )
        for item in planned
    ]
    settings = {
        "config": config.model_dump(mode="json", exclude={"device", "resources", "encoder"})
        | {"generator": generator, "dataset": source.hash},
        "fingerprints": {"pairs": print_},
    }
    limits = RunConfig(max_failure_share=0.0)
    with opened(root, engine, {stage.name: stage}, limits, settings, reporter, reconfigure=reconfigure) as run:
        rows: list[PairsRow] = write_shards(run, "pairs", lambda: tasks, PairsRow)
        gated = sum((Counter(row.gated) for row in rows), Counter[str]())
        tried, kept = sum(i.last - i.first for i in planned), sum(row.entry.samples for row in rows)
        if kept == 0:
            raise RunFailed(f"the gate left none of {tried} pairs ({dict(gated)}); loosen it with --set gate.…")
        publish(run, _manifest(source, config, rows, generator, made_by.audio, print_, gated))
    return PairsSummary(f"{root.rstrip('/')}/{DATASET}", tried, kept, dict(sorted(gated.items())), run.processed)


def _manifest(
    source: Dataset,
    config: PairsConfig,
    rows: list[PairsRow],
    generator: str,
    audio: AudioSpec,
    print_: str,
    gated: Counter[str],
) -> Manifest:
    shares = Counter[str]()
    for row in rows:
        shares[row.entry.label] += row.entry.samples
    total = shares.total()
    plan = source.manifest.plan.model_copy(
        update={"mixture": {label: round(shares[label] / total, 9) for label in source.manifest.plan.mixture}}
    )
    return source.manifest.model_copy(
        update={
            "kind": "pairs",
            "fingerprint": print_,
            "plan": plan,
            "shards": tuple(row.entry for row in rows),
            "pairs": PairsInfo(
                dataset=source.hash,
                generator=generator,
                audio=audio,
                chosen=config.chosen,
                rejected="dropped",
                dropped=DROPPED[config.drop],
                steps=config.sampler.steps,
                guidance=(config.sampler.w_a, config.sampler.w_u),
                seed=config.sampler.seed,
                kept=total,
                gated=dict(sorted(gated.items())),
            ),
        }
    )
