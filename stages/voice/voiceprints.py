"""What one person's voice sounds like, of a few seconds in which nobody else speaks: a point on the unit sphere.

CAM++ (`stages.models.campplus`) hears up to four stretches of six seconds, spread over all that the person says alone,
and their embeddings are averaged: more costs time and hardly tells voices further apart. Pauses inside of turns are
left out, and so are the edges of turns, where the other one may still be heard.

Shape suffixes: N samples, T frames of the 25 fps grid, S stretches, E embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from visavis.schemas import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.schemas.sample import decode_audio
from visavis.schemas.voice_rows import Voices
from visavis.stages.models.campplus import DIMENSIONS, STRETCH, CAMPlusPlus
from visavis.training.runs import runs

LEAST = 1.5
"""Seconds of speech below which nothing is said of a voice."""
_STRETCHES = 4
_EDGE = 2  # frames left out where a span begins and ends
_SHORTEST = FPS // 2  # frames of a span, with its edges
_QUIET_DB = 30.0  # below the loudest tenth of what is said: a pause
_LEVEL = 10 ** (-26 / 20)  # root mean square at which speech is heard: the spectrogram has a floor


class Voiceprint(NamedTuple):
    """embedding_E: float32 of unit length, zeros where too little is heard. seconds: of speech that were heard."""

    embedding: np.ndarray
    seconds: float


def voiceprint(encoder: CAMPlusPlus, audio_N: np.ndarray, state_T: np.ndarray, person: int) -> Voiceprint:
    """Of one person's own track.

    Args:
        audio_N: float32 at 16 kHz. state_T: who speaks, as `speech_state` has it. person: 0 or 1.
    """
    said_N = alone(audio_N, state_T, person)
    seconds = len(said_N) / SAMPLE_RATE
    if seconds < LEAST:
        return Voiceprint(np.zeros(DIMENSIONS, np.float32), round(seconds, 2))
    sum_E = np.zeros(DIMENSIONS, np.float64)
    heard = 0.0
    for stretch_N in _stretches(said_N):
        length = len(stretch_N) / SAMPLE_RATE
        sum_E += length * _embedded(encoder, stretch_N)
        heard += length
    return Voiceprint((sum_E / np.linalg.norm(sum_E)).astype(np.float32), round(heard, 2))


def both(encoder: CAMPlusPlus, voices: Voices, state_T: np.ndarray) -> tuple[Voiceprint, Voiceprint]:
    """Of both participants, one track in memory at a time."""
    tracks = (decode_audio(voices.audio[person].tobytes()) for person in (0, 1))
    one, other = (voiceprint(encoder, audio_N, state_T, person) for person, audio_N in enumerate(tracks))
    return one, other


def alone(audio_N: np.ndarray, state_T: np.ndarray, person: int) -> np.ndarray:
    """What a person says while the other is silent, joined: float32 [N]."""
    own, other = 1 << person, 2 >> person
    frames = min(len(state_T), len(audio_N) // SAMPLES_PER_FRAME)
    turn_T = (state_T[:frames] & (own | other | other << 2)) == own
    spans = [(a + _EDGE, b - _EDGE) for a, b in runs(turn_T) if b - a >= _SHORTEST]
    parts = [audio_N[a * SAMPLES_PER_FRAME : b * SAMPLES_PER_FRAME] for a, b in spans]
    said_TS = np.concatenate([*parts, np.zeros(0, np.float32)]).reshape(-1, SAMPLES_PER_FRAME)
    power_T = np.einsum("ts,ts->t", said_TS, said_TS) / SAMPLES_PER_FRAME  # an hour squared would be half a gigabyte
    level_T = 10 * np.log10(power_T + 1e-10)
    loud = np.quantile(level_T, 0.9) if len(level_T) else 0.0
    voiced_N: np.ndarray = said_TS[level_T > loud - _QUIET_DB].ravel()
    return voiced_N


def _stretches(said_N: np.ndarray) -> Iterator[np.ndarray]:
    """As many as there are wanted, evenly spread; the whole where it is not longer."""
    count = -(-len(said_N) // STRETCH)
    if count <= _STRETCHES:
        yield from np.array_split(said_N, count)
        return
    for first in np.linspace(0, len(said_N) - STRETCH, _STRETCHES).astype(int):
        yield said_N[first : first + STRETCH]


@torch.inference_mode()
def _embedded(encoder: CAMPlusPlus, said_N: np.ndarray) -> np.ndarray:
    gain = _LEVEL / max(float(np.sqrt(np.mean(np.square(said_N, dtype=np.float64)))), 1e-6)
    device = next(encoder.parameters()).device
    mel = encoder.mel(torch.from_numpy(said_N * np.float32(gain)).to(device))
    embedding: np.ndarray = encoder(mel[None])[0].cpu().numpy()
    return embedding
