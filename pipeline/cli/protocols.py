"""Tables of what public protocols say of some sequences, beside what costs nothing and the noise floor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from visavis.pipeline.engine.terminal import table
from visavis.schemas.words import counted
from visavis.training.protocols import Clip, Parts, Protocol, baselines, halves, listening_only, score

FEW = ("generated", "floor", "shifted", "hold_still")
"""Columns of the default table."""
Rows = dict[str, dict[str, float | None]]
"""By what was scored, and figure; None where it is not defined."""


def protocol_rows(protocol: Protocol, clips: Sequence[Clip], parts: Parts, *, whole: bool) -> dict[str, Rows]:
    """Figures over all frames, and over listening frames where somebody says which those are.

    Returns: {"all" and "listening": {what was scored: {figure: value}}}. The floor is two halves of the truth beside
    each other, `shifted` the truth at the wrong time, `hold_still` its first frame.
    """
    scored = {"generated": list(clips), "floor": halves(clips), **baselines(clips)}
    sets = {"all": scored}
    if listening := {name: found for name, some in scored.items() if (found := listening_only(some))}:
        sets["listening"] = listening
    if protocol == "unils":  # which parts the frames itself
        sets = {"all": scored}
    return {
        of: {
            name: {
                figure: value if math.isfinite(value) else None
                for figure, value in score(protocol, some, parts).items()
            }
            for name, some in rows.items()
            if whole or name in FEW
        }
        for of, rows in sets.items()
    }


def protocol_table(protocol: Protocol, of: str, rows: Mapping[str, Mapping[str, Any]]) -> Table:
    """Figures down, what was scored across."""
    made = table(f"{protocol}, {of} frames", "figure", *(name.replace("_", " ") for name in rows))
    for figure in next(iter(rows.values())):
        made.add_row(figure, *(_shown(row[figure]) for row in rows.values()))
    return made


def summary(clips: Mapping[str, Clip], left_out: Mapping[str, int]) -> str:
    """How much was scored, and what was not."""
    frames = sum(len(clip.truth) for clip in clips.values())
    said = f"{counted(len(clips), 'sequence')}, {counted(frames, 'frame')}"
    others = " and ".join(counted(count, what) for what, count in left_out.items())
    return f"{said}; {others} of the truth left out, which have no counterpart" if others else said


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
