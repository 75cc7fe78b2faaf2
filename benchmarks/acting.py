"""Rendered people of some variety who speak real voices, and listen as people do: nodding, smiling, chewing, turning.

A mouth follows the loudness of its owner's turns, but not slavishly: every syllable has its own opening and rounding,
lips close in the middle of the sound, open before it and trail after it, and how far they open at all is a person's own
(mumblers stay under a third). `Trait` names what makes a person hard to read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d

from visavis.pipeline.demo.head import FACE, Shape, make_head, rotation
from visavis.pipeline.demo.people import TEXTURE, Person, make_person
from visavis.pipeline.demo.render import Pose, Renderer
from visavis.pipeline.demo.script import Motion, gesture, still_motion
from visavis.pipeline.view.mesh import LIDS_BOTTOM, LIDS_TOP, OVAL
from visavis.schemas import FPS, SAMPLES_PER_FRAME
from visavis.schemas.rows import Turn
from visavis.stages.media.audio import turn_mask

LOUD_TO_SILENT = 26.0  # dB below the loudest syllables at which lips rest
NOD = 14  # frames
_CIRCLE = np.linspace(0, 2 * np.pi, 24, endpoint=False)


class Trait(StrEnum):
    """What makes a person hard to read, or look unlike others."""

    MUMBLES = "mumbles"  # opens the mouth a little only
    HAND = "hand"  # before the mouth, for some seconds
    AWAY = "away"  # turns far aside, for some seconds
    CHEWS = "chews"  # while listening
    LAUGHS = "laughs"  # without a sound, while listening
    PURSES = "purses"  # presses and rounds the lips while listening
    GAPES = "gapes"  # never quite closes the mouth
    BEARD = "beard"
    GLASSES = "glasses"


@dataclass(frozen=True)
class Actor:
    """Who plays a part: looks and habits follow from the number."""

    number: int
    long_hair: bool
    traits: frozenset[Trait]


@dataclass(frozen=True)
class Performance:
    """hand_T: float64 [T], 0 (out of sight) … 1 (before the mouth)."""

    motion: Motion
    hand: np.ndarray


def draw_actor(number: int) -> Actor:
    """One, two or three traits of chance."""
    rng = np.random.default_rng([number, 21])
    chosen = rng.choice(len(Trait), int(rng.integers(1, 4)), replace=False)
    long_hair = bool(rng.random() < 0.5)
    traits = {list(Trait)[i] for i in chosen} - ({Trait.BEARD} if long_hair else set())
    return Actor(number, long_hair, frozenset(traits))


def person_of(actor: Actor) -> Person:
    """Skulls, skins and marks of wider variety than the demo's."""
    rng = np.random.default_rng([actor.number, 22])
    person = make_person(actor.number, long_hair=actor.long_hair)
    width, jaw, nose, length = rng.uniform([0.90, 0.84, 0.84, 0.93], [1.10, 1.12, 1.22, 1.09])
    head = make_head(Shape(width, jaw, nose, length))
    tone = rng.uniform(0.72, 1.06) * rng.uniform(0.95, 1.05, 3)
    canvas = np.clip(person.texture * tone, 0, 255).astype(np.float32)
    uv = head.uv[:FACE] * TEXTURE
    for point in rng.integers(0, FACE, int(rng.integers(0, 9))):
        _blend(canvas, cv2.circle, (_pixel(uv[point]), int(rng.integers(1, 4)), 1.0, -1), (70, 44, 36), 0.8, 0.8)
    if Trait.BEARD in actor.traits:
        chin = np.round(uv[[*OVAL[9:28], 57, 186, 165, 164, 391, 410, 287]]).astype(np.int32)
        _blend(canvas, cv2.fillPoly, ([chin], 1.0), person.hair, 0.75, 4)
        lips = np.round(uv[[61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91]]).astype(np.int32)
        _blend(canvas, cv2.fillPoly, ([lips], 1.0), (150, 84, 80), 0.9, 1.5)
    skin = tuple(int(min(255, c * t)) for c, t in zip(person.skin, tone, strict=True))
    return replace(person, head=head, texture=np.round(canvas).astype(np.uint8), skin=(skin[0], skin[1], skin[2]))


def perform(actor: Actor, voice_N: np.ndarray, turns: Sequence[Turn], me: int, seed: int, size: float) -> Performance:
    """What somebody does through a conversation of T = N / 640 frames.

    Args:
        voice_N: float32 at 16 kHz, in which the own voice is at least during the own turns; it may hold both.
        me: the own number in `turns`; one that never occurs there listens throughout.
        size: of head movements, 1 as in the demo.
    """
    frames = len(voice_N) // SAMPLES_PER_FRAME
    rng = np.random.default_rng([actor.number, seed, 23])
    mouth_T, corners_T = speaking_lips(voice_N, turns, me, rng, small=Trait.MUMBLES in actor.traits)
    quiet_T = 1.0 - gaussian_filter1d(frame_mask(turns, me, frames), 3)
    listening = _listening(actor, frames, rng)
    rest = 0.10 if Trait.GAPES in actor.traits else 0.0
    still = still_motion(frames, rng)
    yaw_T = still.yaw * size
    if Trait.AWAY in actor.traits:
        yaw_T = yaw_T + rng.choice([-1.0, 1.0]) * np.deg2rad(rng.uniform(25, 38)) * _plateau(frames, rng, 1.2, 3.0)
    motion = replace(
        still,
        yaw=yaw_T,
        pitch=size * still.pitch + quiet_T * listening.pitch + _beats(turns, me, frames, rng),
        mouth=np.clip(rest + mouth_T + quiet_T * listening.mouth, 0.0, 1.0),
        smile=np.clip(corners_T + quiet_T * listening.smile, -0.5, 1.0),
    )
    return Performance(motion, _plateau(frames, rng, 1.5, 3.0) if Trait.HAND in actor.traits else np.zeros(frames))


def speaking_lips(
    voice_N: np.ndarray, turns: Sequence[Turn], me: int, rng: np.random.Generator, *, small: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Opening of the jaw, 0…1, and what the corners of the mouth do beside a smile (negative: rounded)."""
    frames = len(voice_N) // SAMPLES_PER_FRAME
    gated_N = voice_N[: frames * SAMPLES_PER_FRAME] * turn_mask(turns, me, frames, 0.03)
    level_T = 10 * np.log10(np.mean(gated_N.reshape(frames, -1).astype(np.float64) ** 2, axis=1) + 1e-9)
    speaks_T = frame_mask(turns, me, frames)
    if not speaks_T.any():
        return np.zeros(frames), np.zeros(frames)
    loud = np.quantile(level_T[speaks_T > 0], 0.95)
    sound_T = speaks_T * np.clip(1.0 + (level_T - loud) / LOUD_TO_SILENT, 0.0, 1.0)
    vowels_T = np.clip(np.exp(0.55 * _unit(gaussian_filter1d(rng.standard_normal(frames), 1.4))), 0.25, 2.0)
    closed_T = np.clip(gaussian_filter1d((rng.random(frames) < 0.09).astype(float), 0.8) * 1.9, 0.0, 1.0)
    opening_T = gaussian_filter1d(sound_T**1.6 * vowels_T * (1.0 - closed_T), rng.uniform(0.7, 1.2))
    lead = int(rng.integers(0, 3))  # lips are ahead of the sound
    opening_T = np.concatenate([opening_T[lead:], np.zeros(lead)])
    most = rng.uniform(0.14, 0.28) if small else rng.uniform(0.4, 0.9)
    rounding_T = 0.22 * _unit(gaussian_filter1d(rng.standard_normal(frames), 2.5)) * gaussian_filter1d(speaks_T, 2)
    tremble_T = 0.012 * rng.standard_normal(frames)
    return np.clip(most * opening_T + tremble_T, 0.0, 1.0), rounding_T * (0.5 if small else 1.0)


def frame_mask(turns: Sequence[Turn], speaker: int, frames: int) -> np.ndarray:
    """1 in frames within somebody's turns: float64 [T]."""
    mask_T = np.zeros(frames)
    for turn in turns:
        if turn.speaker == speaker:
            mask_T[round(turn.start * FPS) : round(turn.end * FPS)] = 1.0
    return mask_T


class Film(Renderer):
    """Pictures of an actor, with what is worn or held before the face."""

    def __init__(self, actor: Actor, width: int, height: int, scale: float) -> None:
        super().__init__(person_of(actor), width, height, scale)
        self._glasses = Trait.GLASSES in actor.traits

    def film(self, performance: Performance, base_yaw: float = 0.0) -> Iterator[np.ndarray]:
        """uint8 [H, W, 3], one for each frame."""
        motion = replace(performance.motion, yaw=performance.motion.yaw + base_yaw)
        columns = (getattr(motion, field.name) for field in fields(Pose))
        for *values, hand in zip(*columns, performance.hand, strict=True):
            pose = Pose(*map(float, values))
            picture = self.frame(pose)
            self._dress(picture, pose, float(hand))
            yield picture

    def _dress(self, picture: np.ndarray, pose: Pose, hand: float) -> None:
        turn, shift = rotation(pose.pitch, pose.yaw, pose.roll), np.array([pose.x, pose.y, pose.z])
        vertices = self._person.head.vertices
        if self._glasses:
            for top, bottom in zip(LIDS_TOP, LIDS_BOTTOM, strict=True):
                eye = vertices[[*top, *bottom]].mean(axis=0)
                rim = eye + np.stack([2.3 * np.cos(_CIRCLE), 1.8 * np.sin(_CIRCLE) - 0.3, 0 * _CIRCLE + 0.9], axis=1)
                outline = np.round(self._place(rim, turn, shift)).astype(np.int32)
                cv2.polylines(picture, [outline], True, (36, 30, 30), 2, cv2.LINE_AA)
        if hand > 0.02:
            lips = vertices[[61, 291, 0, 17]].mean(axis=0)
            at = self._place((lips + [0.6, -14.0 * (1.0 - hand) - 0.6, 2.5])[None], turn, shift)[0]
            scale = self._focal / 75.0
            skin = tuple(round(0.86 * c) for c in self._person.skin)
            _blunt(picture, at + [0.6 * scale, 8.0 * scale], (2.6 * scale, 9.0 * scale), skin)
            for finger in range(4):
                _blunt(picture, at + [(finger - 1.5) * 1.5 * scale, 0.0], (0.95 * scale, 2.9 * scale), skin)


@dataclass(frozen=True)
class _Habits:
    pitch: np.ndarray
    mouth: np.ndarray
    smile: np.ndarray


def _listening(actor: Actor, frames: int, rng: np.random.Generator) -> _Habits:
    """What a listener's face does of its own accord."""
    pitch_T, mouth_T, smile_T = np.zeros(frames), np.zeros(frames), np.zeros(frames)
    nods = [at + NOD * k for at in rng.integers(0, frames, frames // 70 + 1) for k in range(int(rng.integers(1, 4)))]
    pitch_T += gesture(np.deg2rad(rng.uniform(4, 10)), [int(at) for at in nods], frames, NOD)
    for _ in range(frames // 125 + 1):
        smile_T += rng.uniform(0.3, 0.9) * _plateau(frames, rng, 0.8, 2.5)
    mouth_T += 0.12 * _plateau(frames, rng, 0.2, 0.4)  # lips are licked
    phase_T = 2 * np.pi * np.arange(frames) / FPS
    if Trait.CHEWS in actor.traits:
        mouth_T += rng.uniform(0.12, 0.25) * _plateau(frames, rng, 2.0, 4.0) * (0.5 - 0.5 * np.cos(1.5 * phase_T))
    if Trait.LAUGHS in actor.traits:
        laugh_T = _plateau(frames, rng, 0.8, 1.6)
        mouth_T += laugh_T * (0.35 + 0.08 * np.cos(4.6 * phase_T))
        smile_T += 0.8 * laugh_T
        pitch_T -= np.deg2rad(4) * laugh_T
    if Trait.PURSES in actor.traits:
        smile_T -= rng.uniform(0.3, 0.5) * _plateau(frames, rng, 0.6, 1.4)
    return _Habits(pitch_T, mouth_T, smile_T)


def _beats(turns: Sequence[Turn], me: int, frames: int, rng: np.random.Generator) -> np.ndarray:
    """A speaker's head marks some of the words."""
    speaks_T = frame_mask(turns, me, frames)
    onsets = [n for n in range(0, frames, 17) if speaks_T[n] and rng.random() < 0.6]
    return gesture(np.deg2rad(rng.uniform(2, 6)), onsets, frames, NOD)


def _plateau(frames: int, rng: np.random.Generator, shortest: float, longest: float) -> np.ndarray:
    """Rises to 1 somewhere, stays for some seconds, falls: float64 [T]."""
    length = min(frames, round(FPS * rng.uniform(shortest, longest)))
    first = int(rng.integers(0, frames - length + 1))
    flat_T = np.zeros(frames)
    flat_T[first : first + length] = 1.0
    return np.asarray(gaussian_filter1d(flat_T, min(3.0, length / 6)))


def _unit(noise_T: np.ndarray) -> np.ndarray:
    return np.asarray(noise_T / noise_T.std())


def _pixel(at: np.ndarray) -> tuple[int, int]:
    return round(at[0]), round(at[1])


def _blend(canvas, draw, arguments, colour, alpha: float, blur: float) -> None:  # type: ignore[no-untyped-def]
    mask = np.zeros(canvas.shape[:2], np.float32)
    draw(mask, *arguments)
    weight = alpha * cv2.GaussianBlur(mask, (0, 0), blur)[..., None]
    canvas += weight * (np.array(colour, np.float32) - canvas)


def _blunt(picture: np.ndarray, at: np.ndarray, axes: tuple[float, float], colour: tuple[int, ...]) -> None:
    centre, half = _pixel(at), (max(1, round(axes[0])), max(1, round(axes[1])))
    cv2.ellipse(picture, centre, half, 0, 0, 360, colour, -1, cv2.LINE_AA)
    cv2.ellipse(picture, centre, half, 0, 0, 360, tuple(round(0.7 * c) for c in colour), 1, cv2.LINE_AA)
