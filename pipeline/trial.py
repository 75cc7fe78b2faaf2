"""`visavis pairs --dry-run`: make pairs of a few windows, write nothing, and say what all of them would come to.

A sample of 64 windows tells a yield to within some 6 percentage points (one standard error), and where time goes.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from pipeline.pairs import Order, in_words
from pipeline.task import threads
from stages.gate import histograms
from stages.pairs import PairsStage, Tally, learn_from, some_of

SAMPLE = 64
"""Windows that are tried; of several classes in proportion to what there is of each."""


def try_pairs(order: Order) -> dict[str, Any]:
    """What the gate lets through of a sample, and what that means for all windows of the order; plain JSON values.

    `seconds` is the time that one worker like this process takes for everything.
    """
    stage = PairsStage(order.config, order.dataset.location, order.checkpoint, out="")
    with threads(max(1, int(stage.resources.cpus))):
        return _tried(order, stage)


def _tried(order: Order, stage: PairsStage) -> dict[str, Any]:
    stage.setup()
    tally, tried, kept, seconds = Tally(), 0, 0, 0.0
    for label in order.classes:
        there = sum(item.last - item.first for item in order.planned if item.source.label is label)
        count = min(there, max(1, round(SAMPLE * there / order.windows)))
        groups, yardstick = some_of(order.dataset, label, count), learn_from(order.dataset, label, order.config)
        for _ in stage.pairs(groups[:1], yardstick, Tally()):  # what is slow only once is no part of the pace
            pass
        began = time.perf_counter()
        kept += sum(1 for _ in stage.pairs(groups, yardstick, tally))
        seconds += time.perf_counter() - began
        tried += len(groups)
    made = kept + tally.gated.total()
    share = order.windows / tried
    return {
        "windows": order.windows,
        "sampled": tried,
        "passed_over": round(tally.passed_over * share),
        "pairs": round(kept * share),
        "pairs_error": round(_error(kept, made) * share),
        "gated": {reason: round(n * share) for reason, n in sorted(tally.gated.items())},
        "seconds": round(seconds * share, 1),
        "pairs_s": round(made / seconds, 2),
        "figures": {name: found.model_dump() for name, found in histograms(tally.figures).items()},
    }


def trial_lines(found: dict[str, Any]) -> list[str]:
    """What came out, for people."""
    left_out = f", left out: {in_words(found['gated'])}" if found["gated"] else ""
    return [
        f"{found['windows']} windows, of which {found['sampled']} were tried: about {found['pairs']}"
        f" ± {found['pairs_error']} pairs{left_out}; {found['passed_over']} windows passed over",
        f"about {_duration(found['seconds'])} on one worker like this ({found['pairs_s']:g} pairs a second)",
        "nothing was written",
    ]


def _error(kept: int, made: int) -> float:
    """One standard error of how many were kept."""
    share = (kept + 1) / (made + 2)  # of none, too
    return float(np.sqrt(made * share * (1 - share)))


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
