"""How much of the way that a round's steps took a model to keep.

How far steps take a reaction hangs on the base and on λ, so it is measured: by how much the model falls short before
and after them, below 0 where its reactions go beyond the recorded ones. Along the way, `start + share · (end − start)`
of the weights, the shortfall falls nearly evenly (docs/results-shortfall.md), so two measurements give about the share
at which it is 0, by least squares over the groups of dimensions that were taught.
"""

from __future__ import annotations

from collections.abc import Mapping

from visavis.training.preferences.groups import Shortfall, growth

_LEAST = 0.01


def share_of_way(before: Shortfall, after: Shortfall) -> float:
    """0.01 … 1; 1 where nothing that was taught goes beyond the recorded for certain."""
    taught = [(short, after.get(group) or 0.0) for group, short in _taught(before).items()]
    if not any(left < 0 for _, left in taught):
        return 1.0
    wanted = sum(short * (short - left) for short, left in taught)
    moved = sum((short - left) ** 2 for short, left in taught)
    return round(min(max(wanted / moved, _LEAST), 1.0), 4)


def _taught(shortfall: Shortfall) -> Mapping[str, float]:
    return {group: short for group, short in shortfall.items() if short is not None and growth(short)}
