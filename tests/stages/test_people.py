"""People across conversations: voiceprints, who is who by them, and what the doctor says where names are not at one."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.pipeline.plan.people import person_numbers, tied
from visavis.schemas import SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.stages.crowd.likeness import OF_VOICES
from visavis.stages.crowd.linking import linked
from visavis.stages.doctor.findings import Finding, Findings
from visavis.stages.doctor.kinds import Kind
from visavis.stages.doctor.prints import Appearance, Print, Prints
from visavis.stages.voice.voiceprints import LEAST, Voiceprint, alone, voiceprint


def crowd(people: int, talks: int, seed: int, noise: float = 0.55) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Made voiceprints [2 · talks, 192] of pairs drawn by chance; whose each is, and in which conversation."""
    rng = np.random.default_rng(seed)
    faces = rng.standard_normal((people, 192)) / np.sqrt(192)
    who = np.concatenate([rng.choice(people, 2, replace=False) for _ in range(talks)])
    prints = faces[who] + noise * rng.standard_normal((2 * talks, 192)) / np.sqrt(192)
    unit = prints / np.linalg.norm(prints, axis=1, keepdims=True)
    return unit.astype(np.float32), who, np.repeat(np.arange(talks), 2)


def test_people_are_known_again_however_the_conversations_are_ordered() -> None:
    prints, who, talk = crowd(people=40, talks=150, seed=1)
    seconds = np.full(len(who), 20.0)
    found = linked(prints, seconds, talk)
    assert len({*zip(who.tolist(), found.tolist(), strict=True)}) == len(np.unique(who)) == len(np.unique(found))
    order = np.random.default_rng(2).permutation(len(who))
    again = linked(prints[order], seconds[order], talk[order])
    assert len({*zip(found[order].tolist(), again.tolist(), strict=True)}) == len(np.unique(found))


def test_the_two_of_a_conversation_are_never_one_and_who_is_not_heard_is_nobody() -> None:
    voice = crowd(1 + 1, 1, 0)[0][0]
    prints = np.stack([voice, voice, voice, np.zeros_like(voice)])
    assert linked(prints, np.full(4, 20.0), np.array([0, 0, 1, 2])).tolist() == [0, 1, 0, 3]


def test_more_evidence_is_asked_for_where_there_are_more_people_and_little_speech_gives_less() -> None:
    assert OF_VOICES.bound(100_000) > OF_VOICES.bound(1000) > 0
    much, little = (float(OF_VOICES.evidence(np.array(0.6), np.array(s), np.array(s))) for s in (20.0, 1.5))
    assert min(much, little) > 0
    gain = [float(OF_VOICES.evidence(np.array(c), np.array(20.0), np.array(s))) for c, s in ((0.75, 20.0), (0.75, 1.5))]
    assert gain[0] > gain[1]


def test_only_what_is_said_alone_is_heard_without_its_pauses() -> None:
    frames = 100
    audio = np.repeat(np.arange(frames, dtype=np.float32) + 1, SAMPLES_PER_FRAME) / 200
    state = np.zeros(frames, np.uint8)
    state[10:40], state[30:60], state[70:90] = 1, state[30:60] | 2, 1
    state[78:80] |= 8  # the other's back-channel
    audio[80 * SAMPLES_PER_FRAME : 84 * SAMPLES_PER_FRAME] = 0
    heard = np.unique(np.round(alone(audio, state, 0) * 200 - 1)).astype(int).tolist()
    assert heard == [*range(12, 28)], "edges, overlap, a short span and one that a pause cuts are left out"


def examined(rows: list[tuple[str, str, int, str]], faces: int = 8) -> dict[Kind, Finding]:
    """Rows: conversation, name, whose voice, split."""
    rng = np.random.default_rng(5)
    voices, found = Prints("voice"), Findings()
    base = rng.standard_normal((faces, 192)) / np.sqrt(192)
    for talk, name, who, split in rows:
        print_ = base[who] + 0.5 * rng.standard_normal(192) / np.sqrt(192)
        unit = (print_ / np.linalg.norm(print_)).astype(np.float32)
        voices.add(Appearance(talk, f"{talk}.mp4", name, split), Print(unit, 15.0))
    voices.judge(found)
    return {each.kind: each for each in found.all(len(rows))}


def test_names_and_voices_that_are_at_one_are_no_finding() -> None:
    assert not examined([(f"t{n}", name, who, "train") for n in range(4) for who, name in enumerate(("ann", "ben"))])


def test_a_voice_with_two_names_is_told_and_so_is_that_it_is_in_both_splits() -> None:
    rows = [("t1", "ann", 0, "train"), ("t1", "ben", 1, "train"), ("t2", "anna", 0, "val"), ("t2", "cyd", 2, "val")]
    found = examined(rows)
    assert set(found) == {Kind.SEVERAL_NAMES, Kind.SPLIT_LEAK}
    (item,) = found[Kind.SPLIT_LEAK].items
    assert (item.name, item.detail) == ("ann, anna", "one voice in train and val: t1.mp4, t2.mp4")
    assert item.certainty > 0.9
    assert found[Kind.SEVERAL_NAMES].of == 3, "people by voice"


def test_a_voice_that_nobody_named_is_told_by_its_conversations() -> None:
    found = examined([("t1", "t1-0", 0, "train"), ("t2", "t2-1", 0, "train")])
    assert set(found) == {Kind.SEVERAL_NAMES}
    assert found[Kind.SEVERAL_NAMES].items[0].name == "someone in t1.mp4, someone in t2.mp4"


def test_a_name_with_two_voices_is_told_with_the_conversations_of_the_rarer_one() -> None:
    rows = [(f"t{n}", "ann", int(n in (2, 5)), "train") for n in range(6)]
    found = examined(rows)
    assert set(found) == {Kind.SEVERAL_PEOPLE}
    (item,) = found[Kind.SEVERAL_PEOPLE].items
    assert item.name == "ann"
    assert item.detail.startswith("2 voices: t2.mp4, t5.mp4 against t0.mp4")


def test_people_have_numbers_that_stay_when_others_come() -> None:
    prints, who, _ = crowd(people=10, talks=30, seed=3)
    ids = np.arange(30, dtype=np.uint64) * np.uint64(7919)
    seconds = np.full((30, 2), 20.0)
    few = person_numbers(ids[:20], prints[:40].reshape(20, 2, -1), seconds[:20])
    many = person_numbers(ids, prints.reshape(30, 2, -1), seconds)
    assert len({*zip(who.tolist(), many.ravel().tolist(), strict=True)}) == len(np.unique(who))
    assert (many[:20] <= few).all(), "the least of the person's numbers"


@given(st.lists(st.tuples(*[st.integers(0, 5)] * 4), min_size=1, max_size=12))
def test_tied_is_who_is_one_by_either_numbering(rows: list[tuple[int, int, int, int]]) -> None:
    names, voices = (np.array([row[i : i + 2] for row in rows], np.uint64) for i in (0, 2))
    both = tied(names, voices).ravel()
    for other in (names.ravel(), voices.ravel()):
        assert all(len(np.unique(both[other == number])) == 1 for number in other)
    assert set(both.tolist()) <= set(names.ravel().tolist())
    assert (tied(names, np.arange(names.size, dtype=np.uint64).reshape(names.shape)) == names).all()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("espeakng_loader") is None, reason="synthetic voices need espeak-ng")
def test_voices_are_told_apart_by_the_encoder_that_ships() -> None:
    from visavis.pipeline.demo.script import PHRASES
    from visavis.pipeline.demo.voices import VOICES, synthesise
    from visavis.stages.models.networks import load_voice_encoder

    encoder = load_voice_encoder()

    def print_of(phrases: list[np.ndarray]) -> Voiceprint:
        said = np.concatenate(phrases)
        return voiceprint(encoder, said, np.ones(len(said) // SAMPLES_PER_FRAME, np.uint8), 0)

    said = synthesise(VOICES[0], PHRASES[:8])
    one, again, other = print_of(said[0][:4]), print_of(said[0][4:]), print_of(said[1][:4])

    def nats(a: Voiceprint, b: Voiceprint) -> float:
        return float(OF_VOICES.evidence(a.embedding @ b.embedding, np.array(a.seconds), np.array(b.seconds)))

    assert nats(one, again) > OF_VOICES.bound(1000) > nats(one, other), "synthetic voices are alike"
    nothing = voiceprint(encoder, np.zeros(int(LEAST * SAMPLE_RATE) - 640, np.float32), np.ones(40, np.uint8), 0)
    assert not nothing.embedding.any()
