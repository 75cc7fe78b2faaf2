"""Who speaks when: do the turns go with the voices, and the two people with each other?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from visavis.schemas import FPS
from visavis.stages.doctor.excerpt import Excerpt, Sums, moved_by
from visavis.stages.doctor.findings import Sign, certainty
from visavis.stages.doctor.kinds import Kind
from visavis.stages.doctor.lips import LATEST, peak
from visavis.stages.voice.turntaking import dialogue_evidence

_ENOUGH = 8 * FPS  # frames
_TELLS = 0.3  # correlation of turns and level that is usual
_SHIFT = 4.0  # frames
_STRANGERS = 6.0  # nats by which strangers are likelier in any corpus
_DOUBT, _BELOW = -0.25, 3.2  # nats, and deviations below what is usual, by which they are in this one
_FEWEST = 10  # conversations of which something is usual
_FAR, _AGAIN, _MOST = 2.5, 10, 0.6  # deviations that are left out, how often, and the share that stays at least
_APART = 3 * FPS  # frames of lag
_SHIFTED = FPS // 3  # frames
_AT_ONCE = 0.03  # share of the time
_LESS = 0.4  # of the overlap


def measure(excerpt: Excerpt) -> Sums:
    """Turns of each person against each voice, by delay; and what the whole conversation tells."""
    level_PT = excerpt.level_PT - excerpt.level_PT.mean(axis=1, keepdims=True)
    turns_PT = excerpt.speaks_PT - excerpt.speaks_PT.mean(axis=1, keepdims=True)
    cross = np.stack([[moved_by(turn_T, level_T, LATEST) for level_T in level_PT] for turn_T in turns_PT])
    return {"turns.cross": cross, "turns.energy": (turns_PT**2).sum(axis=1), **_whole(excerpt.whole_state_T)}


def _whole(state_T: np.ndarray | None) -> Sums:
    """Frames in which both speak if the second came so much earlier, by lags of −3 … 3 s; nats by which a dialogue is
    likelier than strangers, and frames."""
    if state_T is None:
        return {"floor.overlap": np.zeros(2 * _APART + 1), "floor.evidence": np.zeros(2)}
    one_T, other_T = (state_T & 1).astype(np.float64), (state_T >> 1 & 1).astype(np.float64)
    return {
        "floor.overlap": moved_by(one_T, other_T, _APART),
        "floor.evidence": np.array([dialogue_evidence(state_T), float(len(state_T))]),
    }


def fit(sums: Sums) -> np.ndarray:
    """Correlation of turns (first axis) and level (second) by delay, [2, 2, 51]; NaN where nobody speaks."""
    norm = np.sqrt(sums["turns.energy"][:, None] * sums["lips.energy"][:, 1][None])
    with np.errstate(divide="ignore", invalid="ignore"):
        found: np.ndarray = sums["turns.cross"] / norm[:, :, None]
    found[~np.isfinite(found)] = np.nan
    return found


def own_fit(sums: Sums) -> list[float]:
    return [float(curve.max()) for curve in np.einsum("iil->il", fit(sums))]


class Evidence(NamedTuple):
    """For dialogues of a corpus: nats a second that are usual, and the deviation of a second's."""

    rate: float
    spread: float

    @staticmethod
    def of(nats_N: np.ndarray, seconds_N: np.ndarray) -> Evidence:
        """By medians, again and again without those that lie far below: a fifth of strangers widens what is usual so
        that half of them are in it."""
        kept_N = np.ones(len(nats_N), bool)
        found = Evidence(0.0, math.inf)
        for _ in range(_AGAIN):
            if kept_N.sum() < max(_FEWEST, _MOST * len(nats_N)):
                break
            found = Evidence._of(nats_N[kept_N], seconds_N[kept_N])
            kept_N = (found.rate * seconds_N - nats_N) / (found.spread * np.sqrt(seconds_N)) < _FAR
        return found

    @staticmethod
    def _of(nats_N: np.ndarray, seconds_N: np.ndarray) -> Evidence:
        rate = float(np.median(nats_N / seconds_N))
        left_N = np.abs(nats_N - rate * seconds_N) / np.sqrt(seconds_N)
        return Evidence(rate, 1.4826 * float(np.median(left_N)) + 1e-3)

    def below(self, nats: float, seconds: float) -> float:
        """Deviations by which a conversation has less than is usual."""
        return (self.rate * seconds - nats) / (self.spread * math.sqrt(seconds))


def nats_of(sums: Sums) -> tuple[float, float]:
    """Evidence for a dialogue, and the seconds that it is of; 0 s: nobody knows."""
    nats, frames = sums["floor.evidence"].tolist()
    return nats, frames / FPS


def judge(sums: Sums, usual: float, evidence: Evidence) -> Iterator[Sign]:
    """usual: `own_fit` that is usual in the corpus."""
    if sums["sound.frames"] >= _ENOUGH and usual >= _TELLS:
        yield from _against_voices(sums, usual)
    nats, seconds = nats_of(sums)
    if seconds:
        yield from _shifted(sums["floor.overlap"], seconds * FPS)
        below = evidence.below(nats, seconds)
        if nats < -_STRANGERS or (nats < _DOUBT and below > _BELOW):
            sure = max(certainty(below, _BELOW, 6), certainty(-nats, _STRANGERS, 15))
            yield Sign(Kind.NOT_PARTNERS, sure, f"each speaks whatever the other does, by {-nats:.1f} nats")


def _against_voices(sums: Sums, usual: float) -> Iterator[Sign]:
    fits = fit(sums)
    for person in (0, 1):
        curve = fits[person, person]
        if not np.isfinite(curve).all():
            continue
        late, best = peak(curve), float(curve.max())
        if best > 0.5 * usual and abs(late) > _SHIFT and best - curve[LATEST] > 0.1:
            when = "early" if late > 0 else "late"
            yield Sign(Kind.TURNS_SHIFTED, certainty(abs(late), _SHIFT, 8), f"{abs(late) / FPS:.2f} s {when}", person)
        elif best < 0.35 * usual and sums["turns.energy"][person] > _ENOUGH / 8:
            yield Sign(
                Kind.TURNS_WRONG,
                certainty(usual - best, 0.65 * usual, usual),
                f"they fit the voice by {best:.2f}, usual are {usual:.2f}",
                person,
            )


def _shifted(overlap_L: np.ndarray, frames: float) -> Iterator[Sign]:
    """People hardly ever speak at once; where they would at another lag, and the more the further away, they did."""
    smooth_L = np.convolve(overlap_L, np.full(5, 0.2), "same")[2:-2]
    now = len(smooth_L) // 2
    best = int(smooth_L.argmin())
    lag = best - now
    most, least = float(smooth_L[now]), float(smooth_L[best])
    away = float(smooth_L[min(max(now - lag, 0), len(smooth_L) - 1)])
    if abs(lag) >= _SHIFTED and most > _AT_ONCE * frames and least < _LESS * most and away > most:
        who = "second" if lag > 0 else "first"
        said = (
            f"the {who} lies some {abs(lag) / FPS:.1f} s late: both speak at once in {100 * most / frames:.0f} % of it"
        )
        yield Sign(Kind.PARTNERS_SHIFTED, certainty(least / most, _LESS, 0.1), said)
