"""When an avatar reacts: its events beside what its user did, and beside the recorded avatar's events.

Each kind of event has a cue. Nods, shakes, brows and blinks answer the end of a phrase of the user; smiles and laughs
answer the user's own. All sequences lie one after the other on one timeline, and every figure is held against 100
circular shifts of the avatar's events on it: the same events at a wrong time.

    recall         share of cues that an event follows in time: within the delays at which the recorded avatars' events
                   pile up (`Piled`); the truth's is what people do, so more is not better
    chance, p      the mean of it over shifts; the share of shifts, the truth counted in, with as much
    alarms_min     events a minute that follow no cue in time
    delay_s, spread_s            mean and deviation of the delays at which *this* row's events pile up; none where they
                   pile up no more than under 95 % of shifts
    delay_distance_s             Wasserstein distance of these delays to the truth's (1-Wasserstein, s)
    precision, found, f1, f1_chance, f1_p     of events matched one to one with the recorded avatar's by their overlap
                   in time (tIoU ≥ .5, as GLARE); `found` is the share of recorded events; chance and p over shifts
    onset_error_s  mean distance of the onsets of matched events

How motions follow each other without events: `lagged` is the largest mean correlation over a part's dimensions with the
user 0 to 2 s earlier; its delay is given where no more than 5 % of shifts reach as much. `training.granger` is R-DGG.

Shape suffixes: E events, Q cues, N frames of the timeline, D dimensions, L lags.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import wasserstein_distance

from visavis.schemas import FPS
from visavis.schemas.sample import AVATAR_SPEAKS, USER_SPEAKS
from visavis.training.events import KINDS, Kind, Readouts, events, thresholds
from visavis.training.sequences import Recorded

SHIFTS = 100
REACH = 2 * FPS
"""Frames; the longest delay that is looked for."""
CHANCE = 0.05
"""Share of shifts that may reach as much where a delay is given all the same."""
OVERLAP = 0.5
_SHORTEST = 5  # frames of the delays at which events pile up
_MIRRORED: tuple[Kind, ...] = ("smile", "laugh")


@dataclass(frozen=True)
class Timeline:
    """Events of all sequences, one after the other, by kind. cues: [Q, 2], their frames, and how many of the sequence
    follow."""

    frames: int
    spans: Mapping[Kind, np.ndarray]
    cues: Mapping[Kind, np.ndarray]

    def onsets(self, kind: Kind) -> np.ndarray:
        return self.spans[kind][:, 0]

    def due(self, kind: Kind, within: int) -> np.ndarray:
        """Cues that can be seen answered after so many frames."""
        cues = self.cues[kind]
        return np.asarray(cues[cues[:, 1] > within, 0])

    @property
    def minutes(self) -> float:
        """NaN of no frames: nothing is so many a minute."""
        return self.frames / FPS / 60 or math.nan


class Piled(NamedTuple):
    """Delays, in frames from low to high, at which events exceed what their rate gives by most deviations."""

    low: int
    high: int
    deviations: float


class Reactions:
    """What rows of motions are held against: thresholds, cues and reactions of recorded people."""

    def __init__(self, recorded: Sequence[Recorded], signals: Readouts, shifts: int = SHIFTS) -> None:
        self.recorded, self.signals = recorded, signals
        self._shifts = wrong_times([len(each.truth) for each in recorded], shifts)
        sides = [(side, each.valid) for each in recorded for side in (each.truth, each.user)]
        self.least = thresholds(sides, signals)
        self._users = [
            events(each.user, each.valid, each.state & USER_SPEAKS > 0, signals, self.least) for each in recorded
        ]
        self.truth = self._timeline([each.truth for each in recorded])
        self._in_time = {kind: _piles(self.truth, kind, [0])[0] for kind in self.truth.spans}
        self._delays = {
            kind: delays(self.truth.onsets(kind), self.truth.due(kind, high), low, high)
            for kind, (low, high, _) in self._in_time.items()
        }

    def figures(self, motions: Sequence[np.ndarray]) -> dict[Kind, dict[str, float]]:
        """Of one motion [T, D] for each sequence, by kind.

        Formula: the module's text, figure by figure.
        Source: ours; precision, found and onset_error_s after GLARE's R-F1 and R-tIoU, which count early onsets double.
        Space: the signals of `training.events`, of any codec, in its raw units; events of the whole face.
        Floor: `chance`, `f1_chance` and their p of this very row; the row `shifted`, the truth at a wrong time. On 60
            windows of 4 s listeners of the same rule have p < .01, strangers not (tests).
        Edges: one frame or one that is constant has no events: recall 0, delays, precision and onset errors NaN, and
            recall NaN without a cue; no frames, or a timeline too short to shift, has no chance and no p (NaN).
        """
        row = self._timeline(motions)
        return {kind: self._of_kind(row, kind) for kind in row.spans}

    def _timeline(self, motions: Sequence[np.ndarray]) -> Timeline:
        spans: dict[Kind, list[np.ndarray]] = {kind: [] for kind in KINDS}
        cues: dict[Kind, list[np.ndarray]] = {kind: [] for kind in KINDS}
        begin = 0
        for recorded, motion, user in zip(self.recorded, motions, self._users, strict=True):
            found = events(motion, recorded.valid, recorded.state & AVATAR_SPEAKS > 0, self.signals, self.least)
            ends = phrase_ends(recorded.state)
            for kind, own in found.items():
                due = user[kind][:, 0] if kind in _MIRRORED else ends
                spans[kind].append(own + begin)
                cues[kind].append(np.stack([due + begin, len(motion) - due], axis=1))
            begin += len(motion)
        kinds = [kind for kind in KINDS if spans[kind]]
        return Timeline(begin, *({kind: np.concatenate(of[kind]) for kind in kinds} for of in (spans, cues)))

    def _of_kind(self, row: Timeline, kind: Kind) -> dict[str, float]:
        low, high, _ = self._in_time[kind]
        onsets_E, cues_Q, shifts = row.onsets(kind), row.due(kind, high), self._shifts
        recall = _share(onsets_E, cues_Q, low, high)
        shares = np.array([_share((onsets_E + shift) % row.frames, cues_Q, low, high) for shift in shifts])
        own, *others = _piles(row, kind, [0, *shifts])
        reacts = (
            own.deviations > 0 and p_value(own.deviations, np.array([each.deviations for each in others])) <= CHANCE
        )
        when = delays(onsets_E, row.due(kind, own.high), own.low, own.high) / FPS if reacts else np.zeros(0)
        chance = float(shares.mean()) if len(shares) else math.nan
        return {
            "events_min": len(onsets_E) / row.minutes,
            "cues": float(len(cues_Q)),
            "recall": recall,
            "chance": chance,
            "above_chance": recall - chance,
            "p": p_value(recall, shares) if len(cues_Q) else math.nan,
            "alarms_min": _alarms(onsets_E, row.cues[kind], low, high) / row.minutes,
            "delay_s": float(when.mean()) if len(when) else math.nan,
            "spread_s": float(when.std(ddof=1)) if len(when) > 1 else math.nan,
            "delay_distance_s": float(wasserstein_distance(when, self._delays[kind] / FPS))
            if len(when) and len(self._delays[kind])
            else math.nan,
            **self._matched(row, kind),
        }

    def _matched(self, row: Timeline, kind: Kind) -> dict[str, float]:
        made, true = row.spans[kind], self.truth.spans[kind]
        pairs = match(made, true)
        f1 = _f1(len(pairs), len(made), len(true))
        turned = [(made + shift) % row.frames for shift in self._shifts]
        each = [_f1(len(match(spans[spans[:, 0] < spans[:, 1]], true)), len(made), len(true)) for spans in turned]
        onsets = np.array([abs(made[i, 0] - true[j, 0]) for i, j in pairs]) / FPS
        return {
            "precision": len(pairs) / len(made) if len(made) else math.nan,
            "found": len(pairs) / len(true) if len(true) else math.nan,
            "f1": f1,
            "f1_chance": float(np.mean(each)) if each else math.nan,
            "f1_p": p_value(f1, np.array(each)) if not math.isnan(f1) else math.nan,
            "onset_error_s": float(onsets.mean()) if len(onsets) else math.nan,
        }


def wrong_times(lengths: Sequence[int], shifts: int = SHIFTS) -> list[int]:
    """Circular shifts, evenly round the timeline of sequences of such lengths, none nearer than the longest delay; none
    where it is too short. By whole sequences, where all have one length: no event crosses their ends, so events lie in
    their middles, and would meet less often at other shifts."""
    frames, unit = sum(lengths), 1
    if len(set(lengths)) == 1 and len(lengths) > shifts:
        unit = lengths[0]
    room = frames - 2 * REACH
    even = (REACH + room * (i + 0.5) / shifts for i in range(shifts))
    return [min(max(1, round(shift / unit)) * unit, frames - unit) for shift in even] if room > 0 else []


def phrase_ends(state_T: np.ndarray) -> np.ndarray:
    """Frames at which a phrase of the user has just ended."""
    speaks = state_T & USER_SPEAKS > 0
    return np.flatnonzero(speaks[:-1] & ~speaks[1:]) + 1


def delays(onsets_E: np.ndarray, cues_Q: np.ndarray, low: int, high: int) -> np.ndarray:
    """Frames from each cue to the first onset at least `low` later, where that is no more than `high`."""
    onsets_E = np.sort(onsets_E)
    at = np.searchsorted(onsets_E, cues_Q + low)
    there = at < len(onsets_E)
    late = onsets_E[at[there]] - cues_Q[there]
    return np.asarray(late[late <= high])


def _piles(row: Timeline, kind: Kind, shifts: Sequence[int]) -> list[Piled]:
    """Where a row's events pile up after its cues, by shifts of the events."""
    cues_Q1 = row.due(kind, FPS)[:, None]
    onset_N = np.zeros(row.frames, bool)
    onset_N[row.onsets(kind)] = True
    rate = onset_N.sum() / max(1, row.frames) * len(cues_Q1)
    lags_L = np.arange(REACH + 1)
    return [pile(onset_N[(cues_Q1 + lags_L - shift) % row.frames].sum(axis=0), rate) for shift in shifts]


def pile(counts_L: np.ndarray, rate: float) -> Piled:
    """Where the numbers of events by their delays exceed a rate by most of its deviations."""
    if rate == 0:
        return Piled(0, len(counts_L) - 1, 0.0)
    total = np.concatenate([[0], np.cumsum(counts_L)])
    low, end = np.triu_indices(len(total), _SHORTEST)
    score = (total[end] - total[low] - rate * (end - low)) / np.sqrt(rate * (end - low))
    best = int(np.argmax(score))
    return Piled(int(low[best]), int(end[best]) - 1, float(score[best]))


def match(made_E2: np.ndarray, true_E2: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of events that overlap by tIoU ≥ .5: two thirds of one cannot lie in two others, so each has one at most
    but for ties, where the first counts."""
    pairs: list[tuple[int, int]] = []
    taken: set[int] = set()
    order = np.argsort(true_E2[:, 0], kind="stable")
    starts = true_E2[order, 0]
    longest = int((true_E2[:, 1] - true_E2[:, 0]).max(initial=0))
    for i, (first, end) in enumerate(made_E2.tolist()):
        for k in range(np.searchsorted(starts, first - longest), np.searchsorted(starts, end)):
            j = int(order[k])
            a, b = true_E2[j].tolist()
            shared = min(end, b) - max(first, a)
            if j not in taken and shared >= OVERLAP * (max(end, b) - min(first, a)):
                pairs.append((i, j))
                taken.add(j)
                break
    return pairs


@dataclass(frozen=True)
class Followed:
    """best: largest mean correlation with the user 0 to 2 s earlier. delay_s: NaN where shifts reach as much."""

    best: float
    delay_s: float
    p: float


def lagged(recorded: Sequence[Recorded], motions: Sequence[np.ndarray], shifts: int = SHIFTS) -> Followed:
    """How alike motions are to what their users did 0 to 2 s earlier.

    Formula: mean over dimensions of Σ avatar · user earlier / root of both powers, on one timeline of all sequences; p:
        the share of 100 other places of the timeline at which the largest of 51 lags is as large.
    Source: ours.
    Space: columns that each sequence has with mean 0 and deviation 1; a part of the motion.
    Floor: `p`, of strangers evenly spread; the row `shifted`.
    Edges: one frame, or fewer than 6 s in all, NaN; a constant dimension is left out, all constant NaN; no frames NaN.
    """
    made, user = (
        np.concatenate([_unit(motion, each.valid) for motion, each in zip(side, recorded, strict=True)])
        for side in (motions, [each.user for each in recorded])
    )
    frames = len(made)
    moves = (made.any(axis=0) & user.any(axis=0)).sum()
    if frames <= 3 * REACH or not moves:
        return Followed(math.nan, math.nan, math.nan)
    power = np.sqrt((made * made).sum(axis=0) * (user * user).sum(axis=0))
    spectrum = np.fft.rfft(made, axis=0) * np.fft.rfft(user, axis=0).conj()
    circular_N = (np.fft.irfft(spectrum, frames, axis=0) / np.where(power > 0, power, np.inf)).sum(axis=1) / moves
    lags_L = circular_N[: REACH + 1]
    room = frames - 3 * REACH
    starts = [2 * REACH + round(room * (i + 0.5) / shifts) for i in range(shifts)]
    by_chance = np.array([circular_N[np.arange(start, start + REACH + 1) % frames].max() for start in starts])
    best = int(np.argmax(lags_L))
    p = p_value(float(lags_L[best]), by_chance)
    return Followed(float(lags_L[best]), best / FPS if p <= CHANCE and lags_L[best] > 0 else math.nan, p)


def _unit(motion_TD: np.ndarray, valid_T: np.ndarray) -> np.ndarray:
    seen = motion_TD[valid_T].astype(np.float64)
    if not len(seen):
        return np.zeros(motion_TD.shape)
    deviation = seen.std(axis=0)
    unit = (motion_TD - seen.mean(axis=0)) / np.where(deviation > 1e-9, deviation, np.inf)
    return np.asarray(np.where(valid_T[:, None], unit, 0.0))


def _share(onsets_E: np.ndarray, cues_Q: np.ndarray, low: int, high: int) -> float:
    return len(delays(onsets_E, cues_Q, low, high)) / len(cues_Q) if len(cues_Q) else math.nan


def _alarms(onsets_E: np.ndarray, cues_Q2: np.ndarray, low: int, high: int) -> int:
    """Events that follow no cue of their own sequence in time, be it as near to the end as it may."""
    first, last = cues_Q2[:, 0] + low, cues_Q2[:, 0] + np.minimum(high, cues_Q2[:, 1] - 1)
    first, last = first[first <= last], last[first <= last]
    begun = np.searchsorted(np.sort(first), onsets_E, "right")
    over = np.searchsorted(np.sort(last), onsets_E, "left")
    return int((begun == over).sum())


def p_value(found: float, by_chance: np.ndarray) -> float:
    """Share of cases with as much, the found one counted in; NaN of no cases."""
    return float((1 + (by_chance >= found).sum()) / (1 + len(by_chance))) if len(by_chance) else math.nan


def _f1(pairs: int, made: int, true: int) -> float:
    return 2 * pairs / (made + true) if made + true else math.nan
