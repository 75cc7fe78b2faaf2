"""The metrics of one row of an evaluation, taken in batch by batch: memory does not grow with frames.

What is kept are sums, and four numbers for each window, from which come the standard errors (windows count as
independent draws, which overlapping ones of one conversation are not: real errors are larger), and the noise floor of
rPCC: what two halves of the truth differ by, mean over random ways to halve it. A model's rPCC below it cannot be told
from the truth with so few windows.

A figure that is not defined is NaN, as `training.metrics` says; so is every figure where a valid frame has a number
that is not finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from visavis.schemas.manifest import MotionSpec
from visavis.training.metrics.correlation import flat_pcc, flat_sums, window_pcc
from visavis.training.metrics.distributions import CLUSTERS, entropy, frame_sums, frechet, histogram, kmeans
from visavis.training.metrics.lags import lag_sums, lagged_from
from visavis.training.metrics.movement import jerk_sums, mean_jerk, window_var
from visavis.training.metrics.windows import broken, columns, mean_defined

HALVINGS = 200
Centres = Mapping[str, np.ndarray]
"""Of SID's clusters, [K, D] by part."""


def fit_centres(truth_ND: np.ndarray, motion: MotionSpec) -> dict[str, np.ndarray]:
    """Clusters of the truth's frames, of expression and of pose."""
    return {part: kmeans(truth_ND[:, chosen], CLUSTERS[part], seed=0) for part, chosen in columns(motion).items()}


class Accumulator:
    """Metrics of generated motion beside the truth and the user; names are `metric_expression` and `metric_pose`."""

    def __init__(self, motion: MotionSpec, centres: Centres) -> None:
        self._parts = {part: _Part(chosen, centres[part]) for part, chosen in columns(motion).items()}

    def add(self, truth_WTD: np.ndarray, generated_WTD: np.ndarray, user_WTD: np.ndarray, valid_WT: np.ndarray) -> None:
        """Take in a batch, normalised; all batches have windows of one length."""
        for part in self._parts.values():
            truth, generated, user = (side[..., part.columns] for side in (truth_WTD, generated_WTD, user_WTD))
            part.add(truth, generated, user, valid_WT)

    def merge(self, other: Accumulator) -> None:
        """Take in what another one did, with the same centres."""
        for name, part in self._parts.items():
            part.merge(other._parts[name])

    def figures(self) -> dict[str, float]:
        """All metrics."""
        return self._named(_Part.figures)

    def errors(self) -> dict[str, float]:
        """Standard errors over windows of those metrics that are means over windows; none of a single window."""
        return self._named(_Part.errors)

    def floor(self, seed: int = 0) -> dict[str, float]:
        """rPCC between two random halves of the truth; none of a single window."""
        return self._named(lambda part: part.floor(seed))

    def _named(self, ask: Callable[[_Part], dict[str, float]]) -> dict[str, float]:
        return {f"{name}_{part}": value for part, sums in self._parts.items() for name, value in ask(sums).items()}


class _Part:
    """Expression, or pose."""

    def __init__(self, chosen: np.ndarray, centres_KD: np.ndarray) -> None:
        self.columns, self._centres = chosen, centres_KD
        self._sums: dict[str, np.ndarray] = {}
        self._windows: dict[str, list[np.ndarray]] = {}  # of each window, [W, …]

    def add(self, truth_WTD: np.ndarray, generated_WTD: np.ndarray, user_WTD: np.ndarray, valid_WT: np.ndarray) -> None:
        broken_W = broken(valid_WT, truth_WTD, generated_WTD, user_WTD)
        valid_WT = valid_WT & ~broken_W[:, None]
        self._take(
            {
                "broken": broken_W.sum(),
                "lags": lag_sums(generated_WTD, user_WTD, valid_WT),
                "flat": flat_sums(generated_WTD, user_WTD, valid_WT).sum(axis=0),
                "jerk": jerk_sums(generated_WTD, valid_WT),
                "histogram": histogram(generated_WTD[valid_WT], self._centres),
                "frames": frame_sums(generated_WTD[valid_WT]),
                "truth_frames": frame_sums(truth_WTD[valid_WT]),
            },
            {
                "pcc": [window_pcc(generated_WTD, user_WTD, valid_WT)],
                "pcc_of_truth": [window_pcc(truth_WTD, user_WTD, valid_WT)],
                "flat_of_truth": [flat_sums(truth_WTD, user_WTD, valid_WT)],
                "pcc_truth": [window_pcc(generated_WTD, truth_WTD, valid_WT)],
                "var": [window_var(generated_WTD, valid_WT)],
            },
        )

    def merge(self, other: _Part) -> None:
        self._take(other._sums, other._windows)

    def _take(self, sums: Mapping[str, np.ndarray], windows: Mapping[str, list[np.ndarray]]) -> None:
        for name, value in sums.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        for name, values in windows.items():
            self._windows.setdefault(name, []).extend(values)

    def _of_windows(self, name: str) -> np.ndarray:
        return np.concatenate(self._windows[name])

    def figures(self) -> dict[str, float]:
        mean = {name: mean_defined(self._of_windows(name)) for name in ("pcc", "pcc_of_truth", "pcc_truth", "var")}
        timing = lagged_from(self._sums["lags"])
        truth = self._of_windows("flat_of_truth").sum(axis=0)
        found = {
            "pcc": mean["pcc"],
            "rpcc": abs(mean["pcc_of_truth"] - mean["pcc"]),
            "rpcc_flat": abs(flat_pcc(truth) - flat_pcc(self._sums["flat"])),
            "pcc_truth": mean["pcc_truth"],
            "lagged_best": timing.correlation[timing.best],
            "lagged_delay": timing.delay,
            "var": mean["var"],
            "sid": entropy(self._sums["histogram"]),
            "fd_pooled": frechet(self._sums["truth_frames"], self._sums["frames"]),
            "jerk": mean_jerk(self._sums["jerk"]),
        }
        return dict.fromkeys(found, math.nan) if self._sums["broken"] else found

    def errors(self) -> dict[str, float]:
        """Of rpcc: of the mean difference behind it."""
        windows = {name: self._of_windows(name) for name in ("pcc", "pcc_truth", "var")}
        windows["rpcc"] = self._of_windows("pcc_of_truth") - windows["pcc"]
        return {name: standard_error(values) for name, values in windows.items() if len(values) > 1}

    def floor(self, seed: int) -> dict[str, float]:
        pccs, flats = self._of_windows("pcc_of_truth"), self._of_windows("flat_of_truth")
        if len(pccs) < 2:
            return {}
        seen = ~np.isnan(pccs)
        if seen.sum() < 2:
            return {"rpcc": math.nan, "rpcc_flat": math.nan}
        pccs, flats = pccs[seen], flats[seen]
        random = np.random.default_rng(seed)
        gaps, flat_gaps = [], []
        for _ in range(HALVINGS):
            one, two = np.array_split(random.permutation(len(pccs)), 2)
            gaps.append(abs(pccs[one].mean() - pccs[two].mean()))
            flat_gaps.append(abs(flat_pcc(flats[one].sum(axis=0)) - flat_pcc(flats[two].sum(axis=0))))
        return {"rpcc": float(np.mean(gaps)), "rpcc_flat": float(np.mean(flat_gaps))}


def standard_error(values_W: np.ndarray) -> float:
    """Of the mean of those that are defined; NaN of fewer than two."""
    defined = values_W[~np.isnan(values_W)]
    return float(defined.std(ddof=1) / np.sqrt(len(defined))) if len(defined) > 1 else math.nan
