"""How late a voice is against the lips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d

from tests.stages.test_faces import real_faces
from visavis.schemas import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.stages.face.lip_sync import Offset, drift_of, file_offset, lag_of
from visavis.stages.face.people import scenes_of
from visavis.stages.media.audio import read_audio

LEAD = 0.020  # what the lips are ahead by nature


def mouth(opening_T: np.ndarray) -> np.ndarray:
    """Lips whose outer edges move as the inner ones do, and tremble."""
    outer_T = opening_T + 0.2 + np.random.default_rng(9).normal(0, 0.002, len(opening_T))
    return np.stack([opening_T, outer_T], axis=1)


def voice_offset(opening_T: np.ndarray, audio_N: np.ndarray, speaks_T: np.ndarray) -> Offset | None:
    lag = lag_of(mouth(opening_T), audio_N, speaks_T)
    return lag and file_offset([lag])


def talk(seconds: float, *, late: float = LEAD, noise: float = 0.5, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Lips that open with syllables, a noise that is as loud as they are open, and when it is to be heard."""
    rng = np.random.default_rng(seed)
    frames = round(seconds * FPS)
    turn_T = np.arange(frames) % 100 < 60  # speaks 2.4 s of 4
    syllables_T = np.abs(gaussian_filter1d(rng.normal(size=frames), 1.5)) * turn_T
    opening_T = 0.1 * (syllables_T + noise * syllables_T.std() * gaussian_filter1d(rng.normal(size=frames), 1.0))
    samples = np.arange(frames * SAMPLES_PER_FRAME)
    loud_N = np.interp(samples, np.arange(frames) * SAMPLES_PER_FRAME, syllables_T)
    audio_N = (loud_N * rng.normal(size=len(loud_N))).astype(np.float32)
    return opening_T, shifted(audio_N, round(late * SAMPLE_RATE)), shifted(turn_T, round(late * FPS))


def shifted(signal: np.ndarray, by: int) -> np.ndarray:
    moved = np.zeros_like(signal)
    moved[max(0, by) : len(signal) + min(0, by)] = signal[max(0, -by) : len(signal) - max(0, by)]
    return moved


@pytest.mark.slow
@given(late=st.integers(-500, 500))
@settings(max_examples=25, deadline=None)
def test_the_offset_is_found(late: int) -> None:
    found = voice_offset(*talk(40, late=LEAD + late / 1000))
    assert found is not None
    assert found.sure
    assert found.ms == pytest.approx(late, abs=25)


def test_more_speech_is_more_evidence() -> None:
    short, long = voice_offset(*talk(30, noise=4)), voice_offset(*talk(240, noise=4))
    assert short is not None
    assert long is not None
    assert long.confidence > 3 * short.confidence
    assert long.sure
    assert long.ms == pytest.approx(0, abs=25)


def test_lips_that_are_hidden_now_and_then_do_no_harm() -> None:
    opening_T, audio_N, speaks_T = talk(60, late=LEAD + 0.2)
    opening_T[200:400] = opening_T[900:905] = np.nan
    found = voice_offset(opening_T, audio_N, speaks_T)
    assert found is not None
    assert found.sure
    assert found.ms == pytest.approx(200, abs=25)


@pytest.mark.slow
def test_somebody_elses_lips_tell_nothing() -> None:
    _, audio_N, speaks_T = talk(120)
    for seed in range(1, 11):
        found = voice_offset(talk(120, seed=seed)[0], audio_N, speaks_T)
        assert found is not None
        assert not found.sure


def test_too_little_speech_is_no_evidence() -> None:
    opening_T, audio_N, speaks_T = talk(60)
    assert voice_offset(opening_T, audio_N, speaks_T & (np.arange(len(speaks_T)) < 45)) is None
    assert voice_offset(np.full_like(opening_T, np.nan), audio_N, speaks_T) is None


def test_still_lips_and_silence_are_no_evidence() -> None:
    opening_T, audio_N, speaks_T = talk(60)
    for still_T, silent_N in ((np.full_like(opening_T, 0.1), audio_N), (opening_T, np.zeros_like(audio_N))):
        found = voice_offset(still_T, silent_N, speaks_T)
        assert found is None or not found.sure


def drift(error: float, *, seed: int = 0, lips: int = 0) -> float | None:
    """Of 90 s whose sound's clock is wrong by this share: a recording that both grow out of sync in."""
    _, audio_N, speaks_T = talk(90, seed=seed)
    late_N = np.interp(np.arange(len(audio_N)) * (1 - error), np.arange(len(audio_N)), audio_N).astype(np.float32)
    frames_T = (np.arange(len(speaks_T)) * (1 - error)).astype(int).clip(0, len(speaks_T) - 1)
    return drift_of([(mouth(talk(90, seed=lips)[0]), speaks_T[frames_T])], late_N)


def test_a_clock_that_drifts_is_told() -> None:
    """Between the middles of the first and of the last third lie 60 s."""
    for error in (-0.006, -0.003, 0.003, 0.006):
        assert drift(error) == pytest.approx(60_000 * error, rel=0.25)


def test_a_clock_that_is_right_does_not_drift() -> None:
    for seed in range(4):
        assert drift(0.0, seed=seed, lips=seed) == pytest.approx(0, abs=25)


@pytest.mark.slow
def test_somebody_elses_lips_tell_of_no_drift() -> None:
    """They begin and end with the turns, and are otherwise somewhere else."""
    found = [drift(0.0, lips=lips) for lips in range(1, 9)]
    assert all(late is None or abs(late) < 120 for late in found)


@pytest.mark.nightly("a real film, which is not part of a clone")
def test_a_real_guest_of_an_interview(shared_media: Path) -> None:
    path = shared_media / "conversation" / "interview.mp4"
    faces = real_faces(path)
    frames = faces[-1].piece.last
    guest = max(scenes_of(faces, 1, frames)[0].people, key=lambda person: float(person.place[0][0]))
    audio_N, time_T = read_audio(str(path), frames), np.arange(frames) / FPS
    speaks_T = (time_T >= 8.0) & (time_T < 15.6)
    for late in (-0.48, -0.24, -0.12, 0.0, 0.12, 0.24, 0.48):
        heard_T = shifted(speaks_T, round(late * FPS))
        lag = lag_of(guest.mouth_T2, shifted(audio_N, round(late * SAMPLE_RATE)), heard_T)
        found = lag and file_offset([lag])
        assert found is not None
        assert found.ms == pytest.approx(1000 * late, abs=40)
        assert found.sure
