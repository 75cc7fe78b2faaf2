"""Pictures of what `benchmarks.preferences` printed.

    python -m benchmarks.plots RESULT.json FOLDER

One picture for each part: every row a point, smiles (gain) across and nods (recall) up, the truth where dashed lines
cross. Bars are the standard deviation over seeds of training.
"""

from __future__ import annotations

import argparse
import json
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, GREY = "#1f2933", "#9aa5b1"
COLOURS = {"base": GREY, "control": GREY, "dropped": "#d1495b", "own": "#00798c"}
"""By the first word of a row's name; all others are of one colour."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path, help="what the benchmark printed")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    options = parser.parse_args()
    result = json.loads(options.result.read_text(encoding="utf-8").splitlines()[-1])
    options.folder.mkdir(parents=True, exist_ok=True)
    for part, rows in result["rows"].items():
        path = options.folder / f"preferences-{part}.png"
        draw(rows, result["truth"], path)
        print(path)


def draw(rows: dict[str, dict[str, Any]], truth: dict[str, Any], path: Path) -> None:
    """One panel for each base, side by side, with the same axes."""
    panels = {base: list(found) for base, found in groupby(rows.items(), lambda item: item[0].partition(": ")[0])}
    figure = Figure(figsize=(8.5 if len(panels) == 1 else 6.5 * len(panels), 6.5), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
    for ax, (base, found) in zip(axes, panels.items(), strict=True):
        for name, row in found:
            _point(ax, name.partition(": ")[2], row, right=not any(_beside(row, other) for _, other in found))
        ax.axhline(truth["recall"], color=INK, linestyle="--", linewidth=0.8)
        ax.axvline(truth["gain"], color=INK, linestyle="--", linewidth=0.8)
        ax.set_title(base, color=INK)
        ax.set_xlabel("smiles: gain")
        ax.margins(0.18)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("nods: recall")
    figure.savefig(path, dpi=110)


def _point(ax: Axes, name: str, row: dict[str, Any], *, right: bool) -> None:
    """right: where the name goes."""
    colour = COLOURS.get(name.partition(",")[0], "#edae49")
    ax.errorbar(
        row["gain"], row["recall"], xerr=row.get("gain_sd", 0), yerr=row.get("recall_sd", 0), fmt="o", color=colour
    )
    ax.annotate(
        name,
        (row["gain"], row["recall"]),
        (6, 3) if right else (-6, 3),
        textcoords="offset points",
        ha="left" if right else "right",
        fontsize=8,
        color=INK,
    )


def _beside(row: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether another point lies where a name to the right would be."""
    return bool(0 < other["gain"] - row["gain"] < 0.07 and abs(other["recall"] - row["recall"]) < 0.01)


if __name__ == "__main__":
    main()
