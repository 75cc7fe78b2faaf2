"""What a speech recogniser is asked and answers: excerpts of voices in, words with times out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from visavis.schemas import SAMPLE_RATE

LONGEST = 30 * SAMPLE_RATE
"""Samples of an excerpt: what Whisper's encoder takes."""


class TimedWord(NamedTuple):
    """A word, in seconds of its excerpt."""

    start: float
    end: float
    text: str


class Recognised(NamedTuple):
    """The words of each excerpt. aligned: their times come from the sound, not from counting letters."""

    words: list[list[TimedWord]]
    language: str
    aligned: bool


Recogniser = Callable[[Sequence[np.ndarray]], Recognised]
"""Hears the excerpts of one conversation, each float32 [N ≤ LONGEST] mono at 16 kHz."""
