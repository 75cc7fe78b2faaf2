"""Conversations of synthetic voices, in any number: words that recur, never twice alike (`near_duplicates`)."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from benchmarks.copies import Tracks
from visavis.pipeline.demo.voices import VOICES, synthesise
from visavis.schemas import SAMPLE_RATE

_TEXT = (
    "about after again always another answer because before better between bring brother change children city close "
    "coffee could country different dinner early enough evening everybody family father finally friend garden "
    "happen help holiday house hundred idea important interesting kitchen later letter listen little maybe meeting "
    "minute money morning mother mountain music never nobody nothing often other people perhaps picture place "
    "please problem question quite rather really remember river school second seven several sister sometimes story "
    "street summer sunday surely table thank think thirty through today together tomorrow train travel twenty "
    "understand usually visit waiting water weather weekend window winter without wonderful work yesterday yes no "
    "well right okay so "
)
WORDS = _TEXT.split()
_GAP, _TURN_GAP = (0.02, 0.3), (0.1, 0.9)  # seconds between words and turns
_TURN = (3, 14)  # words
_STRETCH = 0.12  # by which pitch and rate of a word vary
_ROOM = 5e-4  # deviation of the noise


class Chatter:
    """The same seed and number give the same conversation. seconds: of each."""

    def __init__(self, seed: int, seconds: float) -> None:
        self._seed, self._samples = seed, round(seconds * SAMPLE_RATE)

    @cached_property
    def _words(self) -> list[list[np.ndarray]]:
        return synthesise([voice for pair in VOICES for voice in pair], WORDS)

    def conversation(self, number: int) -> Tracks:
        """Two tracks, float32 [N]; one of six pairs of voices, so many conversations are of the same two speakers."""
        random = np.random.default_rng([self._seed, number])
        pair = 2 * int(random.integers(len(VOICES)))
        tracks = _ROOM * random.standard_normal((2, self._samples), np.float32)
        now, speaker = 0.3, int(random.integers(2))
        while now * SAMPLE_RATE < self._samples:
            for _ in range(int(random.integers(*_TURN))):
                word = _said(self._words[pair + speaker][int(random.integers(len(WORDS)))], random)
                first = round(now * SAMPLE_RATE)
                there = tracks[speaker, first : first + len(word)]
                there += word[: len(there)]
                now += len(word) / SAMPLE_RATE + random.uniform(*_GAP)
            now += random.uniform(*_TURN_GAP)
            speaker = 1 - speaker
        return tracks[0], tracks[1]


def _said(word: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """At another pitch and rate, and another level."""
    places = np.arange(0, len(word) - 1, 1 + random.uniform(-_STRETCH, _STRETCH))
    said: np.ndarray = np.interp(places, np.arange(len(word)), word).astype(np.float32)
    return said * np.float32(random.uniform(0.5, 1.2))
