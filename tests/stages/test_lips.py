"""Whose lips move while somebody is heard."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d

from schemas import FPS
from schemas.rows import Turn
from stages.audio import speech_state
from stages.lips import decisiveness, fit_lips, lip_evidence, lip_motion, reassigned, unseen_share

FRAMES = 40 * FPS
TURNS = tuple(Turn(speaker=i % 2, start=4.0 * i + 0.2, end=4.0 * i + 3.8) for i in range(10))


def mouth(spoken_T: np.ndarray, seed: int, restless: float = 0.0) -> np.ndarray:
    """Opening of lips that talk in the given frames, and move `restless` times as much in all others."""
    rng = np.random.default_rng(seed)
    syllables_T = np.abs(gaussian_filter1d(rng.normal(size=len(spoken_T)), 1.5))
    return 0.1 * syllables_T * np.where(spoken_T, 1.0, restless) + rng.normal(0, 0.001, len(spoken_T))


def evidence(turns: tuple[Turn, ...], lips_of: tuple[Turn, ...] = TURNS, *, restless: float = 0.0) -> np.ndarray:
    """[P, T] for people whose lips move in the turns `lips_of` while `turns` are what is heard."""
    state_T = speech_state(lips_of, FRAMES)
    motion_PT = np.stack([lip_motion(mouth((state_T >> p & 1) > 0, p, restless)) for p in (0, 1)])
    return lip_evidence(motion_PT, fit_lips(motion_PT, speech_state(turns, FRAMES)))


def agreement(turns: tuple[Turn, ...], others: tuple[Turn, ...]) -> float:
    """Share of the time in which exactly one is heard that both give to the same person."""
    one_T, other_T = speech_state(turns, FRAMES), speech_state(others, FRAMES)
    alone_T = np.isin(one_T, (1, 2))
    return float((one_T == other_T)[alone_T].mean())


def test_lips_that_agree_with_the_ear_change_nothing() -> None:
    assert reassigned(TURNS, evidence(TURNS)) == (TURNS, 0.0)


@given(st.lists(st.booleans(), min_size=10, max_size=10))
@settings(max_examples=20, deadline=None)
def test_whatever_turns_the_ear_confused_the_lips_set_right(flipped: list[bool]) -> None:
    confused = tuple(
        turn.model_copy(update={"speaker": turn.speaker ^ flip}) for turn, flip in zip(TURNS, flipped, strict=True)
    )
    found = reassigned(confused, evidence(confused))
    assert agreement(TURNS, found.turns) > 0.95
    assert found.changed == pytest.approx(3.6 * sum(flipped), abs=1.0)


def test_an_interjection_inside_of_a_turn_is_taken_out() -> None:
    heard = (Turn(speaker=0, start=1, end=12), Turn(speaker=1, start=14, end=30))
    spoken = (
        Turn(speaker=0, start=1, end=6),
        Turn(speaker=1, start=6, end=7.2),
        Turn(speaker=0, start=7.2, end=12),
        Turn(speaker=1, start=14, end=30),
    )
    found = reassigned(heard, evidence(heard, spoken)).turns
    assert [turn.speaker for turn in found] == [0, 1, 0, 1]
    assert found[1].start == pytest.approx(6, abs=0.25)
    assert found[1].end == pytest.approx(7.2, abs=0.25)


def test_restless_lips_leave_the_ear_alone() -> None:
    assert agreement(TURNS, reassigned(TURNS, evidence(TURNS, restless=0.9)).turns) > 0.9


def test_overlap_is_kept() -> None:
    heard = (Turn(speaker=0, start=1, end=10), Turn(speaker=1, start=8, end=20))
    assert reassigned(heard, evidence(heard, heard)).turns == heard


def test_lips_that_take_turns_are_decisive_and_those_of_two_talkers_are_not() -> None:
    state_T = speech_state(TURNS, FRAMES)
    both_talk = tuple(Turn(speaker=p, start=0, end=40) for p in (0, 1))
    assert decisiveness(evidence(TURNS), state_T) > 20
    assert decisiveness(evidence(TURNS, both_talk), state_T) < 10


def test_a_voice_from_elsewhere_moves_nobodys_lips() -> None:
    narrated = tuple(turn for turn in TURNS if turn.speaker == 0)
    found = evidence(TURNS, narrated)
    assert unseen_share(TURNS, found) == pytest.approx(0.5, abs=0.05)
    assert unseen_share(TURNS, found, 0) < 0.1
    assert unseen_share(TURNS, found, 1) > 0.9
    assert unseen_share(narrated, found) < 0.1


def test_a_listener_who_hums_with_closed_lips_is_not_missing() -> None:
    hums = (Turn(speaker=0, start=1, end=20), Turn(speaker=1, start=22, end=22.5), Turn(speaker=1, start=25, end=25.6))
    found = evidence(hums, hums[:1])
    assert unseen_share(hums, found, 1) == 0.0


def test_lips_out_of_sight_say_nothing() -> None:
    motion_PT = np.full((2, FRAMES), np.nan)
    found = lip_evidence(motion_PT, fit_lips(motion_PT, speech_state(TURNS, FRAMES)))
    assert not found.any()
    assert reassigned(TURNS, found) == (TURNS, 0.0)
    assert unseen_share(TURNS, found) == 0.0


@st.composite
def any_turns(draw: st.DrawFn) -> tuple[Turn, ...]:
    spans = draw(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 39), st.floats(0.05, 6)), max_size=12))
    turns = (Turn(speaker=s, start=start, end=min(40.0, start + length)) for s, start, length in spans)
    return tuple(sorted(turns, key=lambda t: (t.start, t.speaker)))


@given(any_turns(), st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_somebody_is_heard_just_when_somebody_was(turns: tuple[Turn, ...], seed: int) -> None:
    noise_PT = np.random.default_rng(seed).normal(0, 1, (2, FRAMES))
    found = reassigned(turns, gaussian_filter1d(noise_PT, 5, axis=1)).turns
    assert list(found) == sorted(found, key=lambda t: (t.start, t.speaker))
    for person in (0, 1):
        assert all(one.end < other.start for one, other in pairwise(t for t in found if t.speaker == person))
    np.testing.assert_array_equal(covered(found), covered(turns))


def covered(turns: tuple[Turn, ...]) -> np.ndarray:
    """The edges of the time in which anybody is heard."""
    edges: list[float] = []
    for turn in sorted(turns, key=lambda t: t.start):
        if edges and turn.start <= edges[-1]:
            edges[-1] = max(edges[-1], turn.end)
        else:
            edges += [turn.start, turn.end]
    return np.array(edges)
