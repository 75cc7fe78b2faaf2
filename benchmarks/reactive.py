"""Conversations at motion level whose listener reacts by a known rule, written as the shard stage writes them.

    turns, phrases, back-channels → two voices (sound) and two motions → dyads → windows → shards, manifest

The user talks and moves; the avatar reacts by a `Rule` (`benchmarks.listeners`). Only the avatar reacts, so each
conversation is used one way round: were both to mirror each other, the gain could not be read off the data.

Motion has no codec behind it, and sound is noise under a speaker's resonances and a syllable's envelope: enough for
what a model could get wrong about timing, not for what faces or words are like. From here on nothing is special:
classes, weights, plan and tars come from `stages`, so what trains on this trains on a build.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.signal import lfilter

from benchmarks.listeners import DIM, QUICK, UNITS, Rule, drift, react, smile_onsets, startle
from visavis.schemas import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.schemas.dyads import Codec, Dyad, DyadHead, WindowClass
from visavis.schemas.face_rows import LANDMARKS, Figures
from visavis.schemas.manifest import MANIFEST_NAME, Manifest, Split, dump_manifest
from visavis.schemas.rows import Layout
from visavis.schemas.sample import encode_audio
from visavis.schemas.section import Section
from visavis.schemas.storage.store import Store
from visavis.schemas.voice_rows import VoiceFigures, Voices
from visavis.schemas.windows_config import BalanceConfig, ShardConfig, WindowsConfig
from visavis.stages.balance import plan_balance
from visavis.stages.census import CensusInput, CensusStage, scale
from visavis.stages.face.codec import motion_spec
from visavis.stages.face.heads import POSE_DIMS
from visavis.stages.shard import ShardInput, ShardRow, ShardStage, Slice
from visavis.stages.windows import cut_windows, expressiveness, moments_of

USER, AVATAR = 0, 1
CODEC = "reactive"
HOP = 4  # envelope values per frame
CHUNK = 64
"""Conversations whose sound is held at once."""

_NO_FACE = np.zeros((LANDMARKS, 3), np.float32)  # the motion is made up, and no codec draws it
_SEEN = Figures(visible=1, face_size=200, sharpness=400, luminance=120, confidence=1, yaw=0, pitch=0, jitter=0)
_HEARD = VoiceFigures(method="own_track", residual_db=-60, overlapped=0)


@dataclass(frozen=True)
class Corpus:
    """How much there is of what.

    speaking: share of the time in which the avatar has the floor. lively: share of conversations whose avatar follows
    the rule in full; in the others gain and probability are `dull` times the rule's.
    """

    train: int = 200  # conversations
    val: int = 30
    seconds: int = 60  # of a conversation
    window: int = 50  # frames
    hop: int | None = None  # frames between windows; none: the window
    speaking: float = 0.4
    lively: float = 1.0
    dull: float = 0.2
    seed: int = 0
    barge_ins: float = 0.0  # share of the avatar's turns in which the user begins to speak
    yielding: float = 0.6  # share of these in which the avatar's voice stops, a while after
    dyads: int | None = None  # of those to train on; the others are clips of the avatar alone. None: all
    balance: BalanceConfig = field(default_factory=BalanceConfig)

    def alone(self, number: int) -> bool:
        """Whether a conversation is a clip of its avatar, of which the user was cut off."""
        return self.dyads is not None and self.dyads <= number < self.train


@dataclass(frozen=True)
class Talk:
    """Who says what when: [first, end) frames of phrases and back-channels, of USER and AVATAR."""

    phrases: tuple[list[tuple[int, int]], list[tuple[int, int]]]
    backchannels: tuple[list[tuple[int, int]], list[tuple[int, int]]]
    barge_ins: list[tuple[int, bool]] = field(default_factory=list)  # the user's onsets, and whether the avatar yields

    def state(self, frames: int) -> np.ndarray:
        """uint8 [T]: bit i, person i is in a phrase; bit 2 + i, in a back-channel."""
        state = np.zeros(frames, np.uint8)
        for person in (USER, AVATAR):
            for bit, spans in ((person, self.phrases[person]), (2 + person, self.backchannels[person])):
                for first, end in spans:
                    state[first:end] |= 1 << bit
        return state


def write_corpus(folder: Path, corpus: Corpus, rule: Rule) -> Manifest:
    """Write shards and manifest. The same arguments give the same bytes."""
    dyads = {number: make_dyad(corpus, rule, number) for number in range(corpus.train + corpus.val)}
    train = [dyads[number] for number in range(corpus.train)]
    heads = tuple(DyadHead(windows=dyad.windows, moments=dyad.moments) for dyad in train)
    (census,) = CensusStage(Section()).process(CensusInput(dyads=heads))
    stage = ShardStage(ShardConfig(seed=corpus.seed), str(folder))
    rows: list[ShardRow] = []
    for first in range(0, len(dyads), CHUNK):
        chunk = range(first, min(first + CHUNK, len(dyads)))
        sounds = {number: make_voices(corpus, number) for number in chunk}
        splits: tuple[tuple[Split, list[int]], ...] = (
            ("train", [number for number in chunk if number < corpus.train]),
            ("val", [number for number in chunk if number >= corpus.train]),
        )
        for split, numbers in splits:
            for label in WindowClass:
                slices, used = _of_class([dyads[number] for number in numbers], label)
                if not used:
                    continue
                item = ShardInput(
                    path=f"{split}/{label.value}-{first // CHUNK:06d}.tar",
                    split=split,
                    label=label,
                    slices=slices,
                    dull_keep=corpus.balance.dull_keep,
                    census=census,
                    dyads=used,
                    voices=[sounds[int(dyad.conversation.removeprefix("c"))] for dyad in used],
                )
                rows += stage.process(item)
    mean, std = scale(census)
    counts = {label: sum(row.entry.samples for row in rows if _is_train(row, label)) for label in WindowClass}
    kept = {label: sum(row.weight for row in rows if _is_train(row, label)) for label in WindowClass}
    manifest = Manifest(
        kind="windows",
        fingerprint=fingerprint(corpus, rule),
        fps=FPS,
        sample_rate=SAMPLE_RATE,
        window=corpus.window,
        motion=motion_spec(CODEC, DIM, mean, std),
        columns=rule.columns,
        conversations=len(dyads),
        participants=2 * len(dyads),
        plan=plan_balance(
            {label: count * corpus.window / FPS for label, count in counts.items()},
            {label: kept[label] / count if count else 0.0 for label, count in counts.items()},
            corpus.balance,
        ),
        shards=tuple(sorted((row.entry for row in rows), key=lambda entry: entry.path)),
    )
    Store(str(folder)).write(MANIFEST_NAME, dump_manifest(manifest))
    return manifest


def fingerprint(corpus: Corpus, rule: Rule) -> str:
    """Of everything that shapes the data."""
    described = {**asdict(rule), **asdict(corpus), "balance": corpus.balance.model_dump(mode="json")}
    if not corpus.barge_ins:  # folders that were made before there were any keep their names
        for name in ("barge_ins", "yielding", "startle", "startle_delay", "startle_frames"):
            del described[name]
    if corpus.dyads is None:
        del described["dyads"]  # folders that were made before there were clips keep their names
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def make_dyad(corpus: Corpus, rule: Rule, number: int) -> Dyad:
    """Motion, state and windows of one conversation; `make_voices` is its sound."""
    frames = corpus.seconds * FPS
    talk = make_talk(corpus, number)
    state = talk.state(frames)
    motion = tuple(part.astype(np.float32) for part in make_motion(corpus, rule, number, talk))
    valid = np.ones(frames, bool), np.ones(frames, bool)
    if corpus.alone(number):  # as `visavis import solo` reads a clip: nobody is seen, heard or said to speak
        state &= ~np.uint8(1 << USER | 1 << 2 + USER)
        motion[USER][:], valid[USER][:] = 0, False
    cut = WindowsConfig(length=corpus.window, hop=corpus.hop or corpus.window)

    def strays(avatar: int, span: slice) -> float:
        return expressiveness(_codec(), motion[avatar][span])

    windows = tuple(cut_windows(f"c{number:06d}", state, valid, cut, strays, avatars=(AVATAR,)))
    return Dyad(
        conversation=f"c{number:06d}",
        participants=(f"user-{number:06d}", f"avatar-{number:06d}"),
        layout=Layout.PER_PARTICIPANT,
        codec=CODEC,
        scores=(1.0, 1.0),
        figures=(_SEEN, _SEEN),
        motion=(motion[USER], motion[AVATAR]),
        valid=valid,
        reference=(np.zeros(DIM, np.float32), np.zeros(DIM, np.float32)),
        neutral=(_NO_FACE, _NO_FACE),
        neutral_code=(np.zeros(0, np.float32), np.zeros(0, np.float32)),
        state=state,
        windows=windows,
        moments=(moments_of(motion[USER], valid[USER]), moments_of(motion[AVATAR], valid[AVATAR])),
    )


def make_talk(corpus: Corpus, number: int) -> Talk:
    """Turns of some seven seconds, made of phrases with pauses between, now and then a back-channel in a pause."""
    random = np.random.default_rng([corpus.seed, number, 0])
    frames = corpus.seconds * FPS
    phrases: tuple[list[tuple[int, int]], ...] = ([], [])
    backchannels: tuple[list[tuple[int, int]], ...] = ([], [])
    share = (1 - corpus.speaking, corpus.speaking)
    speaker = AVATAR if random.random() < corpus.speaking else USER
    barging = np.random.default_rng([corpus.seed, number, 4])
    barge_ins: list[tuple[int, bool]] = []
    now = int(random.integers(0, 15))
    while now < frames:
        turn_end = now + random.uniform(0.5, 1.5) * 14 * FPS * share[speaker]
        while True:
            end = now + int(random.integers(15, 40))
            phrases[speaker].append((now, end))
            pause = int(random.integers(14, 28))
            if random.random() < 0.2:
                hum = end + int(random.integers(2, 5))
                backchannels[1 - speaker].append((hum, hum + int(random.integers(6, 10))))
            now = end + pause
            if now >= min(turn_end, frames):
                break
        if speaker == AVATAR and barging.random() < corpus.barge_ins:
            now, end, yields = _barge_in(phrases, corpus.yielding, barging)
            barge_ins.append((now, yields))
            speaker = USER if yields else AVATAR  # who has spoken last
        now = end + int(random.integers(-6, 16))  # the other one takes the turn, sometimes too early
        speaker = 1 - speaker

    def inside(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
        return [(first, min(end, frames)) for first, end in spans if first < frames]

    return Talk(
        phrases=(inside(phrases[USER]), inside(phrases[AVATAR])),
        backchannels=(inside(backchannels[USER]), inside(backchannels[AVATAR])),
        barge_ins=[(onset, yields) for onset, yields in barge_ins if onset < frames],
    )


def _barge_in(
    phrases: tuple[list[tuple[int, int]], ...], yielding: float, random: np.random.Generator
) -> tuple[int, int, bool]:
    """The user begins within the avatar's last phrase, which goes on: for a second or so where the avatar yields, else
    until the user has given up. Returns: the onset, the end of all, and whether it yields."""
    first, _ = phrases[AVATAR].pop()
    onset = first + int(random.integers(18, 40))
    yields = bool(random.random() < yielding)
    stop = onset + int(random.integers(28, 45))
    gives_up = onset + int(random.integers(30, 45))
    if yields:
        end = stop + int(random.integers(20, 60))
        phrases[AVATAR].append((first, stop))
        phrases[USER].append((onset, end))
    else:
        end = gives_up + int(random.integers(15, 50))
        phrases[AVATAR].append((first, end))
        phrases[USER].append((onset, gives_up))
    return onset, end, yields


def make_motion(corpus: Corpus, rule: Rule, number: int, talk: Talk) -> tuple[np.ndarray, np.ndarray]:
    """float64 [T, DIM] of USER and AVATAR."""
    random = np.random.default_rng([corpus.seed, number, 1])
    frames = corpus.seconds * FPS
    eagerness = 1.0 if random.random() < corpus.lively else corpus.dull
    memory = [rule.pitch_memory if column == rule.nod_column else QUICK for column in range(DIM)]
    user, avatar = (np.stack([drift(random, frames, m) for m in memory], axis=1) * UNITS for _ in (USER, AVATAR))
    for person, motion in ((USER, user), (AVATAR, avatar)):
        motion[:, rule.nod_column] *= rule.pitch_drift / UNITS[rule.nod_column]
        loudness = make_envelope(corpus, number, talk, person).reshape(-1, HOP).mean(axis=1)
        motion[:, rule.jaw] = rule.jaw_gain * loudness + rule.jaw_noise * motion[:, rule.jaw]
    speaks = np.zeros(frames)
    for first, end in talk.phrases[AVATAR]:
        speaks[first:end] = 1
    causes = [end for _, end in talk.phrases[USER]]
    if rule.nod_cause == "smile":
        causes = [int(onset) for onset in smile_onsets(user, rule) if not speaks[onset]]
    react(avatar, user, speaks, talk.backchannels[AVATAR], causes, rule, eagerness, random)
    startled = np.random.default_rng([corpus.seed, number, 5])
    startle(avatar, [onset for onset, _ in talk.barge_ins], rule, eagerness, startled)
    return user, avatar


def make_envelope(corpus: Corpus, number: int, talk: Talk, person: int) -> np.ndarray:
    """Loudness of a person's phrases, 0…1, 100 values a second: syllables, never silent inside a phrase."""
    random = np.random.default_rng([corpus.seed, number, 2, person])
    envelope = np.zeros(corpus.seconds * FPS * HOP)
    for first, end in talk.phrases[person]:
        time = np.arange((end - first) * HOP) / (FPS * HOP)
        rate = random.uniform(3.0, 4.5)
        stress = random.uniform(0.5, 1.0, int(time[-1] * rate) + 1)[(time * rate).astype(int)]
        envelope[first * HOP : end * HOP] = stress * (0.2 + 0.8 * np.sin(np.pi * rate * time) ** 2)
    return envelope


def make_voices(corpus: Corpus, number: int) -> Voices:
    """The sound of a conversation, one track each: phrases, hummed back-channels, a quiet room."""
    talk = make_talk(corpus, number)
    sounds = [_sound(corpus, number, talk, person) for person in (USER, AVATAR)]
    if corpus.alone(number):
        sounds[USER][:] = 0
    tracks = tuple(np.frombuffer(encode_audio(sound), np.uint8) for sound in sounds)
    return Voices(conversation=f"c{number:06d}", audio=(tracks[USER], tracks[AVATAR]), figures=(_HEARD, _HEARD))


def _sound(corpus: Corpus, number: int, talk: Talk, person: int) -> np.ndarray:
    random = np.random.default_rng([corpus.seed, number, 3, person])
    speech = make_envelope(corpus, number, talk, person)
    hum = np.zeros_like(speech)
    for first, end in talk.backchannels[person]:
        hum[first * HOP : end * HOP] = 0.6
    samples = corpus.seconds * SAMPLE_RATE

    def noise(low: float, high: float) -> np.ndarray:
        return np.roll(_resonance(low, high), int(random.integers(20 * SAMPLE_RATE)))

    def loud(envelope: np.ndarray) -> np.ndarray:
        return np.repeat(envelope.astype(np.float32), SAMPLES_PER_FRAME // HOP)

    formant = 400.0 + 100.0 * int(random.integers(6))
    voice = np.resize(noise(formant, 3.5 * formant), samples)
    low = np.resize(noise(150.0, 250.0), samples)
    return np.asarray((0.08 * loud(speech) + 5e-4) * voice + 0.08 * loud(hum) * low, dtype=np.float32)


@lru_cache(maxsize=8)
def _resonance(low: float, high: float) -> np.ndarray:
    """20 s of noise with two resonances, deviation 1. Made once: sound is what costs time here."""
    random = np.random.default_rng([int(low), int(high)])
    noise = random.standard_normal(20 * SAMPLE_RATE)
    for frequency in (low, high):
        angle, radius = 2 * np.pi * frequency / SAMPLE_RATE, 0.95
        noise = lfilter([1], [1, -2 * radius * np.cos(angle), radius**2], noise)
    return np.asarray(noise / noise.std(), dtype=np.float32)


@lru_cache(maxsize=1)
def _codec() -> Codec:
    """Only for `expressiveness`: each number of the code moves the face by itself."""
    code = DIM - POSE_DIMS
    basis = np.eye(code, LANDMARKS * 3, dtype=np.float32)
    mean = np.zeros(LANDMARKS * 3, np.float32)
    return Codec(id=CODEC, kind="landmark-pca", given=0, network="", mean=mean, basis=basis, explained=1.0)


def _of_class(dyads: list[Dyad], label: WindowClass) -> tuple[tuple[Slice, ...], list[Dyad]]:
    counts = [(dyad, sum(window.label is label for window in dyad.windows)) for dyad in dyads]
    used = [(dyad, count) for dyad, count in counts if count]
    slices = tuple(Slice(conversation=dyad.conversation, first=0, count=count) for dyad, count in used)
    return slices, [dyad for dyad, _ in used]


def _is_train(row: ShardRow, label: WindowClass) -> bool:
    return row.entry.split == "train" and row.entry.label is label
