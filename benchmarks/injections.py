"""Conversations of a made corpus, and defects that are injected into them (`benchmarks.defects`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_closing, gaussian_filter1d
from scipy.signal import butter, resample_poly, sosfiltfilt

from benchmarks.listeners import Rule
from benchmarks.reactive import Corpus, make_dyad, make_voices
from visavis.pipeline.engine.worker import AnyStage
from visavis.pipeline.state.ledger import Ledger, Outcome
from visavis.pipeline.state.tasks import artifact_path
from visavis.schemas import SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.schemas.artifact import dump_rows
from visavis.schemas.dyads import Dyad
from visavis.schemas.face_rows import Figures
from visavis.schemas.plain import to_json
from visavis.schemas.sample import decode_audio, encode_audio
from visavis.schemas.storage.store import Store
from visavis.schemas.voice_rows import VoiceFigures, Voices
from visavis.stages.doctor.excerpt import Excerpt
from visavis.stages.doctor.kinds import Kind
from visavis.stages.doctor.scratch import About
from visavis.stages.separate import SeparateStage
from visavis.stages.windows import WindowsStage

ROOM = 0.0015  # deviation of a room's noise, each track its own
_PRINT = "made"


@dataclass
class Talk:
    """A conversation that may be changed. audio: float32 [N] each; motion: float32 [T, D] each."""

    dyad: Dyad
    audio: list[np.ndarray]
    motion: list[np.ndarray]
    state: np.ndarray
    figures: list[Figures | None]
    people: list[str]

    @staticmethod
    def made(corpus: Corpus, rule: Rule, number: int) -> Talk:
        dyad, voices = make_dyad(corpus, rule, number), make_voices(corpus, number)
        random = np.random.default_rng([corpus.seed, number, 77])
        audio = [decode_audio(track.tobytes()) for track in voices.audio]
        audio = [(a + ROOM * random.standard_normal(len(a))).astype(np.float32) for a in audio]
        return Talk(dyad, audio, list(dyad.motion), dyad.state, list(dyad.figures), list(dyad.participants))

    def copy(self) -> Talk:
        motion = [each.copy() for each in self.motion]
        return replace(self, audio=list(self.audio), motion=motion, figures=list(self.figures))

    def about(self) -> About:
        one, other = self.people
        return About(name="", people=(one, other), figures=(self.figures[0], self.figures[1]))

    def excerpt(self) -> Excerpt:
        """As a run is read: sound is 16 bits, and as long as the motion."""
        frames = len(self.state)
        sound = [np.clip(np.resize(a, frames * SAMPLES_PER_FRAME), -1, 1) for a in self.audio]
        audio_PN = (np.round(np.stack(sound) * 32767) / 32767).astype(np.float32)
        valid_PT = np.stack(self.dyad.valid)
        return Excerpt(
            audio_PN, self.state, np.stack(self.motion), valid_PT, 0, frames, own_tracks=True, whole_state_T=self.state
        )

    def rows(self) -> tuple[Dyad, Voices]:
        frames = len(self.state)
        changed = {"motion": tuple(self.motion), "state": self.state, "figures": tuple(self.figures)}
        dyad = self.dyad.model_copy(update=changed | {"participants": tuple(self.people)})
        tracks = [np.resize(np.clip(a, -1, 1), frames * SAMPLES_PER_FRAME) for a in self.audio]
        audio = tuple(np.frombuffer(encode_audio(track), np.uint8) for track in tracks)
        heard = VoiceFigures(method="own_track", residual_db=-60, overlapped=0)
        return dyad, Voices(conversation=dyad.conversation, audio=(audio[0], audio[1]), figures=(heard, heard))


Injection = Callable[[Talk, np.random.Generator, Talk], None]
"""Changes a conversation; the third is another one of the corpus."""


def swapped(talk: Talk, random: np.random.Generator, other: Talk) -> None:
    talk.audio.reverse()


def foreign(talk: Talk, random: np.random.Generator, other: Talk) -> None:
    person = int(random.integers(2))
    talk.audio[person] = other.audio[person]


def strangers(talk: Talk, random: np.random.Generator, other: Talk) -> None:
    """The partner of another conversation, with voice, motion and turns."""
    person = int(random.integers(2))
    talk.audio[person], talk.motion[person] = other.audio[person], other.motion[person]
    bits = 1 << person | 4 << person
    talk.state = ((talk.state & ~np.uint8(bits)) | (other.state & bits)).astype(np.uint8)


def dead(talk: Talk, random: np.random.Generator, other: Talk) -> None:
    person = int(random.integers(2))
    level = float(random.choice([0.0, 1e-4, 3e-3]))
    talk.audio[person] = (level * random.standard_normal(len(talk.audio[person]))).astype(np.float32)


def same_sound(talk: Talk, random: np.random.Generator, other: Talk) -> None:
    person = int(random.integers(2))
    gain = float(random.uniform(0.5, 1.0))
    talk.audio[1 - person] = gain * _delayed(talk.audio[person], random.uniform(0, 0.05))


def inverted(talk: Talk, random: np.random.Generator, other: Talk) -> None:
    person = int(random.integers(2))
    talk.audio[1 - person] = -talk.audio[person]


def bleed(talk: Talk, random: np.random.Generator, other: Talk) -> None:
    person = int(random.integers(2))
    gain = 10 ** (random.uniform(-24, -8) / 20) * _level(talk.audio[person]) / _level(talk.audio[1 - person])
    talk.audio[person] = talk.audio[person] + gain * _delayed(talk.audio[1 - person], random.uniform(0.002, 0.3))


def clipped(talk: Talk, random: np.random.Generator, other: Talk) -> None:
    person = int(random.integers(2))
    track = talk.audio[person]
    most = np.quantile(np.abs(track), random.uniform(0.97, 0.998))
    talk.audio[person] = (np.clip(track, -most, most) / most * random.uniform(0.5, 1.0)).astype(np.float32)


def band_limited(talk: Talk, random: np.random.Generator, other: Talk) -> None:
    person = int(random.integers(2))
    low = butter(12, random.uniform(2800, 4500), fs=SAMPLE_RATE, output="sos")
    talk.audio[person] = sosfiltfilt(low, talk.audio[person]).astype(np.float32)


def holes(talk: Talk, random: np.random.Generator, other: Talk) -> None:
    person = int(random.integers(2))
    track = talk.audio[person].copy()
    for start in random.uniform(0, len(track) / SAMPLE_RATE - 1, 8):
        first = int(start * SAMPLE_RATE)
        track[first : first + int(random.uniform(0.2, 0.9) * SAMPLE_RATE)] = 0
    talk.audio[person] = track


def late(talk: Talk, random: np.random.Generator, other: Talk) -> None:
    person = int(random.integers(2))
    frames = int(random.integers(4, 20)) * int(random.choice([-1, 1]))
    talk.motion[person] = np.roll(talk.motion[person], frames, axis=0)


def drifting(talk: Talk, random: np.random.Generator, other: Talk) -> None:
    """Sound that runs 0.3 to 0.7 % faster or slower than the pictures."""
    person = int(random.integers(2))
    parts = 1000 + int(random.integers(3, 8)) * int(random.choice([-1, 1]))
    talk.audio[person] = resample_poly(talk.audio[person], parts, 1000).astype(np.float32)


def shifted_partner(talk: Talk, random: np.random.Generator, other: Talk) -> None:
    """One person's file lies late or early on the common timeline: sound, motion and turns."""
    person, frames = int(random.integers(2)), int(random.integers(20, 60)) * int(random.choice([-1, 1]))
    talk.motion[person] = np.roll(talk.motion[person], frames, axis=0)
    talk.audio[person] = np.roll(talk.audio[person], frames * SAMPLES_PER_FRAME)
    bits = np.uint8(1 << person | 4 << person)
    talk.state = ((talk.state & ~bits) | (np.roll(talk.state, frames) & bits)).astype(np.uint8)


def shifted_turns(talk: Talk, random: np.random.Generator, other: Talk) -> None:
    talk.state = np.roll(talk.state, int(random.integers(8, 22)) * int(random.choice([-1, 1])))


def frozen(talk: Talk, random: np.random.Generator, other: Talk) -> None:
    person = int(random.integers(2))
    motion = talk.motion[person].copy()
    frames = int(random.uniform(0.06, 0.3) * len(motion))
    first = int(random.integers(len(motion) - frames))
    motion[first : first + frames] = motion[first]
    talk.motion[person] = motion


def repeated(talk: Talk, random: np.random.Generator, other: Talk) -> None:
    """Every second to eighth frame is the one before."""
    person, every = int(random.integers(2)), int(random.integers(2, 9))
    motion = talk.motion[person].copy()
    motion[every - 1 :: every] = motion[every - 2 :: every][: len(motion[every - 1 :: every])]
    talk.motion[person] = motion


def mirrored(talk: Talk, random: np.random.Generator, other: Talk) -> None:
    person = int(random.integers(2))
    copy = talk.motion[person] + 0.02 * talk.motion[person].std(axis=0) * random.standard_normal(
        talk.motion[person].shape
    )
    copy[:, [1, 2, 3]] *= -1
    talk.motion[1 - person] = copy.astype(np.float32)


def degrees(talk: Talk, random: np.random.Generator, other: Talk) -> None:
    talk.motion[int(random.integers(2))] *= np.float32(random.choice([57.3, 0.05, 10.0]))


def dull(talk: Talk, random: np.random.Generator, other: Talk) -> None:
    """A listener whose motion was damped while the other speaks."""
    person = int(random.integers(2))
    speaks = binary_closing((talk.state >> (1 - person) & 1).astype(bool), np.ones(40)) & ~(
        talk.state >> person & 1 > 0
    )
    motion = talk.motion[person]
    damped = 1 - (1 - random.uniform(0.05, 0.2)) * gaussian_filter1d(speaks.astype(float), 4)[:, None]
    talk.motion[person] = (motion.mean(axis=0) + damped * (motion - motion.mean(axis=0))).astype(np.float32)


def enlarged(talk: Talk, random: np.random.Generator, other: Talk) -> None:
    _see(talk, random, sharpness=float(random.uniform(5, 50)))


def cropped(talk: Talk, random: np.random.Generator, other: Talk) -> None:
    _see(talk, random, confidence=float(random.uniform(0.3, 0.65)))


def faint(talk: Talk, random: np.random.Generator, other: Talk) -> None:
    person = int(random.integers(2))
    talk.audio[person] = (10 ** (random.uniform(-34, -22) / 20) * talk.audio[person]).astype(np.float32)


def off_middle(talk: Talk, random: np.random.Generator, other: Talk) -> None:
    person = int(random.integers(2))
    talk.audio[person] = talk.audio[person] + np.float32(random.uniform(0.03, 0.1))


def foreign_turns(talk: Talk, random: np.random.Generator, other: Talk) -> None:
    """Turns of another conversation."""
    talk.state = other.state.copy()


def same_face(talk: Talk, random: np.random.Generator, other: Talk) -> None:
    """The same face twice, tracked twice."""
    person = int(random.integers(2))
    motion = talk.motion[person]
    noise = random.uniform(0.01, 0.03) * motion.std(axis=0) * random.standard_normal(motion.shape)
    talk.motion[1 - person] = (motion + noise).astype(np.float32)


def trembling(talk: Talk, random: np.random.Generator, other: Talk) -> None:
    """Noise of a tracker, one to three times as large as the motion changes from frame to frame."""
    person = int(random.integers(2))
    motion = talk.motion[person]
    change = np.diff(motion, axis=0).std(axis=0)
    noise = random.uniform(1, 3) * change * random.standard_normal(motion.shape)
    talk.motion[person] = (motion + noise).astype(np.float32)


INJECTIONS: dict[Kind, Injection] = {
    Kind.SWAPPED: swapped, Kind.WRONG_VOICE: foreign, Kind.NOT_PARTNERS: strangers, Kind.DEAD_TRACK: dead,
    Kind.SAME_SOUND: same_sound, Kind.INVERTED: inverted, Kind.BLEED: bleed, Kind.CLIPPED: clipped,
    Kind.BAND_LIMITED: band_limited, Kind.DROPOUTS: holes, Kind.AV_OFFSET: late, Kind.AV_DRIFT: drifting,
    Kind.PARTNERS_SHIFTED: shifted_partner, Kind.TURNS_SHIFTED: shifted_turns, Kind.FROZEN: frozen,
    Kind.REPEATED: repeated, Kind.MIRRORED: mirrored, Kind.OUT_OF_RANGE: degrees, Kind.DULL: dull,
    Kind.ENLARGED: enlarged, Kind.CROPPED: cropped, Kind.QUIET: faint, Kind.DC_OFFSET: off_middle,
    Kind.TURNS_WRONG: foreign_turns, Kind.SAME_FACE: same_face, Kind.JITTERY: trembling,
}  # fmt: skip


def write_run(root: Path, talks: list[Talk]) -> None:
    """Windows and voices of conversations, as a build leaves them."""
    root.mkdir(parents=True)
    store = Store(str(root))
    stages: tuple[type[AnyStage], ...] = (WindowsStage, SeparateStage)
    prints = {stage.name: _PRINT for stage in stages}
    store.write("run.json", to_json({"config": {}, "fingerprints": prints}).encode())
    ledger = Ledger(store)
    for talk in talks:
        for stage, row in zip(stages, talk.rows(), strict=True):
            key = talk.dyad.conversation
            store.write(artifact_path(stage.name, stage.version, _PRINT, key), dump_rows([row]))
            ledger.append(Outcome(stage.name, key, f"{key}.mp4", "ok", output="0" * 16, fingerprint=_PRINT))
    ledger.flush()


def _delayed(track: np.ndarray, seconds: float) -> np.ndarray:
    samples = round(seconds * SAMPLE_RATE)
    return np.concatenate([np.zeros(samples, np.float32), track[: len(track) - samples]])


def _level(track: np.ndarray) -> float:
    """Of what is loud."""
    power = np.square(track.reshape(-1, SAMPLES_PER_FRAME)).mean(axis=1)
    return float(np.sqrt(power[power > np.quantile(power, 0.7)].mean()))


def _see(talk: Talk, random: np.random.Generator, **figures: float) -> None:
    person = int(random.integers(2))
    seen = talk.figures[person]
    assert seen is not None
    talk.figures[person] = seen.model_copy(update=figures)
