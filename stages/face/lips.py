"""Lips: who moves them while somebody is heard, and what that says about who speaks.

Per frame and face, the logarithm of the short-time deviation of the mouth's opening: two syllables move it far, a smile
is a mouth that opened and stays. Log deviations of talking and of resting lips are about Gaussian; the four of a
conversation are fitted by expectation-maximisation over the frames in which one voice is heard, where one of the two
people speaks, or at times nobody in the picture, and the pauses. The priors are those of the clips at hand, worth some
seconds of data.

What they say is one witness of several: see `stages.voice.attribution`.

The trade-off: two people and one number a frame. A mouth that is hidden or chews says nothing or the wrong thing, and
laughter looks like speech while it lasts.

Shape suffixes: T frames of the 25 fps grid, P the two people, S still or speaking.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from visavis.schemas import FPS
from visavis.schemas.rows import Turn
from visavis.stages.media.audio import speech_state

_WINDOW = 9  # frames (0.36 s): about two syllables; evidence of neighbouring frames is one piece of evidence
_STILL = 0.003  # face heights; deviation below it is landmark noise
_MEAN_S, _DEVIATION_S = np.array([-5.0, -3.5]), np.array([0.7, 0.5])
_PRIOR = 60.0  # frames that the priors are worth
_ROUNDS = 20
_APART = 1.0  # by which lips that speak move more, at least: someone who never speaks would teach us otherwise
_NOBODY = 0.1  # odds that a voice is nobody's in the picture, against each of the two
_RIGHT = 0.95  # of the labels of a diarizer that hears two voices
_CLIP = 6.0  # nats that one frame of one face may say
_AT_REST = 6.0  # nats a second for lips that do not speak; people who hardly move theirs reach 3 in a turn of seconds
_SAYS_ENOUGH = 5 * FPS


class LipModel(NamedTuple):
    """mean_PS, deviation_PS of the lips' motion: each person at rest and speaking."""

    mean: np.ndarray
    deviation: np.ndarray


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


def fit_lips_by_diarizer(motion_PT: np.ndarray, heard_KT: np.ndarray, odds: float) -> LipModel:
    """`fit_lips` for `lip_contest`, begun from what the diarizer's labels say, given to the people either way round.

    Somebody who mumbles beside a still listener is not found by lips alone: both rest, and whose rest is taken for
    speech is chance. A label that goes with the one's moving lips says that the other label is not theirs.

    Args:
        heard_KT: bool, frames of each label. odds: nats by which the diarizer hears two voices (`Diarization.odds`).
    """
    count_T = heard_KT.sum(axis=0)
    two = (*np.argsort(-(heard_KT & (count_T == 1)).sum(axis=1), kind="stable"), 0)[:2]
    right = 0.5 + (_RIGHT - 0.5) * max(0.0, np.tanh(odds / 2))  # a diarizer in doubt says nothing
    hint_T = np.log(right / (1 - right)) * (heard_KT[two[0]].astype(np.float64) - heard_KT[two[1]])
    models = [fit_lips(motion_PT, count_T, contest=True, hint_T=sign * hint_T) for sign in (1, -1)]
    return max(zip(models, (1, -1), strict=True), key=lambda m: _fit(motion_PT, count_T, m[0], m[1] * hint_T))[0]


def fit_lips(
    motion_PT: np.ndarray, count_T: np.ndarray, *, contest: bool = False, hint_T: np.ndarray | None = None
) -> LipModel:
    """The two people's lips, from frames in which one of them is heard.

    Args:
        motion_PT: `lip_motion` of both.
        count_T: how many voices are heard.
        contest: fitted for `lip_contest`, else for `lip_evidence`.
        hint_T: nats for the first person that something else than lips says; None: no matter whose voice it may be.
    """
    evidence = lip_contest if contest else lip_evidence
    one_T, rest_T = _parts(motion_PT, count_T)
    one_PT, rest_PT = motion_PT[:, one_T], motion_PT[:, rest_T]
    hint_PT = np.zeros((2, int(one_T.sum()))) if hint_T is None else np.stack([hint_T, -hint_T])[:, one_T] / 2
    model = LipModel(np.tile(_MEAN_S, (2, 1)), np.tile(_DEVIATION_S, (2, 1)))
    for _ in range(_ROUNDS):
        odds_PT = np.exp(_WINDOW * evidence(one_PT, model) + hint_PT)  # of each speaking against nobody
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


def _parts(motion_PT: np.ndarray, count_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """bool [T]: both are seen, and one voice is heard or none."""
    seen_T = np.isfinite(motion_PT).all(axis=0)
    return seen_T & (count_T == 1), seen_T & (count_T == 0)


def _fit(motion_PT: np.ndarray, count_T: np.ndarray, model: LipModel, hint_T: np.ndarray) -> float:
    """Log likelihood of lips, if one of the two speaks where one voice is heard: nats, but for a constant."""
    one_T, rest_T = _parts(motion_PT, count_T)
    still_PT, speaks_PT = _densities(motion_PT[:, one_T], model)
    hint_PT = np.stack([hint_T, -hint_T])[:, one_T] / 2
    either_T = np.logaddexp(np.logaddexp(*(speaks_PT - still_PT + hint_PT)), np.log(_NOBODY))
    resting = _densities(motion_PT[:, rest_T], model)[0].sum()
    return float(resting + still_PT.sum() + either_T.sum()) / _WINDOW


def lip_evidence(motion_PT: np.ndarray, model: LipModel) -> np.ndarray:
    """[P, T], nats by which each person's lips look like speech rather than rest; 0 where they are not seen.

    Sums over frames are evidence: what `_WINDOW` frames share is counted once. A mouth that moves more than talking
    ones do is no resting one, and one that lies stiller than most talks not.
    """
    above, below = motion_PT > model.mean[:, 1, None], motion_PT < model.mean[:, 0, None]
    found_PT = _likelihood(motion_PT, model)
    found_PT = np.where(above, np.maximum(found_PT, 0), np.where(below, np.minimum(found_PT, 0), found_PT))
    return _added(found_PT)


def lip_contest(motion_PT: np.ndarray, model: LipModel) -> np.ndarray:
    """The same, to hold people against each other: nothing more is said of a mouth that moves more than talking ones
    do, or lies stiller than resting ones. So of two that move, the one that laughs does not beat the one that talks,
    and a short closure of the lips is no sign against a whole turn."""
    return _added(_likelihood(np.clip(motion_PT, model.mean[:, :1], model.mean[:, 1:]), model))


def _likelihood(motion_PT: np.ndarray, model: LipModel) -> np.ndarray:
    still_PT, speaks_PT = _densities(motion_PT, model)
    return speaks_PT - still_PT


def _densities(motion_PT: np.ndarray, model: LipModel) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of both, at rest and speaking, but for a constant."""
    still_PT, speaks_PT = (
        -0.5 * ((motion_PT - model.mean[:, s, None]) / model.deviation[:, s, None]) ** 2
        - np.log(model.deviation[:, s, None])
        for s in (0, 1)
    )
    return still_PT, speaks_PT


def _added(nats_PT: np.ndarray) -> np.ndarray:
    added: np.ndarray = np.clip(np.nan_to_num(nats_PT), -_CLIP, _CLIP) / _WINDOW
    return added


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
