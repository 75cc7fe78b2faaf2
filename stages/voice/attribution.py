"""Attribution: who of two people in view says what, by all evidence together.

Four witnesses, each in nats for the one and against the other, frame by frame of the speech:

    lips     they move as they do in speech, or rest (`face.lips`)
    sound    they open with what is heard, as a speaker's do and a laughing listener's do not (`face.lip_sync`)
    diarizer its labels: each worth what it has shown to be right elsewhere, and what the diarizer thinks of it
    voice    what the two sound like in this very conversation, learned where the others agree (below)

They are added, and one path is sought through the speech: who speaks, or both where the diarizer hears two at once. A
change of speaker costs nats inside of a turn and few at its edges. Diarizer and voice are then weighed and learned
again by the path that was found. So a turn during which a hand hides the lips goes by the voice, and a short word by
the lips.

Where it begins matters: lips that chew through a turn or two teach wrong voices, which then cannot correct them. So the
first path is the diarizer's, each label given to the person whose lips fit it, and voices are first learned from that.

The conversation's own voices: a linear discriminant between what is heard (`Diarization.voices`) in the one's and in
the other's turns. It counts for what it achieves on turns that it was not learned from, so voices that do not differ
are worth nothing, however well they were fitted.

The trade-off: two people, and evidence that is taken for independent. A third voice goes to whoever's lips move.

Shape suffixes: T frames of the 25 fps grid, P the two people, K the diarizer's labels, W voice windows, E embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from visavis.schemas import FPS
from visavis.schemas.rows import Turn
from visavis.stages.voice.odds import SPAN, WINDOWS_A_SECOND, Odds, both_speak

_ROUNDS = 4  # of weighing the witnesses, which converge in two or three
_CHANGE = 4.0  # nats: a speaker who changes inside of a turn, …
_AT_EDGE = 1.0  # … and where the diarizer hears a change or a pause
_BOTH = 6.0  # nats a second for two who are heard at once: lips that rest in speech reach 7 to 17 (`stages.face.lips`)
_DIARIZER = 20.0  # seconds that a believed diarizer is taken to have had right before anything is seen, …
_DOUBTED = 2.0  # … and one that could not tell a second voice from the first
_UNSURE = 1.0  # the same, wrong
_PURE = 0.6  # lead of one person among the frames of a voice window that is learned from
_TELLS = 3.0  # nats in a window by which lips tell whose it is, for a voice to be learned from it
_FOLDS = 5
_SHRINK = 0.3  # of the voices' covariance towards a ball
_FAR = 2.0  # times the distance of the voices: no score is further out
_LIKE = 2.0  # windows that say the same as the two voices being one, before any is heard
_CLIP = 3.0  # nats that a voice window may say
_IMPOSSIBLE = -1e9


class Attribution(NamedTuple):
    """turns: by participant, sorted by (start, speaker). changed: seconds in which the diarizer's label was overruled.

    seconds_P: that each is alone heard. nats_P: by which these are the own rather than the other's, by lips and sound.
    voices: for each participant, the diarizer's label that is theirs more than any other is. odds: that both speak.
    """

    turns: tuple[Turn, ...]
    changed: float
    seconds: np.ndarray
    nats: np.ndarray
    voices: tuple[int, int]
    odds: Odds


def labels_heard(turns: Sequence[Turn], frames: int) -> np.ndarray:
    """bool [K, T]: the diarizer's label k fills at least half of the frame."""
    heard_KT = np.zeros((1 + max((turn.speaker for turn in turns), default=0), frames))
    for turn in turns:
        start, end = turn.start * FPS, min(turn.end * FPS, frames)
        inside = slice(int(start), math.ceil(end))
        edges = np.arange(inside.start, inside.stop)
        heard_KT[turn.speaker, inside] += np.clip(np.minimum(edges + 1, end) - np.maximum(edges, start), 0, 1)
    return heard_KT >= 0.5 - 1e-9


def attributed(
    turns: Sequence[Turn],
    evidence_PT: np.ndarray,
    voices_WE: np.ndarray | None = None,
    believed: int = 2,
    diarizer: float = 0.0,
) -> Attribution:
    """Turns of participants, from turns of voices and what can be seen.

    Args:
        turns: the diarizer's, by label.
        evidence_PT: nats by which each person speaks rather than not, by lips and sound.
        believed: voices that the diarizer is sure of. diarizer: nats by which it hears two rather than one.
    """
    frames = evidence_PT.shape[1]
    heard_KT = labels_heard(turns, frames)
    count_T = heard_KT.sum(axis=0)
    lead_T = np.where(count_T == 1, evidence_PT[0] - evidence_PT[1], 0.0)
    guess_KP = _first_guess(heard_KT & (count_T == 1), lead_T, believed)
    right_KP, voice_T = guess_KP, _voices_by_diarizer(voices_WE, heard_KT, guess_KP)
    for _ in range(_ROUNDS):
        odds_K = np.log((right_KP[:, 0] + _UNSURE) / (right_KP[:, 1] + _UNSURE)) * (len(heard_KT) > 1)
        path_T = _path(turns, heard_KT, evidence_PT, odds_K, voice_T)
        found_KP = np.stack([(heard_KT & (count_T == 1) & (path_T == p)).sum(axis=1) / FPS for p in (0, 1)], axis=1)
        right_KP = guess_KP + found_KP
        voice_T = _voice_evidence(voices_WE, np.where(count_T == 1, _seen(path_T, lead_T), -1))
    lead_K = found_KP[:, 0] - found_KP[:, 1]
    voices = (int(lead_K.argmax()), int(lead_K.argmin())) if len(lead_K) > 1 else (0, 0)
    changed = float(found_KP.sum() - found_KP.max(axis=1).sum())
    pieces = (piece for turn in turns for piece in _split(turn, path_T))
    nats_P = np.array([sign * lead_T[(count_T == 1) & (path_T == p)].sum() for p, sign in ((0, 1), (1, -1))])
    agreed = 1 - changed / max(float(found_KP.sum()), 1e-9) if len(heard_KT) > 1 else 0.5
    odds = both_speak(np.where(count_T == 1, path_T, -1), lead_T, voices_WE, diarizer, agreed)
    return Attribution(_joined(pieces), round(changed, 2), found_KP.sum(axis=0), nats_P, voices, odds)


def _first_guess(alone_KT: np.ndarray, lead_T: np.ndarray, believed: int) -> np.ndarray:
    """Seconds [K, P] that each label is taken to have had right for the person whose lips fit it better."""
    worth = _DIARIZER if believed > 1 else _DOUBTED
    if len(alone_KT) < 2:
        worth = 0.0  # one label for all tells nobody from nobody
    fits_K = alone_KT @ lead_T
    two = np.argsort(-alone_KT.sum(axis=1), kind="stable")[:2]  # the two that say most are two people's
    if worth:
        fits_K[two] = np.array([1, -1]) * (1 if fits_K[two[0]] >= fits_K[two[1]] else -1)
    return worth * np.stack([fits_K > 0, fits_K < 0], axis=1)


def _voices_by_diarizer(voices_WE: np.ndarray | None, heard_KT: np.ndarray, guess_KP: np.ndarray) -> np.ndarray:
    """`_voice_evidence` as if each label were the person's that it is first given to: [T]."""
    owner_K = np.where(guess_KP[:, 0] >= guess_KP[:, 1], 0, 1)
    return _voice_evidence(voices_WE, np.where(heard_KT.sum(axis=0) == 1, owner_K[heard_KT.argmax(axis=0)], -1))


def _path(
    turns: Sequence[Turn], heard_KT: np.ndarray, evidence_PT: np.ndarray, odds_K: np.ndarray, voice_T: np.ndarray
) -> np.ndarray:
    """Who speaks in each frame: 0, 1, or 2 for both, who are only sought where the diarizer hears several at once."""
    count_T = heard_KT.sum(axis=0)
    diarizer_T = np.zeros(len(count_T))
    for turn in turns:
        first = round(turn.start * FPS)
        span = slice(first, max(round(turn.end * FPS), first + 1))
        diarizer_T[span] += odds_K[turn.speaker] / FPS
        diarizer_T[first : first + 1] += odds_K[turn.speaker]
    half_T = np.where(count_T == 1, (diarizer_T + voice_T) / 2, 0.0)
    spoken_PT = np.where(count_T > 0, evidence_PT, 0.0)
    both_T = np.where(count_T > 1, spoken_PT.sum(axis=0) + _BOTH / FPS, _IMPOSSIBLE)
    score_TS = np.stack([spoken_PT[0] + half_T, spoken_PT[1] - half_T, both_T], axis=1)
    edge_T = np.r_[True, (np.diff(heard_KT.astype(np.int8), axis=1) != 0).any(axis=0)] | (count_T == 0)
    return best_path(score_TS, np.where(edge_T, _AT_EDGE, _CHANGE))


def best_path(score_TS: np.ndarray, change_T: np.ndarray) -> np.ndarray:
    """The path of states that gathers most (Viterbi). change_T: what another state than the frame before's costs."""
    total, came = [0.0] * score_TS.shape[1], []  # came: the best state so far, and the states that are left for it
    for scores, change in zip(score_TS.tolist(), change_T.tolist(), strict=True):
        best = max(total)
        came.append((total.index(best), [t < best - change for t in total]))
        total = [max(t, best - change) + score for t, score in zip(total, scores, strict=True)]
    path_T = np.zeros(len(came), np.int64)
    state = total.index(max(total))
    for t in range(len(came) - 1, -1, -1):
        path_T[t] = state
        best_state, left = came[t]
        state = best_state if left[state] else state
    return path_T


def _seen(path_T: np.ndarray, lead_T: np.ndarray) -> np.ndarray:
    """The path where lips tell it over a voice window, else −1: nothing is learned from what was a guess."""
    around_T = np.convolve(lead_T, np.ones(round(SPAN * FPS)), "same")
    return np.where(around_T * np.where(path_T == 0, 1, -1) >= _TELLS, path_T, -1)


def _voice_evidence(voices_WE: np.ndarray | None, who_T: np.ndarray) -> np.ndarray:
    """Nats for person 0 in each frame [T], by how people sound elsewhere.

    who_T: 0 or 1 where that person alone is heard, else −1.
    """
    silence = np.zeros(len(who_T))
    if voices_WE is None:
        return silence
    voices_WE = voices_WE.astype(np.float64)
    at_W = np.minimum(np.arange(len(voices_WE)) * FPS // WINDOWS_A_SECOND, len(who_T) - 1)
    box = np.ones(round(SPAN * FPS))
    lead_T = np.convolve((who_T == 0).astype(float) - (who_T == 1), box, "same")
    lead_W = lead_T[at_W] / np.maximum(np.convolve(who_T >= 0, box, "same")[at_W], len(box) / 4)
    known_W = np.isfinite(voices_WE).all(axis=1)
    pure_W = known_W & (np.abs(lead_W) >= _PURE)
    first_W = lead_W > 0
    fold_W = _folds(np.where(pure_W, first_W.astype(int), -1))
    score_W = np.full(len(voices_WE), np.nan)
    for fold in range(-1, _FOLDS):  # −1: windows of no fold, by all that is known
        learn_W = pure_W & (fold_W != fold)
        if min((learn_W & first_W).sum(), (learn_W & ~first_W).sum()) < WINDOWS_A_SECOND:
            return silence
        told_W = known_W & (fold_W == fold)
        score_W[told_W] = _discriminant(voices_WE[learn_W], first_W[learn_W])(voices_WE[told_W])
    nats_W = _likelihood(score_W, pure_W & first_W, pure_W & ~first_W) / (SPAN * WINDOWS_A_SECOND)
    nats_T: np.ndarray = np.interp(np.arange(len(who_T)), at_W, nats_W) * WINDOWS_A_SECOND / FPS
    return nats_T


def _folds(label_W: np.ndarray) -> np.ndarray:
    """The fold of each window, −1 without a label: whole turns, of each person in their order, are dealt out."""
    begins_W = np.r_[True, np.diff(label_W) != 0]
    turn_W = np.cumsum(begins_W) - 1
    fold_W = np.full(len(label_W), -1)
    for person in (0, 1):
        mine = np.unique(turn_W[label_W == person])
        inside_W = label_W == person
        fold_W[inside_W] = np.searchsorted(mine, turn_W[inside_W]) % min(_FOLDS, max(len(mine), 1))
    return fold_W


def _discriminant(voices_WE: np.ndarray, first_W: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Fisher's, with a covariance shrunk towards a ball: from windows to scores, 1 for the first, −1 for the other."""
    one_E, other_E = voices_WE[first_W].mean(axis=0), voices_WE[~first_W].mean(axis=0)
    centred_WE = voices_WE - np.where(first_W[:, None], one_E, other_E)
    spread_EE = centred_WE.T @ centred_WE / len(voices_WE)
    size = len(spread_EE)
    ball_EE = np.eye(size) * (np.trace(spread_EE) / size + 1e-9)
    axis_E = np.linalg.solve((1 - _SHRINK) * spread_EE + _SHRINK * ball_EE, one_E - other_E)
    half = float((one_E - other_E) @ axis_E) / 2
    return lambda some_WE: np.clip((some_WE - (one_E + other_E) / 2) @ axis_E / max(half, 1e-9), -_FAR, _FAR)


def _likelihood(score_W: np.ndarray, first_W: np.ndarray, second_W: np.ndarray) -> np.ndarray:
    """Nats for the first, of scores that are Gaussian for each: what was learned from is not what is scored.

    Means are drawn together as if some windows had been heard that fit both.
    """
    means, counts = [score_W[w].mean() for w in (first_W, second_W)], [w.sum() for w in (first_W, second_W)]
    middle = sum(means) / 2
    apart = SPAN * WINDOWS_A_SECOND * _LIKE
    one, other = (middle + (m - middle) * n / (n + apart) for m, n in zip(means, counts, strict=True))
    variance = sum(((score_W[w] - m) ** 2).sum() for w, m in zip((first_W, second_W), (one, other), strict=True))
    if one <= other:
        return np.zeros(len(score_W))
    nats_W = (score_W - (one + other) / 2) * (one - other) / (variance / sum(counts))
    clipped: np.ndarray = np.clip(np.nan_to_num(nats_W), -_CLIP, _CLIP)
    return clipped


def _split(turn: Turn, path_T: np.ndarray) -> Iterator[Turn]:
    """One turn of the diarizer, in pieces of one person each, or of both."""
    first = round(turn.start * FPS)
    path_F = path_T[first : max(round(turn.end * FPS), first + 1)]
    if not len(path_F):
        path_F = path_T[-1:]
    edges = [turn.start, *((first + n) / FPS for n in np.flatnonzero(np.diff(path_F)) + 1), turn.end]
    states = path_F[np.r_[True, np.diff(path_F) != 0]].tolist()
    for state, start, end in zip(states, edges, edges[1:], strict=False):
        for person in (0, 1) if state == 2 else (state,):
            yield Turn(speaker=person, start=start, end=end)


def _joined(turns: Iterable[Turn]) -> tuple[Turn, ...]:
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
