"""Tables of what `training.evaluate` and the gate of pairs found; each fits 80 columns."""

from __future__ import annotations

import math
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from schemas.manifest import Histogram
from schemas.words import counted

UNDEFINED = "–"

PARTS = ("expression", "pose")
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_MODELS = {"model": "model", "model_no_user": "no user"}


def metrics_tables(rows: dict[str, dict[str, float | None]], title: str = "") -> list[Table]:
    """Expression and pose each a table: metrics down, rows of an evaluation across; fits 80 columns."""
    tables = []
    for part in PARTS:
        table = _table(f"{part}, {title}" if title else part)
        table.add_column("metric", no_wrap=True)
        for name in rows:
            table.add_column(name.replace("_", " "), justify="right")
        for metric in next(iter(rows.values())):
            if metric.endswith(f"_{part}"):
                table.add_row(metric.removesuffix(f"_{part}"), *(_figure(row[metric]) for row in rows.values()))
        tables.append(table)
    return tables


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
        table = _table(f"{part}: how far off, {windows}, {seeds}")
        table.add_column("metric", no_wrap=True)
        for heading in _MODELS.values():
            for name in (heading, *doubts):
                table.add_column(name, justify="right")
        table.add_column("floor", justify="right")
        for metric in result["rows"]["model"][label]:
            cells = []
            for row in _MODELS:
                found = [doubt[row][label].get(metric, "") for doubt in doubts.values()]
                cells += [result["rows"][row][label][metric], *found]
            cells.append(floor.get(metric, ""))
            if metric.endswith(f"_{part}"):
                table.add_row(metric.removesuffix(f"_{part}"), *(_figure(c) for c in cells))
        tables.append(table)
    return tables


def pairs_table(figures: dict[str, Histogram], gate: dict[str, float | None]) -> Table:
    """Quantiles of what the gate measured, beside its thresholds."""
    table = _table("what the gate measured")
    for column in ("figure", "bound", *(f"{q:.0%}" for q in _QUANTILES)):
        table.add_column(column, justify="left" if column == "figure" else "right")
    bounds = {name.removeprefix("min_").removeprefix("max_"): (name[:3], bound) for name, bound in gate.items()}
    for name, found in figures.items():
        kind, bound = bounds.get(name, ("", None))
        shown = "" if bound is None else f"{'>' if kind == 'min' else '<'} {bound:g}"
        table.add_row(name, shown, *(_quantile(found, q) for q in _QUANTILES))
    return table


def _table(title: str) -> Table:
    return Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title_justify="left")


def _quantile(found: Histogram, share: float) -> str:
    value = found.quantile(share)
    return f"{value:.2f}" if math.isfinite(value) else UNDEFINED


def _figure(value: float | str | None) -> str:
    """Three digits that matter, no exponents where that is narrow; a dash for what is not defined. Words stay."""
    if isinstance(value, str):
        return value
    if value is None or not math.isfinite(value):
        return UNDEFINED
    if abs(value) >= 1e7:
        return f"{value:.0e}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 1000 else f"{value:.0f}"
