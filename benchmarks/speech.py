"""Real two-person speech whose turns are known, and what each person said of it alone.

From a folder of media as `shared/media` is: labelled mixes, excerpts of meetings and dialogues with one track for each
person. Nobody's voice comes alone out of a mix: what a person says is the mix within the person's turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_closing, binary_opening

from benchmarks.diarization import labelled_audio
from visavis.pipeline.demo.script import NOISE, PHRASES
from visavis.pipeline.demo.voices import LEVEL, VOICES, synthesise
from visavis.schemas import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.schemas.rows import Turn
from visavis.stages.media.audio import read_audio, turn_mask
from visavis.training.runs import runs

EXCERPTS = {"dev00": (0.0, 28.0), "dev01": (3.0, 24.0), "pyannote_sample": (5.0, 30.0)}
"""Seconds that are taken of recordings; whole ones are taken elsewhere."""

TALKS = ("xkHwlcDSOjc_sub_video_109_000",)
"""Dialogues with one track for each person, under `flame`. The other one there has speech in one of its tracks nearly
throughout, and no loudness says whose."""

BLEED = 10.0  # dB; a track that much below the other holds the other's voice

BREATH = (0.25, 0.6)  # seconds between the pieces of a monologue
FADE = 0.03
HOP = SAMPLES_PER_FRAME // 2
LONGEST = 24.0  # seconds of people who never met


@dataclass(frozen=True)
class Speech:
    """A dialogue: float32 tracks [T · 640] at 16 kHz, which sum up to what is heard, and who speaks when."""

    name: str
    tracks: tuple[np.ndarray, np.ndarray]
    turns: tuple[Turn, ...]

    @property
    def frames(self) -> int:
        return len(self.tracks[0]) // SAMPLES_PER_FRAME

    @property
    def mix(self) -> np.ndarray:
        return np.asarray(self.tracks[0] + self.tracks[1])

    def swapped(self) -> Speech:
        """The first person becomes the second."""
        turns = tuple(turn.model_copy(update={"speaker": 1 - turn.speaker}) for turn in self.turns)
        return Speech(self.name, self.tracks[::-1], turns)

    def part(self, first: float, last: float) -> Speech:
        """From second to second."""
        tracks = tuple(
            whole_frames(track[round(first * SAMPLE_RATE) : round(last * SAMPLE_RATE)]) for track in self.tracks
        )
        cut = (
            turn.model_copy(update={"start": max(0.0, turn.start - first), "end": min(last, turn.end) - first})
            for turn in self.turns
        )
        return Speech(self.name, (tracks[0], tracks[1]), tuple(t for t in cut if t.end - t.start > 0.1))


@dataclass(frozen=True)
class Voice:
    """One person alone. audio: float32 [T · 640] at 16 kHz."""

    name: str
    audio: np.ndarray


def dialogues(media: Path) -> list[Speech]:
    """All of the folder, by name; mixes first."""
    mixes = [_labelled(path, labels) for path, labels in labelled_audio(media).items() if path.suffix == ".wav"]
    return sorted(mixes, key=lambda s: (s.name in EXCERPTS, s.name)) + [_two_tracks(media, name) for name in TALKS]


def voices(media: Path, seconds: float) -> Iterator[Voice]:
    """Every single voice at hand, cut or repeated with breaths in between to a length."""
    rng = np.random.default_rng(41)
    for speech in dialogues(media):
        for me in (0, 1):
            pieces = _alone(speech, me)
            if sum(map(len, pieces)) >= 0.8 * SAMPLE_RATE:
                yield Voice(f"{speech.name}-{me}", _joined(pieces, seconds, rng))
    for number, pair in enumerate(VOICES):
        for who, phrases in enumerate(synthesise(pair, PHRASES)):
            order = rng.permutation(len(phrases))
            yield Voice(f"espeak{number}-{who}", _joined([phrases[i] for i in order], seconds, rng))


def crossed(media: Path, count: int, seed: int) -> Iterator[Speech]:
    """People who never met: pieces of two recordings in turns, at one loudness, with pauses and some overlap."""
    rng = np.random.default_rng([seed, 42])
    spoken = [(f"{speech.name}-{me}", _phrases(speech, me)) for speech in dialogues(media) for me in (0, 1)]
    found = [(name, phrases) for name, phrases in spoken if len(phrases) > 1]
    for number in range(count):
        (one, ours), (other, theirs) = (found[i] for i in rng.choice(len(found), 2, replace=False))
        yield _alternating(f"{number:02d}-{one}-{other}", (ours, theirs), rng)


def spoken_turns(audio_N: np.ndarray) -> tuple[Turn, ...]:
    """Where a clean track of one person is loud: within 24 dB of its loudest, pauses up to 0.3 s bridged."""
    return _loud(_levels(audio_N))


def _levels(audio_N: np.ndarray) -> np.ndarray:
    """Power of each 20 ms, dB."""
    pieces = audio_N[: len(audio_N) // HOP * HOP].reshape(-1, HOP).astype(np.float64)
    return np.asarray(10 * np.log10(np.mean(pieces**2, axis=1) + 1e-10))


def _loud(level: np.ndarray) -> tuple[Turn, ...]:
    loud = binary_opening(binary_closing(level > np.quantile(level, 0.97) - 24.0, np.ones(15)), np.ones(7))
    hop = HOP / SAMPLE_RATE
    return tuple(Turn(speaker=0, start=a * hop, end=b * hop) for a, b in runs(loud))


def whole_frames(audio_N: np.ndarray) -> np.ndarray:
    """Cut to a multiple of 640 samples."""
    return audio_N[: len(audio_N) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME]


def _labelled(path: Path, labels: Sequence[tuple[float, float, str]]) -> Speech:
    audio = whole_frames(read_audio(str(path)))
    names = sorted({who for _, _, who in labels})
    turns = tuple(Turn(speaker=names.index(who), start=start, end=end) for start, end, who in labels)
    frames = len(audio) // SAMPLES_PER_FRAME
    own = audio * turn_mask(turns, 0, frames, FADE)
    speech = Speech(path.stem.removesuffix("_mix"), (own, audio - own), turns)
    first, last = EXCERPTS.get(speech.name, (0.0, frames / FPS))
    return speech.part(first, last)


def _two_tracks(media: Path, name: str) -> Speech:
    tracks = [whole_frames(read_audio(str(media / "flame" / f"{name}_speaker{i}.wav"))) for i in (1, 2)]
    levels = [_levels(track) for track in tracks]
    turns = [
        turn.model_copy(update={"speaker": i})
        for i in (0, 1)
        for turn in _loud(np.where(levels[i] > levels[1 - i] - BLEED, levels[i], -100.0))
    ]
    return Speech(name[:5], (tracks[0], tracks[1]), tuple(sorted(turns, key=lambda t: t.start)))


def _alone(speech: Speech, me: int) -> list[np.ndarray]:
    """What a person says while the other is silent: the mix, so that its noise stays as it is."""
    own, other = (turn_mask(speech.turns, who, speech.frames, 0.0) > 0 for who in (me, 1 - me))
    return [speech.mix[a:b] for a, b in runs(own & ~other) if b - a >= 0.5 * SAMPLE_RATE]


def _phrases(speech: Speech, me: int) -> list[np.ndarray]:
    """What a person says alone, cut where it is quiet into pieces of one to three seconds, at one loudness."""
    found = []
    for piece in _alone(speech, me):
        while len(piece) > 3 * SAMPLE_RATE:
            hop = SAMPLE_RATE // 20
            within = piece[SAMPLE_RATE : 3 * SAMPLE_RATE].reshape(-1, hop)
            at = SAMPLE_RATE + hop * int(np.argmin(np.mean(within**2, axis=1)))
            found.append(piece[:at])
            piece = piece[at:]
        found.append(piece)
    long = [piece for piece in found if len(piece) > 0.8 * SAMPLE_RATE]
    return [(piece * (LEVEL / max(1e-4, float(np.sqrt(np.mean(piece**2)))))).astype(np.float32) for piece in long]


def _alternating(name: str, pieces: tuple[list[np.ndarray], list[np.ndarray]], rng: np.random.Generator) -> Speech:
    """Both say what they have in turns of one or two pieces, until one has nothing left to say."""
    left, at, who = [list(own) for own in pieces], 0.3, int(rng.integers(2))
    said: list[tuple[int, float, np.ndarray]] = []
    while left[who] and at < LONGEST:
        for _ in range(min(len(left[who]), int(rng.integers(1, 3)))):
            piece = left[who].pop(0)
            said.append((who, at, piece))
            at += len(piece) / SAMPLE_RATE
        at += rng.uniform(-0.2, 0.6)
        who = 1 - who
    frames = round((max(start + len(piece) / SAMPLE_RATE for _, start, piece in said) + 0.4) * FPS)
    tracks, turns = (room(frames, rng), room(frames, rng)), []
    for speaker, start, piece in said:
        first = round(start * SAMPLE_RATE)
        tracks[speaker][first : first + len(piece)] += piece * _fade(len(piece))
        turns.append(Turn(speaker=speaker, start=first / SAMPLE_RATE, end=(first + len(piece)) / SAMPLE_RATE))
    return Speech(name, tracks, tuple(turns))


def _fade(samples: int) -> np.ndarray:
    steps = np.arange(samples)
    return np.asarray(np.minimum(1.0, np.minimum(steps, steps[::-1]) / (FADE * SAMPLE_RATE)), np.float32)


def _joined(pieces: Sequence[np.ndarray], seconds: float, rng: np.random.Generator) -> np.ndarray:
    out, filled, number = room(round(seconds * FPS), rng), round(0.3 * SAMPLE_RATE), 0
    while filled < len(out) - 0.5 * SAMPLE_RATE:
        piece = pieces[number % len(pieces)].copy()[: len(out) - filled]
        out[filled : filled + len(piece)] += piece * _fade(len(piece))
        filled += len(piece) + round(rng.uniform(*BREATH) * SAMPLE_RATE)
        number += 1
    return out


def room(frames: int, rng: np.random.Generator) -> np.ndarray:
    """Faint noise, a different one in each file: float32 [T · 640]."""
    return (0.5 * NOISE * rng.standard_normal(frames * SAMPLES_PER_FRAME)).astype(np.float32)
