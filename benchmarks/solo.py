"""What clips of one person teach a listener, where dyads are few: the same steps with the clips and without.

    python -m benchmarks.solo [--quick] [--conversations N] [--out FOLDER] [--jobs N]

Of the conversations of `benchmarks.reactive` a third stays as it is. From the others the user is cut off: what is left
is a clip of the avatar, who reacts to somebody that nobody sees or hears, as `visavis import solo` reads such clips.
Held-out conversations are whole, and `benchmarks.reactions` holds what is generated on them against the rule.

    third     dyads alone: the control
    beside    dyads and clips in one dataset; the plan draws classes alike, so listening windows are all of dyads
    first     clips and dyads without any condition for a third of the steps, then dyads (UniLS's two stages)
    all       nothing was cut off: what more dyads would bring

All rows take as many steps. Figures are means over seeds of training with 95 % intervals, changes are from `third` at
the same seed (`benchmarks.intervals`). A folder that is given is kept, and a run that was stopped goes on there. Every
job takes one core.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.intervals import against, over_seeds
from benchmarks.jobs import phase, workers
from benchmarks.listeners import Rule
from benchmarks.processes import say
from benchmarks.reactions import Windows, measure
from benchmarks.reactive import Corpus
from benchmarks.reactivity import SAMPLER, Row, held_out, learn, model_row, noise_floor, plain_row, prepare, recipe
from visavis.schemas.train import ObjectiveConfig, TrainConfig
from visavis.training.checkpoint import load_checkpoint, load_model
from visavis.training.dataset import Dataset
from visavis.training.train import train

CONTROL = "third"
ROWS = (CONTROL, "beside", "first", "all")
SHOWN = ("recall", "chance", "gain", "nod_delay_ms", "alarms_min", "jaw", "rpcc_expression")
WARMUP = 50
NOTHING = ObjectiveConfig(full=0.0, no_user=0.0, no_avatar=0.0, none=1.0)


@dataclass(frozen=True)
class Scale:
    """How much is made and trained."""

    conversations: int
    held_out: int  # conversations
    steps: int
    seeds: tuple[int, ...] = (0, 1, 2)
    seconds: int = 60

    def corpus(self, row: str) -> Corpus:
        """What a row's last steps are taken on."""
        whole = Corpus(train=self.conversations, val=self.held_out, seconds=self.seconds, window=100)
        third = self.conversations // 3
        of = {"all": whole, "beside": replace(whole, dyads=third), CONTROL: replace(whole, train=third)}
        return of.get(row, of[CONTROL])


QUICK = Scale(conversations=96, held_out=24, steps=1600)
WHOLE = Scale(conversations=180, held_out=60, steps=2400)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument(
        "--conversations", type=int, help="so many in place of 180, or 96: the fewer, the more they limit"
    )
    parser.add_argument("--out", type=Path, help="keep everything here, and go on with what lies here")
    parser.add_argument("--jobs", type=int, default=2, help="how many at once; 0: in this process")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        scale = QUICK if options.quick else WHOLE
        scale = replace(scale, conversations=options.conversations or scale.conversations)
        result = bench(scale, options.out or Path(scratch), options.jobs)
    print(json.dumps(result))


def bench(scale: Scale, out: Path, jobs: int) -> dict[str, Any]:
    """Rows and truth."""
    out = out / f"{scale.conversations}x{scale.seconds}s-{scale.steps}"
    with workers(jobs) as pool:
        phase(pool, "corpora", make_corpus, [(scale, row, out) for row in ROWS if row != "first"])
        tasks = [(scale, row, seed, out) for seed in scale.seeds for row in ROWS]
        made = phase(pool, "rows", make_row, tasks)
    by_row = {row: [found for (_, name, _, _), found in zip(tasks, made, strict=True) if name == row] for row in ROWS}
    truth = truth_of(out)
    table = {name: over_seeds(rows) for name, rows in by_row.items()}
    for name in ROWS[1:]:
        table[name] |= against(by_row[name], by_row[CONTROL], truth)
    show(truth, table)
    return {
        "name": "solo",
        "truth": plain_row(truth),
        "rows": {name: plain_row(row) for name, row in table.items()},
        "against": "the same steps on the dyads alone; the rule; the same people as dyads",
        "intervals": "95 %, Student's t over seeds of training",
        "seeds": len(scale.seeds),
        "steps": scale.steps,
        "conversations": [scale.conversations // 3, scale.conversations],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def make_corpus(scale: Scale, row: str, out: Path) -> None:
    prepare(out / f"corpus-{row}", scale.corpus(row), Rule())


def make_row(scale: Scale, row: str, seed: int, out: Path) -> Row:
    """Train, or go on, and measure; the figures are kept beside the checkpoint."""
    folder = out / f"{row}-{seed}"
    kept = folder / "row.json"
    if not kept.exists():
        figures = measured(learned(scale, row, seed, out), seed, out)
        scratch = kept.with_suffix(".unfinished")
        scratch.write_text(json.dumps(figures), encoding="utf-8")
        scratch.replace(kept)
    return dict(json.loads(kept.read_text(encoding="utf-8")))


def learned(scale: Scale, row: str, seed: int, out: Path) -> Path:
    """The checkpoint of a row."""
    folder = out / f"{row}-{seed}"
    if row != "first":
        return learn(Dataset(str(out / f"corpus-{row}")), folder, config_of(scale.steps, seed))
    alone = scale.steps // 3
    before = config_of(alone, seed).model_copy(update={"objective": NOTHING})
    free = learn(Dataset(str(out / "corpus-beside")), folder / "free", before)
    return train(str(out / f"corpus-{CONTROL}"), folder, config_of(scale.steps - alone, seed), init=free)


def config_of(steps: int, seed: int) -> TrainConfig:
    config = recipe("block", steps)
    optim = config.optim.model_copy(update={"warmup": min(WARMUP, steps // 3)})
    return config.model_copy(update={"seed": seed, "optim": optim, "checkpoint_every": max(1, steps // 6)})


def measured(checkpoint: Path, seed: int, out: Path) -> Row:
    data = Dataset(str(out / "corpus-all"))
    samples = held_out(data, 10**6)
    windows = Windows.of(samples, data.manifest.motion, Rule())
    model = load_model(load_checkpoint(checkpoint))
    return model_row(model, samples, windows, Rule(), SAMPLER.model_copy(update={"seed": seed}), (seed,))


def truth_of(out: Path) -> Row:
    data = Dataset(str(out / "corpus-all"))
    windows = Windows.of(held_out(data, 10**6), data.manifest.motion, Rule())
    return measure(windows.truth, windows, Rule()) | noise_floor(windows)


def show(truth: Row, table: dict[str, Row]) -> None:
    """The table for people."""
    heads = [*SHOWN, "recall − third", "smiles − third"]
    say(f"\n{'':10}" + "".join(f"{head:>17}" for head in heads))
    say(f"{'truth':10}" + "".join(f"{truth[key]:17.3f}" for key in SHOWN))
    for name, row in table.items():
        cells = [f"{row[key]:.3f} ±{row[f'{key}_ci']:.3f}" for key in SHOWN]
        if "recall_change" in row:
            cells += [f"{row[f'{key}_change']:+.3f} ±{row[f'{key}_change_ci']:.3f}" for key in ("recall", "gain")]
        say(f"{name:10}" + "".join(f"{cell:>17}" for cell in cells))


if __name__ == "__main__":
    main()
