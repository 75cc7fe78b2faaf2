"""What the trainer learns of a known rule, and what causality costs it.

    python -m benchmarks.reactivity [--quick] [--out FOLDER]

Writes the corpus of `benchmarks.reactive`, trains the preset `tiny` on it twice, with the causal mask `block` and with
`full`, which sees the whole window, and holds what both generate on held-out windows against the rule
(`benchmarks.reactions` explains the figures), beside the same model without its user, the truth, and what costs
nothing. Every model row is a mean over seeds of sampling, with the largest deviation of a seed from it.

`causal_share` is the smaller of the two ratios, block over full, of recall (above chance) and of gain: 0.95 or more is
within 5 %. The losses are in the rows too, but say less: with `full` a window has one noise level, with `block` each
block has its own, which makes two different tasks. `rpcc_reduction` is that of the expression, with the user against
without. All is deterministic, but for the number of threads.

A folder that is given is kept, and a run that was stopped goes on there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.listeners import PITCH, SMILES, Rule
from benchmarks.processes import say
from benchmarks.reactions import Windows, baselines, measure
from benchmarks.reactive import Corpus, fingerprint, write_corpus
from visavis.schemas import FPS
from visavis.schemas.dyads import WindowClass
from visavis.schemas.manifest import MANIFEST_NAME
from visavis.schemas.sample import Sample
from visavis.schemas.train import Drop, Mask, SamplerConfig, TrainConfig
from visavis.training.checkpoint import load_checkpoint, load_model
from visavis.training.dataset import Dataset
from visavis.training.flow import Noise, interpolate
from visavis.training.loader import collate
from visavis.training.metrics.correlation import pcc
from visavis.training.metrics.windows import columns
from visavis.training.model import Keep, Listener
from visavis.training.sampler import rollout
from visavis.training.train import train

TINY = Path(__file__).parents[1] / "configs" / "train" / "tiny.yaml"
SAMPLER = SamplerConfig(steps=10, guidance="none")
MASKS: tuple[Mask, ...] = ("block", "full")
DROPS: dict[str, Drop] = {"": "full", "_no_user": "no_user"}
BATCH = 64
SHOWN = ("recall", "chance", "alarms_min", "nod_delay_ms", "nod_spread_ms", "gain", "gain_delay_ms", "jaw")
Row = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """How much is made, trained and sampled."""

    corpus: Corpus
    steps: int
    seeds: tuple[int, ...]
    held_out: int  # windows per class


QUICK = Scale(Corpus(train=160, val=20, window=100), steps=2400, seeds=(0,), held_out=100)
WHOLE = Scale(Corpus(train=600, val=60, window=100), steps=6000, seeds=(0, 1, 2), held_out=400)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--out", type=Path, help="keep corpus and checkpoints here, and go on with what lies here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        result = bench(QUICK if options.quick else WHOLE, options.out or Path(scratch))
    print(json.dumps(result))


def bench(scale: Scale, out: Path) -> dict[str, Any]:
    """Corpus, models and rows, made in `out` or taken from there."""
    rule = Rule()
    data = prepare(out / "corpus", scale.corpus, rule)
    samples = held_out(data, scale.held_out)
    windows = Windows.of(samples, data.manifest.motion, rule)
    rows: dict[str, Row] = {name: measure(motion, windows, rule) for name, motion in baselines(windows).items()}
    rows["ground_truth"] |= noise_floor(windows)
    for mask in MASKS:
        checkpoint = learn(data, out / mask, recipe(mask, scale.steps))
        model = load_model(load_checkpoint(checkpoint))
        for suffix, drop in DROPS.items():
            rows[f"{mask}{suffix}"] = model_row(model, samples, windows, rule, SAMPLER, scale.seeds, drop)
        rows[mask] |= explained_by_user(model, samples) | last_losses(checkpoint.with_name("metrics.jsonl"))
    show(rows)
    block, full, blind = rows["block"], rows["full"], rows["block_no_user"]
    return {
        "name": "reactivity",
        "recall": _plain(block["recall"]),
        "delay_ms": _plain(abs(block["nod_delay_ms"] - rule.nod_mean_delay * 1000 / FPS)),
        "rpcc_reduction": _plain(1 - _ratio(block["rpcc_expression"], blind["rpcc_expression"])),
        "causal_share": _plain(
            min(_ratio(_above_chance(block), _above_chance(full)), _ratio(block["gain"], full["gain"]))
        ),
        "rows": {name: plain_row(row) for name, row in rows.items()},
        "against": "the rule; the bidirectional mask; the same model without its user",
        "windows": len(samples),
        "steps": scale.steps,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def recipe(mask: Mask, steps: int) -> TrainConfig:
    """The preset `tiny` with a narrower model, for so many steps."""
    raw = yaml.safe_load(TINY.read_text(encoding="utf-8"))
    raw["model"] |= {"width": 64, "mask": mask}
    raw["features"] = {"n_mels": 16}
    raw["optim"] |= {"steps": steps, "batch": 8, "lr": 2e-3, "ema": 0.995}
    return TrainConfig.model_validate(raw | {"log_every": 50, "checkpoint_every": 500, "val_batches": 8})


def prepare(folder: Path, corpus: Corpus, rule: Rule) -> Dataset:
    """The corpus, written unless it lies there already."""
    if (folder / MANIFEST_NAME).exists():
        found = Dataset(str(folder))
        if found.manifest.fingerprint == fingerprint(corpus, rule):
            return found
    say(f"writing {corpus.train + corpus.val} conversations of {corpus.seconds} s")
    write_corpus(folder, corpus, rule)
    return Dataset(str(folder))


def held_out(data: Dataset, per_class: int) -> list[Sample]:
    """The first held-out windows of each class."""
    return [sample for label in WindowClass for sample in islice(data.samples("val", label), per_class)]


def learn(data: Dataset, out: Path, config: TrainConfig) -> Path:
    """Train, or go on; a line every hundred steps."""

    def progress(done: int, steps: int, line: dict[str, float]) -> None:
        if done % 100 == 0 and line:
            say(f"{out.name}  step {done} of {steps}  loss {line['loss']:.4f}  {line['samples_s']:.0f} windows/s")

    return train(data.location, out, config, progress=progress)


def model_row(
    model: Listener,
    samples: Sequence[Sample],
    windows: Windows,
    rule: Rule,
    sampler: SamplerConfig,
    seeds: Sequence[int],
    drop: Drop = "full",
) -> Row:
    """Figures of generated motion, mean over seeds of sampling; `…_spread` is the largest deviation from it."""
    each = [
        measure(generated(model, samples, sampler.model_copy(update={"seed": seed}), drop), windows, rule)
        for seed in seeds
    ]
    row: Row = {name: float(np.mean([figures[name] for figures in each])) for name in each[0]}
    for name in ("recall", "gain"):
        row[f"{name}_spread"] = max(abs(figures[name] - row[name]) for figures in each)
    return row


def generated(model: Listener, samples: Sequence[Sample], sampler: SamplerConfig, drop: Drop) -> np.ndarray:
    """Motion of every window, float32 [W, T, D] in codec units."""
    parts = []
    for first in range(0, len(samples), BATCH):
        batch = collate(samples[first : first + BATCH]).to(model.mean.device)
        voices = batch.avatar_audio, batch.user_audio
        motion = rollout(model, *voices, batch.user_motion, batch.reference, sampler, batch.keys, drop)
        parts.append(motion.cpu().numpy())
    return np.concatenate(parts)


@torch.no_grad()
def explained_by_user(model: Listener, samples: Sequence[Sample], level: float = 0.1) -> Row:
    """Share of the velocity's squared error without the user that disappears when the user is seen, where it listens.

    At a noise level where motion itself tells little. It shows what was learned long before samples do.
    """
    listening = [sample for sample in samples if sample.meta.label is WindowClass.LISTENING]
    generator = torch.Generator().manual_seed(0)
    errors = torch.zeros(2, model.motion.dim)
    for first in range(0, len(listening), BATCH):
        batch = collate(listening[first : first + BATCH]).to(model.mean.device)
        x1 = model.normalise(batch.avatar_motion)
        noise = Noise(
            torch.randn(x1.shape, generator=generator).to(x1.device), torch.full_like(x1[..., 0], fill_value=level)
        )
        x_t, target = interpolate(x1, noise)
        conditions = model.conditions(batch.avatar_audio, batch.user_audio, batch.user_motion)
        everything = Keep.all(len(x1), x1.device)
        for i, keep in enumerate((everything, Keep(everything.avatar, ~everything.user))):
            velocity = model(x_t, noise.t, model.normalise(batch.reference), conditions, keep)
            errors[i] += (velocity - target).square().sum(dim=(0, 1)).cpu()
    share = 1 - errors[0] / errors[1]
    return {"explained_pitch": share[PITCH].item(), "explained_smiles": share[list(SMILES)].mean().item()}


def noise_floor(windows: Windows) -> Row:
    """rPCC between two halves of the truth, each with its own users: what sampling of windows alone gives."""
    mean, std = np.array(windows.motion.mean), np.array(windows.motion.std)
    truth, user = (windows.truth - mean) / std, (windows.user - mean) / std
    valid = np.ones(truth.shape[:2], bool)
    floor = {}
    for part, chosen in columns(windows.motion).items():
        one, other = (pcc(truth[i::2][..., chosen], user[i::2][..., chosen], valid[i::2]) for i in (0, 1))
        floor[f"rpcc_{part}_floor"] = abs(one - other)
    return floor


def last_losses(metrics: Path) -> Row:
    """The last validation line of a run."""
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    return {key: value for key, value in next(x for x in reversed(lines) if "val_loss" in x).items() if key != "step"}


def show(rows: dict[str, Row]) -> None:
    say(f"{'':16}" + "".join(f"{name:>15}" for name in SHOWN))
    for name, row in rows.items():
        say(f"{name:16}" + "".join(f"{row[key]:15.3f}" for key in SHOWN))


def _ratio(one: float, other: float) -> float:
    return one / other if other else float("nan")


def plain_row(row: Row) -> dict[str, float | None]:
    return {key: _plain(value) for key, value in row.items()}


def _plain(value: float) -> float | None:
    """JSON knows no NaN."""
    return None if np.isnan(value) else round(value, 4)


def _above_chance(row: Row) -> float:
    return float(row["recall"] - row["chance"])


if __name__ == "__main__":
    main()
