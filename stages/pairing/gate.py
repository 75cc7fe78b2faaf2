"""Which pairs are worth training on: what tells the sides apart, and whether both are sound.

    reactivity_margin  how much more chosen reacts to its user than rejected: lagged + event
      lagged_margin      correlation with the reaction that the user's motion predicts, chosen minus rejected
      event_margin       correlation with the response to the ends of the user's phrases; none where none ends in time
    energy_margin      log ratio of motion energy (variance over time, summed over dimensions)
    distance           root mean square difference, in corpus deviations
    jerk_ratio         mean absolute third difference over that of the recorded motion
    off_manifold       Mahalanobis distance from the corpus' frames, over the truth's usual

All figures of a batch are computed at once. Those of the sides are measured on frames in which the avatar's face is
valid, those of reactions where the user's is, too. Where nothing moves there is no reaction: 0. A window without four
such frames in a row has no figures: NaN, and its pairs are left out as `not_measured`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from visavis.schemas.manifest import Histogram
from visavis.schemas.pairs import GateConfig
from visavis.stages.pairing.reference_statistics import SOON, Windows, Yardstick, off_manifold, unit

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
"""Of the histograms of figures."""
_ALWAYS = tuple(name for name in RANGES if name != "event_margin")
"""Figures that every pair which is kept has."""

Figures = Mapping[str, np.ndarray]
"""By name, [W] float64, NaN where there is none; `jerk_ratio` and `off_manifold` [W, 2] of (chosen, rejected)."""


class Expected:
    """The reactions that the corpus predicts for some windows' users, against which sides are held."""

    def __init__(self, windows: Windows, yardstick: Yardstick) -> None:
        self._valid_WT = windows.valid[..., 0]
        user_WTD = unit(windows.user, windows.valid[..., 1])
        self._lagged_WTD = self._centred(_spread_out(user_WTD, yardstick.lagged[windows.fold]))
        impulse_WT1 = windows.phrase_end[..., None].astype(np.float32)
        self._event_WTD = self._centred(_spread_out(impulse_WT1, yardstick.event[windows.fold]))
        self.event_W = windows.phrase_end[:, :-SOON].any(axis=1)  # one has time to react to

    def fit(self, side_WTD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Correlation with the lagged reaction and with the response to events, [W] each, −1…1; 0 of nothing."""
        moves_WTD = unit(side_WTD, self._valid_WT)
        return _correlation(moves_WTD, self._lagged_WTD), _correlation(moves_WTD, self._event_WTD)

    def _centred(self, expected_WTD: np.ndarray) -> np.ndarray:
        weight = self._valid_WT[..., None].astype(np.float32)
        mean = (expected_WTD * weight).sum(axis=1, keepdims=True) / np.maximum(weight.sum(axis=1, keepdims=True), 1)
        return np.asarray((expected_WTD - mean) * weight)


@np.errstate(invalid="ignore", over="ignore")  # motion that is not finite has figures that are not
def measure(
    windows: Windows, chosen_WTD: np.ndarray, rejected_WTD: np.ndarray, yardstick: Yardstick, expected: Expected
) -> Figures:
    """Figures of pairs; the sides are normalised like the windows."""
    sides = (chosen_WTD, rejected_WTD)
    valid_WT = windows.valid[..., 0]
    (lagged, event), (lagged_bad, event_bad) = (expected.fit(side) for side in sides)
    event_margin = np.where(expected.event_W, event - event_bad, np.nan)
    energy, energy_bad = (_energy(side, valid_WT) for side in sides)
    usual = max(yardstick.usual, 1e-9)
    jerk = np.maximum(_jerk(windows.truth, valid_WT), 1e-9)
    return {
        "reactivity_margin": lagged - lagged_bad + np.where(expected.event_W, event_margin, 0.0),
        "lagged_margin": lagged - lagged_bad,
        "event_margin": event_margin,
        "energy_margin": np.log((energy + 1e-9) / (energy_bad + 1e-9)),
        "distance": np.sqrt(_mean(np.square(chosen_WTD - rejected_WTD).mean(axis=2), valid_WT)),
        "jerk_ratio": np.stack([_jerk(side, valid_WT) / jerk for side in sides], axis=1),
        "off_manifold": np.stack(
            [off_manifold(side, valid_WT, yardstick.mean, yardstick.whiten) / usual for side in sides], axis=1
        ),
    }


def verdicts(figures: Figures, chosen_WTD: np.ndarray, rejected_WTD: np.ndarray, gate: GateConfig) -> list[str]:
    """Why each pair is left out, or nothing."""
    finite_W = np.isfinite(chosen_WTD).all(axis=(1, 2)) & np.isfinite(rejected_WTD).all(axis=(1, 2))
    energy = gate.min_energy_margin
    measured_W = np.all([np.isfinite(figures[name]).reshape(len(finite_W), -1).all(axis=1) for name in _ALWAYS], axis=0)
    faults = {
        "not_finite": ~finite_W,
        "not_measured": ~measured_W,
        "too_similar": figures["distance"] < gate.min_distance,
        "broken_motion": figures["jerk_ratio"].max(axis=1) > gate.max_jerk_ratio,
        "off_manifold": figures["off_manifold"].max(axis=1) > gate.max_off_manifold,
        "not_less_reactive": figures["reactivity_margin"] <= gate.min_reactivity_margin,
        "less_lively": figures["energy_margin"] < energy if energy is not None else np.zeros_like(finite_W),
    }
    return [next((reason for reason, at in faults.items() if at[i]), "") for i in range(len(finite_W))]


def counts(figures: Figures) -> dict[str, np.ndarray]:
    """Histogram counts by figure, [BINS + 1]; of two sides the worse. The last is of those without a finite figure."""
    found = {}
    for name, (low, high) in RANGES.items():
        values = figures[name].max(axis=1) if figures[name].ndim == 2 else figures[name]
        defined = values[np.isfinite(values)]
        bins = np.histogram(np.clip(defined, low, high), BINS, (low, high))[0]
        found[name] = np.append(bins, len(values) - len(defined))
    return found


def histograms(summed: Mapping[str, np.ndarray]) -> dict[str, Histogram]:
    return {
        name: Histogram(
            low=RANGES[name][0], high=RANGES[name][1], counts=tuple(found[:-1].tolist()), undefined=int(found[-1])
        )
        for name, found in summed.items()
    }


def _spread_out(cause_WTX: np.ndarray, response_WLD: np.ndarray) -> np.ndarray:
    """Σ over lags of the cause l frames earlier times the response at l, [W, T, D]."""
    frames = cause_WTX.shape[1]
    found = np.zeros((len(cause_WTX), frames, response_WLD.shape[2]), np.float32)
    for lag in range(min(response_WLD.shape[1], frames)):
        found[:, lag:] += cause_WTX[:, : frames - lag] * response_WLD[:, lag, None]
    return found


def _correlation(moves_WTD: np.ndarray, expected_WTD: np.ndarray) -> np.ndarray:
    """Of what has length 1 in each dimension that moves with what has any."""
    product = (moves_WTD * expected_WTD).sum(axis=(1, 2), dtype=np.float64)
    power = np.square(moves_WTD).sum(axis=(1, 2), dtype=np.float64) * np.square(expected_WTD).sum(
        axis=(1, 2), dtype=np.float64
    )
    return np.asarray(product / np.sqrt(np.where(power > 1e-12, power, np.inf)))


def _energy(motion_WTD: np.ndarray, valid_WT: np.ndarray) -> np.ndarray:
    weight = valid_WT[..., None]
    count = np.maximum(weight.sum(axis=1, keepdims=True), 1)
    centred = (motion_WTD - (motion_WTD * weight).sum(axis=1, keepdims=True) / count) * weight
    energy_W = (np.square(centred).sum(axis=1, dtype=np.float64) / count[:, 0]).sum(axis=1)
    return np.where(valid_WT.any(axis=1), energy_W, np.nan)


def _jerk(motion_WTD: np.ndarray, valid_WT: np.ndarray) -> np.ndarray:
    """Mean absolute third difference over spans of four valid frames, [W]."""
    whole_WT = valid_WT[:, 3:] & valid_WT[:, 2:-1] & valid_WT[:, 1:-2] & valid_WT[:, :-3]
    return _mean(np.abs(np.diff(motion_WTD, n=3, axis=1)).mean(axis=2), whole_WT)


def _mean(value_WT: np.ndarray, valid_WT: np.ndarray) -> np.ndarray:
    """Over valid frames; NaN of none."""
    total, count = np.where(valid_WT, value_WT, 0).sum(axis=1, dtype=np.float64), valid_WT.sum(axis=1)
    return np.asarray(total / np.where(count, count, np.nan))
