"""What preferences teach a listener, on conversations with a known rule: the same further steps with pairs and without.

    python -m benchmarks.preferences [effect] [sweeps] [imbalance] [--quick] [--out FOLDER] [--jobs N]

A base is trained by `benchmarks.reactivity`'s recipe, pairs are made with it, and as many further steps are taken with
them (`dropped`, `own`, …) and without (`control`, which the paper lacks). What each model then does on held-out windows
is held against the rule (`benchmarks.reactions`).

    effect     from a base that has learned the rule as well as it will
    sweeps     β, λ and who makes the rejected motion, one at a time, with the first seed
    imbalance  80 % speaking, seven listeners of ten dull; as it comes and balanced, without pairs and with pairs of the
               most expressive half or 30 % of the windows. The truth is what the lively do

Rows are means over seeds of training, with the standard deviation over them (`…_sd`). What may be called a difference
in rPCC is the truth's row: `rpcc_…_floor` is that between two halves of the truth.

A folder that is given is kept, and what lies there is not made again. Every job takes one core.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.listeners import Rule
from benchmarks.processes import say
from benchmarks.reactions import Windows, measure
from benchmarks.reactive import Corpus, make_dyad
from benchmarks.reactivity import (
    SAMPLER,
    Row,
    held_out,
    last_losses,
    learn,
    model_row,
    noise_floor,
    plain_row,
    prepare,
    recipe,
)
from visavis.pipeline.cli.commands import engine_of
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.plan.pairs import PairsRequest, build_pairs
from visavis.schemas.config import BalanceConfig, RunConfig
from visavis.schemas.manifest import MANIFEST_NAME
from visavis.schemas.pairs import PairsConfig
from visavis.schemas.train import DpoConfig, TrainConfig
from visavis.training.checkpoint import load_checkpoint, load_model
from visavis.training.dataset import Dataset
from visavis.training.train import train

LR = 3e-4
"""Peak of further steps, with pairs and without."""
PARTS = ("effect", "sweeps", "imbalance")
SHOWN = ("recall", "gain", "nod_delay_ms", "chance", "alarms_min", "jaw", "rpcc_expression", "rpcc_pose")
LIVELY, NATURAL, BALANCED = "lively", "natural", "balanced"


@dataclass(frozen=True)
class Scale:
    """How much is made, trained and sampled."""

    conversations: int  # to train on; where most of the time is speaking, 2.5 times as many
    held_out: int
    steps: int  # of a base
    further: int
    seeds: tuple[int, ...]


QUICK = Scale(conversations=80, held_out=20, steps=1200, further=200, seeds=(0, 1))
WHOLE = Scale(conversations=160, held_out=60, steps=2400, further=300, seeds=(0, 1, 2))


@dataclass(frozen=True)
class Further:
    """Steps after a base. pairs: of `PairsConfig`, none for the control. dpo: of `DpoConfig`."""

    pairs: dict[str, Any] | None = None
    dpo: dict[str, Any] = field(default_factory=dict)

    @property
    def pairs_name(self) -> str:
        return "-".join(f"{key}={value}" for key, value in _flat(self.pairs or {}))


@dataclass(frozen=True)
class Job:
    """One seed's base on a corpus, and what follows it."""

    corpus: str
    seed: int
    further: dict[str, Further]


DROPPED = {"rejected": "dropped"}
OWN = {"rejected": "own", "per_window": 3, "gate": {"min_reactivity_margin": 0.1}}
CONTROL = Further()
EFFECT = {
    "control": CONTROL,
    "dropped, beta 1000": Further(DROPPED, {"beta": 1000.0}),
    "dropped, beta 100": Further(DROPPED, {"beta": 100.0}),
    "own": Further(OWN, {"beta": 30.0, "lambda_": 0.3}),
}
SWEEPS = {
    "control": CONTROL,
    **{f"dropped, beta {beta}": Further(DROPPED, {"beta": float(beta)}) for beta in (1000, 300, 100, 30)},
    **{f"dropped, lambda {w}": Further(DROPPED, {"beta": 100.0, "lambda_": w}) for w in (0.01, 0.03, 0.3)},
    **{f"own, beta {beta}": Further(OWN, {"beta": float(beta), "lambda_": 0.3}) for beta in (300, 100, 30, 10)},
    **{f"own, lambda {w}": Further(OWN, {"beta": 30.0, "lambda_": w}) for w in (0.1, 1.0)},
    "own, not gated": Further(
        {"rejected": "own", "gate": {"min_reactivity_margin": -10.0}}, {"beta": 30.0, "lambda_": 0.3}
    ),
    "half-trained": Further({"rejected": "checkpoint"}, {"beta": 100.0}),
    "full against dropped": Further({"chosen": "full"}, {"beta": 100.0}),
    "dropped, l2": Further(DROPPED, {"beta": 100.0, "norm": "l2"}),
    "dropped, listening frames": Further(DROPPED, {"beta": 100.0, "frames": "listening"}),
}
IMBALANCE = {
    "control": CONTROL,
    "dropped, of 50 %": Further(DROPPED | {"min_expressiveness": 0.5}, {"beta": 100.0}),
    "own, of 50 %": Further(OWN | {"min_expressiveness": 0.5}, {"beta": 30.0, "lambda_": 0.3}),
    "own, of 30 %": Further(OWN | {"min_expressiveness": 0.7}, {"beta": 30.0, "lambda_": 0.3}),
    "own, of 30 %, beta 10": Further(OWN | {"min_expressiveness": 0.7}, {"beta": 10.0, "lambda_": 0.3}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all, if none is named")
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--out", type=Path, help="keep everything here, and go on with what lies here")
    parser.add_argument("--jobs", type=int, default=2, help="seeds at once")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as scratch:
        scale = QUICK if options.quick else WHOLE
        result = bench(scale, options.parts or PARTS, options.out or Path(scratch), options.jobs)
    print(json.dumps(result))


def bench(scale: Scale, parts: tuple[str, ...], out: Path, jobs: int) -> dict[str, Any]:
    """All rows, by part."""
    judge = prepare(out / LIVELY, corpus_of(LIVELY, scale), Rule())
    windows = Windows.of(held_out(judge, 10**6), judge.manifest.motion, Rule())
    truth = measure(windows.truth, windows, Rule()) | noise_floor(windows)
    rows = {part: measured(part, scale, out, jobs) for part in parts}
    show({"truth": {"truth": truth}, **rows})
    return {
        "name": "preferences",
        "truth": plain_row(truth),
        "rows": {part: {name: plain_row(row) for name, row in found.items()} for part, found in rows.items()},
        "against": "the same steps without pairs, and the rule",
        "windows": len(windows.truth),
        "seeds": len(scale.seeds),
        "steps": [scale.steps, scale.further],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def corpus_of(name: str, scale: Scale) -> Corpus:
    """All listeners lively; or most of them dull, and silent, weighted in two ways."""
    if name == LIVELY:
        return Corpus(train=scale.conversations, val=scale.held_out, window=100)
    dull = Corpus(train=scale.conversations * 5 // 2, val=4, window=100, speaking=0.8, lively=0.3, dull=0.2)
    if name == BALANCED:
        return dull
    counts = Counter(window.label for n in range(dull.train) for window in make_dyad(dull, Rule(), n).windows)
    mixture = {label: n / counts.total() for label, n in counts.items()}
    return replace(dull, balance=BalanceConfig(mixture=mixture, dull_keep=1))


def measured(part: str, scale: Scale, out: Path, jobs: int) -> dict[str, Row]:
    """Rows of a part: mean over seeds, and standard deviation."""
    wanted = {
        "effect": [Job(LIVELY, seed, EFFECT) for seed in scale.seeds],
        "sweeps": [Job(LIVELY, scale.seeds[0], SWEEPS)],
        "imbalance": [Job(corpus, seed, IMBALANCE) for corpus in (NATURAL, BALANCED) for seed in scale.seeds],
    }[part]
    for name in {job.corpus: None for job in wanted}:
        prepare(out / name, corpus_of(name, scale), Rule())
    with ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        found = list(pool.map(run, wanted, [scale] * len(wanted), [out] * len(wanted)))
    rows: dict[str, list[Row]] = {}
    for job, each in zip(wanted, found, strict=True):
        for name, row in each.items():
            rows.setdefault(f"{job.corpus}: {name}", []).append(row)
    return {name: _over_seeds(each) for name, each in rows.items()}


def run(job: Job, scale: Scale, out: Path) -> dict[str, Row]:
    """The rows of a job, by name."""
    data = Dataset(str(out / job.corpus))
    config = recipe("block", scale.steps).model_copy(
        update={"seed": job.seed, "checkpoint_every": scale.steps // 6, "keep_every": scale.steps // 2}
    )
    base = learn(data, out / f"{job.corpus}-{job.seed}", config)
    half = base.with_name(f"checkpoint-{scale.steps // 2:07d}.safetensors")
    folder = out / f"{job.corpus}-{job.seed}-further"
    rows = {"base": row_of(base, folder / "base.json", out)}
    for name, further in job.further.items():
        path = follow(further, base, half, data, folder, config, scale)
        rows[name] = row_of(path, path.with_name("row.json"), out)
        say(f"{job.corpus} {job.seed} {name}: " + _line(rows[name]))
    return rows


def follow(
    further: Further, init: Path, half: Path, data: Dataset, folder: Path, config: TrainConfig, scale: Scale
) -> Path:
    """Make the pairs, take the steps; the checkpoint."""
    pairs = None
    if further.pairs is not None:
        root = folder / f"pairs {further.pairs_name}"
        if not (root / "dataset" / MANIFEST_NAME).exists():
            other = {"rejected_checkpoint": str(half)} if further.pairs.get("rejected") == "checkpoint" else {}
            wanted = PairsConfig.model_validate({"sampler": SAMPLER.model_dump(), "batch": 128} | further.pairs | other)
            request = PairsRequest(data.location, str(init), wanted)
            build_pairs(request, str(root), engine_of(RunConfig(engine="local")), Reporter())
        pairs = str(root / "dataset")
    dpo = DpoConfig(steps=scale.further, lr=LR, warmup=20, max_chosen_rise=None, **further.dpo)
    optim = config.optim.model_copy(update={"steps": scale.further, "lr": LR, "warmup": 20, "schedule": "cosine"})
    wanted_run = config.model_copy(update={"optim": optim, "dpo": dpo, "checkpoint_every": 10**6})
    name = "-".join([further.pairs_name or "control", *(f"{key}={value}" for key, value in further.dpo.items())])
    return train(data.location, folder / name, wanted_run, init=init, pairs=pairs)


def row_of(checkpoint: Path, kept: Path, out: Path) -> Row:
    """Figures of a model on the held-out windows of the lively."""
    if not kept.exists():
        judge = Dataset(str(out / LIVELY))
        samples = held_out(judge, 10**6)
        windows = Windows.of(samples, judge.manifest.motion, Rule())
        found = load_checkpoint(checkpoint)
        row = model_row(load_model(found), samples, windows, Rule(), SAMPLER, seeds=(0,))
        row |= last_losses(checkpoint.with_name("metrics.jsonl"))
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(row), encoding="utf-8")
    return dict(json.loads(kept.read_text(encoding="utf-8")))


def show(parts: dict[str, dict[str, Row]]) -> None:
    say(f"{'':44}" + "".join(f"{name:>17}" for name in SHOWN))
    for rows in parts.values():
        for name, row in rows.items():
            say(f"{name:44}" + "".join(f"{row[key]:10.3f} ±{row.get(f'{key}_sd', 0):5.3f}" for key in SHOWN))


def _line(row: Row) -> str:
    return ", ".join(f"{key} {row[key]:.3f}" for key in SHOWN)


def _over_seeds(rows: list[Row]) -> Row:
    row = {key: float(np.mean([each[key] for each in rows])) for key in rows[0]}
    if len(rows) > 1:
        row |= {f"{key}_sd": float(np.std([each[key] for each in rows], ddof=1)) for key in SHOWN}
    return row


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for key, value in values.items():
        found += _flat(value, f"{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return found


if __name__ == "__main__":
    main()
