"""What an evaluation found, for people: checkpoints beside the truth and a face that holds still, and a verdict."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from visavis.pipeline.cli.tables import PARTS, doubt_tables, figures_table, metrics_tables

_SHORT = ("rpcc", "lagged_best", "lagged_delay", "var", "sid", "fd_pooled")  # metrics of the default table
_BASELINES = ("ground_truth", "hold_still")  # rows of it, beside the models'
_JUDGED = ("rpcc", "var", "sid", "fd_pooled")  # in which near the truth is good

Results = dict[str, dict[str, Any]]
"""Name of a checkpoint → what `training.evaluate.evaluate` returns of it; all of the same windows."""


def names_of(checkpoints: Sequence[Path]) -> list[str]:
    """Short names for columns: the file's, or its folder's where files are called `checkpoint`; paths if two agree."""
    short = [path.resolve().parent.name if path.stem == "checkpoint" else path.stem for path in checkpoints]
    names = short if len(set(short)) == len(short) else [str(path) for path in checkpoints]
    return names if len(set(names)) == len(names) else [f"{name} ({n})" for n, name in enumerate(names, 1)]


def evaluation_tables(results: Results, label: str, *, whole: bool) -> list[Table]:
    """Of one class or all. whole: every metric and baseline, and how far off each may be; else the few that matter."""
    title = "" if label == "all" else label
    rows = _rows(results, label, whole=whole)
    if not whole:
        rows = {name: {m: v for m, v in row.items() if m.rpartition("_")[0] in _SHORT} for name, row in rows.items()}
        return metrics_tables(rows, title)
    doubts = [table for found in results.values() for table in doubt_tables(found, label)]
    return [*metrics_tables(rows, title), *doubts]


def own_table(results: Results, label: str, names: Sequence[str]) -> Table:
    """Metrics of the user's own, of every row."""
    rows = _rows(results, label, whole=True)
    return figures_table("yours" if label == "all" else f"yours, {label}", names, rows)


def _rows(results: Results, label: str, *, whole: bool) -> dict[str, dict[str, float | None]]:
    """Columns of a table: one result as it names them, of several each model by its name and the baselines once."""
    first = next(iter(results.values()))["rows"]
    if len(results) == 1:
        return {name: row[label] for name, row in first.items() if whole or name in ("model", *_BASELINES)}
    models = {name: found["rows"]["model"][label] for name, found in results.items()}
    if whole:
        models |= {f"{name}, no user": found["rows"]["model_no_user"][label] for name, found in results.items()}
    others = (name for name in first if not name.startswith("model") and (whole or name in _BASELINES))
    return models | {name: first[name][label] for name in others}


def verdict(name: str, result: dict[str, Any]) -> str:
    """One line: in what a model is nearer to the truth than a face that holds still, and in what it is not.

    A difference within one standard error counts as none.
    """
    errors = result["standard_errors"].get("model", {}).get("all", {})
    still, truth, model = (result["rows"][row]["all"] for row in ("hold_still", "ground_truth", "model"))
    found: dict[str, list[str]] = {"worse than": [], "better than": [], "no different from": []}
    for part, judged in itertools.product(PARTS, _JUDGED):
        metric = f"{judged}_{part}"
        values = [row.get(metric) for row in (model, still, truth)]
        if None in values:
            continue
        gained = abs(values[1] - values[2]) - abs(values[0] - values[2])
        sure = abs(gained) > (errors.get(metric) or 0.0)
        word = "no different from" if not sure else "better than" if gained > 0 else "worse than"
        found[word].append(f"{judged.replace('_', ' ')} of {part}")
    parts = [f"{word} holding still on {', '.join(metrics)}" for word, metrics in found.items() if metrics]
    return f"verdict, {name}: {'; '.join(parts) or 'nothing is defined that a verdict could rest on'}"
