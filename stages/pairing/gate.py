"""Which pairs are worth training on, by what was measured of them (`stages.pairing.measurements`).

A pair without measurements is left out as `not_measured`; reasons are in the order in which they are looked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from visavis.schemas.manifest import Histogram, MotionSpec
from visavis.schemas.pairs import GateConfig
from visavis.schemas.sample import Sample
from visavis.stages.pairing.measurements import (
    Expected,
    Measurements,
    Motions,
    ReferenceStatistics,
    Windows,
    measure,
    normalised,
)

BINS = 40
RANGES = {
    "reactivity_margin": (-2.0, 2.0),
    "lagged_margin": (-2.0, 2.0),
    "event_margin": (-2.0, 2.0),
    "energy_margin": (-4.0, 4.0),
    "distance": (0.0, 4.0),
    "jerk_ratio": (0.0, 20.0),
    "off_manifold": (0.0, 4.0),
}
"""Of the histograms of measurements."""
_ALWAYS = tuple(name for name in RANGES if name != "event_margin")
"""Measurements that every pair which is kept has."""
_DIGITS = 6


@dataclass(frozen=True)
class Judged:
    """One pair of each window of a batch: its measurements, and why it is left out, or nothing."""

    measured: Measurements
    reasons: list[str]

    def numbers(self, i: int) -> dict[str, Any]:
        """What was measured of the pair of window `i`, as its record has it."""
        numbers = {name: np.round(found[i], _DIGITS).tolist() for name, found in self.measured.items()}
        return numbers | {"event_margin": None if np.isnan(numbers["event_margin"]) else numbers["event_margin"]}


@dataclass
class Counts:
    """What became of windows and pairs so far: windows passed over, pairs left out by reason, conversations that have
    pairs, histogram counts of all pairs that were made."""

    passed_over: int = 0
    gated: Counter[str] = field(default_factory=Counter)
    conversations: set[str] = field(default_factory=set)
    figures: dict[str, np.ndarray] = field(default_factory=lambda: {name: np.zeros(BINS + 1, int) for name in RANGES})

    def add(self, judged: Judged) -> None:
        for name, found in histogram_counts(judged.measured).items():
            self.figures[name] += found
        self.gated.update(reason for reason in judged.reasons if reason)


class Gate:
    """Judges pairs of one class of windows."""

    def __init__(self, config: GateConfig, motion: MotionSpec, reference: ReferenceStatistics) -> None:
        self._config, self._motion, self._reference = config, motion, reference

    def judge(self, samples: Sequence[Sample], motions: Mapping[int, Motions]) -> dict[int, Judged]:
        """By seed, of motions of the same windows, in codec units."""
        expected = Expected(Windows.of(samples, self._motion), self._reference)
        judged = {}
        for seed, pair in motions.items():
            chosen, rejected = (normalised(motion, self._motion) for motion in pair)
            measured = measure(expected, chosen, rejected)
            judged[seed] = Judged(measured, reasons_left_out(measured, chosen, rejected, self._config))
        return judged


def reasons_left_out(
    measured: Measurements, chosen_WTD: np.ndarray, rejected_WTD: np.ndarray, gate: GateConfig
) -> list[str]:
    """Why each pair is left out, or nothing."""
    finite_W = np.isfinite(chosen_WTD).all(axis=(1, 2)) & np.isfinite(rejected_WTD).all(axis=(1, 2))
    energy = gate.min_energy_margin
    measured_W = np.all(
        [np.isfinite(measured[name]).reshape(len(finite_W), -1).all(axis=1) for name in _ALWAYS], axis=0
    )
    faults = {
        "not_finite": ~finite_W,
        "not_measured": ~measured_W,
        "too_similar": measured["distance"] < gate.min_distance,
        "broken_motion": measured["jerk_ratio"].max(axis=1) > gate.max_jerk_ratio,
        "off_manifold": measured["off_manifold"].max(axis=1) > gate.max_off_manifold,
        "not_less_reactive": measured["reactivity_margin"] <= gate.min_reactivity_margin,
        "less_motion_energy": measured["energy_margin"] < energy if energy is not None else np.zeros_like(finite_W),
    }
    return [next((reason for reason, at in faults.items() if at[i]), "") for i in range(len(finite_W))]


def histogram_counts(measured: Measurements) -> dict[str, np.ndarray]:
    """Histogram counts by name, [BINS + 1]; of two motions the worse. The last is of those that are not finite."""
    found = {}
    for name, (low, high) in RANGES.items():
        values = measured[name].max(axis=1) if measured[name].ndim == 2 else measured[name]
        defined = values[np.isfinite(values)]
        bins = np.histogram(np.clip(defined, low, high), BINS, (low, high))[0]
        found[name] = np.append(bins, len(values) - len(defined))
    return found


def histograms(summed: Mapping[str, np.ndarray]) -> dict[str, Histogram]:
    """Histogram counts as the manifest has them."""
    return {
        name: Histogram(
            low=RANGES[name][0], high=RANGES[name][1], counts=tuple(found[:-1].tolist()), undefined=int(found[-1])
        )
        for name, found in summed.items()
    }
