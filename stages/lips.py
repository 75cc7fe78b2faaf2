"""Lips: who moves them while somebody is heard, and what that says about who speaks.

Per frame and face, the logarithm of the short-time deviation of the mouth's opening: two syllables move it far, a smile
is a mouth that opened and stays. Log deviations of talking and of resting lips are about Gaussian; the four of a
conversation are fitted by expectation-maximisation over the frames in which one voice is heard, where one of the two
people speaks, or at times nobody in the picture, and the pauses. The priors are those of the clips at hand, worth some
seconds of data.

The ear's labels are then held against the lips, turn by turn (`reassigned`): a two-state path through each turn, on
which leaving the ear's label costs as much as the ear has shown to be right elsewhere, and changing inside a turn costs
a fixed amount. So an ear that is mostly right is overruled by clear lips only, and one that guesses is not heard.

The trade-off: two people and one number a frame. A mouth that is hidden or chews says nothing or the wrong thing, and
laughter speaks against its owner while it lasts; where lips and ear disagree briefly, the ear wins.

Shape suffixes: T frames of the 25 fps grid, P the two people, S still or speaking.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from schemas import FPS
from schemas.rows import Turn
from stages.audio import speech_state
from stages.viterbi import viterbi

_WINDOW = 9  # frames (0.36 s): about two syllables; evidence of neighbouring frames is one piece of evidence
_STILL = 0.003  # face heights; deviation below it is landmark noise
_MEAN_S, _DEVIATION_S = np.array([-5.0, -3.5]), np.array([0.7, 0.5])
_PRIOR = 60.0  # frames that the priors are worth
_ROUNDS = 20
_REPEATS = 4  # of weighing the ear, which converges in two or three
_APART = 1.0  # by which lips that speak move more, at least: someone who never speaks would teach us otherwise
_NOBODY = 0.1  # odds that a voice is nobody's in the picture, against each of the two
_CLIP = 6.0  # nats that one frame of one face may say
_CHANGE = 4.0  # nats: a speaker who changes inside of a turn
_AT_REST = 6.0  # nats a second for lips that do not speak; people who hardly move theirs reach 3 in a turn of seconds
_SAYS_ENOUGH = 5 * FPS
_EAR = 20.0  # seconds of turns that the ear is believed to have had right before anything is seen
_UNSURE = 1.0  # the same, wrong


class LipModel(NamedTuple):
    """mean_PS, deviation_PS of the lips' motion: each person at rest and speaking."""

    mean: np.ndarray
    deviation: np.ndarray


class Reassigned(NamedTuple):
    """Turns by participant, sorted by (start, speaker); and the seconds whose label the lips changed."""

    turns: tuple[Turn, ...]
    changed: float


def lip_motion(opening_T: np.ndarray) -> np.ndarray:
    """Logarithm of the opening's deviation over 0.36 s; NaN where less than half of that is seen.

    opening_T: distance of the inner lips in face heights, NaN where not seen.
    """
    seen_T = np.isfinite(opening_T)
    box = np.ones(_WINDOW)
    count_T = np.convolve(seen_T, box, "same")
    known_T = np.where(seen_T, opening_T, 0.0).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_T = np.convolve(known_T, box, "same") / count_T
        variance_T = np.convolve(known_T**2, box, "same") / count_T - mean_T**2
    motion_T = np.log(np.sqrt(np.maximum(variance_T, 0.0)) + _STILL)
    return np.where(count_T > _WINDOW / 2, motion_T, np.nan)


def voice_contrast(turns: Sequence[Turn], frames: int) -> np.ndarray:
    """Float [T]: +1 where voice 0 speaks alone, −1 where voice 1 does, 0 where both or neither do."""
    state_T = speech_state(turns, frames)
    return (state_T & 1).astype(np.float64) - (state_T >> 1 & 1)


def fit_lips(motion_PT: np.ndarray, state_T: np.ndarray) -> LipModel:
    """The two people's lips, from frames in which one of them is heard, no matter whose voice the ear took it for.

    Args:
        motion_PT: `lip_motion` of both.
        state_T: `speech_state`.
    """
    seen_T = np.isfinite(motion_PT).all(axis=0)
    one_PT = motion_PT[:, seen_T & np.isin(state_T, (1, 2))]
    rest_PT = motion_PT[:, seen_T & (state_T == 0)]
    model = LipModel(np.tile(_MEAN_S, (2, 1)), np.tile(_DEVIATION_S, (2, 1)))
    for _ in range(_ROUNDS):
        odds_PT = np.exp(_evidence(one_PT, model))  # of each speaking against nobody
        speaks_PT = odds_PT / (odds_PT.sum(axis=0) + _NOBODY)
        mean_PS, deviation_PS = np.empty((2, 2)), np.empty((2, 2))
        for person, spoken_T in enumerate(speaks_PT):
            parts = (
                (np.concatenate([one_PT[person], rest_PT[person]]), np.append(1 - spoken_T, np.ones(rest_PT.shape[1]))),
                (one_PT[person], spoken_T),
            )
            for s, (values, weights) in enumerate(parts):
                total = _PRIOR + weights.sum()
                mean = (_PRIOR * _MEAN_S[s] + weights @ values) / total
                spread = (_PRIOR * _DEVIATION_S[s] ** 2 + weights @ (values - mean) ** 2) / total
                mean_PS[person, s], deviation_PS[person, s] = mean, np.sqrt(spread)
        mean_PS[:, 1] = np.maximum(mean_PS[:, 1], mean_PS[:, 0] + _APART)
        model = LipModel(mean_PS, deviation_PS)
    return model


def lip_evidence(motion_PT: np.ndarray, model: LipModel) -> np.ndarray:
    """[P, T], nats by which each person's lips look like speech rather than rest; 0 where they are not seen.

    Sums over frames are evidence: what `_WINDOW` frames share is counted once.
    """
    return np.nan_to_num(_evidence(motion_PT, model)) / _WINDOW


def _evidence(motion_PT: np.ndarray, model: LipModel) -> np.ndarray:
    still, speaks = (
        -0.5 * ((motion_PT - model.mean[:, s, None]) / model.deviation[:, s, None]) ** 2
        - np.log(model.deviation[:, s, None])
        for s in (0, 1)
    )
    # A mouth that moves more than talking ones do is no resting one, and one that lies stiller than most talks not.
    above, below = motion_PT > model.mean[:, 1, None], motion_PT < model.mean[:, 0, None]
    found_PT = speaks - still
    found_PT = np.where(above, np.maximum(found_PT, 0), np.where(below, np.minimum(found_PT, 0), found_PT))
    clipped: np.ndarray = np.clip(found_PT, -_CLIP, _CLIP)
    return clipped


def decisiveness(evidence_PT: np.ndarray, state_T: np.ndarray) -> float:
    """Nats a second that lips say for the one and against the other while one voice is heard: 25 to 31 where two people
    take turns in view, 3 to 5 where both talk all the time."""
    lead_T = (evidence_PT[0] - evidence_PT[1])[np.isin(state_T, (1, 2))]
    return float(np.abs(lead_T).mean() * FPS) if len(lead_T) else 0.0


def reassigned(turns: Sequence[Turn], evidence_PT: np.ndarray) -> Reassigned:
    """Turns of participants as the ear has them, corrected by the lips; where both are heard nothing changes.

    Args:
        turns: of speakers 0 and 1, the numbers of the participants.
    """
    state_T = speech_state(turns, evidence_PT.shape[1])
    lead_T = np.where(np.isin(state_T, (1, 2)), evidence_PT[0] - evidence_PT[1], 0.0)
    kept = changed = 0.0
    for _ in range(_REPEATS):
        belief = max(0.0, math.log((_EAR + kept) / (_UNSURE + changed)))
        paths = [_path(turn, lead_T, belief) for turn in turns]
        kept = sum(int((path_F == turn.speaker).sum()) for turn, path_F in zip(turns, paths, strict=True)) / FPS
        changed = sum(len(path_F) for path_F in paths) / FPS - kept
    pieces = (piece for turn, path_F in zip(turns, paths, strict=True) for piece in _split(turn, path_F))
    return Reassigned(_joined(pieces), round(changed, 2))


def unseen_share(turns: Sequence[Turn], evidence_PT: np.ndarray, person: int | None = None) -> float:
    """Share of the time in which one voice is heard that falls on turns during which nobody's lips move.

    Args:
        person: whose turns and lips count; None: everybody's.

    Returns:
        0 where less than 5 s are heard: a few sounds of a listener with closed lips say nothing.
    """
    frames = evidence_PT.shape[1]
    alone_T = np.isin(speech_state(turns, frames), (1, 2))
    unseen = heard = 0
    for turn in turns:
        if person in (None, turn.speaker):
            span = slice(round(turn.start * FPS), round(turn.end * FPS))
            said_PT = evidence_PT[:, span][:, alone_T[span]]
            best = said_PT.sum(axis=1).max() if person is None else said_PT[person].sum()
            length = said_PT.shape[1]
            heard += length
            unseen += length * bool(best < -_AT_REST * length / FPS)
    return unseen / heard if heard >= _SAYS_ENOUGH else 0.0


def _path(turn: Turn, lead_T: np.ndarray, belief: float) -> np.ndarray:
    """Whose lips speak in each frame of a turn, 0 or 1. `belief`: nats for the ear, once and again every second."""
    first = round(turn.start * FPS)
    ear = belief / 2 if turn.speaker == 0 else -belief / 2
    worth_F = lead_T[first : max(round(turn.end * FPS), first + 1)] / 2 + ear / FPS
    worth_F[:1] += ear
    return (~viterbi(worth_F, _CHANGE)).astype(np.int64)


def _split(turn: Turn, path_F: np.ndarray) -> Iterator[Turn]:
    first = round(turn.start * FPS)
    edges = [turn.start, *((first + n) / FPS for n in np.flatnonzero(np.diff(path_F)) + 1), turn.end]
    speakers = path_F[np.r_[True, np.diff(path_F) != 0]].tolist()
    for speaker, start, end in zip(speakers, edges, edges[1:], strict=False):
        yield Turn(speaker=speaker, start=start, end=end)


def _joined(turns: Iterator[Turn]) -> tuple[Turn, ...]:
    """Without overlaps of a person with themselves."""
    joined: list[Turn] = []
    latest: dict[int, int] = {}
    for turn in sorted(turns, key=lambda t: (t.start, t.speaker)):
        last = latest.get(turn.speaker)
        if last is not None and turn.start <= joined[last].end:
            joined[last] = joined[last].model_copy(update={"end": max(joined[last].end, turn.end)})
        else:
            latest[turn.speaker] = len(joined)
            joined.append(turn)
    return tuple(sorted(joined, key=lambda t: (t.start, t.speaker)))
