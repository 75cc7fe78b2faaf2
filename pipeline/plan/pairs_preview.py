"""`visavis pairs --dry-run`: make pairs of a few windows, write nothing, and say what all of them would come to.

A sample of 64 windows tells a yield to within some 6 percentage points (one standard error), and where time goes.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from visavis.pipeline.engine.worker import threads
from visavis.pipeline.plan.pairs_order import Order
from visavis.schemas.words import counted, duration, in_words
from visavis.stages.pairing.gate import Counts, histograms
from visavis.stages.pairing.reference_statistics import learn_from, some_of
from visavis.stages.pairing.shortfall import shortfall, shortfall_line

SAMPLE = 64
"""Windows that are tried; of several classes in proportion to what there is of each."""


def try_pairs(order: Order, before: float = 0.0) -> dict[str, Any]:
    """What the gate lets through of a sample, and what that means for all windows of the order; plain JSON values.

    `seconds` is the time that one worker like this process takes for everything: `start_s` until it makes the first
    pair, which is the same however many windows there are, and then `pairs_s` pairs a second.

    Args:
        before: seconds that this process took to come here, as a worker will; they count as start.
    """
    stage = order.stage(out="")
    counts, tried, kept, seconds = Counts(), 0, 0, 0.0
    with threads(max(1, int(stage.resources.cpus))):
        began = time.perf_counter()
        stage.setup()
        start = before + time.perf_counter() - began
        for label in order.classes:
            there = sum(item.last - item.first for item in order.planned if item.source.label is label)
            count = min(there, max(1, round(SAMPLE * there / order.windows)))
            groups = some_of(order.dataset, label, count)
            began = time.perf_counter()
            reference = learn_from(order.dataset, label, order.config)
            for _ in stage.pairs(groups[:1], reference, Counts()):  # what is slow only once is no part of the pace
                pass
            start += time.perf_counter() - began
            began = time.perf_counter()
            kept += sum(1 for _ in stage.pairs(groups, reference, counts))
            seconds += time.perf_counter() - began
            tried += len(groups)
    made = kept + counts.gated.total()
    share = order.windows / tried
    rate = (kept + 1) / (made + 2)  # of none, too
    named = order.ranges
    figures = histograms({name: counts.figures[name] for name in named}, named)
    error = float(np.sqrt(made * rate * (1 - rate)))  # one standard error of how many were kept
    return {
        "windows": order.windows,
        "sampled": tried,
        "passed_over": round(counts.passed_over * share),
        "pairs": round(kept * share),
        "pairs_error": round(error * share),
        "gated": {reason: round(n * share) for reason, n in sorted(counts.gated.items())},
        "start_s": round(start, 1),
        "seconds": round(start + seconds * share, 1),
        "pairs_s": round(made / seconds, 2),
        "figures": {name: found.model_dump() for name, found in figures.items()},
        "shortfall": shortfall([counts.responses]),
        "sampling": stage.sampling.model_dump() if stage.sampling else None,
    }


def trial_lines(found: dict[str, Any]) -> list[str]:
    """What came out, for people."""
    left_out = f", left out: {in_words(found['gated'])}" if found["gated"] else ""
    short = shortfall_line(found["shortfall"])
    return [
        f"{counted(found['windows'], 'window')}, of which {counted(found['sampled'], 'was', 'were')} tried: about"
        f" {found['pairs']} ± {counted(found['pairs_error'], 'pair')}{left_out};"
        f" {counted(found['passed_over'], 'window')} passed over",
        *([f"{short}, by these few windows"] if short else []),
        f"about {duration(found['seconds'])} on one worker like this: {duration(found['start_s'])} to start, then"
        f" {found['pairs_s']:.3g} pairs a second; starting Ray comes on top",
        "nothing was written",
    ]
