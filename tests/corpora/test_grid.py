"""From a corpus' own rate to ours: by time, along straight lines, and rotations along rotations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from visavis.schemas.errors import Rejected
from visavis.stages.corpora.grid import between, rate_of, turned

RATES = st.sampled_from([25.0, 30.0, 50.0, 60.0])
ANGLE = st.floats(-3, 3)


@given(RATES, st.integers(2, 200), st.floats(-50, 50), st.floats(-5, 5))
def test_what_moves_evenly_is_where_it_is_at_each_moment(rate: float, frames: int, start: float, speed: float) -> None:
    time_S = (np.arange(frames) + 0.5) / rate
    grid = between(frames, rate)
    time_T = (np.arange(len(grid.share_T)) + 0.5) / 25
    inside = (time_T >= time_S[0]) & (time_T <= time_S[-1])
    made = grid.straight((start + speed * time_S)[:, None])[:, 0]
    np.testing.assert_allclose(made[inside], (start + speed * time_T)[inside], atol=1e-9)
    assert abs(len(time_T) / 25 - frames / rate) < 1 / 25 + 1e-9


@given(RATES, st.tuples(ANGLE, ANGLE, ANGLE), st.tuples(ANGLE, ANGLE, ANGLE))
def test_a_head_that_turns_evenly_is_turned_as_it_is_at_each_moment(
    rate: float, first: tuple[float, ...], axis: tuple[float, ...]
) -> None:
    """About any axis, also past ±90° of yaw, where angles are not those that a rotation is written with again."""
    time_S = (np.arange(40) + 0.5) / rate
    way = Rotation.from_euler("xyz", first)
    given_S3 = np.stack([(Rotation.from_rotvec(t * np.array(axis)) * way).as_euler("xyz") for t in time_S])
    grid = between(len(given_S3), rate)
    time_T = (np.arange(len(grid.share_T)) + 0.5) / 25
    inside = (time_T >= time_S[0]) & (time_T <= time_S[-1])
    made = Rotation.from_euler("xyz", turned(given_S3, grid)[inside])
    true = Rotation.concatenate([Rotation.from_rotvec(t * np.array(axis)) * way for t in time_T[inside]])
    assert (made * true.inv()).magnitude().max(initial=0) < 1e-6


@given(RATES, st.floats(0.2, 3))
def test_angles_go_on_from_those_that_are_given(rate: float, speed: float) -> None:
    """A head that turns about one axis by more than a turn, whose angle is counted on, does not jump back."""
    angles_S3 = np.zeros((120, 3))
    for column in range(3):
        angles = angles_S3.copy()
        angles[:, column] = np.arange(120) * speed / rate
        made = turned(angles, between(120, rate))
        np.testing.assert_allclose(made, between(120, rate).straight(angles), atol=1e-6)


def test_frames_at_our_rate_stay_as_they_are() -> None:
    angles = np.random.default_rng(0).uniform(-4, 4, (50, 3))
    np.testing.assert_array_equal(turned(angles, between(50, 25.0)), angles)
    np.testing.assert_array_equal(turned(angles[:1], between(1, 25.0)), angles[:1])


def test_the_length_of_the_sound_tells_the_rate() -> None:
    rates = (24.0, 25.0, 30.0, 50.0, 60.0)
    assert [rate_of(frames, 4.0, "x", rates, 0.02, 3) for frames in (100, 118, 122, 200, 240)] == [25, 30, 30, 50, 60]
    assert rate_of(480, 20.0, "x", rates, 0.02, 3) == 24  # a film's 24 are not 25 that lack 0.8 s
    for frames, seconds in ((160, 4.0), (0, 4.0), (100, 0.0), (106, 4.0)):
        with pytest.raises(Rejected, match="fit no rate"):
            rate_of(frames, seconds, "x", rates, 0.02, 3)
