"""Turn-taking: do two people speak with each other, or each by themselves?

Who talks with somebody begins to speak where the other ends, and stops where the other begins, also where both talk at
once a great deal; strangers begin and stop whatever the other does. Two things are asked of a recording:

    changes   At what the other did did each begin and stop: around an end, in the midst of speech, in silence? Given
              for how long the other did each, the counts are multinomial (as in Cox's partial likelihood), so a
              person's own habits, long turns or many pauses, say nothing. What a dialogue does to the rates is known
              for several tempers, from calm to so lively that little is left of it; for strangers all factors are 1.
              Each change of floor shows on both sides, so half of the sum counts.
    overlap   For how long both speak at once: in a dialogue a small share, of a population of dialogues; with strangers
              what chance makes of two people who speak so much each.

The sum of both log likelihood ratios is the evidence for a dialogue, in nats. The trade-off: no words and no network,
so a few turns are no evidence either way. Somebody who says nothing, or no more than "mm-hmm", is none against it:
listening is what this data is for. Factors were set on drawn dialogues (`benchmarks.turntaking`, another seed); the
prior of overlap was chosen with two real, lively dialogues in view.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from visavis.schemas import FPS
from visavis.schemas.errors import Reason, Rejected
from visavis.training.runs import runs

_SHORT = FPS  # frames; what is no longer, and so far from all that is, is listening or a short answer
_ENDING = 15, 25  # frames before and after an end in which the other may be answered
_BEGINNING = 25, 25  # … and around a beginning, before which one has just stopped or for which one stops
_LONG = FPS  # frames of one's own silence or speech, from which on it is more than a pause or a word
_HALF = 0.5

# Log factors of the rates of, by row: beginning after long silence, or after a pause; stopping after long speech, or
# soon. By column: the other is silent; ends (for beginnings) or begins (for stops); is in the midst of speech.
_TEMPERS = np.array(
    [
        [[0, 0, -2.5], [0, 0, -1.5], [0, 0.9, 0.7], [0, 0.9, 0.6]],
        [[0, 0, -1.6], [0, 0, -1.0], [0, 0.7, 0.6], [0, 0.7, 0.5]],
        [[0, 0, -1.0], [0, 0, -0.7], [0, 0.5, 0.5], [0, 0.5, 0.4]],
        [[0, 0, -0.5], [0, 0, -0.3], [0, 0.3, 0.3], [0, 0.3, 0.2]],
    ]
)
_OVERLAPS = 1.5, 8.5  # Beta: share of a dialogue in which both speak; mean 15 %, above 40 % in one of fifty
_APART = 3 * FPS  # frames after which whether both speak is a new observation


def check_dialogue(state_T: np.ndarray, doubt: float) -> None:
    """Refuse two people who speak each by themselves.

    Args:
        state_T: uint8, `stages.media.audio.speech_state`.
        doubt: nats by which that must be likelier than a dialogue; 0: nothing is refused.

    Raises:
        Rejected: NOT_A_DIALOGUE.
    """
    if doubt and (evidence := dialogue_evidence(state_T)) < -doubt:
        alone, both = (np.isin(state_T & 3, kinds).mean() for kinds in ((1, 2), (3,)))
        raise Rejected(
            Reason.NOT_A_DIALOGUE,
            f"each speaks whatever the other does, by {-evidence:.1f} nats in {len(state_T) / FPS:.0f} s: one speaks in"
            f" {100 * alone:.0f} % of it, both in {100 * both:.0f} %",
        )


def dialogue_evidence(state_T: np.ndarray) -> float:
    """Nats by which a dialogue is likelier than two people who have nothing to do with each other."""
    if not len(state_T):
        return 0.0
    both_PT = np.stack([state_T & 1, state_T >> 1 & 1]).astype(bool)
    turns_PT = np.stack([_turns(speaks_T) for speaks_T in both_PT])
    return _changes(turns_PT) + _overlap(turns_PT)


def _turns(speaks_T: np.ndarray) -> np.ndarray:
    """Speech without short sounds apart from longer ones: whatever the other does, so strangers gain nothing by it."""
    spans = runs(speaks_T)
    long_T = np.zeros(len(speaks_T), bool)
    for first, last in spans:
        long_T[first:last] = last - first > _SHORT
    kept_T = long_T.copy()
    for first, last in spans:
        kept_T[first:last] |= long_T[max(0, first - _SHORT) : last + _SHORT].any()
    return kept_T


def _changes(speaks_PT: np.ndarray) -> float:
    ratio_K = sum((_of_one(speaks_PT[i], speaks_PT[1 - i]) for i in (0, 1)), np.zeros(len(_TEMPERS)))
    return float(np.logaddexp.reduce(_HALF * ratio_K) - np.log(len(ratio_K)))


def _of_one(own_T: np.ndarray, other_T: np.ndarray) -> np.ndarray:
    """Of one person's changes, nats [K] for each temper."""
    edges = runs(other_T)
    ends_T = _near(len(own_T), [last for _, last in edges if last < len(own_T)], *_ENDING)
    begins_T = _near(len(own_T), [first for first, _ in edges if first > 0], *_BEGINNING)
    before_T, now_T = own_T[:-1], own_T[1:]
    long_T = _since_change(own_T)[:-1] >= _LONG
    nats_K = np.zeros(len(_TEMPERS))
    for row, (speaks, long) in enumerate(((False, True), (False, False), (True, True), (True, False))):
        meanwhile_T = np.where(begins_T if speaks else ends_T, 1, np.where(other_T, 2, 0))[1:]
        could_T = (before_T == speaks) & (long_T == long)
        did, lasted = (np.bincount(meanwhile_T[m], minlength=3) for m in (could_T & (now_T != speaks), could_T))
        factors_K3 = _TEMPERS[:, row]
        mean_K = np.exp(factors_K3) @ lasted / max(lasted.sum(), 1)
        nats_K += factors_K3 @ did - did.sum() * np.log(np.maximum(mean_K, 1e-9))
    return nats_K


def _near(frames: int, moments: list[int], before: int, after: int) -> np.ndarray:
    near_T = np.zeros(frames, bool)
    for moment in moments:
        near_T[max(0, moment - before) : moment + after] = True
    return near_T


def _since_change(speaks_T: np.ndarray) -> np.ndarray:
    """Frames since somebody began or stopped, or the recording began."""
    edges = [0, *(np.flatnonzero(np.diff(speaks_T)) + 1).tolist(), len(speaks_T)]
    return np.concatenate([np.arange(last - first) for first, last in pairwise(edges)])


def _overlap(speaks_PT: np.ndarray) -> float:
    from scipy.special import betainc, betaln

    each_P, both = speaks_PT.mean(axis=1), float(speaks_PT.all(axis=0).mean())
    observed, chance, most = speaks_PT.shape[1] / _APART, float(each_P.prod()), float(each_P.min())
    if not 0 < chance < 1:
        return 0.0  # somebody never speaks, or both always do
    seen = observed * both
    known = _OVERLAPS[0] + seen, _OVERLAPS[1] + observed - seen
    dialogue = betaln(*known) - betaln(*_OVERLAPS)
    dialogue += np.log(max(betainc(*known, most), 1e-300) / betainc(*_OVERLAPS, most))  # of shares that are possible
    strangers = seen * np.log(chance) + (observed - seen) * np.log(1 - chance)
    return float(dialogue - strangers)
