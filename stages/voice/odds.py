"""Odds: do both of two people in view speak, or does one of them alone, beside a face that lives?

Three witnesses in nats for both, each bounded by how often it is known to deceive, whatever its sums say:

    lips     of the one with the weaker case. A chewing or laughing mouth, or a hand before the other's, deceives for
             seconds on end, so a piece of up to 3 s of somebody's speech is one piece of evidence and says 3 nats at
             most (one in twenty). A mouth may be hidden throughout, so all pieces together say no more against it.
    voices   what is heard in the one's and in the other's turns lies apart, as two people's voices do, or near, as one
             person's: where lips alone would make two of a monologue, both have one voice. Parts that a diarizer sets
             apart are further from each other than parts taken at random, so who follows the diarizer's labels is asked
             for more.
    diarizer what it says for two voices (`Diarization.odds`), if they are these two: if faces share its
             voices, it says nothing.

Distances and what the diarizer says were read off the voices at hand (.75 ± .09 for the diarizer's splits of one half
of them, .78 ± .11 of the other). The form of the rule was chosen with all in view, so a figure on them is no judgement:
make other clips (`benchmarks.exchanges`, another seed).

The trade-off: 3 numbers. Who always chews, with a speaker whose mouth is never seen, is taken for a dialogue where the
diarizer errs as well.

Shape suffixes: T frames of the 25 fps grid, W voice windows, E embedding.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from visavis.schemas import FPS

WINDOWS_A_SECOND = 10  # of `Diarization.voices`
SPAN = 1.0  # seconds that a voice window hears
_PIECE = 3 * FPS  # frames that deceive together at most
_PAUSE = FPS  # frames without the person that end a piece
_DECEIVED = 3.0  # nats that one piece may say, and that all of them may say against somebody
_MOST = 6.0  # nats for both, of lips
_PURE = 0.3  # lead of one person among a voice window's frames from which it counts
_LEAST = 0.15  # seconds of such windows; of less, voices say nothing
_TWO = (0.93, 0.14)  # mean and deviation of the distance between two people's voices, …
_ONE = (
    (0.39, 0.17),
    (0.77, 0.11),
)  # … between parts of one voice taken at random, and those that the diarizer splits it in
_BY_DIARIZER = (0.5, 0.9)  # how likely a split is of the second kind: where labels are not followed, and where they are
_ENOUGH = 1.0  # seconds of such windows, of less each distance is larger by chance and counts in proportion
_CLOSE = 6.0  # nats against two voices at most


class Odds(NamedTuple):
    """Nats for both, rather than one. distance: of the voices, NaN where too little of one of them is heard alone."""

    lips: float
    voices: float
    diarizer: float
    distance: float

    @property
    def total(self) -> float:
        return self.lips + self.voices + self.diarizer


def both_speak(
    who_T: np.ndarray, lead_T: np.ndarray, voices_WE: np.ndarray | None, diarizer: float, agreed: float
) -> Odds:
    """How much more likely it is that both speak.

    Args:
        who_T: 0 or 1 where that person is taken to speak alone, else −1.
        lead_T: nats by which lips and sound fit person 0 better than person 1.
        diarizer: nats for two voices. agreed: share of its labels' time that fell to the label's own person; 0.5 where
            it has one label for both.
    """
    lips = min(_lips(who_T == 0, lead_T), _lips(who_T == 1, -lead_T))
    distance, seconds = _distance(who_T, voices_WE)
    return Odds(
        lips, _voices(distance, seconds, agreed, diarizer), min(diarizer, diarizer * (2 * agreed - 1)), distance
    )


def _lips(mine_T: np.ndarray, lead_T: np.ndarray) -> float:
    """Of all pieces of somebody's speech."""
    mine = np.flatnonzero(mine_T)
    if not len(mine):
        return -_DECEIVED
    begins = np.flatnonzero(np.r_[True, np.diff(mine) > _PAUSE])
    since = np.arange(len(mine)) - np.repeat(begins, np.diff(np.r_[begins, len(mine)]))
    pieces = np.add.reduceat(lead_T[mine], np.flatnonzero(since % _PIECE == 0))
    return float(np.clip(np.clip(pieces, -_DECEIVED, _DECEIVED).sum(), -_DECEIVED, _MOST))


def _voices(distance: float, seconds: float, agreed: float, diarizer: float) -> float:
    """Two against one, split by the diarizer where its labels are followed in doubt, else as likely at random."""
    if np.isnan(distance):
        return 0.0
    by_diarizer = float(np.clip((2 * agreed - 1) * min(1.0, 1.0 - np.tanh(diarizer / 2)), *_BY_DIARIZER))
    one = (1 - by_diarizer) * _gaussian(distance, *_ONE[0]) + by_diarizer * _gaussian(distance, *_ONE[1])
    nats = float(np.log(_gaussian(distance, *_TWO)) - np.log(one))
    return max(nats, -_CLOSE) * min(seconds / _ENOUGH, 1.0)


def _gaussian(value: float, mean: float, deviation: float) -> float:
    return float(np.exp(-0.5 * ((value - mean) / deviation) ** 2) / deviation)


def _distance(who_T: np.ndarray, voices_WE: np.ndarray | None) -> tuple[float, float]:
    """Of the mean voices of the two people's turns, and seconds of such windows that the quieter one has."""
    if voices_WE is None:
        return np.nan, 0.0
    known_W = np.isfinite(voices_WE).all(axis=1)
    lead_W = lead_in_windows(who_T, len(voices_WE))
    weight_W2 = np.stack([known_W * np.maximum(sign * lead_W - _PURE, 0.0) for sign in (1, -1)], axis=1)
    seconds = float(weight_W2.sum(axis=0).min()) / (1 - _PURE) / WINDOWS_A_SECOND
    if seconds < _LEAST:
        return np.nan, seconds
    one_E, other_E = (w @ np.nan_to_num(voices_WE.astype(np.float64)) / w.sum() for w in weight_W2.T)
    return float(np.linalg.norm(one_E - other_E)), seconds


def lead_in_windows(who_T: np.ndarray, windows: int) -> np.ndarray:
    """Share of each voice window in which person 0 speaks alone, less that of person 1: [W], −1…1."""
    at_W = np.minimum(np.arange(windows) * FPS // WINDOWS_A_SECOND, len(who_T) - 1)
    signed_T = (who_T == 0).astype(np.float64) - (who_T == 1)
    lead: np.ndarray = np.convolve(signed_T, np.ones(round(SPAN * FPS)), "same")[at_W] / round(SPAN * FPS)
    return lead
