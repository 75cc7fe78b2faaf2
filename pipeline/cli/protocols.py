"""Tables of what public protocols say of some sequences, beside what costs nothing and the noise floor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from visavis.pipeline.engine.terminal import table
from visavis.schemas.errors import UsageError
from visavis.schemas.words import counted
from visavis.training.protocols.clips import Clip
from visavis.training.protocols.score import PROTOCOLS, Protocol


def known_protocol(name: str) -> Protocol:
    """Raises UsageError: none of this name."""
    known = next((each for each in PROTOCOLS if each == name), None)
    if known is None:
        raise UsageError(f"--protocol is one of {', '.join(PROTOCOLS)}, not {name}")
    return known


def protocol_table(protocol: str, of: str, rows: Mapping[str, Mapping[str, Any]]) -> Table:
    """Figures down, what was scored across."""
    made = table(f"{protocol}, {of} frames", "figure", *(name.replace("_", " ") for name in rows))
    for figure in next(iter(rows.values())):
        made.add_row(figure, *(_shown(row[figure]) for row in rows.values()))
    return made


def partial_lines(partial: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Iterator[str]:
    """What means leave out, of each table and column. partial: as `protocol_rows` gives it."""
    for of, rows in partial.items():
        for name, counts in rows.items():
            said = ", ".join(f"{figure} {count}" for figure, count in counts.items())
            yield f"{name.replace('_', ' ')}, {of} frames: sequences in which a figure is not defined, left out: {said}"


_FEW = ("recall", "chance", "p", "alarms_min", "delay_s", "spread_s", "delay_distance_s", "f1", "f1_chance")


def reaction_tables(found: Mapping[str, Any], *, whole: bool) -> list[Table]:
    """A table for each kind of event, one of how motions follow the user, and one of what follows barge-ins of the
    user, where there are any."""
    tables, others = [], {"following the user": found["follows"]}
    if any(row["barge_ins"] for row in found["yields"].values()):
        others["the user barges in"] = found["yields"]
    for title, rows in {**found["events"], **others}.items():
        made = table(title, "figure", *(name.replace("_", " ") for name in rows))
        for figure in next(iter(rows.values())):
            if whole or figure in _FEW or title not in found["events"]:
                made.add_row(figure, *(_shown(row[figure]) for row in rows.values()))
        tables.append(made)
    return tables


def summary(clips: Mapping[str, Clip], left_out: Mapping[str, int]) -> str:
    """How much was scored, and what was not."""
    frames = sum(len(clip.truth) for clip in clips.values())
    said = f"{counted(len(clips), 'sequence')}, {counted(frames, 'frame')}"
    if left_out.get("frame"):
        said += (
            f"; {counted(left_out['frame'], 'frame')} at ends left out, where the sides of a sequence differ in length"
        )
    if left_out.get("sequence"):
        said += f"; {counted(left_out['sequence'], 'sequence')} of the truth left out, for which nothing was generated"
    masks = [clip.listening for clip in clips.values() if clip.listening is not None]
    if masks and not any(mask.any() for mask in masks):
        said += "; no listening frame among them"
    return said


def lengths(frames: Sequence[int]) -> dict[str, int]:
    """How long sequences are: their number, frames in all, of the shortest, the middle one and the longest."""
    return {
        "sequences": len(frames),
        "frames": sum(frames),
        "shortest": min(frames, default=0),
        "median": int(np.median(frames)) if frames else 0,
        "longest": max(frames, default=0),
    }


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
