"""Pictures of what `benchmarks.preferences` printed.

    python -m benchmarks.plots RESULT.json FOLDER

One picture for each corpus, and `preferences.png` with all side by side: every row a point, smiles (gain) across and
nods (recall) up, the truth where dashed lines cross. Bars are 95 % intervals over seeds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, GREY = "#1f2933", "#9aa5b1"
COLOURS = {"base": GREY, "control": GREY, "recommended": "#6a4c93", "paper": "#d1495b"}
"""By the first word of a row's name; of the others by the loser, which is the last."""
LOSERS = {"dropped": "#d1495b", "own": "#00798c"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path, help="what the benchmark printed")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    options = parser.parse_args()
    result = json.loads(options.result.read_text(encoding="utf-8").splitlines()[-1])
    options.folder.mkdir(parents=True, exist_ok=True)
    pictures = {f"preferences-{corpus}.png": {corpus: table} for corpus, table in result["corpora"].items()}
    for name, tables in (pictures | {"preferences.png": result["corpora"]}).items():
        draw(tables, options.folder / name)
        print(options.folder / name)


def draw(tables: dict[str, dict[str, Any]], path: Path) -> None:
    """Panels side by side, by corpus: `rows` and `truth` of each."""
    several = len(tables) > 1
    figure = Figure(figsize=(5.2 * len(tables), 5) if several else (9, 6.5), layout="constrained")
    for ax, (corpus, table) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True):
        _panel(ax, table["rows"], table["truth"], corpus)
    figure.savefig(path, dpi=110)


def _panel(ax: Axes, rows: dict[str, dict[str, Any]], truth: dict[str, Any], title: str) -> None:
    for name, row in rows.items():
        _point(ax, name, row, right=not any(_beside(row, other) for other in rows.values()))
    ax.axhline(truth["recall"], color=INK, linestyle="--", linewidth=0.8)
    ax.axvline(truth["gain"], color=INK, linestyle="--", linewidth=0.8)
    ax.set_title(title, color=INK)
    ax.set_xlabel("smiles: gain")
    ax.set_ylabel("nods: recall")
    ax.margins(0.18)
    ax.spines[["top", "right"]].set_visible(False)


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
