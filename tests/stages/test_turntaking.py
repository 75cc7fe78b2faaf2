"""Two people who speak with each other are told from two who do not, where there is evidence enough."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.turntaking import Spans, draw_dialogue, draw_monologue, real_states, state_of
from visavis.schemas.errors import Reason, Rejected
from visavis.stages.voice.turntaking import check_dialogue, dialogue_evidence

DOUBT = 4.0


def refused(states: list[np.ndarray]) -> float:
    return float(np.mean([dialogue_evidence(state) < -DOUBT for state in states]))


def test_strangers_are_refused_and_the_message_says_why() -> None:
    rng = np.random.default_rng(0)
    state_T = state_of(draw_monologue(rng, 600), draw_monologue(rng, 600), 600)
    with pytest.raises(Rejected, match=r"each speaks whatever the other does, by \d+\.\d nats in 600 s") as error:
        check_dialogue(state_T, DOUBT)
    assert error.value.reason is Reason.NOT_A_DIALOGUE
    check_dialogue(state_T, 0)


def test_halves_of_two_long_dialogues_are_strangers() -> None:
    rng = np.random.default_rng(1)
    halves = [draw_dialogue(rng, 1200)[i % 2] for i in range(16)]
    assert refused([state_of(a, b, 1200) for a, b in zip(halves[::2], halves[1::2], strict=True)]) >= 0.6


@pytest.mark.slow
@pytest.mark.parametrize("lively", [0.0, 0.4, 0.8])
@pytest.mark.parametrize("seconds", [20, 300])
def test_dialogues_stay_however_lively(lively: float, seconds: int) -> None:
    rng = np.random.default_rng([7, seconds])
    states = [state_of(*draw_dialogue(rng, seconds, lively), seconds) for _ in range(25)]
    assert refused(states) == 0


def test_two_people_of_one_dialogue_half_a_minute_apart_are_strangers() -> None:
    rng = np.random.default_rng(3)
    states = [state_of(*draw_dialogue(rng, 900, 0.3), 900) for _ in range(8)]
    moved = [(state & 1) | (np.roll(state, 30 * 25) & 2) for state in states]
    assert refused(states) == 0
    lost = [dialogue_evidence(a) - dialogue_evidence(b) for a, b in zip(states, moved, strict=True)]
    assert np.median(lost) > 5 * DOUBT
    assert refused(moved) >= 0.4


def test_who_only_listens_is_no_stranger() -> None:
    rng = np.random.default_rng(4)
    spoken = draw_monologue(rng, 600)
    silent: Spans = []
    nodding = [(end - 0.2, end + 0.4) for _, end in spoken[::4]]
    assert dialogue_evidence(state_of(spoken, silent, 600)) == 0
    assert dialogue_evidence(state_of(silent, silent, 600)) == 0
    assert dialogue_evidence(state_of(spoken, nodding, 600)) > -1


@given(
    edges=st.lists(st.floats(0.1, 6.0), min_size=2, max_size=6),
    seed=st.integers(0, 99),
)
def test_a_few_turns_are_no_evidence_against_a_dialogue(edges: list[float], seed: int) -> None:
    """Clips of 8 to 20 s with some turns of any length, one after the other, with gaps or overlaps at each change."""
    rng, at = np.random.default_rng(seed), 0.0
    said: tuple[Spans, Spans] = ([], [])
    for i, length in enumerate(edges):
        said[i % 2].append((at, at + length))
        at = max(at + 0.1, at + length + rng.normal(0.2, 0.5))
    state_T = state_of(*said, max(8.0, at + 1))
    assert dialogue_evidence(state_T) > -DOUBT


@given(bits=st.lists(st.integers(0, 15), max_size=200))
def test_any_states_have_evidence_that_depends_on_nobodys_number(bits: list[int]) -> None:
    state_T = np.repeat(np.array(bits, np.uint8), 7)
    turned_T = (state_T & 1) << 1 | (state_T >> 1 & 1)
    evidence = dialogue_evidence(state_T)
    assert np.isfinite(evidence)
    assert evidence == pytest.approx(dialogue_evidence(turned_T))
    assert evidence == dialogue_evidence(state_T & 3)  # back-channels take no turn


def test_real_exchanges_stay(shared_media: Path) -> None:
    states = real_states(shared_media)
    assert len(states) >= 19
    assert all(dialogue_evidence(state) > -DOUBT / 2 for state in states.values())
