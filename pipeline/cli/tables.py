"""Tables of what `training.evaluate` and the gate of pairs found; each fits 80 columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from visavis.pipeline.engine.terminal import table
from visavis.schemas.manifest import Histogram
from visavis.schemas.words import counted

UNDEFINED = "–"

PARTS = ("expression", "pose")
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_MODELS = {"model": "model", "model_no_user": "no user"}


def metrics_tables(rows: dict[str, dict[str, float | None]], title: str = "") -> list[Table]:
    """Expression and pose each a table: metrics down, rows of an evaluation across; fits 80 columns."""
    tables = []
    for part in PARTS:
        made = table(f"{part}, {title}" if title else part, "metric", *(name.replace("_", " ") for name in rows))
        for metric in next(iter(rows.values())):
            if metric.endswith(f"_{part}"):
                made.add_row(metric.removesuffix(f"_{part}"), *(_figure(row[metric]) for row in rows.values()))
        tables.append(made)
    return tables


def figures_table(title: str, names: Sequence[str], rows: dict[str, dict[str, float | None]]) -> Table:
    """Some metrics down, rows of an evaluation across."""
    made = table(title, "metric", *(name.replace("_", " ") for name in rows))
    for name in names:
        made.add_row(name, *(_figure(row[name]) for row in rows.values()))
    return made


def doubt_tables(result: dict[str, Any], label: str) -> list[Table]:
    """How far the model's figures may be off, in one class or all: by the windows that were drawn (one standard error),
    by the sampler's seeds (their deviation, of two or more), and what halves of the truth differ by.
    """
    doubts = {"± windows": result["standard_errors"], "± seeds": result["spread"]}
    doubts = {name: found for name, found in doubts.items() if found}
    floor = result["noise_floor"][label]
    tables = []
    for part in PARTS:
        windows, seeds = counted(result["windows"][label], "window"), counted(len(result["seeds"]), "seed")
        columns = [name for heading in _MODELS.values() for name in (heading, *doubts)]
        made = table(f"{part}: how far off, {windows}, {seeds}", "metric", *columns, "floor")
        for metric in result["rows"]["model"][label]:
            cells = []
            for row in _MODELS:
                found = [doubt[row][label].get(metric, "") for doubt in doubts.values()]
                cells += [result["rows"][row][label][metric], *found]
            cells.append(floor.get(metric, ""))
            if metric.endswith(f"_{part}"):
                made.add_row(metric.removesuffix(f"_{part}"), *(_figure(c) for c in cells))
        tables.append(made)
    return tables


def pairs_table(figures: dict[str, Histogram], gate: dict[str, float | None]) -> Table:
    """Quantiles of what the gate measured, beside its thresholds."""
    made = table("what the gate measured", "measurement", "bound", *(f"{q:.0%}" for q in _QUANTILES))
    bounds = {name.removeprefix("min_").removeprefix("max_"): (name[:3], bound) for name, bound in gate.items()}
    for name, found in figures.items():
        kind, bound = bounds.get(name, ("", None))
        shown = "" if bound is None else f"{'>' if kind == 'min' else '<'} {bound:g}"
        made.add_row(name, shown, *(_quantile(found, share) for share in _QUANTILES))
    return made


def _quantile(found: Histogram, share: float) -> str:
    """What lies beyond a histogram is in its outer bins: of those only the inner edge is known."""
    value, width = found.quantile(share), (found.high - found.low) / len(found.counts)
    if not math.isfinite(value):
        return UNDEFINED
    if len(found.counts) > 1 and value > found.high - width:
        return f"≥ {found.high - width:.2f}"
    return f"≤ {found.low + width:.2f}" if len(found.counts) > 1 and value < found.low + width else f"{value:.2f}"


def _figure(value: float | str | None) -> str:
    """Three digits that matter, no exponents where that is narrow; a dash for what is not defined. Words stay."""
    if isinstance(value, str):
        return value
    if value is None or not math.isfinite(value):
        return UNDEFINED
    if abs(value) >= 1e7:
        return f"{value:.0e}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 1000 else f"{value:.0f}"
