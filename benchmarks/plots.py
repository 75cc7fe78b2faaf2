"""Pictures of what `benchmarks.preferences` printed.

    python -m benchmarks.plots RESULT.json FOLDER

One picture for each corpus: every row a point, smiles (gain) across and nods (recall) up, the truth where dashed lines
cross. Bars are 95 % intervals over seeds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, GREY = "#1f2933", "#9aa5b1"
COLOURS = {"base": GREY, "control": GREY}
"""By the first word of a row's name; of the others by the loser, which is the last."""
LOSERS = {"dropped": "#d1495b", "own": "#00798c"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path, help="what the benchmark printed")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    options = parser.parse_args()
    result = json.loads(options.result.read_text(encoding="utf-8").splitlines()[-1])
    options.folder.mkdir(parents=True, exist_ok=True)
    for corpus, table in result["corpora"].items():
        path = options.folder / f"preferences-{corpus}.png"
        draw(table["rows"], table["truth"], path, corpus)
        print(path)


def draw(rows: dict[str, dict[str, Any]], truth: dict[str, Any], path: Path, title: str = "") -> None:
    """One panel."""
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    ax = figure.subplots()
    for name, row in rows.items():
        _point(ax, name, row, right=not any(_beside(row, other) for other in rows.values()))
    ax.axhline(truth["recall"], color=INK, linestyle="--", linewidth=0.8)
    ax.axvline(truth["gain"], color=INK, linestyle="--", linewidth=0.8)
    ax.set_title(title, color=INK)
    ax.set_xlabel("smiles: gain")
    ax.set_ylabel("nods: recall")
    ax.margins(0.18)
    ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def _point(ax: Axes, name: str, row: dict[str, Any], *, right: bool) -> None:
    """right: where the name goes."""
    words = name.split(", ")
    colour = COLOURS.get(words[0]) or next((LOSERS[word] for word in words if word in LOSERS), "#edae49")
    across, up = (row.get(f"{key}_ci") or 0 for key in ("gain", "recall"))
    ax.errorbar(row["gain"], row["recall"], xerr=across, yerr=up, fmt="o", color=colour, elinewidth=0.7)
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
