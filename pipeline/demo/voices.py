"""Synthetic voices: espeak-ng through the `espeakng_loader` wheel (extra `demo`; the library is GPL).

Formant synthesis sounds like a robot, but it is small, deterministic and free of anybody's recorded voice, and
speaker encoders tell its variants apart. Every phrase comes back trimmed to where it really sounds, so that the
truth about turns is measured and not asked for.
"""

from __future__ import annotations

import importlib.util
import json
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from visavis.schemas import SAMPLE_RATE
from visavis.schemas.errors import UsageError
from visavis.schemas.extras import install

LEVEL = 10 ** (-23 / 20)
"""Root mean square of a phrase, of full scale."""

SILENCE = 10 ** (-30 / 20)
"""A phrase begins and ends where 10 ms of it exceed this share of its loudest 10 ms."""


@dataclass(frozen=True)
class Voice:
    """An espeak-ng voice and variant; `pitch` 0…99 (50 is the variant's own), `rate` in words per minute."""

    name: str
    pitch: int
    rate: int


VOICES: tuple[tuple[Voice, Voice], ...] = (
    (Voice("en-us+f2", 60, 180), Voice("en-us+m3", 35, 175)),
    (Voice("en-us+m7", 30, 180), Voice("en-us+f4", 55, 185)),
    (Voice("en-gb-x-rp+f3", 65, 185), Voice("en-us+m1", 30, 175)),
    (Voice("en-us+m8", 40, 175), Voice("en-us+f1", 65, 180)),
    (Voice("en-gb-x-rp+f5", 60, 175), Voice("en-gb-x-rp+m5", 30, 180)),
    (Voice("en-us+m4", 35, 185), Voice("en-us+f2", 75, 175)),
)
"""Pairs that differ clearly in pitch and timbre; a dialogue takes one by its seed."""


def synthesise(voices: Sequence[Voice], texts: Sequence[str]) -> list[list[np.ndarray]]:
    """Let every voice say every text.

    Returns:
        [voice][text] → float32 [N] at 16 kHz, trimmed to the speech, all at the same level.

    Raises:
        UsageError: the `demo` extra is not installed.
    """
    if importlib.util.find_spec("espeakng_loader") is None:
        raise UsageError(f"synthetic voices need espeak-ng: {install('demo')}")
    request = json.dumps({"voices": [asdict(v) for v in voices], "texts": list(texts)})
    script = Path(__file__).with_name("_espeak.py")
    # -P: the script's folder stays off the import path. Arguments are ours, there is no shell.
    run = subprocess.run([sys.executable, "-P", str(script)], input=request.encode(), capture_output=True, check=False)  # noqa: S603
    if run.returncode:
        raise RuntimeError(f"speech synthesis failed: {run.stderr.decode(errors='replace').strip()}")
    answers = _split(run.stdout)
    return [[_finish(next(answers)) for _ in texts] for _ in voices]


def speech_span(audio: np.ndarray, threshold: float = SILENCE) -> tuple[int, int]:
    """First and last sample (exclusive) of the speech in a float [N] phrase at 16 kHz, to 10 ms."""
    hop = SAMPLE_RATE // 100
    level = np.sqrt(np.mean(np.square(audio[: len(audio) // hop * hop].reshape(-1, hop)), axis=1))
    loud = np.flatnonzero(level > threshold * level.max())
    return int(loud[0]) * hop, int(loud[-1] + 1) * hop


def _split(data: bytes) -> Iterator[np.ndarray]:
    at = 0
    while at < len(data):
        (count,) = struct.unpack_from("<I", data, at)
        yield np.frombuffer(data, "<i2", count, at + 4)
        at += 4 + 2 * count


def _finish(pcm: np.ndarray) -> np.ndarray:
    audio = resample_poly(pcm / 32768.0, 320, 441)
    start, end = speech_span(audio)
    phrase = audio[start:end]
    fade = np.minimum(1.0, np.minimum(np.arange(len(phrase)), np.arange(len(phrase))[::-1]) / 80)
    return (phrase * fade * (LEVEL / np.sqrt(np.mean(phrase**2)))).astype(np.float32)
