"""Curves of a training and tables of an evaluation, for a page. The files may be of anybody's making."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from visavis.schemas.errors import UsageError
from visavis.schemas.plain import read_strict
from visavis.schemas.storage.files import locate, read_whole
from visavis.schemas.untrusted import parsing
from visavis.training.log import METRICS_NAME

_BYTES = 64 << 20  # of a file of metrics: more than a million lines
_POINTS = 500  # of a curve; more lines are averaged
_CURVES = 64


def curves_of(folder: Path) -> dict[str, Any]:
    """Every column of metrics.jsonl over steps, null where it is not defined. averaged: lines behind each point.

    A line that is torn, as the last one of a run that is under way may be, is left out and counted.
    """
    path = folder / METRICS_NAME
    with parsing(lambda why: UsageError(f"{path}: no metrics of a training ({why})")):
        text = read_whole(*locate(str(path)), str(path), _BYTES).decode("utf-8", "replace")
        lines, torn = [], 0
        for line in text.splitlines():
            found = _line(line)
            if found is None:
                torn += 1
            else:
                lines.append(found)
    lines = _by_step(lines)
    each = max(1, -(-len(lines) // _POINTS))
    groups = [lines[i : i + each] for i in range(0, len(lines), each)]
    names = list(dict.fromkeys(name for line in lines for name in line if name != "step"))
    return {
        "name": folder.name or str(folder),
        "steps": [group[-1]["step"] for group in groups],
        "curves": {name: [_mean(line.get(name) for line in group) for group in groups] for name in names[:_CURVES]},
        "averaged": each,
        "torn": torn,
        "left_out": names[_CURVES:],
    }


def evaluation_of(path: Path) -> dict[str, Any]:
    """An evaluation as tables: by class, part and metric a row, whose columns are models and baselines.

    It may be what `visavis evaluate --json` prints of one checkpoint or several, or what the demo writes.

    Raises:
        UsageError: none of these.
    """
    with parsing(lambda why: UsageError(f"{path}: no evaluation ({why})")):
        plain = read_strict(read_whole(*locate(str(path)), str(path), _BYTES), _BYTES)
        results = plain.get("checkpoints", {"": plain} if "rows" in plain else {})
        if not results and not all("all" in row for row in plain.values()):
            raise ValueError("it has neither rows nor checkpoints")
        columns: dict[str, Any] = dict(plain) if not results else {}
        floors: dict[str, Any] = {}
        errors: dict[str, Any] = {}
        facts: dict[str, Any] = {}
        for name, found in results.items():
            for row, classes in found["rows"].items():
                shown = row if not name or not row.startswith("model") else f"{name}{row.removeprefix('model')}"
                columns[shown] = classes
                errors[shown] = found.get("standard_errors", {}).get(row, {})
            floors = floors or found.get("noise_floor", {})
            facts = {key: found.get(key) for key in ("split", "windows", "seeds")}
        if not isinstance((facts.get("windows") or {}).get("all"), int):
            facts["windows"] = None
        labels = list(dict.fromkeys(label for classes in columns.values() for label in classes))
        if not labels:
            raise ValueError("it has no figures")
        tables = {label: list(_rows(columns, errors, floors, label)) for label in labels}
    return {"name": path.name, "columns": list(columns), "tables": tables, "floors": bool(floors), "facts": facts}


def _rows(
    columns: Mapping[str, Any], errors: Mapping[str, Any], floors: Mapping[str, Any], label: str
) -> Iterator[dict[str, Any]]:
    metrics = dict.fromkeys(metric for classes in columns.values() for metric in classes.get(label, {}))
    for metric in metrics:
        name, _, part = metric.rpartition("_")
        yield {
            "metric": name,
            "part": part,
            "values": [_number(classes.get(label, {}).get(metric)) for classes in columns.values()],
            "errors": [_number(errors.get(column, {}).get(label, {}).get(metric)) for column in columns],
            "floor": _number(floors.get(label, {}).get(metric)),
        }


def _by_step(lines: list[dict[str, float]]) -> list[dict[str, float]]:
    """One line for each step, in order: what is measured on held-out windows comes in a line of its own."""
    found: dict[float, dict[str, float]] = {}
    for line in lines:
        found.setdefault(line["step"], {}).update(line)
    return [found[step] for step in sorted(found)]


def _line(text: str) -> dict[str, float] | None:
    try:
        found = read_strict(text, 1 << 16)
        step = found["step"]
        numbers = {str(k)[:100]: float(v) for k, v in found.items() if isinstance(v, int | float)}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None
    return numbers if isinstance(step, int | float) and abs(step) < 2**53 else None


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return float(f"{sum(known) / len(known):.5g}") if known else None


def _number(value: Any) -> float | None:
    return float(f"{value:.6g}") if isinstance(value, int | float) and math.isfinite(value) else None
