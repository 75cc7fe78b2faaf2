"""Reaction timing of what checkpoints generated, row by row, beside the recorded avatar and one at the wrong time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from visavis.schemas.manifest import Manifest
from visavis.training.events import not_told, readouts
from visavis.training.granger import Space, user_gain
from visavis.training.metrics.windows import mean_defined
from visavis.training.protocol_rows import part_columns
from visavis.training.reactions import Reactions, lagged
from visavis.training.sequences import Recorded
from visavis.training.yielding import Yielding

Motions = Sequence[Sequence[np.ndarray]]
"""By seed, then one [T, D] for each sequence."""
Figures = dict[str, float | None]


def reaction_rows(
    manifest: Manifest,
    recorded: Sequence[Recorded],
    made: Mapping[str, Motions],
    basis_EK: np.ndarray | None = None,
    scored: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Figures of `training.reactions`, `training.yielding` and `training.granger`; of several seeds their means.

    Args:
        made: by who generated it.
        basis_EK: of the dataset's codec, where it has one (`training.events.readouts`).
        scored: called after every row.

    Returns: {"events": {kind: {row: {figure: value}}}, "follows": {row: {figure: value}}, "yields": the same of
        barge-ins, "thresholds": {kind: height}, "not_told": kinds that the motion's columns cannot tell}. Rows: those
        made, `ground_truth`, `shifted` (the truth half a sequence late: moves alike, hears nobody), `hold_still`. None
        for what is not defined.
    """
    truth = [each.truth for each in recorded]
    rows = dict(made) | {
        "ground_truth": [truth],
        "shifted": [[_late(each) for each in recorded]],
        "hold_still": [[np.broadcast_to(each.reference, each.truth.shape) for each in recorded]],
    }
    signals = readouts(manifest, basis_EK)
    ruler, space, barged = Reactions(recorded, signals), Space.of(recorded), Yielding(recorded, signals)
    parts = {name: columns for name, columns in part_columns(manifest).items() if name != "place"}
    events: dict[str, dict[str, Figures]] = {}
    follows: dict[str, Figures] = {}
    yields: dict[str, Figures] = {}
    for name, seeds in rows.items():
        of_seeds = [ruler.figures(motions) for motions in seeds]
        for kind in of_seeds[0]:
            events.setdefault(kind, {})[name] = _mean([found[kind] for found in of_seeds])
        follows[name] = _mean([_follows(recorded, motions, parts, space) for motions in seeds])
        yields[name] = _mean([barged.figures(motions) for motions in seeds])
        scored()
    return {
        "events": events,
        "follows": follows,
        "yields": yields,
        "thresholds": ruler.least,
        "not_told": list(not_told(signals)),
    }


def _late(recorded: Recorded) -> np.ndarray:
    """The truth, half of its valid frames late; what lies on the others is no motion of a face, and stays there."""
    late = recorded.truth.copy()
    seen = late[recorded.valid]
    late[recorded.valid] = np.roll(seen, len(seen) // 2, axis=0)
    return late


def _follows(
    recorded: Sequence[Recorded], motions: Sequence[np.ndarray], parts: Mapping[str, np.ndarray], space: Space
) -> dict[str, float]:
    """`lagged` of each part, and R-DGG."""
    found: dict[str, float] = {}
    for part, columns in parts.items():
        some = [replace(each, user=each.user[:, columns]) for each in recorded]
        followed = lagged(some, [motion[:, columns] for motion in motions])
        found |= {f"lagged_{name}_{part}": value for name, value in asdict(followed).items()}
    return found | {f"R-DGG_{name}": value for name, value in asdict(user_gain(recorded, motions, space)).items()}


def _mean(each: Sequence[Mapping[str, float]]) -> Figures:
    mean = {name: mean_defined(np.array([figures[name] for figures in each])) for name in each[0]}
    return {name: value if math.isfinite(value) else None for name, value in mean.items()}
