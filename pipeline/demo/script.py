"""The dialogue: who says what and when, how heads move, and the rule that the listener follows.

The rule. A speaker marks the beginning of each phrase with a *beat*: the head dips and comes back (14 frames), and
the phrase begins after a short pause, so the cue is in the picture and in the sound. While the other speaks, the
listener

    nods      pitch(n)  +=  nod · g(n − cue − delay)          for each cue of the speaker
    smiles    smile(n)   =  gain · smile_of_the_speaker(n − delay)

with g the same gesture as the beat. So the listener's pitch is the speaker's beats, larger and `delay` frames later:
a lagged correlation has its peak at the delay, and a causal model can learn it from either modality. All else
(sway, blinks) is drawn independently and cannot be predicted from the other person.

Turns are 2.0–4.5 s, 0.3–0.8 s apart, and do not overlap. Pauses between phrases are shorter than those that end a turn
(`DiarizeConfig.max_pause`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from visavis.pipeline.demo.voices import VOICES, synthesise
from visavis.schemas import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.schemas.rows import Turn
from visavis.schemas.section import Section

PHRASES: tuple[str, ...] = (
    "I went down to the river.",
    "You never told me that.",
    "What a lovely day it was.",
    "My sister comes on Sunday.",
    "That was the best of all.",
    "Nobody thought it would work.",
    "It made me laugh.",
    "I bake my own bread now.",
    "We stayed at home all day.",
    "I can see the hills.",
    "He calls me every day.",
    "Somebody left me a letter.",
    "You should have been there.",
    "We sang that song at school.",
    "There is a market by the harbour.",
    "I forgot to water the plants.",
    "Then it began to rain.",
    "The view was so lovely.",
)
"""What people say; written for this demo."""

FIRST_WORD = 0.6  # seconds before the first turn
LAST_WORD = 0.8  # seconds kept free at the end
TURN = (2.0, 4.5)
PAUSE = (0.3, 0.8)  # between turns
BREATH = (0.12, 0.18)  # between the phrases of a turn
NOISE = 1e-3  # −60 dB of full scale: no microphone is silent


class Rule(Section):
    """How the listener answers the speaker. Angles in rad, times in frames of 1/25 s."""

    beat: float = float(np.deg2rad(7.0))  # the speaker's dip at the start of a phrase
    nod: float = float(np.deg2rad(11.0))  # the listener's answer
    gesture: int = 14  # frames that either takes
    delay: int = 10  # frames between cue and answer
    gain: float = 0.6  # of the mirrored smile


@dataclass(frozen=True)
class Motion:
    """One person's face and head, each float64 [T] at 25 fps.

    pitch, yaw, roll: rad; right-handed about x (to the right in the picture), y (up) and z (to the camera), so
        positive pitch looks down. x, y, z: translation in cm. mouth, smile, blink: 0…1.
    """

    pitch: np.ndarray
    yaw: np.ndarray
    roll: np.ndarray
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    mouth: np.ndarray
    smile: np.ndarray
    blink: np.ndarray


@dataclass(frozen=True)
class Script:
    """A dialogue before it is rendered.

    turns: who speaks when, measured on the sound. cues: per participant, frames at which own phrases begin.
    audio: per participant, float32 [T · 640] at 16 kHz, own voice over a faint noise.
    """

    frames: int
    turns: tuple[Turn, ...]
    cues: tuple[tuple[int, ...], tuple[int, ...]]
    audio: tuple[np.ndarray, np.ndarray]
    motion: tuple[Motion, Motion]
    rule: Rule


def gesture(amplitude: float, onsets: Sequence[int], frames: int, length: int) -> np.ndarray:
    """Dips of the head at the given frames: float64 [T], amplitude · ½(1 − cos), each `length` frames long."""
    out = np.zeros(frames + length)
    shape = amplitude * 0.5 * (1 - np.cos(2 * np.pi * np.arange(length) / length))
    for onset in onsets:
        if onset < frames:
            out[onset : onset + length] += shape
    return out[:frames]


def nod_frames(user_cues: Sequence[int], rule: Rule) -> tuple[int, ...]:
    """Frames at which the listener begins to nod."""
    return tuple(cue + rule.delay for cue in user_cues)


def listener_response(user_cues: Sequence[int], user_smile_T: np.ndarray, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """THE RULE: what the speaker's behaviour does to the listener.

    Args:
        user_cues: frames at which the speaker's phrases begin.
        user_smile_T: the smiles that the speaker began, 0…1.

    Returns:
        pitch_T in rad and smile_T in 0…1, to be added to what the listener does anyway.
    """
    frames = len(user_smile_T)
    pitch_T = gesture(rule.nod, nod_frames(user_cues, rule), frames, rule.gesture)
    smile_T = np.zeros(frames)
    smile_T[rule.delay :] = rule.gain * user_smile_T[: frames - rule.delay]
    return pitch_T, smile_T


def write_script(seed: int, seconds: float, rule: Rule | None = None) -> Script:
    """Compose a dialogue. Everything follows from the arguments.

    Raises:
        UsageError: the `demo` extra is not installed.
        ValueError: too short for one turn of each.
    """
    rule = rule or Rule()
    rng = np.random.default_rng([seed, 1])
    frames = round(seconds * FPS)
    turns, onsets, audio = _talk(seed, frames, rng)
    if {turn.speaker for turn in turns} != {0, 1}:
        raise ValueError(f"{seconds} s are too short for a dialogue; ask for 12 s or more")
    cues = tuple(tuple(round(t * FPS) for t in times) for times in onsets)
    smiles = [_smiles([t for t in turns if t.speaker == i], frames, rule, rng) for i in (0, 1)]
    motion = []
    for i in (0, 1):
        nod, mirrored = listener_response(cues[1 - i], smiles[1 - i], rule)
        beat = gesture(rule.beat, cues[i], frames, rule.gesture)
        still = still_motion(frames, rng)
        pitch, smile = still.pitch + beat + nod, smiles[i] + mirrored
        motion.append(replace(still, pitch=pitch, mouth=_mouth(audio[i]), smile=smile))
    return Script(frames, tuple(turns), (cues[0], cues[1]), audio, (motion[0], motion[1]), rule)


def still_motion(frames: int, rng: np.random.Generator) -> Motion:
    """Someone who neither speaks nor answers: sway and blinks only."""
    zero = np.zeros(frames)
    return Motion(
        pitch=np.deg2rad(1.5) * _sway(frames, rng),
        yaw=np.deg2rad(3.0) * _sway(frames, rng),
        roll=np.deg2rad(2.0) * _sway(frames, rng),
        x=0.5 * _sway(frames, rng),
        y=0.2 * _sway(frames, rng),
        z=0.8 * _sway(frames, rng),
        mouth=zero,
        smile=zero,
        blink=_blinks(frames, rng),
    )


def room_tone(frames: int, rng: np.random.Generator) -> np.ndarray:
    """Faint white noise, float32 [T · 640]."""
    return (NOISE * rng.standard_normal(frames * SAMPLES_PER_FRAME)).astype(np.float32)


def _talk(
    seed: int, frames: int, rng: np.random.Generator
) -> tuple[list[Turn], tuple[list[float], list[float]], tuple[np.ndarray, np.ndarray]]:
    """Turns, onsets of phrases per person in seconds, and both voices."""
    pair = VOICES[seed % len(VOICES)]
    spoken = synthesise(pair, PHRASES)
    end = frames / FPS - LAST_WORD
    audio = tuple(room_tone(frames, rng) for _ in pair)
    queues = [list(rng.permutation(len(PHRASES))) for _ in pair]
    turns: list[Turn] = []
    onsets: tuple[list[float], list[float]] = ([], [])
    time, speaker = FIRST_WORD, seed % 2
    while True:
        target = max(TURN[0], rng.uniform(*TURN) - 0.5)  # the last phrase overshoots by half its length on average
        phrases: list[np.ndarray] = []
        starts: list[float] = []
        at = time
        while not phrases or at - time < target:
            phrase = spoken[speaker][queues[speaker][0]]
            start = at + (rng.uniform(*BREATH) if phrases else 0.0)
            if phrases and start + len(phrase) / SAMPLE_RATE - time > TURN[1]:
                break
            queues[speaker].append(queues[speaker].pop(0))
            phrases.append(phrase)
            starts.append(start)
            at = start + len(phrase) / SAMPLE_RATE
        if at > end:
            break
        for start, phrase in zip(starts, phrases, strict=True):
            first = round(start * SAMPLE_RATE)
            audio[speaker][first : first + len(phrase)] += phrase
        onsets[speaker].extend(starts)
        turns.append(Turn(speaker=speaker, start=round(time, 3), end=round(at, 3)))
        time, speaker = at + rng.uniform(*PAUSE), 1 - speaker
    return turns, onsets, (audio[0], audio[1])


def _mouth(audio: np.ndarray) -> np.ndarray:
    """Jaw opening from the loudness of the own voice, 0…1."""
    level = np.sqrt(np.mean(audio.astype(np.float64).reshape(-1, SAMPLES_PER_FRAME) ** 2, axis=1))
    opening = np.clip((level - 5 * NOISE) / np.quantile(level, 0.97), 0.0, 1.0) ** 0.7
    return np.convolve(opening, [0.25, 0.5, 0.25], mode="same")


def _smiles(turns: Sequence[Turn], frames: int, rule: Rule, rng: np.random.Generator) -> np.ndarray:
    """Smiles that a speaker begins; over before the turn is, so that each is mirrored within it."""
    out = np.zeros(frames)
    for turn in turns:
        strength, wanted = rng.uniform(0.6, 1.0), rng.random() < 0.7
        first = round(turn.start * FPS) + int(rng.integers(2, 12))
        last = round(turn.end * FPS) - rule.delay
        if wanted and last - first >= 20:
            n = np.arange(first, last)
            rise = np.clip(np.minimum(n - first, last - 1 - n) / 10, 0.0, 1.0)
            out[first:last] = strength * 0.5 * (1 - np.cos(np.pi * rise))
    return out


def _sway(frames: int, rng: np.random.Generator) -> np.ndarray:
    """Slow movement without a purpose, about −1…1: three sines below 0.4 Hz."""
    t = np.arange(frames)[:, None] / FPS
    frequency = rng.uniform([0.05, 0.12, 0.22], [0.12, 0.22, 0.4])
    phase = rng.uniform(0, 2 * np.pi, 3)
    return np.sum(np.array([0.5, 0.3, 0.2]) * np.sin(2 * np.pi * frequency * t + phase), axis=1)


def _blinks(frames: int, rng: np.random.Generator) -> np.ndarray:
    """A blink of 6 frames every 2 to 5 s."""
    out = np.zeros(frames + 6)
    at = int(rng.integers(10, 75))
    while at < frames:
        out[at : at + 6] = (0.5, 1.0, 1.0, 0.8, 0.4, 0.1)
        at += int(rng.integers(50, 125))
    return out[:frames]
