"""What further steps changed, and where: by noise level, by column, and by the time since the user's phrase ended.

    python -m benchmarks.pushes TABLE [--corpus lively] [--picture FILE.png]

TABLE is the folder of a `benchmarks.preferences table`; every row of which one seed lies there is looked at. A model's
change is d = v_θ − v_ref, the velocity of its averaged weights less that of the base it began from, on the same
held-out windows and noise, under the full condition. What is told of it:

    size      root of the mean of d², by noise level (0: noise, 1: motion), by column, and by frame after a phrase's end
    guidance  the part of d along g = v_ref(full) − v_ref(without the user), ⟨d, g⟩ / ⟨g, g⟩, by column: 0.1 is what
              guidance of 1.1 at sampling adds. A preference against the model without its user pushes along it
              whatever was lacking

Velocities are those of normalised motion, so columns can be compared.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.listeners import CORPORA
from benchmarks.places import Place, judgement
from benchmarks.preferences import QUICK, WHOLE
from benchmarks.processes import say
from benchmarks.rows import CONTROL, ROWS, Rows, RowSpec, read_rows
from visavis.schemas import FPS
from visavis.schemas.sample import Sample
from visavis.training.checkpoint import CHECKPOINT_NAME, load_checkpoint, load_model
from visavis.training.flow import Noise, interpolate
from visavis.training.loader import collate
from visavis.training.model import Keep, Listener

LEVELS = np.linspace(0.05, 0.95, 10)
BEFORE, AFTER = 10, 40
"""Frames around the end of a phrase."""
BATCH = 50


@dataclass(frozen=True)
class Change:
    """Of one model. size_L by level; size_D and guidance_D by column; size_F by frame from the end of a phrase."""

    size_L: np.ndarray
    size_D: np.ndarray
    size_F: np.ndarray
    guidance_D: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="what --out of the table named")
    parser.add_argument("--corpus", choices=CORPORA, default="lively")
    parser.add_argument("--windows", type=int, default=200, help="held-out windows, at most")
    parser.add_argument("--recipes", type=Path, default=ROWS, metavar="FILE", help="where rows are described")
    parser.add_argument("--picture", type=Path, help="draw it into this file")
    options = parser.parse_args()
    rows = read_rows(options.recipes)
    place, found = lying(options.table, options.corpus, rows)
    if not found:
        parser.error(f"{options.table} has no row of {options.corpus} that is done")
    changes, names = changes_of(place, found, options.windows)
    if options.picture:
        draw(changes, names, options.picture)
        say(str(options.picture))
    print(json.dumps({"name": "pushes", "corpus": options.corpus, "columns": names, "rows": plain(changes)}))


def lying(table: Path, corpus: str, rows: Rows) -> tuple[Place, dict[str, Path]]:
    """A base, and models of rows that went on from it, by the row's name."""
    scales = [replace(scale, one_base=one) for scale in (WHOLE, QUICK) for one in (True, False)]
    places = [Place(corpus, scale.seeds[0], scale, table) for scale in scales]
    there = [place for place in places if (place.base / CHECKPOINT_NAME).exists()]
    place = there[0] if there else places[0]
    models = {name: _model(place, row, rows) for name, row in rows.rows.items() if row.steps}
    return place, {name: path for name, path in models.items() if (path.parent / "done.json").exists()}


def _model(place: Place, row: RowSpec, rows: Rows) -> Path:
    folder = place.further(row, rows)
    return (folder / "settled" if row.settle else folder) / CHECKPOINT_NAME


def changes_of(place: Place, models: dict[str, Path], most: int) -> tuple[dict[str, Change], list[str]]:
    """Changes by row, and the names of columns."""
    samples, windows = judgement(place.judge)
    chosen = [n for n in range(len(samples)) if len(windows.cues[n])][:most]
    samples, cues = [samples[n] for n in chosen], [windows.cues[n] for n in chosen]
    base = load_model(load_checkpoint(place.base / CHECKPOINT_NAME))
    full = velocities(base, samples, sees_user=True)
    guidance = full - velocities(base, samples, sees_user=False)
    columns = CORPORA[place.corpus][0].columns
    changes = {}
    for name, path in models.items():
        changes[name] = change(
            velocities(load_model(load_checkpoint(path)), samples, sees_user=True) - full, guidance, cues
        )
        say(f"{name}: {np.sqrt(np.square(changes[name].size_D).mean()):.4f}")
    return changes, [column.name for column in columns]


@torch.no_grad()
def velocities(model: Listener, samples: list[Sample], *, sees_user: bool) -> np.ndarray:
    """At each level with the same noise, float32 [L, W, T, D]."""
    parts = []
    for first in range(0, len(samples), BATCH):
        batch = collate(samples[first : first + BATCH])
        x1 = model.normalise(batch.avatar_motion)
        noise = torch.randn(x1.shape, generator=torch.Generator().manual_seed(first))
        conditions = model.conditions(batch.avatar_audio, batch.user_audio, batch.user_motion)
        everything = Keep.all(len(x1), x1.device)
        keep = everything if sees_user else Keep(everything.avatar, ~everything.user)
        of_levels = []
        for level in LEVELS:
            t = torch.full_like(x1[..., 0], float(level))
            x_t, _ = interpolate(x1, Noise(noise, t))
            of_levels.append(model(x_t, t, model.normalise(batch.reference), conditions, keep).numpy())
        parts.append(np.stack(of_levels))
    return np.concatenate(parts, axis=1)


def change(moved_LWTD: np.ndarray, guidance_LWTD: np.ndarray, cues: list[np.ndarray]) -> Change:
    """What is told of a model's change. cues: frames at which phrases of the user end, by window."""
    frames = moved_LWTD.shape[2]
    around = [
        moved_LWTD[:, w, cue - BEFORE : cue + AFTER]
        for w, of_window in enumerate(cues)
        for cue in of_window
        if cue >= BEFORE and cue + AFTER <= frames
    ]
    near_ELFD = np.stack(around) if around else np.full((1, len(LEVELS), BEFORE + AFTER, moved_LWTD.shape[3]), np.nan)
    along_D = (moved_LWTD * guidance_LWTD).sum(axis=(0, 1, 2)) / np.square(guidance_LWTD).sum(axis=(0, 1, 2))
    return Change(
        size_L=np.sqrt(np.square(moved_LWTD).mean(axis=(1, 2, 3))),
        size_D=np.sqrt(np.square(moved_LWTD).mean(axis=(0, 1, 2))),
        size_F=np.sqrt(np.square(near_ELFD).mean(axis=(0, 1, 3))),
        guidance_D=along_D,
    )


def plain(changes: dict[str, Change]) -> dict[str, dict[str, list[float | None]]]:
    def listed(values: np.ndarray) -> list[float | None]:
        return [None if np.isnan(value) else round(float(value), 4) for value in values]

    return {name: {key: listed(value) for key, value in vars(each).items()} for name, each in changes.items()}


def draw(changes: dict[str, Change], columns: list[str], path: Path) -> None:
    """Four panels, a line for each row, the control's in grey."""
    figure = Figure(figsize=(13, 8.5), layout="constrained")
    by_level, by_frame, by_column, along = figure.subplots(2, 2).flat
    seconds = (np.arange(BEFORE + AFTER) - BEFORE) / FPS
    for name, each in changes.items():
        style: dict[str, Any] = {"label": name, "linewidth": 1.4}
        if name == CONTROL:
            style |= {"color": "#1f2933", "linestyle": "--", "linewidth": 2.0}
        by_level.plot(LEVELS, each.size_L, **style)
        by_frame.plot(seconds, each.size_F, **style)
        by_column.plot(each.size_D, marker=".", **style)
        along.plot(each.guidance_D, marker=".", **style)
    _labelled(by_level, "change of velocity", "noise level (0: noise, 1: motion)")
    _labelled(by_frame, "change of velocity", "seconds from the end of a phrase of the user")
    _labelled(by_column, "change of velocity", "")
    _labelled(along, "of it along guidance", "")
    for ax in (by_column, along):
        ax.set_xticks(range(len(columns)), columns, rotation=60, ha="right", fontsize=8)
    along.axhline(0, color="#9aa5b1", linewidth=0.8)
    by_level.legend(fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _labelled(ax: Axes, up: str, across: str) -> None:
    ax.set_ylabel(up)
    ax.set_xlabel(across)
    ax.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
