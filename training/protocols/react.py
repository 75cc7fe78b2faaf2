"""The REACT challenge's script."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from visavis.schemas.errors import UsageError
from visavis.training.metrics.windows import mean_defined
from visavis.training.protocols.averages import Mean, each_then_mean
from visavis.training.protocols.clips import KTD, TD, Clip, Parts
from visavis.training.time_warping import dynamic_time_warping

SYNCHRONY_LAG = 49
"""Frames to either side at which REACT looks for synchrony: 2 s at 25 a second, less one."""


def react(clips: Sequence[Clip], parts: Parts) -> dict[str, Mean]:
    """REACT's figures of K motions for each user, over all columns of `parts` together. Of one motion FRDiv is NaN.

    Formula: FRCorr: concordance of motion and truth, mean over dimensions, summed over K, mean over clips.
    FRDist: dynamic time warping between them part by part, each divided by its dimensions (a part `va`, valence and
    arousal, by 1, as in the script), summed over parts and K.
    FRDiv: mean squared difference between two of the K. FRVar: variance over time (T − 1). FRDvs: mean squared
    difference between motions for two users, over as many frames as the shortest clip has.
    FRSyn: |lag| within ± 49 frames at which motion and user correlate most, the mean over K and clips; FRSyn-2024: of
    the first of the K alone. NaN of clips of fewer than 51 frames, of which the script prints 49 whatever moves; as it
    does where a dimension never moves.
    The truth stands for all that would be appropriate; the challenge takes the best of several, or of neighbours'.

    Source: the challenge's scripts. FRSyn is 2023's; those of 2024 to 2026 return after the first motion. FRDvs is
        2023's and 2024's. Parts `au=0:15,va=15:17,emotion=17:25` are the challenge's own 25 columns.
    Space: raw; all columns together, FRDist by part.
    Floor: K = 1: the truth FRCorr 1, FRDist 0; halves −.07 and 2.2; noise −.001 and 3.7; FRVar of the truth .23, FRDvs
        .88, FRSyn 44 (halves 43, noise 15: of two clips it says nothing).
    Edges: one frame has FRCorr, FRDist and FRDvs, the others NaN; a constant dimension has a concordance of 0
        and is left out of FRSyn; no frames NaN.
    """
    columns = [column for part in parts.values() for column in range(clips[0].truth.shape[1])[part]]
    if len(set(columns)) < len(columns):
        raise UsageError("parts share columns, which would count twice: react scores all columns together")
    some = [clip.each(lambda motion: motion[:, columns].astype(np.float64)) for clip in clips]
    places, weights = _places(parts), [_weight(name, part) for name, part in parts.items()]
    figures: dict[str, Callable[[Clip], float]] = {
        "FRCorr": lambda c: sum(concordance(c.truth, motion) for motion in c.samples),
        "FRDist": lambda c: sum(_warped(c.truth, motion, places, weights) for motion in c.samples),
        "FRDiv": lambda c: _spread(c.samples),
        "FRVar": lambda c: float(c.samples.var(axis=1, ddof=1).mean()) if len(c.truth) > 1 else math.nan,
        "FRSyn": lambda c: mean_defined(np.array([synchrony(motion, c.partner) for motion in c.samples])),
        "FRSyn-2024": lambda c: synchrony(c.generated, c.partner),
    }
    found = dict(each_then_mean(some, figures))
    shortest = min(len(clip.truth) for clip in some)
    for_each = [_spread(np.stack(same)) for same in zip(*(clip.samples[:, :shortest] for clip in some), strict=False)]
    return found | {"FRDvs": Mean(mean_defined(np.array(for_each)))}


def concordance(truth_TD: TD, generated_TD: TD) -> float:
    """Concordance.

    Formula: 2 cov / (var₁ + var₂ + (μ₁ − μ₂)² + 1e-8), mean over dimensions.
    Source: Lin 1989; REACT adds the last term.
    Space: raw.
    Floor: the truth itself 1, halves of it −.07, noise −.001.
    Edges: one frame 0; a constant dimension 0; no frames NaN.
    """
    if not len(truth_TD):
        return math.nan
    a, b = truth_TD - truth_TD.mean(axis=0), generated_TD - generated_TD.mean(axis=0)
    gap = truth_TD.mean(axis=0) - generated_TD.mean(axis=0)
    covariance = (a * b).mean(axis=0)
    return float((2 * covariance / ((a * a).mean(axis=0) + (b * b).mean(axis=0) + gap * gap + 1e-8)).mean())


def synchrony(motion_TD: TD, user_TD: TD, lag: int = SYNCHRONY_LAG) -> float:
    """|lag| of most correlation, frames.

    Formula: |argmax| over lags of the mean over dimensions of the correlation, the first of equals from the most
        negative on; NaN, unless two frames are left at every lag.
    Source: REACT, whose script returns 49 for clips of 50 frames, whatever moves.
    Space: raw.
    Floor: any lag is as likely of noise: of 49 about 24.
    Edges: fewer than lag + 2 frames NaN; a constant dimension is left out, all constant NaN; no frames NaN.
    """
    if len(motion_TD) < lag + 2:
        return math.nan
    mean_L = np.array([mean_defined(each_D) for each_D in lagged_correlations(motion_TD, user_TD, lag)])
    if np.isnan(mean_L).all():  # one of the two holds still
        return math.nan
    return float(abs(int(np.nanargmax(mean_L)) - lag))


def lagged_correlations(motion_TD: TD, user_TD: TD, lag: int) -> Float[np.ndarray, "L D"]:
    """Correlation of each dimension with the user's at every lag from −lag (the user follows) to lag, over the frames
    that both have there; NaN where one of the two does not move.

    Sums of products come from Fourier transforms, those of one side from running sums, both about the mean of all.
    """
    frames = len(motion_TD)
    a_TD, b_TD = motion_TD - motion_TD.mean(axis=0), user_TD - user_TD.mean(axis=0)
    size = 1 << (frames + lag).bit_length()
    spectrum = np.fft.rfft(a_TD, size, axis=0) * np.fft.rfft(b_TD, size, axis=0).conj()
    shifts_L = np.arange(-lag, lag + 1)
    products_LD = np.fft.irfft(spectrum, size, axis=0)[shifts_L]
    begin_L, late_L = np.maximum(shifts_L, 0), np.maximum(-shifts_L, 0)
    count_L1 = (frames - np.abs(shifts_L))[:, None]

    def moments(side_TD: TD, first_L: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sum and squared deviation of the frames that are left, [L, D]; 0 for what is rounding alone."""
        sums, squares = (np.pad(np.cumsum(x, axis=0), ((1, 0), (0, 0))) for x in (side_TD, side_TD * side_TD))
        last_L = first_L + count_L1[:, 0]
        total_LD, power_LD = sums[last_L] - sums[first_L], squares[last_L] - squares[first_L]
        spread_LD = power_LD - total_LD * total_LD / count_L1
        return total_LD, np.where(spread_LD > 1e-12 * squares[-1], spread_LD, 0.0)

    (a_sum, a_power), (b_sum, b_power) = moments(a_TD, begin_L), moments(b_TD, late_L)
    power_LD = np.sqrt(a_power * b_power)
    return np.divide(
        products_LD - a_sum * b_sum / count_L1, power_LD, out=np.full(power_LD.shape, math.nan), where=power_LD > 0
    )


def _places(parts: Parts) -> list[slice]:
    """Where each part lies when only the columns of parts are kept, one part after the other."""
    ends = np.cumsum([part.stop - part.start for part in parts.values()]).tolist()
    return [slice(end - (part.stop - part.start), end) for end, part in zip(ends, parts.values(), strict=True)]


def _weight(name: str, part: slice) -> float:
    """Of a part in FRDist."""
    return 1.0 if name == "va" else 1 / (part.stop - part.start)


def _warped(truth_TD: TD, generated_TD: TD, parts: Sequence[slice], weights: Sequence[float]) -> float:
    if not len(truth_TD):
        return math.nan
    warped = [dynamic_time_warping(generated_TD[:, part], truth_TD[:, part]) for part in parts]
    return sum(weight * far for weight, far in zip(weights, warped, strict=True))


def _spread(motions_KTD: KTD) -> float:
    """Mean squared difference between two different ones; NaN of fewer than two, or of no frames."""
    count = len(motions_KTD)
    if count < 2 or not motions_KTD.size:
        return math.nan
    flat_KN = motions_KTD.reshape(count, -1)
    centred_KN = flat_KN - flat_KN.mean(axis=0)
    return 2 * float((centred_KN * centred_KN).sum()) / ((count - 1) * flat_KN.shape[1])
