"""Does a voice go with the lips of its face? At which delay, and at the same one throughout?

What of the motion follows the own voice is learned from the corpus itself (ridge regression of the level on motion and
its speed), so any codec will do, and a few wrong conversations do no harm. Then lips and both voices are correlated at
delays up to a second, in eight parts of the conversation (as in Chung and Zisserman 2016, with a line in place of a
network).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from visavis.schemas import FPS
from visavis.stages.doctor.excerpt import Excerpt, Sums, moved_by
from visavis.stages.doctor.findings import Sign, certainty
from visavis.stages.doctor.kinds import Kind

LATEST = FPS
"""Frames of delay that are looked at, to either side."""
PARTS = 8
_MEMORY = 8.0  # frames after which a new observation of lips and voice counts
_RIDGE = 0.02
_TELLS = 0.2  # correlation that lips usually have with their own voice, below which this corpus cannot be asked
_ENOUGH = 10 * FPS  # frames in which the face is seen
_SURE = 5.0  # standard errors
_ODD = 0.45  # of the usual fit
_LATE = 2.6  # frames; `bind.max_offset` is of this size
_DRIFT = 2.5  # frames from beginning to end


@dataclass(frozen=True)
class Lips:
    """What of the motion follows the voice: weights of [motion, |its change|], each as a share of scale_D2."""

    scale_E: np.ndarray
    weights_E: np.ndarray

    def of(self, motion_TD: np.ndarray) -> np.ndarray:
        """float64 [T]."""
        found: np.ndarray = features(motion_TD) / self.scale_E @ self.weights_E
        return found


def features(motion_TD: np.ndarray) -> np.ndarray:
    """Motion and how fast it changes, float64 [T, 2 D]."""
    motion_TD = motion_TD.astype(np.float64)
    return np.concatenate([motion_TD, np.abs(np.gradient(motion_TD, axis=0))], axis=1)


def learn(excerpt: Excerpt) -> Sums:
    """Products of features and own level, for `lips_of`."""
    size = 2 * excerpt.motion_PTD.shape[2]
    products, with_level, count = np.zeros((size, size)), np.zeros(size), 0.0
    for motion_TD, level_T, valid_T in zip(excerpt.motion_PTD, excerpt.level_PT, excerpt.valid_PT, strict=True):
        if valid_T.sum() > 2:
            seen_VE = features(motion_TD)[valid_T]
            centred_VE = seen_VE - seen_VE.mean(axis=0)
            products += centred_VE.T @ centred_VE
            with_level += centred_VE.T @ (level_T[valid_T] - level_T[valid_T].mean())
            count += len(seen_VE)
    return {"products": products, "with_level": with_level, "count": np.array(count)}


def lips_of(sums: Sums) -> Lips:
    """Of the sums of `learn`."""
    scale_E = np.sqrt(np.diag(sums["products"]) / max(float(sums["count"]), 1.0)) + 1e-9
    norm_EE = sums["products"] / np.outer(scale_E, scale_E) / max(float(sums["count"]), 1.0)
    level_E = sums["with_level"] / scale_E / max(float(sums["count"]), 1.0)
    return Lips(scale_E, np.linalg.solve(norm_EE + _RIDGE * np.eye(len(scale_E)), level_E))


def measure(excerpt: Excerpt, lips: Lips | None) -> Sums:
    """Lips of each person against each voice, by delay and part of the conversation."""
    cross = np.zeros((PARTS, 2, 2, 2 * LATEST + 1))
    energy, frames = np.zeros((2, 2)), np.zeros(2)
    level_PT = excerpt.level_PT - excerpt.level_PT.mean(axis=1, keepdims=True)
    part_T = (excerpt.first + np.arange(len(excerpt.state_T))) * PARTS // max(excerpt.frames, 1)
    for person in (0, 1):
        valid_T = excerpt.valid_PT[person]
        if lips is None or valid_T.sum() <= FPS // 2:
            continue
        lip_T = lips.of(excerpt.motion_PTD[person])
        lip_T = np.where(valid_T, lip_T - lip_T[valid_T].mean(), 0.0)
        frames[person] = valid_T.sum()
        energy[person, 0] = (lip_T**2).sum()
        for part in np.unique(part_T).tolist():
            inside_T = np.where(part_T == part, lip_T, 0.0)
            for voice in (0, 1):
                cross[min(part, PARTS - 1), person, voice] += moved_by(inside_T, level_PT[voice], LATEST)
    energy[:, 1] = (level_PT**2).sum(axis=1)
    return {"lips.cross": cross, "lips.energy": energy, "lips.frames": frames}


def fit(sums: Sums) -> np.ndarray:
    """Correlation of lips (first axis) and voices (second) by delay: [2, 2, 51]; NaN where somebody is not seen."""
    energy = sums["lips.energy"]
    norm = np.sqrt(energy[:, 0][:, None] * energy[:, 1][None])
    with np.errstate(divide="ignore", invalid="ignore"):
        found: np.ndarray = sums["lips.cross"].sum(axis=0) / norm[:, :, None]
    found[sums["lips.frames"] < _ENOUGH] = np.nan
    found[~np.isfinite(found)] = np.nan
    return found


def own_fit(sums: Sums) -> list[float]:
    """The best correlation of each person's lips with the own voice; NaN where it is not known."""
    return [float(curve.max()) for curve in np.einsum("iil->il", fit(sums))]


def judge(sums: Sums, usual: float) -> Iterator[Sign]:
    """usual: `own_fit` that is usual in the corpus."""
    if not usual >= _TELLS:
        return
    fits = fit(sums)
    error = np.sqrt(_MEMORY / np.maximum(sums["lips.frames"], 1))
    own, cross = [np.array([fits[i, j].max() for i, j in pairs]) for pairs in (((0, 0), (1, 1)), ((0, 1), (1, 0)))]
    better = (cross - own) / error
    crossed = (better > _SURE) & (cross > 0.5 * usual)
    if crossed.any() and np.nanmin(better, initial=np.inf) > 0:
        said = f"lips fit the other's voice by {np.nanmax(cross):.2f}, the own one by {np.nanmin(own):.2f}"
        yield Sign(Kind.SWAPPED, certainty(float(np.nanmax(better)), _SURE, 10), said)
        return
    for person in (0, 1):
        if not np.isfinite(own[person]):
            continue
        slope, spread = _course(sums, person)
        short = (usual - own[person]) / error[person]
        if abs(slope) > max(_DRIFT, 4 * spread) and own[person] > _SURE * error[person]:
            said = f"{40 * slope:+.0f} ms from beginning to end"
            yield Sign(Kind.AV_DRIFT, certainty(abs(slope), _DRIFT, 6), said, person)
        elif own[person] < _ODD * usual and short > _SURE and _speaks(sums, person):
            said = f"lips fit it by {own[person]:.2f}, usual are {usual:.2f}"
            yield Sign(Kind.WRONG_VOICE, certainty(short, _SURE, 12), said, person)
        elif own[person] >= max(_ODD * usual, _SURE * error[person]):
            yield from _timing(fits[person, person], error[person], person)


def _timing(fit_L: np.ndarray, error: float, person: int) -> Iterator[Sign]:
    late = peak(fit_L)
    gain = (float(fit_L.max()) - float(fit_L[LATEST])) / error
    if abs(late) > _LATE and gain > 2:
        said = f"the voice comes {40 * abs(late):.0f} ms {'late' if late > 0 else 'early'}"
        yield Sign(Kind.AV_OFFSET, certainty(abs(late), _LATE, 5), said, person)


def peak(fit_L: np.ndarray) -> float:
    """The delay of the highest value, in frames, between them by a parabola; positive: the voice comes late."""
    place = int(fit_L.argmax())
    if not 0 < place < len(fit_L) - 1:
        return float(place - LATEST)
    left, top, right = fit_L[place - 1 : place + 2].tolist()
    bend = left - 2 * top + right
    return place - LATEST + (0.5 * (left - right) / bend if bend < 0 else 0.0)


def _course(sums: Sums, person: int) -> tuple[float, float]:
    """Frames by which the delay grows from beginning to end, and the standard error, of a line through the parts in
    which it can be told; 0 where there are less than five."""
    curves = sums["lips.cross"][:, person, person]
    top, noise = curves.max(axis=1), np.median(np.abs(curves), axis=1)
    known = np.flatnonzero((top > 2.5 * noise) & (top > 0.25 * top.max()) & (top > 0))
    if len(known) < 5 or np.ptp(known) < PARTS // 2:
        return 0.0, 0.0
    late, weight = np.array([peak(curves[n]) for n in known]), np.sqrt(top[known])
    slope, start = np.polyfit(known, late, 1, w=weight)
    left = late - slope * known - start
    error = np.sqrt((left**2).sum() / (len(known) - 2) / ((known - known.mean()) ** 2).sum())
    return float(slope * PARTS), float(error * PARTS)


def _speaks(sums: Sums, person: int) -> bool:
    """Whether there is speech to be compared: turns in a tenth of the time, and a level that varies by 5 dB."""
    frames = max(float(sums["sound.frames"]), 1.0)
    return bool(sums["turns.energy"][person] > 0.08 * frames and sums["lips.energy"][person, 1] > 25 * frames)
