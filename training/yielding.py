"""What the avatar does when its user begins to speak while it speaks: does it yield?

The avatar's own voice is given to the model, recorded, and a mouth that stops when the voice has stopped shows nothing
but that voice. So two figures stand beside each other:

    mouth_stops   share of barge-ins after which the mouth is still within two seconds, beside the same at moments of
                  its own speech in which nobody barged in (`chance`). The voice tells it, with the user and without.
    reacts        how far the motion after the user's onset goes the way that the recorded avatars' goes, on average of
                  the other barge-ins: 1 as much as they, 0 not at all. The jaw, which the own voice moves, does not
                  count; nor do frames that the own voice can have told: from `TELLS` before it stops, as many as a
                  model hears ahead and makes at once. The same row without its user has the same voice, so what it
                  lacks, the user told.

Barge-ins are what `training.turn_events` calls the user's interruptions and attempts: whether the avatar yields is not
known at their onsets.

Shape suffixes: B barge-ins, L lags, D columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from visavis.schemas import FPS
from visavis.schemas.sample import AVATAR_SPEAKS, USER_SPEAKS
from visavis.training.events import Readouts
from visavis.training.reactions import p_value
from visavis.training.sequences import Recorded
from visavis.training.turn_events import turn_events

LAGS = FPS
"""Frames after the onset that are looked at."""
TELLS = 12
"""Frames before the own voice stops from which on it may tell: a block of ten, and what is heard ahead of it."""
DRAWS = 200
BEFORE = 5  # frames whose mean is what motion changes from
_STOPS = 2 * FPS  # frames within which a mouth has to stop
_STILL, _MOVES = 8, 0.25  # frames, and share of the median movement in speech, of a mouth that has stopped
_USER = 1


@dataclass(frozen=True)
class Moment:
    """Where a user begins, or might have. sequence: its number. stop: frame at which the own voice is silent next."""

    sequence: int
    onset: int
    stop: int


def barge_ins(recorded: Sequence[Recorded]) -> list[Moment]:
    """Of all sequences, those whose frames before and after the onset are there."""
    found = []
    for number, each in enumerate(recorded):
        for kind, person, first, _ in turn_events(each.state):
            if kind in ("interruption", "attempt") and person == _USER and _inside(each, first):
                found.append(Moment(number, first, _silent(each.state, first)))
    return found


def elsewhere(recorded: Sequence[Recorded], count: int, draws: int) -> list[list[Moment]]:
    """Draws of as many moments at which the avatar speaks on and the user is silent; empty where there is none."""
    free = [
        Moment(number, int(frame), _silent(each.state, int(frame)))
        for number, each in enumerate(recorded)
        for frame in _alone(each)
        if _inside(each, int(frame))
    ]
    free = [moment for moment in free if moment.stop - moment.onset > TELLS + BEFORE]
    random = np.random.default_rng(0)
    return [[free[i] for i in random.integers(len(free), size=count)] if free else [] for _ in range(draws)]


class Yielding:
    """What rows of motions are held against: barge-ins, chance, and what recorded avatars do."""

    def __init__(self, recorded: Sequence[Recorded], signals: Readouts, draws: int = DRAWS) -> None:
        self.recorded, self._signals = recorded, signals
        self.moments = barge_ins(recorded)
        self._others = elsewhere(recorded, len(self.moments), draws)
        seen = [each.truth[each.valid].astype(np.float64) for each in recorded]
        spread = np.concatenate(seen).std(axis=0) if seen else np.ones(1)
        self._unit = np.where(spread > 1e-9, spread, np.inf)
        truth = [each.truth for each in recorded]
        self._recorded_BLD = self._curves(truth, self.moments)
        self._lively = self._movement(truth)

    def figures(self, motions: Sequence[np.ndarray]) -> dict[str, float]:
        """Of one motion [T, D] for each sequence.

        Formula: the module's text. reacts = Σ ⟨c, m⟩ / Σ ⟨m, m⟩ over barge-ins, c the row's change of motion after one,
            in deviations of the recorded columns, m the mean of the recorded ones over the others.
        Source: ours; barge-ins after Gravano and Hirschberg 2012.
        Space: all columns of the motion but for the jaw's opening; the mouth by `jaw` of `training.events.readouts`.
        Floor: `reacts_chance` and `mouth_stops_chance`, of moments at which the avatar speaks alone, and their p.
        Edges: fewer than two barge-ins, or a motion that tells no jaw: NaN.
        """
        mouths = [self._mouth(motion) for motion in motions]
        reacts, stops = self._reacts(motions, self.moments), self._stops(mouths, self.moments)
        reacts_D = np.array([self._reacts(motions, some) for some in self._others])
        stops_D = np.array([self._stops(mouths, some) for some in self._others])
        return {
            "barge_ins": float(len(self.moments)),
            "reacts": reacts,
            **_beside("reacts", reacts, reacts_D),
            "mouth_stops": stops,
            **_beside("mouth_stops", stops, stops_D),
        }

    def _curves(self, motions: Sequence[np.ndarray], moments: Sequence[Moment]) -> np.ndarray:
        """How motion changes after each, [B, L, D] in deviations; NaN where the own voice may tell."""
        curves = np.full((len(moments), LAGS, len(self._unit)), np.nan)
        for i, moment in enumerate(moments):
            length = max(0, min(LAGS, moment.stop - TELLS - moment.onset))
            near = motions[moment.sequence][moment.onset - BEFORE : moment.onset + length].astype(np.float64)
            if (jaw_D := self._signals.get("jaw")) is not None and jaw_D.any():
                near -= np.outer(near @ jaw_D, jaw_D) / (jaw_D @ jaw_D)
            curves[i, :length] = (near[BEFORE:] - near[:BEFORE].mean(axis=0)) / self._unit
        return curves

    def _reacts(self, motions: Sequence[np.ndarray], moments: Sequence[Moment]) -> float:
        whole, count = np.nansum(self._recorded_BLD, axis=0), (~np.isnan(self._recorded_BLD)).sum(axis=0)
        own = moments is self.moments
        up = down = 0.0
        for i, curve in enumerate(self._curves(motions, moments)):
            mine = self._recorded_BLD[i] if own else np.full(whole.shape, np.nan)
            others = count - ~np.isnan(mine)
            mean = (whole - np.nan_to_num(mine)) / np.where(others > 0, others, np.inf)
            there = ~np.isnan(curve)
            up, down = up + float((curve[there] * mean[there]).sum()), down + float((mean[there] ** 2).sum())
        return up / down if down and len(self.moments) > 1 else math.nan

    def _movement(self, motions: Sequence[np.ndarray]) -> float:
        """Of the recorded mouths in speech, the median."""
        moves = [
            found[each.state & AVATAR_SPEAKS > 0]
            for each, motion in zip(self.recorded, motions, strict=True)
            if len(found := self._mouth(motion))
        ]
        return float(np.median(np.concatenate(moves))) if moves and sum(map(len, moves)) else math.nan

    def _mouth(self, motion_TD: np.ndarray) -> np.ndarray:
        """How much the mouth moves around each frame: mean absolute difference over nine."""
        if "jaw" not in self._signals or not len(motion_TD):
            return np.zeros(0)
        steps = np.abs(np.diff(motion_TD @ self._signals["jaw"], prepend=0.0))
        steps[0] = 0.0
        return np.convolve(steps, np.ones(9) / 9, mode="same")

    def _stops(self, mouths: Sequence[np.ndarray], moments: Sequence[Moment]) -> float:
        if math.isnan(self._lively) or not moments:
            return math.nan
        stopped = 0
        for moment in moments:
            still = mouths[moment.sequence][moment.onset : moment.onset + _STOPS + _STILL] < _MOVES * self._lively
            stopped += bool((np.convolve(still, np.ones(_STILL), mode="valid") > _STILL - 0.5).any())
        return stopped / len(moments)


def _beside(name: str, found: float, by_chance: np.ndarray) -> dict[str, float]:
    by_chance = by_chance[~np.isnan(by_chance)]
    defined = len(by_chance) and not math.isnan(found)
    return {
        f"{name}_chance": float(by_chance.mean()) if defined else math.nan,
        f"{name}_p": p_value(found, by_chance) if defined else math.nan,
    }


def _alone(each: Recorded) -> np.ndarray:
    """Frames at which the avatar has spoken for a while, and the user is silent around."""
    speaks, user = each.state & AVATAR_SPEAKS > 0, each.state & USER_SPEAKS > 0
    silent = np.convolve(user, np.ones(2 * LAGS + 1), mode="same") < 0.5
    held = np.convolve(speaks, np.ones(FPS // 2), mode="full")[: len(speaks)] > FPS // 2 - 0.5
    return np.flatnonzero(silent & held)


def _inside(each: Recorded, onset: int) -> bool:
    span = slice(max(0, onset - BEFORE), onset + _STOPS + _STILL)
    return BEFORE <= onset <= len(each.valid) - _STOPS - _STILL and bool(each.valid[span].all())


def _silent(state_T: np.ndarray, onset: int) -> int:
    """First frame from the onset on in which the avatar does not speak."""
    quiet = np.flatnonzero(state_T[onset:] & AVATAR_SPEAKS == 0)
    return onset + int(quiet[0]) if len(quiet) else len(state_T)
