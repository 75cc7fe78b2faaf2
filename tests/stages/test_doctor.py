"""A doctor finds what was injected, says nothing of what is well, and does not mind in which pieces it is told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.defects import examined
from benchmarks.injections import INJECTIONS, Talk
from benchmarks.listeners import REAL
from benchmarks.reactive import Corpus
from visavis.schemas import FPS, SAMPLES_PER_FRAME
from visavis.stages.doctor import bleed
from visavis.stages.doctor.examine import Learner, hear, measure
from visavis.stages.doctor.excerpt import Excerpt, Sums, moved_by
from visavis.stages.doctor.findings import MOST_ITEMS, Findings, Sign
from visavis.stages.doctor.kinds import REMEDIES, Kind
from visavis.stages.doctor.lips import Lips
from visavis.stages.doctor.scratch import About, Scratch
from visavis.stages.doctor.turns import Evidence

CORPUS = Corpus(train=10, val=0, seconds=180, seed=5)
Measured = dict[str, tuple[About, Sums]]
Learned = tuple[Lips | None, np.ndarray]


@pytest.fixture(scope="module")
def learned() -> Learned:
    learner = Learner()
    for number in range(CORPUS.train):
        learner.add(Talk.made(CORPUS, REAL, number).excerpt())
    return learner.usual()


@pytest.fixture(scope="module")
def clean(learned: Learned) -> Measured:
    talks = [Talk.made(CORPUS, REAL, number) for number in range(CORPUS.train)]
    return {talk.dyad.conversation: (talk.about(), measure(talk.excerpt(), *learned)) for talk in talks}


def stretch(excerpt: Excerpt, first: int, last: int) -> Excerpt:
    return replace(
        excerpt,
        audio_PN=excerpt.audio_PN[:, first * 640 : last * 640],
        state_T=excerpt.state_T[first:last],
        motion_PTD=excerpt.motion_PTD[:, first:last],
        valid_PT=excerpt.valid_PT[:, first:last],
        first=first,
        whole_state_T=None,
    )


@pytest.mark.slow
def test_nothing_is_wrong_with_a_clean_corpus(clean: Measured) -> None:
    found = examined(clean)
    assert found.findings == ()
    assert not found.ill
    assert found.looked_at == {"conversations": 10, "people": 20}


@pytest.mark.slow
@pytest.mark.parametrize("kind", INJECTIONS)
def test_what_was_injected_is_found_and_nothing_else(kind: Kind, clean: Measured, learned: Learned) -> None:
    talk, other = Talk.made(CORPUS, REAL, 4), Talk.made(CORPUS, REAL, 2)
    INJECTIONS[kind](talk, np.random.default_rng(3), other)
    id_ = talk.dyad.conversation
    found = examined(clean | {id_: (talk.about(), measure(talk.excerpt(), *learned))})
    assert [(each.kind, [item.id for item in each.items]) for each in found.findings] == [(kind, [id_])]
    assert found.findings[0].certainty >= 0.5
    assert found.ill == (REMEDIES[kind].severity == "mend")


@pytest.mark.slow
def test_a_conversation_may_come_in_pieces(clean: Measured, learned: Learned) -> None:
    """As the windows of a dataset do, which lie in several shards."""
    talk = Talk.made(CORPUS, REAL, 4)
    INJECTIONS[Kind.SWAPPED](talk, np.random.default_rng(3), talk)
    excerpt, scratch = talk.excerpt(), Scratch()
    for first in reversed(range(0, 1500, 50)):
        scratch.add("one", talk.about(), measure(stretch(excerpt, first, first + 50), *learned))
    ((_, about, sums),) = scratch.talks()
    found = examined(clean | {talk.dyad.conversation: (about, sums)})
    assert [each.kind for each in found.findings] == [Kind.SWAPPED]


@pytest.mark.slow
def test_where_nobody_is_seen_or_heard_nothing_breaks(learned: Learned) -> None:
    talk = Talk.made(CORPUS, REAL, 0).excerpt()
    silent = replace(talk, audio_PN=np.zeros_like(talk.audio_PN), valid_PT=np.zeros_like(talk.valid_PT))
    about = About(name="", people=("ann", "ben"))
    found = examined({"silent": (about, measure(silent, *learned))})
    assert {each.kind for each in found.findings} == {Kind.DEAD_TRACK, Kind.UNSEEN}


@pytest.mark.slow
def test_somebody_in_two_splits_and_somebody_in_every_conversation(clean: Measured) -> None:
    """Of ten conversations one person has a half each, and another lies in both splits."""
    renamed = {}
    for number, (id_, (about, sums)) in enumerate(clean.items()):
        other = "ben" if number in (0, 9) else f"guest-{number}"
        split = "val" if number == 9 else "train"
        people = ("host", other) if number < 9 else ("somebody", other)
        renamed[id_] = about.model_copy(update={"people": people, "split": split}), sums
    found = {each.kind: each for each in examined(renamed).findings}
    assert [item.id for item in found[Kind.SPLIT_LEAK].items] == ["ben"]
    assert [item.id for item in found[Kind.IMBALANCE].items] == ["host"]
    assert found[Kind.SPLIT_LEAK].of == 11


@pytest.mark.slow
def test_what_is_wrong_with_one_hides_nothing_of_the_other(clean: Measured, learned: Learned) -> None:
    talk = Talk.made(CORPUS, REAL, 4)
    talk.audio = [np.zeros_like(talk.audio[0]), 0.05 * talk.audio[1]]
    found = examined(clean | {talk.dyad.conversation: (talk.about(), measure(talk.excerpt(), *learned))})
    assert {Kind.DEAD_TRACK, Kind.QUIET} <= {each.kind for each in found.findings}


@given(st.integers(0, 1000))
@settings(max_examples=30)
def test_a_fifth_of_strangers_does_not_change_what_is_usual(seed: int) -> None:
    random, seconds_N = np.random.default_rng(seed), np.full(60, 180.0)
    nats_N = random.normal(2.6, 1.0, 60)
    usual = Evidence.of(nats_N, seconds_N)
    nats_N[::5] = random.normal(-2.3, 0.8, 12)
    now = Evidence.of(nats_N, seconds_N)
    assert now.below(2.6, 180.0) == pytest.approx(usual.below(2.6, 180.0), abs=1.0)
    assert now.below(-2.3, 180.0) > 2.0


def test_where_both_microphones_hear_both_people_it_is_told_of_one_with_its_own_delay() -> None:
    random, frames = np.random.default_rng(0), 20 * FPS
    speaks_T = np.arange(frames) // (2 * FPS) % 2  # each for two seconds, with a pause after it
    state_T = np.where(np.arange(frames) % (2 * FPS) < 35, 1 << speaks_T, 0).astype(np.uint8)
    heard_PN = np.repeat([state_T & 1, state_T >> 1], SAMPLES_PER_FRAME, axis=1)
    speech_PN = random.normal(0, 0.1, heard_PN.shape) * heard_PN
    late_PN = [np.roll(0.2 * speech_PN[1], 800), np.roll(0.1 * speech_PN[0], 1600)]
    audio_PN = (speech_PN + late_PN + random.normal(0, 1e-4, speech_PN.shape)).astype(np.float32)
    nobody = np.zeros((2, frames, 0), np.float32), np.zeros((2, frames), bool)
    excerpt = Excerpt(audio_PN, state_T, *nobody, 0, frames, own_tracks=True)
    (sign,) = bleed.judge(hear(excerpt))
    assert (sign.kind, sign.person) == (Kind.BLEED, 0)
    assert sign.detail == "the other's voice at -14 dB, 50 ms later than in its own track"


@given(st.lists(st.floats(0.5, 1.0), min_size=1, max_size=3 * MOST_ITEMS))
def test_all_items_are_counted_and_the_surest_are_named(certainties: list[float]) -> None:
    findings = Findings()
    for number, sure in enumerate(certainties):
        findings.add(f"c{number}", "", [Sign(Kind.CLIPPED, sure, "loud", 1)])
    (found,) = findings.all(len(certainties))
    assert found.count == len(certainties)
    assert [item.certainty for item in found.items] == sorted(certainties, reverse=True)[:MOST_ITEMS]
    assert found.certainty == max(certainties)


@given(st.integers(-25, 25))
def test_the_delay_of_a_copy_is_found(lag: int) -> None:
    wave = np.random.default_rng(1).standard_normal(300)
    assert int(moved_by(wave, np.roll(wave, lag), 25).argmax()) - 25 == lag


def test_every_kind_has_a_remedy() -> None:
    assert set(REMEDIES) == set(Kind)
