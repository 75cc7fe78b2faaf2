"""Figures of what cannot be measured: not defined, never 0 by accident, never a warning or an exception."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.scale import NIGHTLY
from tests.training.synthetic import DIM, SPEC, smooth, write_dataset
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import DatasetError, RunFailed, UsageError
from visavis.schemas.plain import to_json
from visavis.schemas.sample import decode_array, encode_array
from visavis.training.accumulators import Accumulator, fit_centres
from visavis.training.checkpoint import save_checkpoint
from visavis.training.evaluate import evaluate
from visavis.training.generate import generate
from visavis.training.log import MetricsLog
from visavis.training.metrics.correlation import pcc, rpcc, rpcc_flat, window_pcc
from visavis.training.metrics.distributions import entropy, fd, histogram, kmeans, sid
from visavis.training.metrics.lags import lagged
from visavis.training.metrics.movement import jerk, var
from visavis.training.metrics.windows import broken
from visavis.training.process_group import Processes

numbers = st.floats(width=32) | st.sampled_from([0.0, 1.0, math.nan, math.inf, -math.inf, 3e38])


@st.composite
def sides(draw: st.DrawFn, count: int, dims: int | None = None) -> tuple[list[np.ndarray], np.ndarray]:
    """Some sides of windows and which of their frames are valid: of any size, none included, of any numbers."""
    windows, frames = draw(st.integers(0, 3)), draw(st.integers(0, 14))
    dims = draw(st.integers(1, 3)) if dims is None else dims
    shape = (windows, frames, dims)
    arrays = [
        draw(hnp.arrays(np.float32, shape, elements=numbers, fill=st.sampled_from([0.0, 1.5]))) for _ in range(count)
    ]
    valid = draw(hnp.arrays(bool, shape[:2]) | st.sampled_from([np.ones(shape[:2], bool), np.zeros(shape[:2], bool)]))
    return arrays, valid


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


METRICS: dict[str, Callable[..., float]] = {
    "pcc": lambda t, g, u, v: pcc(g, u, v),
    "rpcc": rpcc,
    "rpcc_flat": rpcc_flat,
    "lagged_best": lambda t, g, u, v: max(lagged(g, u, v).correlation, key=lambda c: -9 if math.isnan(c) else c),
    "lagged_delay": lambda t, g, u, v: lagged(g, u, v).delay,
    "var": lambda t, g, u, v: var(g, v),
    "sid": lambda t, g, u, v: sid(t[v], g[v], 4),
    "fd": lambda t, g, u, v: fd(t[v], g[v]),
    "jerk": lambda t, g, u, v: jerk(g, v),
}


@pytest.mark.slow
@settings(max_examples=7500 if NIGHTLY else 150, deadline=None)
@given(sides(3))
def test_every_metric_has_an_answer_for_anything(drawn: tuple[list[np.ndarray], np.ndarray]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (truth, generated, user), valid = drawn
        for name, metric in METRICS.items():
            found = metric(truth, generated, user, valid)
            assert isinstance(found, float), name
            assert not math.isinf(found), name
            if broken(valid, truth, generated, user).all() and not np.isfinite(generated[valid]).all():
                assert math.isnan(found), name
            if not valid.any():
                assert math.isnan(found), name


@settings(max_examples=1250 if NIGHTLY else 25, deadline=None)
@given(sides(3, DIM), st.integers(0, 3))
def test_an_accumulator_of_anything_is_strict_json(drawn: tuple[list[np.ndarray], np.ndarray], cut: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (truth, generated, user), valid = drawn
        accumulator = Accumulator(SPEC, fit_centres(truth[valid], SPEC))
        for part in (slice(cut), slice(cut, None)):
            accumulator.add(truth[part], generated[part], user[part], valid[part])
        found = accumulator.figures() | accumulator.errors() | accumulator.floor()
        assert all(isinstance(value, float) and not math.isinf(value) for value in found.values())
        for part, columns in (("pose", slice(6)), ("expression", slice(6, None))):
            if broken(valid, *(side[..., columns] for side in (truth, generated, user))).any():
                assert all(math.isnan(value) for name, value in accumulator.figures().items() if name.endswith(part))
        json.loads(to_json(found), parse_constant=pytest.fail)


def moving(seed: int, windows: int = 6, frames: int = 50, dims: int = 4) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.stack([np.stack([smooth(random, frames) for _ in range(dims)], axis=1) for _ in range(windows)])


TRUTH, GENERATED, USER = (moving(seed) for seed in (1, 2, 3))
VALID = np.ones(TRUTH.shape[:2], bool)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", METRICS)
def test_one_broken_number_is_no_figure_and_in_an_invalid_frame_no_matter(name: str, bad: float) -> None:
    spoilt, hidden = GENERATED.copy(), VALID.copy()
    spoilt[2, 20, 1] = bad
    hidden[2, 17:24] = False
    assert math.isnan(METRICS[name](TRUTH, spoilt, USER, VALID))
    clean = METRICS[name](TRUTH, GENERATED, USER, hidden)
    assert METRICS[name](TRUTH, spoilt, USER, hidden) == pytest.approx(clean, nan_ok=True)


def test_windows_that_are_not_seen_leave_the_mean() -> None:
    some = VALID.copy()
    some[:3] = False
    some[0, 5] = True  # one frame is no motion
    assert pcc(GENERATED, USER, some) == pytest.approx(pcc(GENERATED[3:], USER[3:], VALID[3:]))
    assert var(GENERATED, some) == pytest.approx(var(GENERATED[3:], VALID[3:]))
    assert np.isnan(window_pcc(GENERATED, USER, some)).tolist() == [True] * 3 + [False] * 3
    accumulator = Accumulator(SPEC, {part: np.zeros((1, 6)) for part in ("expression", "pose")})
    wide = [np.concatenate([side] * 3, axis=2) for side in (TRUTH, GENERATED, USER)]
    accumulator.add(*wide, some)
    assert accumulator.figures()["pcc_pose"] == pytest.approx(pcc(wide[1][3:, :, :6], wide[2][3:, :, :6], VALID[3:]))
    assert math.isfinite(accumulator.errors()["pcc_pose"])
    assert math.isfinite(accumulator.floor()["rpcc_pose"])


def test_a_distance_needs_more_frames_than_dimensions() -> None:
    """The covariance of 26 dimensions from 26 frames has no full rank, and its distance looked like 0."""
    frames = np.random.default_rng(0).standard_normal((60, 26))
    assert math.isnan(fd(frames, frames[:26]))
    assert math.isnan(fd(frames[:26], frames))
    assert fd(frames, frames[:27]) > 0
    for dims in (1, 25, 26, 32):
        assert math.isnan(fd(np.full((1, dims), math.nan), np.full((60, dims), math.nan)))
        spoilt = np.random.default_rng(1).standard_normal((60, dims))
        assert fd(spoilt, spoilt) == pytest.approx(0, abs=1e-9)
        spoilt[7] = math.nan
        assert math.isnan(fd(spoilt, spoilt))


def test_a_constant_dimension_is_0_and_no_jerk_of_three_frames() -> None:
    still = np.ones((2, 20, 3))
    assert (pcc(still, moving(1, 2, 20, 3), np.ones((2, 20), bool)), var(still, np.ones((2, 20), bool))) == (0, 0)
    assert math.isnan(jerk(still[:, :3], np.ones((2, 3), bool)))
    assert jerk(still[:, :4], np.ones((2, 4), bool)) == 0
    assert math.isnan(entropy(np.zeros(4)))
    assert entropy(np.array([5.0, 0])) == 0


def test_a_histogram_does_not_drop_what_is_not_finite() -> None:
    centres = np.array([[0.0], [1.0]])
    assert histogram(np.array([[0.1], [0.9], [0.8]]), centres).tolist() == [1, 2]
    assert np.isnan(histogram(np.array([[0.1], [math.nan]]), centres)).all()
    assert histogram(np.empty((0, 1)), centres).tolist() == [0, 0]
    assert kmeans(np.array([[math.inf]]), 3, seed=0).shape == (0, 1)


@pytest.mark.slow
def test_a_delay_is_named_where_there_is_a_reaction_and_seldom_where_there_is_none() -> None:
    """In 5 % of sets at most, as `CHANCE` says; a faint reaction of enough windows is found."""
    valid = np.ones((24, 50), bool)
    none = [lagged(moving(2 * i, 24), moving(2 * i + 1, 24), valid).delay for i in range(60)]
    assert sum(math.isfinite(delay) for delay in none) <= 6
    user = moving(0, 24, 62)
    faint = 0.5 * user[:, :50] + moving(1, 24)
    assert lagged(faint, user[:, 12:], valid).delay == pytest.approx(12 / 25, abs=0.04)
    assert lagged(-user[:, :50], user[:, :50], valid).correlation[0] == pytest.approx(-1)
    assert math.isnan(lagged(np.zeros_like(user), user, np.ones((24, 62), bool)).delay)
    assert math.isnan(lagged(user[:1], user[:1], np.ones((1, 62), bool)).delay)  # one window says nothing of chance


def spoil(member: str, value: float) -> Callable[[str, dict[str, bytes]], dict[str, bytes]]:
    def damage(key: str, members: dict[str, bytes]) -> dict[str, bytes]:
        array = decode_array(members[member])
        array.reshape(-1)[3] = value
        return members | {member: encode_array(array)}

    return damage


@pytest.mark.parametrize(("member", "value"), [("avatar.motion.npy", math.nan), ("user.motion.npy", math.inf),
                                               ("reference.npy", math.nan)])  # fmt: skip
def test_recorded_motion_that_is_not_finite_is_refused(
    checkpoint: Path, tmp_path: Path, member: str, value: float
) -> None:
    data = str(write_dataset(tmp_path / "spoilt", {WindowClass.LISTENING: 2}, val=2, damage=spoil(member, value)))
    named = rf"sample listening-05000: {member.removesuffix('.npy')} has 1 of \d+ numbers that are not finite"
    with pytest.raises(DatasetError, match=named):
        evaluate(checkpoint, data)
    with pytest.raises(DatasetError, match="not finite"):
        generate(checkpoint, data, "listening-05000", tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_huge_numbers_are_finite(tmp_path: Path) -> None:
    from visavis.training.dataset import Dataset

    data = Dataset(str(write_dataset(tmp_path, {WindowClass.LISTENING: 1}, damage=spoil("user.motion.npy", 3e38))))
    (found,) = data.samples("train")
    assert found.user_motion.reshape(-1)[3] == np.float32(3e38)


def test_a_model_that_generates_what_is_not_finite_is_named_and_nothing_is_scored(
    checkpoint: Path, windows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from visavis.training.sampler import rollout

    def overflows(*args: Any, **named: Any) -> torch.Tensor:
        motion = rollout(*args, **named)
        motion[1:, 7] = math.nan
        return motion

    monkeypatch.setattr("visavis.training.rollouts.rollout", overflows)
    with pytest.raises(RunFailed, match=r"conditions `full` is not finite in 3 of the 4 windows tried, first in "):
        evaluate(checkpoint, str(windows), "train", limit=4)
    monkeypatch.setattr("visavis.training.generate.rollout", lambda *args: rollout(*args) * math.nan)
    with pytest.raises(RunFailed, match=r"`no_user` is not finite in 1 of the 1 windows"):
        generate(checkpoint, str(windows), "listening-10000", tmp_path / "made", drop="no_user")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_checkpoint_with_a_broken_weight_is_refused(checkpoint: Path, tmp_path: Path, value: float) -> None:
    from visavis.training.checkpoint import load_checkpoint

    loaded = load_checkpoint(checkpoint)
    name = next(iter(loaded.ema))
    loaded.ema[name].view(-1)[0] = value
    save_checkpoint(loaded, tmp_path / "broken.pt")
    with pytest.raises(UsageError, match=rf"1 of \d+ weights hold numbers that are not finite, first ema\.{name}"):
        load_checkpoint(tmp_path / "broken.pt")


@pytest.mark.slow
def test_evaluation_counts_windows_in_which_nothing_can_be_compared(checkpoint: Path, tmp_path: Path) -> None:
    def unseen(key: str, members: dict[str, bytes]) -> dict[str, bytes]:
        valid = decode_array(members["valid.npy"])
        valid[:] &= int(key[-1]) > 1
        return members | {"valid.npy": encode_array(valid)}

    data = write_dataset(tmp_path, {WindowClass.LISTENING: 1, WindowClass.SILENCE: 1}, val=4, damage=unseen)
    found = evaluate(checkpoint, str(data))
    assert found["not_compared"] == {"all": 4, "listening": 2, "silence": 2}
    assert found["windows"] == {"all": 8, "listening": 4, "silence": 4}
    json.dumps(found, allow_nan=False)
    assert found["rows"]["hold_still"]["all"]["lagged_delay_pose"] is None
    assert found["rows"]["hold_still"]["all"]["pcc_pose"] == 0


def test_all_windows_unseen_have_no_figures_and_no_crash(checkpoint: Path, tmp_path: Path) -> None:
    def unseen(key: str, members: dict[str, bytes]) -> dict[str, bytes]:
        return members | {"valid.npy": encode_array(np.zeros((50, 2), bool))}

    found = evaluate(checkpoint, str(write_dataset(tmp_path, {WindowClass.LISTENING: 1}, val=2, damage=unseen)))
    assert found["not_compared"] == {"all": 2, "listening": 2}
    assert {value for row in found["rows"].values() for value in row["all"].values()} == {None}


def test_metrics_lines_are_json(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, 0, Processes(torch.device("cpu")), 2.0)
    log.add({"loss": torch.tensor(math.nan)})
    log.end_step()
    log.write(1, 10, lr=0.1, bad_samples=0)
    log.close()
    line = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)
    assert line["loss"] is line["loss_t1of4"] is None
    assert next(iter(line)) == "step"


@pytest.fixture
def checkpoint(trained: Path) -> Path:
    return trained
