"""Whose turn it is, by lips, diarizer and voices together."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d

from tests.stages.test_lips import FRAMES, TURNS, evidence
from visavis.schemas import FPS
from visavis.schemas.rows import Turn
from visavis.stages.media.audio import speech_state
from visavis.stages.voice.attribution import attributed, best_path, labels_heard


def whose(turns: tuple[Turn, ...], evidence_PT: np.ndarray) -> tuple[tuple[Turn, ...], float]:
    found = attributed(turns, evidence_PT)
    return found.turns, found.changed


def swapped(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    return tuple(turn.model_copy(update={"speaker": 1 - turn.speaker}) for turn in turns)


def voices(turns: tuple[Turn, ...], apart: float) -> np.ndarray:
    """[W, 4]: noise around two means, blurred over 1 s as an encoder's window blurs it; NaN in the pauses."""
    state_W = speech_state(turns, FRAMES)[np.arange(FRAMES * 10 // FPS) * FPS // 10].astype(np.int64)
    lead_W = np.where(state_W == 1, 1.0, np.where(state_W == 2, -1.0, 0.0))
    noise_WE = np.random.default_rng(0).normal(size=(len(state_W), 4))
    mixed_WE = gaussian_filter1d(noise_WE + apart * lead_W[:, None], 2.5, axis=0)
    mixed_WE[state_W == 0] = np.nan
    return mixed_WE.astype(np.float16)


def agreement(turns: tuple[Turn, ...], others: tuple[Turn, ...]) -> float:
    """Share of the time in which exactly one is heard that both give to the same person."""
    one_T, other_T = speech_state(turns, FRAMES), speech_state(others, FRAMES)
    alone_T = np.isin(one_T, (1, 2))
    return float((one_T == other_T)[alone_T].mean())


def test_one_label_for_all_is_told_apart_by_lips() -> None:
    one = tuple(turn.model_copy(update={"speaker": 0}) for turn in TURNS)
    assert agreement(TURNS, attributed(one, evidence(one), believed=1).turns) > 0.95


def test_a_third_label_goes_to_whoever_moves_the_lips() -> None:
    three = tuple(turn.model_copy(update={"speaker": i % 3}) for i, turn in enumerate(TURNS))
    assert agreement(TURNS, attributed(three, evidence(three), believed=3).turns) > 0.95


def test_turns_with_hidden_lips_go_by_the_voice_that_was_learned_from_the_others() -> None:
    one = tuple(turn.model_copy(update={"speaker": 0}) for turn in TURNS)
    seen_PT = evidence(one)
    seen_PT[:, 24 * FPS :] = 0.0  # a hand before each mouth
    known = attributed(one, seen_PT, voices(TURNS, 1.5), believed=1)
    assert agreement(TURNS, known.turns) > 0.95
    assert agreement(TURNS, attributed(one, seen_PT, None, believed=1).turns) < 0.9


def test_lips_that_chew_through_turns_teach_no_wrong_voices_to_an_ear_that_is_right() -> None:
    chewed = tuple(turn.model_copy(update={"speaker": turn.speaker ^ (i in (2, 3, 6))}) for i, turn in enumerate(TURNS))
    deceived = attributed(TURNS, 0.13 * evidence(TURNS, chewed))
    known = attributed(TURNS, 0.13 * evidence(TURNS, chewed), voices(TURNS, 1.0))
    assert agreement(TURNS, known.turns) > 0.97 > 0.9 > agreement(TURNS, deceived.turns)


def test_voices_that_do_not_differ_change_nothing() -> None:
    found = attributed(TURNS, evidence(TURNS), voices(TURNS, 0.0))
    assert found.turns == TURNS
    assert found.odds.voices < 0


def test_whoever_has_no_turn_has_no_evidence() -> None:
    monologue = tuple(turn for turn in TURNS if turn.speaker == 0)
    cut = tuple(turn.model_copy(update={"speaker": i % 2}) for i, turn in enumerate(monologue))
    found = attributed(cut, evidence(cut, monologue), believed=1)
    assert {turn.speaker for turn in found.turns} == {0}
    assert found.nats[0] > 50 > 1 > found.nats[1]


@given(st.lists(st.tuples(*[st.floats(-3, 3)] * 3), min_size=1, max_size=6), st.floats(0, 4))
def test_the_best_path_is_found(score: list[tuple[float, float, float]], change: float) -> None:
    score_TS = np.array(score)
    frames = len(score_TS)

    def worth(path: tuple[int, ...]) -> float:
        return sum(score_TS[t, s] for t, s in enumerate(path)) - change * sum(a != b for a, b in pairwise(path))

    found = best_path(score_TS, np.full(frames, change))
    assert worth(tuple(found.tolist())) == pytest.approx(max(map(worth, product(range(3), repeat=frames))), abs=1e-9)


def test_a_label_fills_the_frames_that_it_fills_by_half() -> None:
    heard_KT = labels_heard((Turn(speaker=1, start=0.02, end=0.1), Turn(speaker=0, start=0.09, end=0.2)), 6)
    assert heard_KT.astype(int).tolist() == [[0, 0, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]]


def test_lips_that_agree_with_the_ear_change_nothing() -> None:
    assert whose(TURNS, evidence(TURNS)) == (TURNS, 0.0)


@given(st.lists(st.booleans(), min_size=10, max_size=10))
@settings(max_examples=20, deadline=None)
def test_whatever_turns_the_ear_confused_the_lips_set_right(flipped: list[bool]) -> None:
    confused = tuple(
        turn.model_copy(update={"speaker": turn.speaker ^ flip}) for turn, flip in zip(TURNS, flipped, strict=True)
    )
    found = attributed(confused, evidence(confused))
    assert agreement(TURNS, found.turns) > 0.95
    assert found.changed == pytest.approx(3.6 * min(sum(flipped), 10 - sum(flipped)), abs=1.0)


def test_an_interjection_inside_of_a_turn_is_taken_out() -> None:
    heard = (Turn(speaker=0, start=1, end=12), Turn(speaker=1, start=14, end=30))
    spoken = (
        Turn(speaker=0, start=1, end=6),
        Turn(speaker=1, start=6, end=7.2),
        Turn(speaker=0, start=7.2, end=12),
        Turn(speaker=1, start=14, end=30),
    )
    found = attributed(heard, evidence(heard, spoken)).turns
    assert [turn.speaker for turn in found] == [0, 1, 0, 1]
    assert found[1].start == pytest.approx(6, abs=0.25)
    assert found[1].end == pytest.approx(7.2, abs=0.25)


def test_restless_lips_leave_the_ear_alone() -> None:
    assert agreement(TURNS, attributed(TURNS, evidence(TURNS, restless=0.9)).turns) > 0.85


def test_overlap_is_kept() -> None:
    heard = (Turn(speaker=0, start=1, end=10), Turn(speaker=1, start=8, end=20))
    assert attributed(heard, evidence(heard, heard)).turns == heard


def test_without_lips_the_ear_decides() -> None:
    assert whose(TURNS, np.zeros((2, FRAMES))) in ((TURNS, 0.0), (swapped(TURNS), 0.0))


@st.composite
def any_turns(draw: st.DrawFn) -> tuple[Turn, ...]:
    spans = draw(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 39), st.floats(0.05, 6)), max_size=12))
    turns = (Turn(speaker=s, start=start, end=min(40.0, start + length)) for s, start, length in spans)
    return tuple(sorted(turns, key=lambda t: (t.start, t.speaker)))


@pytest.mark.slow
@given(any_turns(), st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_somebody_is_heard_just_when_somebody_was(turns: tuple[Turn, ...], seed: int) -> None:
    noise_PT = np.random.default_rng(seed).normal(0, 1, (2, FRAMES))
    found = attributed(turns, gaussian_filter1d(noise_PT, 5, axis=1)).turns
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
