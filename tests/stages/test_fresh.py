"""Fresh pictures: repeats are told from people who keep still, by the pixels of a face alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stages.test_faces import LOOK, face
from visavis.stages.face.freshness import change_of, harmful, not_frozen, repeated
from visavis.stages.faces import Association

RNG = np.random.default_rng(0)
ALIVE = 3 + 2 * np.sin(np.arange(250) / 6) + RNG.random(250)  # grey levels a frame, as of somebody who talks
STILL = 0.3 + 0.1 * RNG.random(250)  # nothing but the camera's noise
BOX = np.array([10, 10, 40, 40])


def shown(change_T: np.ndarray, rate: float, left_over: float = 0.0) -> np.ndarray:
    """The changes between grid frames where a camera makes `rate` pictures a second; repeats change by `left_over`."""
    taken = np.floor(np.arange(len(change_T)) * rate / 25 + 1e-9)
    new = np.diff(taken, prepend=-1) > 0
    total = np.cumsum(change_T)
    at = np.flatnonzero(new)
    between = np.full(len(change_T), left_over)
    between[at] = np.diff(total[at], prepend=0)
    return between


@pytest.mark.parametrize("rate", [6, 10, 12, 15, 20, 24])
@pytest.mark.parametrize("left_over", [0.0, 0.1], ids=["by time stamp", "encoded anew"])
def test_repeats_are_counted(rate: float, left_over: float) -> None:
    share = 1 - repeated(shown(ALIVE, rate, left_over)).mean()
    assert share == pytest.approx(rate / 25, abs=0.03)


def test_who_talks_and_who_keeps_still_is_always_new() -> None:
    for change_T in (ALIVE, STILL, np.concatenate([ALIVE, STILL, ALIVE])):
        assert repeated(change_T).mean() < 0.01


def test_a_freeze_is_one_however_long() -> None:
    for length in (13, 100, 200):
        change_T = ALIVE.copy()
        change_T[20 : 20 + length] = 0.02
        assert repeated(change_T).nonzero()[0].tolist() == list(range(20, 20 + length))


def test_what_nobody_knows_is_no_repeat() -> None:
    for frames in (0, 1, 12, 50, 130, 250):
        assert not repeated(np.full(frames, math.nan)).any()
        assert not repeated(ALIVE[:frames]).any()


def test_20_pictures_a_second_and_more_lose_nothing_and_15_lose_every_repeat() -> None:
    film, webcam, slow, slower = (repeated(shown(ALIVE, rate)) for rate in (24, 20, 15, 12))
    assert film.sum() == pytest.approx(10, abs=1)
    assert not harmful(film).any()
    assert not harmful(webcam).any()
    for repeated_T in (slow, slower):
        assert (harmful(repeated_T) == repeated_T)[10:-10].all()


def test_a_call_that_freezes_is_good_where_it_runs_and_a_slow_camera_is_slow_throughout() -> None:
    frozen_T, slow_T = ALIVE.copy(), shown(ALIVE, 6)
    frozen_T[50:200] = 0
    fresh_T = ~repeated(frozen_T)
    assert fresh_T.mean() == 0.4
    assert fresh_T[not_frozen(fresh_T)].all()
    assert not_frozen(~repeated(slow_T)).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 3), st.integers(1, 40))
def test_the_change_of_a_face_is_that_of_its_pixels(noise: int, moved: int) -> None:
    before = np.zeros((50, 60, 3), np.uint8)
    now = before.copy()
    now[:, :moved] += np.uint8(noise)
    inside = np.clip(moved - 10, 0, 30) / 30
    assert change_of(now, before, BOX) == pytest.approx(noise * inside, abs=1e-6)
    assert change_of(now, now, BOX) == 0
    assert math.isnan(change_of(now, None, BOX))
    assert math.isnan(change_of(now, before[:40], BOX))
    assert math.isnan(change_of(now, before.copy(), np.array([90, 90, 95, 95])))  # out of the picture


def test_a_track_says_which_frames_are_new_and_leaves_out_the_others() -> None:
    change_T = shown(ALIVE, 12)
    association = Association(10)
    for n, change in enumerate(change_T):
        association.add(n, np.array([face(200)]), [LOOK], None, [float(change)])
    [track] = association.tracks(1)
    assert track.fresh is not None
    assert track.fresh.mean() == pytest.approx(0.48, abs=0.03)
    np.testing.assert_array_equal(track.valid, track.fresh)
    assert np.isnan(track.landmarks[~track.fresh]).all()


@pytest.mark.parametrize("rate", [10, 12, 15])
def test_a_beat_is_heard_where_no_single_repeat_is_sure(rate: int) -> None:
    """An encoder that lets repeats change by half of what a frame usually does, more or less."""
    noise_T = np.exp(0.4 * np.random.default_rng(rate).normal(size=250))
    held_T = shown(ALIVE, rate)
    change_T = np.where(held_T > 0, held_T, 0.5 * ALIVE) * noise_T
    np.testing.assert_array_equal(repeated(change_T), held_T == 0)


def test_uneven_motion_has_no_beat() -> None:
    """Film of 30 pictures a second of which every sixth was dropped, and a nervous encoder."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        change_T = ALIVE * np.where(np.arange(250) % 5 == 0, 2, 1) * np.exp(0.5 * rng.normal(size=250))
        assert not harmful(repeated(change_T)).any()
