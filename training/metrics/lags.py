"""How alike the avatar moves to what the user did some time earlier."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student

from visavis.schemas import FPS
from visavis.training.metrics.windows import QUIET, WTD, ValidWT, broken, mean_defined, moments, ratio

MAX_LAG = 2 * FPS
"""Frames; the longest reaction looked for is 2 s."""
MIN_OVERLAP = 10
"""Frames that a window must still have at a lag to be counted there."""
CHANCE = 0.05
"""Share of sets of windows without any reaction in which a delay is found all the same."""


@dataclass(frozen=True)
class Lagged:
    """correlation[i] is that of the avatar with the user i frames earlier; `best` is where it is largest.

    surprise: Student's t of the covariance at `best`, over windows (a mean over its standard error; windows count as
    independent draws, as for standard errors), and how large it must be to be more than chance, corrected for the
    number of lags that were tried.
    """

    correlation: tuple[float, ...]
    surprise: tuple[float, float] = (math.nan, math.nan)

    @property
    def best(self) -> int:
        """0 where no correlation is defined."""
        defined = [-math.inf if math.isnan(value) else value for value in self.correlation]
        return int(np.argmax(defined))

    @property
    def delay(self) -> float:
        """Seconds; NaN where the best correlation is not positive, or no more than chance gives."""
        found, needed = self.surprise
        return self.best / FPS if self.correlation[self.best] > 0 and found > needed else math.nan


def lagged(avatar_WTD: WTD, user_WTD: WTD, valid_WT: ValidWT) -> Lagged:
    """How alike the avatar moves to what the user did some time earlier: `max(correlation)` and `delay`.

    Formula: at each lag covariance over root of both variances, sums over windows first, then the mean over dimensions;
        lags from 0 to 2 s, or as far as windows reach. The delay is named where Student's t of the covariance over
        windows is beyond chance, corrected for the number of lags.
    Source: ours.
    Space: normalised; expression or pose.
    Floor: noise .007 and .005, strangers .011 and .032, none of them with a delay; the recorded avatar .203 at .32 s,
        and of the pose, where nothing is mirrored, .005.
    Edges: one frame NaN, as fewer than 10 at a lag; a constant dimension counts as 0; no frames NaN.
    """
    if broken(valid_WT, avatar_WTD, user_WTD).any():
        return Lagged((math.nan,) * _lags(valid_WT.shape[1]))
    return lagged_from(lag_sums(avatar_WTD, user_WTD, valid_WT))


def _lags(frames: int) -> int:
    return max(1, min(MAX_LAG, frames - MIN_OVERLAP) + 1)


@QUIET
def lag_sums(avatar_WTD: WTD, user_WTD: WTD, valid_WT: ValidWT) -> np.ndarray:
    """What `lagged_from` needs, [L, 3 D + 3]: covariances (about each window's own mean) and both variances; then how
    many windows, and the sum and the sum of squares of their covariances (mean over dimensions).

    They are summed over windows before the division, so that short overlaps at long lags do not count as much as long
    ones.
    """
    frames, dims = avatar_WTD.shape[1:]
    found = []
    for lag in range(_lags(frames)):
        end = max(0, frames - lag)
        both_WT = valid_WT[:, lag:] & valid_WT[:, :end]
        enough = both_WT.sum(axis=1) >= MIN_OVERLAP
        parts = moments(avatar_WTD[enough, lag:], user_WTD[enough, :end], both_WT[enough])
        score_W = parts[0].sum(axis=1) / max(dims, 1)
        scores = [enough.sum(), score_W.sum(), (score_W * score_W).sum()]
        found.append(np.concatenate([*(part.sum(axis=0) for part in parts), scores]))
    return np.stack(found)


def lagged_from(sums_LX: Float[np.ndarray, "L X"]) -> Lagged:
    """The mean over dimensions at each lag."""
    dims = (sums_LX.shape[1] - 3) // 3
    correlation = tuple(
        mean_defined(ratio(*sums_X[:-3].reshape(3, dims))) if sums_X[-3] else math.nan for sums_X in sums_LX
    )
    found = Lagged(correlation)
    return replace(found, surprise=_surprise(sums_LX[found.best, -3:], len(correlation)))


def _surprise(sums_3: np.ndarray, tries: int) -> tuple[float, float]:
    """Student's t of a mean, and the one that chance exceeds in a share CHANCE of cases in as many tries."""
    count, total, squares = sums_3.tolist()
    if count < 2 or not math.isfinite(squares):
        return math.nan, math.nan
    variance = max(squares / count - (total / count) ** 2, 0.0) * count / (count - 1)
    error = max(math.sqrt(variance / count), 1e-12)  # windows that are all alike
    return total / count / error, float(student.isf(CHANCE / tries, count - 1))
