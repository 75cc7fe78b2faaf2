"""Whether both of two people speak, or one of them beside a face that lives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.schemas import FPS
from visavis.stages.voice.odds import both_speak, lead_in_windows

TURN = 3 * FPS
WHO_T = np.repeat([0, 1] * 4, TURN)
WINDOWS = len(WHO_T) * 10 // FPS


def voices(apart: float) -> np.ndarray:
    """[W, 4]: unit-like vectors of two voices so far apart, in the turns of WHO_T."""
    noise_WE = np.random.default_rng(0).normal(0, 0.05, (WINDOWS, 4))
    noise_WE[:, 0] += apart / 2 * np.sign(lead_in_windows(WHO_T, WINDOWS))
    return noise_WE.astype(np.float16)


def lead(nats_a_second: float) -> np.ndarray:
    """Lips that fit WHO_T so well."""
    return np.where(WHO_T == 0, 1.0, -1.0) * nats_a_second / FPS


def test_two_mouths_with_one_voice_are_no_dialogue() -> None:
    """A listener who chews in the pauses of a monologue, in whose clear lips two people would be seen."""
    assert both_speak(WHO_T, lead(9.0), voices(0.25), -2.8, 1.0).total < -2
    assert both_speak(WHO_T, lead(9.0), voices(0.95), -2.8, 1.0).total > 3


def test_an_ear_whose_voices_the_faces_share_says_nothing() -> None:
    assert both_speak(WHO_T, lead(1.0), None, 3.5, 1.0).diarizer == pytest.approx(3.5)
    assert both_speak(WHO_T, lead(1.0), None, 3.5, 0.5).diarizer == pytest.approx(0.0)
    assert both_speak(WHO_T, lead(1.0), None, -2.8, 0.5).diarizer == pytest.approx(-2.8)


def test_voices_that_the_ear_set_apart_itself_must_lie_further_apart() -> None:
    """What a diarizer cuts one voice into lies further apart than any halves of it."""
    own, others = (both_speak(WHO_T, lead(1.0), voices(0.9), 0.0, agreed).voices for agreed in (1.0, 0.6))
    assert 0 < own < others


def test_a_mouth_that_deceives_for_long_is_one_deception() -> None:
    once_T = np.where(np.arange(len(WHO_T)) < TURN, 0, 1)
    lead_T = np.where(once_T == 0, 1.0, -1.0)
    assert both_speak(once_T, lead_T, None, 0.0, 1.0).lips == pytest.approx(3.0)
    assert both_speak(WHO_T, lead(25.0), None, 0.0, 1.0).lips == pytest.approx(6.0)


def test_hidden_lips_are_outweighed_by_two_voices_that_the_ear_sets_apart() -> None:
    hidden_T = np.where(WHO_T == 0, 1.0, 0.4)  # the second one's rest in all the own turns
    found = both_speak(WHO_T, hidden_T, voices(1.05), 3.5, 1.0)
    assert found.lips == pytest.approx(-3.0)
    assert found.total > 1


def test_whoever_never_speaks_has_no_turns_and_no_voice() -> None:
    found = both_speak(np.zeros_like(WHO_T), lead(3.0), voices(0.9), 0.5, 1.0)
    assert found.lips == pytest.approx(-3.0)
    assert np.isnan(found.distance)
    assert found.voices == 0.0


@given(st.integers(0, 10**6), st.floats(0, 1.4))
def test_it_does_not_matter_who_sits_on_the_left(seed: int, apart: float) -> None:
    rng = np.random.default_rng(seed)
    lead_T, agreed = rng.normal(0, 1, len(WHO_T)), float(rng.uniform(0.5, 1))
    one = both_speak(WHO_T, lead_T, voices(apart), 1.0, agreed)
    other = both_speak(1 - WHO_T, -lead_T, voices(apart), 1.0, agreed)
    assert one == pytest.approx(other)


@given(st.floats(0, 1.1), st.floats(0, 0.2))
def test_voices_further_apart_are_more_likely_two(apart: float, more: float) -> None:
    near, far = (both_speak(WHO_T, lead(1.0), voices(x), 0.0, 1.0).voices for x in (apart, apart + more))
    assert far >= near - 0.05
