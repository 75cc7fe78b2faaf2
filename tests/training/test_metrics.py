"""Metrics, on motion whose figures are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.synthetic import SPEC, smooth
from training.metrics import columns, compare, fd, jerk, kmeans, lagged, pcc, rpcc, rpcc_flat, sid, var


def motion(seed: int, windows: int = 6, frames: int = 75, dims: int = 4) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.stack([np.stack([smooth(random, frames) for _ in range(dims)], axis=1) for _ in range(windows)])


USER = motion(0)
VALID = np.ones(USER.shape[:2], bool)


def test_pcc_is_numpys_correlation_averaged():
    avatar = motion(1)
    expected = np.mean(
        [np.corrcoef(avatar[w, :, d], USER[w, :, d])[0, 1] for w in range(len(USER)) for d in range(USER.shape[2])]
    )
    assert pcc(avatar, USER, VALID) == pytest.approx(expected)
    assert pcc(3 * USER + 1, USER, VALID) == pytest.approx(1)
    assert pcc(-USER, USER, VALID) == pytest.approx(-1)


def test_invalid_frames_do_not_count():
    avatar, valid = motion(1), VALID.copy()
    valid[:, 20:30] = False
    broken = avatar.copy()
    broken[:, 20:30] = 1000
    for metric in (lambda a: pcc(a, USER, valid), lambda a: var(a, valid), lambda a: jerk(a, valid)):
        assert metric(avatar) == pytest.approx(metric(broken))
    assert lagged(avatar, USER, valid).correlation == pytest.approx(lagged(broken, USER, valid).correlation)


def test_no_motion_is_no_correlation():
    still = np.zeros_like(USER)
    assert pcc(still, USER, VALID) == 0
    assert rpcc(USER, still, USER, VALID) == pytest.approx(1)
    assert (var(still, VALID), jerk(still, VALID)) == (0, 0)


def test_rpcc_variants_differ_and_are_zero_for_the_truth():
    offsets = 5 * np.arange(4)  # between dimensions: all that the flat variant sees
    truth, generated, user = 0.5 * USER + motion(2) + offsets, motion(3) + offsets, USER + offsets
    assert rpcc(truth, truth, user, VALID) == rpcc_flat(truth, truth, user, VALID) == 0
    assert rpcc(truth, generated, user, VALID) > 0.2
    assert rpcc_flat(truth, generated, user, VALID) < 0.02


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 50))
def test_lagged_correlation_finds_the_delay(delay: int):
    user = motion(4, frames=150)
    avatar = np.roll(user, delay, axis=1) + 0.2 * motion(5, frames=150)
    found = lagged(avatar, user, np.ones(user.shape[:2], bool))
    assert found.best == delay
    assert found.delay == delay / 25
    assert found.correlation[delay] > 0.9


def test_short_windows_limit_the_lag():
    assert len(lagged(USER[:, :30], USER[:, :30], VALID[:, :30]).correlation) == 21


def test_jerk_of_a_cubic_is_its_third_derivative():
    seconds = np.arange(50) / 25
    assert jerk((seconds**3)[None, :, None], np.ones((1, 50), bool)) == pytest.approx(6)


def test_frechet_distance_of_gaussians():
    random = np.random.default_rng(0)
    one = random.standard_normal((20_000, 3))
    assert fd(one, one) == pytest.approx(0, abs=1e-9)
    assert fd(one, one + [1, 0, 2]) == pytest.approx(5)
    assert fd(one, 3 * one) == pytest.approx(3 * 4, rel=0.05)  # per dimension (1 − 3)²


def test_sid_is_the_entropy_over_clusters():
    corners = np.array([[0.0, 0], [10, 0], [0, 10], [10, 10]])
    truth = np.repeat(corners, 25, axis=0)
    assert sid(truth, truth, 4) == pytest.approx(2)
    assert sid(truth, truth[:50], 4) == pytest.approx(1)
    assert sid(truth, truth[:25], 4) == pytest.approx(0)
    assert len(kmeans(truth, 9, seed=0)) == 4  # no more clusters than points that differ


def test_compare_keeps_expression_and_pose_apart():
    truth, user = motion(6, dims=SPEC.dim), motion(7, dims=SPEC.dim)
    assert {name: part.tolist() for name, part in columns(SPEC).items()} == {
        "expression": [6, 7, 8, 9, 10, 11],
        "pose": [0, 1, 2, 3, 4, 5],
    }
    generated = truth.copy()
    generated[..., :6] = user[..., :6]
    figures = compare(truth, generated, user, VALID, SPEC)
    assert figures["rpcc_expression"] == 0
    assert figures["fd_expression"] == pytest.approx(0, abs=1e-6)
    assert figures["pcc_pose"] == pytest.approx(1)
    assert figures["rpcc_pose"] > 0.5
    assert all(isinstance(value, float) for value in figures.values())
