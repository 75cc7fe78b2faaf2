"""Which pairs are worth training on, by their scores (`stages.pairing.scoring`) and by what was measured of them
(`stages.pairing.measurements`).

A pair without measurements is left out as `not_measured`; reasons are in the order in which they are looked for.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from visavis.schemas.manifest import Histogram, MotionSpec
from visavis.schemas.pairs import GateConfig, PairsConfig
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
from visavis.stages.pairing.scoring import SIDES, ReactivityScorer, Scorer, Side, SideName, ranked
from visavis.stages.pairing.shortfall import Groups, Responses, responses

Ranges = Mapping[str, tuple[float, float]]
BINS = 40
RANGES: dict[str, tuple[float, float]] = {
    "reactivity_margin": (-2.0, 2.0),
    "lagged_margin": (-2.0, 2.0),
    "event_margin": (-2.0, 2.0),
    "energy_margin": (-4.0, 4.0),
    "distance": (0.0, 4.0),
    "jerk_ratio": (0.0, 20.0),
    "off_manifold": (0.0, 4.0),
}
"""Of the histograms of measurements; that of `score_margin` is the scorer's (`ranges`)."""
_ALWAYS = tuple(name for name in RANGES if name != "event_margin")
"""Measurements that every pair which is kept has."""
_DIGITS = 6


@dataclass(frozen=True)
class Judged:
    """One pair of each window of a batch: its key, its motions in codec units, the seeds [W, 2] of their noise, its
    measurements, and why it is left out, or nothing."""

    keys: list[str]
    motions: Motions
    seeds: np.ndarray
    measured: Measurements
    reasons: list[str]

    def numbers(self, i: int) -> dict[str, Any]:
        """What was measured of the pair of window `i`, as its record has it."""
        named = {name: found[i] for name, found in self.measured.items() if name != "score_margin"}
        numbers = {name: np.round(found, _DIGITS).tolist() for name, found in named.items()}
        event = None if np.isnan(numbers["event_margin"]) else numbers["event_margin"]
        return numbers | {"event_margin": event, "scores": [float(f"{score:.{_DIGITS}g}") for score in named["scores"]]}


@dataclass
class Counts:
    """What became of windows and pairs so far: windows passed over, pairs left out by reason, conversations that have
    pairs, how many pairs have each label, histogram counts of all pairs that were made, responses of recorded and of
    the model's own motion."""

    passed_over: int = 0
    gated: Counter[str] = field(default_factory=Counter)
    conversations: set[str] = field(default_factory=set)
    labels: Counter[str] = field(default_factory=Counter)
    figures: dict[str, np.ndarray] = field(default_factory=lambda: defaultdict(lambda: np.zeros(BINS + 1, int)))
    responses: dict[str, np.ndarray] = field(default_factory=lambda: defaultdict(lambda: np.zeros((2, 4))))

    def add(self, judged: Judged, ranges: Ranges) -> None:
        for name, found in histogram_counts(judged.measured, ranges).items():
            self.figures[name] += found
        self.gated.update(reason for reason in judged.reasons if reason)

    def add_responses(self, found: Responses) -> None:
        for group, sums in found.items():
            self.responses[group] += sums


class Gate:
    """Scores and judges pairs of one class of windows."""

    def __init__(
        self,
        config: PairsConfig,
        motion: MotionSpec,
        reference: ReferenceStatistics,
        scorer: Scorer | None = None,
        groups: Groups | None = None,
    ) -> None:
        """scorer: of pairs that people did not decide. groups: of dimensions whose shortfall is asked for."""
        self._config, self._motion, self._reference = config, motion, reference
        self._scorer = scorer or ReactivityScorer()
        self._groups = groups or {}

    def judge(self, samples: Sequence[Sample], motions: Mapping[int, Motions]) -> list[Judged]:
        """A pair of each window for each seed of the noise; with `chosen: best` one in all.

        Args:
            motions: of the windows by seed, in codec units.
        """
        expected = Expected(Windows.of(samples, self._motion), self._reference)
        if self._config.chosen == "best":
            return [self._best(samples, motions, expected)]
        return [self._pair(samples, expected, number, *each) for number, each in enumerate(motions.items())]

    def voted(
        self, samples: Sequence[Sample], keys: list[str], motions: Motions, seed: int, shares_W2: np.ndarray
    ) -> Judged:
        """Pairs that people decided; shares: of the votes, [W, 2]."""
        expected = Expected(Windows.of(samples, self._motion), self._reference)
        sides = [self._side(samples, keys, name, motion, expected) for name, motion in zip(SIDES, motions, strict=True)]
        return self._judged(keys, sides, np.full((len(samples), 2), seed), shares_W2)

    def _pair(self, samples: Sequence[Sample], expected: Expected, number: int, seed: int, motions: Motions) -> Judged:
        keys = [pair_key(sample.key, number, self._config.per_window) for sample in samples]
        sides = [self._side(samples, keys, name, motion, expected) for name, motion in zip(SIDES, motions, strict=True)]
        seeds = np.full((len(samples), 2), seed)
        return self._judged(keys, sides, seeds, np.stack([self._scorer(side) for side in sides], axis=1))

    def _best(self, samples: Sequence[Sample], motions: Mapping[int, Motions], expected: Expected) -> Judged:
        """Of the model's own motions that which is scored highest against that which is scored lowest."""
        every = [
            self._side(samples, [pair_key(s.key, number, len(motions)) for s in samples], "rejected", own, expected)
            for number, (_, own) in enumerate(motions.values())
        ]
        scores_NW = np.stack([self._scorer(side) for side in every])
        picked, windows = ranked(scores_NW), np.arange(len(samples))
        keys = [sample.key for sample in samples]
        motion = np.stack([side.motion for side in every])
        sides = [
            self._side(samples, keys, name, motion[at_W, windows], expected)
            for name, at_W in zip(SIDES, picked, strict=True)
        ]
        seeds = np.stack([np.array(list(motions))[at_W] for at_W in picked], axis=1)
        return self._judged(keys, sides, seeds, np.stack([scores_NW[at_W, windows] for at_W in picked], axis=1))

    def _side(
        self, samples: Sequence[Sample], keys: list[str], name: SideName, motion: np.ndarray, expected: Expected
    ) -> Side:
        return Side(name, samples, keys, motion, normalised(motion, self._motion), expected)

    def _judged(self, keys: list[str], sides: Sequence[Side], seeds: np.ndarray, scores_W2: np.ndarray) -> Judged:
        chosen, rejected = sides
        measured = {
            **measure(chosen.expected, chosen.normalised, rejected.normalised),
            "scores": scores_W2,
            "score_margin": scores_W2[:, 0] - scores_W2[:, 1],
        }
        both = chosen.normalised, rejected.normalised
        reasons = reasons_left_out(measured, *both, self._config.gate)
        return Judged(keys, (chosen.motion, rejected.motion), seeds, measured, reasons)

    def responses(self, samples: Sequence[Sample], own_WTD: np.ndarray) -> Responses:
        """Of recorded motion and of the model's own, in codec units, for what falls short."""
        windows = Windows.of(samples, self._motion)
        own = normalised(own_WTD, self._motion)
        return responses(Expected(windows, self._reference), (windows.truth, own), self._groups)


def pair_key(window: str, number: int, per_window: int) -> str:
    """Of a window's pair; several of them are told apart by `-rN`."""
    return window if per_window == 1 else f"{window}-r{number}"


def reasons_left_out(
    measured: Measurements, chosen_WTD: np.ndarray, rejected_WTD: np.ndarray, gate: GateConfig
) -> list[str]:
    """Why each pair is left out, or nothing."""
    finite_W = np.isfinite(chosen_WTD).all(axis=(1, 2)) & np.isfinite(rejected_WTD).all(axis=(1, 2))
    energy, reactivity, score = gate.min_energy_margin, gate.min_reactivity_margin, gate.min_score_margin
    nothing_W = np.zeros_like(finite_W)
    score_margin = measured.get("score_margin", measured["reactivity_margin"])
    measured_W = np.all(
        [np.isfinite(measured[name]).reshape(len(finite_W), -1).all(axis=1) for name in _ALWAYS], axis=0
    )
    faults = {
        "not_finite": ~finite_W,
        "not_measured": ~measured_W,
        "too_similar": measured["distance"] < gate.min_distance,
        "broken_motion": measured["jerk_ratio"].max(axis=1) > gate.max_jerk_ratio,
        "off_manifold": measured["off_manifold"].max(axis=1) > gate.max_off_manifold,
        "not_scored": ~np.isfinite(score_margin),
        "not_less_reactive": measured["reactivity_margin"] <= reactivity if reactivity is not None else nothing_W,
        "not_scored_higher": score_margin <= score if score is not None else nothing_W,
        "less_motion_energy": measured["energy_margin"] < energy if energy is not None else nothing_W,
    }
    return [next((reason for reason, at in faults.items() if at[i]), "") for i in range(len(finite_W))]


def ranges(apart: float | None) -> Ranges:
    """Of the histograms of pairs whose scores are so far apart; none: by reactivity, whose is `reactivity_margin`."""
    return RANGES if apart is None else RANGES | {"score_margin": (-apart, apart)}


def histogram_counts(measured: Measurements, ranges: Ranges = RANGES) -> dict[str, np.ndarray]:
    """Histogram counts by name, [BINS + 1]; of two motions the worse. The last is of those that are not finite."""
    found = {}
    for name, (low, high) in ranges.items():
        values = measured[name].max(axis=1) if measured[name].ndim == 2 else measured[name]
        defined = values[np.isfinite(values)]
        bins = np.histogram(np.clip(defined, low, high), BINS, (low, high))[0]
        found[name] = np.append(bins, len(values) - len(defined))
    return found


def histograms(summed: Mapping[str, np.ndarray], ranges: Ranges = RANGES) -> dict[str, Histogram]:
    """Histogram counts as the manifest has them."""
    return {
        name: Histogram(
            low=ranges[name][0], high=ranges[name][1], counts=tuple(found[:-1].tolist()), undefined=int(found[-1])
        )
        for name, found in summed.items()
    }
