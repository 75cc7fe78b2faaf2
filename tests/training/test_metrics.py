"""Metrics, on motion whose figures are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.synthetic import SPEC, smooth
from visavis.training.accumulators import Accumulator, fit_centres
from visavis.training.metrics.correlation import flat_pcc, flat_sums, pcc, rpcc, rpcc_flat
from visavis.training.metrics.distributions import CLUSTERS, fd, kmeans, sid
from visavis.training.metrics.lags import lagged
from visavis.training.metrics.movement import jerk, var
from visavis.training.metrics.windows import columns


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


def test_an_accumulator_keeps_expression_and_pose_apart():
    truth, user = motion(6, dims=SPEC.dim), motion(7, dims=SPEC.dim)
    assert {name: part.tolist() for name, part in columns(SPEC).items()} == {
        "expression": [6, 7, 8, 9, 10, 11],
        "pose": [0, 1, 2, 3, 4, 5],
    }
    generated = truth.copy()
    generated[..., :6] = user[..., :6]
    figures = accumulated(truth, generated, user, VALID).figures()
    assert figures["rpcc_expression"] == 0
    assert figures["fd_pooled_expression"] == pytest.approx(0, abs=1e-6)
    assert figures["pcc_pose"] == pytest.approx(1)
    assert figures["rpcc_pose"] > 0.5
    assert all(isinstance(value, float) for value in figures.values())


def accumulated(truth: np.ndarray, generated: np.ndarray, user: np.ndarray, valid: np.ndarray, cuts=()) -> Accumulator:
    """An accumulator of everything, taken in batches that begin at `cuts`."""
    accumulator = Accumulator(SPEC, fit_centres(truth[valid], SPEC))
    for part in np.split(np.arange(len(truth)), cuts):
        accumulator.add(truth[part], generated[part], user[part], valid[part])
    return accumulator


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(cuts=st.sets(st.integers(1, 5)), seed=st.integers(0, 9))
def test_accumulated_metrics_are_the_metrics_however_the_windows_are_cut_into_batches(cuts: set[int], seed: int):
    truth, generated, user = (motion(seed + i, dims=SPEC.dim) for i in (10, 20, 30))
    generated = 0.5 * generated + 0.3 * user
    valid = np.random.default_rng(seed).random(truth.shape[:2]) < 0.9
    accumulator = accumulated(truth, generated, user, valid, sorted(cuts))
    for part, chosen in columns(SPEC).items():
        sides = [side[..., chosen] for side in (truth, generated, user)]
        timing = lagged(*sides[1:], valid)
        expected = {
            "pcc": pcc(*sides[1:], valid),
            "rpcc": rpcc(*sides, valid),
            "rpcc_flat": rpcc_flat(*sides, valid),
            "pcc_truth": pcc(sides[1], sides[0], valid),
            "lagged_best": timing.correlation[timing.best],
            "lagged_delay": timing.delay,
            "var": var(sides[1], valid),
            "sid": sid(sides[0][valid], sides[1][valid], CLUSTERS[part]),
            "fd_pooled": fd(sides[0][valid], sides[1][valid]),
            "jerk": jerk(sides[1], valid),
        }
        assert {name: accumulator.figures()[f"{name}_{part}"] for name in expected} == pytest.approx(
            expected, nan_ok=True
        )
    assert len(accumulator.figures()) == 2 * len(expected)


def test_flat_correlation_is_numpys():
    avatar = motion(1)
    expected = np.corrcoef(avatar[VALID].ravel(), USER[VALID].ravel())[0, 1]
    assert flat_pcc(flat_sums(avatar, USER, VALID).sum(axis=0)) == pytest.approx(expected)


def test_tallies_of_classes_add_up():
    truth, generated, user = (motion(i, dims=SPEC.dim) for i in (1, 2, 3))
    centres = fit_centres(truth[VALID], SPEC)
    whole, parts = Accumulator(SPEC, centres), [Accumulator(SPEC, centres), Accumulator(SPEC, centres)]
    whole.add(truth, generated, user, VALID)
    for part, chosen in zip(parts, (slice(0, 4), slice(4, 6)), strict=True):
        part.add(truth[chosen], generated[chosen], user[chosen], VALID[chosen])
    parts[0].merge(parts[1])
    assert parts[0].figures() == pytest.approx(whole.figures(), nan_ok=True)
    assert parts[0].errors() == pytest.approx(whole.errors())
    assert parts[0].floor() == pytest.approx(whole.floor())


@pytest.mark.slow
def test_the_noise_floor_and_the_standard_errors_are_what_chance_does():
    """Avatars that do not react: rPCC of new ones is nothing but noise, and the floor says how much to expect."""
    found: list[dict[str, float]] = []
    for seed in range(40):
        truth, generated, user = (motion(1000 * seed + i, windows=24, frames=40, dims=SPEC.dim) for i in (1, 2, 3))
        valid = np.ones(truth.shape[:2], bool)
        accumulator = accumulated(truth, generated, user, valid)
        floor = {f"floor_{name}": value for name, value in accumulator.floor().items()}
        errors = {f"error_{name}": value for name, value in accumulator.errors().items()}
        found.append(accumulator.figures() | floor | errors)
    mean = {name: float(np.mean([each[name] for each in found])) for name in found[0]}
    for part in columns(SPEC):
        # halves of n / 2 windows differ by √2 as much as two sets of n do
        assert mean[f"floor_rpcc_{part}"] == pytest.approx(np.sqrt(2) * mean[f"rpcc_{part}"], rel=0.3)
        assert mean[f"floor_rpcc_flat_{part}"] == pytest.approx(np.sqrt(2) * mean[f"rpcc_flat_{part}"], rel=0.3)
        deviation = np.std([each[f"pcc_{part}"] for each in found])
        assert mean[f"error_pcc_{part}"] == pytest.approx(deviation, rel=0.3)
    one = accumulated(
        USER[:1, :, :1].repeat(12, 2), USER[:1, :, :1].repeat(12, 2), USER[:1, :, :1].repeat(12, 2), VALID[:1]
    )
    assert one.floor() == one.errors() == {}  # nothing to compare
