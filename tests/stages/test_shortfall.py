"""Where a model's reactions fall short of the recorded ones is told apart from where the two merely differ."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.stages.test_gate import windows_of
from tests.training.synthetic import SPEC
from visavis.schemas.pairs import PairsConfig
from visavis.stages.pairing.candidates import Generator
from visavis.stages.pairing.gate import Gate
from visavis.stages.pairing.measurements import Expected, ReferenceStatistics, Windows, fold_of
from visavis.stages.pairing.reference_statistics import FEWEST, LAGS, learn
from visavis.stages.pairing.shortfall import responses, rounded, shortfall, shortfall_line

WINDOWS, FRAMES, DIM = 400, 80, 4
GROUPS = {"head": (0, 1), "mouth": (2, 3)}
DELAY = 12
FALL_SHORT = "reactions fall short of the recorded ones by"


def made(seed: int) -> tuple[Expected, np.ndarray]:
    """Windows in which column 0 dips after the end of a phrase seven times in ten, and column 2 follows the user's."""
    random = np.random.default_rng(seed)
    user = random.standard_normal((WINDOWS, FRAMES, DIM)).astype(np.float32)
    ends = np.zeros((WINDOWS, FRAMES), bool)
    ends[np.arange(WINDOWS), random.integers(5, 40, WINDOWS)] = True
    lagged, event = np.zeros((2, 2, LAGS, DIM), np.float32)
    lagged[:, 8, 2] = 1.0
    event[:, DELAY : DELAY + 8, 0] = -1.0
    reference = ReferenceStatistics(
        lagged=lagged, event=event, mean=np.zeros(DIM), whiten=np.eye(DIM), usual=1.0, least_expressive=0.0, windows=9
    )
    windows = Windows(user, user, np.ones((WINDOWS, FRAMES, 2), bool), ends, np.zeros(WINDOWS, int))
    return Expected(windows, reference), user


def listener(expected: Expected, user: np.ndarray, seed: int, nods: float, smiles: float) -> np.ndarray:
    random = np.random.default_rng([seed, 1])
    motion = random.standard_normal(user.shape)
    for w, end in zip(*np.nonzero(expected.windows.phrase_end), strict=True):
        if random.random() < nods:
            motion[w, end + DELAY : end + DELAY + 8, 0] -= 3.0
    motion[:, 8:, 2] += smiles * user[:, :-8, 2]
    return motion.astype(np.float32)


@pytest.mark.parametrize(
    ("nods", "smiles", "head", "mouth"),
    [(0.7, 1.0, 0.0, 0.0), (0.35, 1.0, 0.5, 0.0), (0.7, 0.6, 0.0, 0.4), (0.0, 0.0, 1.0, 1.0), (0.95, 1.3, -0.36, -0.3)],
)
def test_what_falls_short_is_told_by_group(nods: float, smiles: float, head: float, mouth: float) -> None:
    expected, user = made(0)
    recorded = listener(expected, user, 1, 0.7, 1.0)
    own = listener(expected, user, 2, nods, smiles)
    found = shortfall([rounded(responses(expected, (recorded, own), GROUPS))])
    assert found["head"] == pytest.approx(head, abs=0.1)
    assert found["mouth"] == pytest.approx(mouth, abs=0.1)
    assert (found["head"] == 0, found["mouth"] == 0) == (head == 0, mouth == 0)


def test_other_noise_of_the_same_listener_falls_short_of_nothing() -> None:
    wrong = 0
    for seed in range(20):
        expected, user = made(seed)
        pair = listener(expected, user, 100 + seed, 0.7, 1.0), listener(expected, user, 200 + seed, 0.7, 1.0)
        wrong += any(shortfall([responses(expected, pair, GROUPS)]).values())
    assert wrong <= 1


def test_tasks_add_up_and_what_is_not_finite_counts_as_nothing() -> None:
    parts, whole = [], []
    for seed in (0, 1):
        expected, user = made(seed)
        recorded, own = listener(expected, user, 1, 0.7, 1.0), listener(expected, user, 2, 0.3, 1.0)
        parts.append(responses(expected, (recorded, own), GROUPS))
        own[5] = np.nan
        whole.append(responses(expected, (recorded, own), GROUPS))
    assert shortfall(parts)["head"] == pytest.approx(shortfall(whole)["head"], abs=0.01)
    assert shortfall(parts)["head"] > 0.4
    assert shortfall([]) == {}


def test_of_people_who_do_not_react_for_certain_nothing_is_told() -> None:
    """Of a group that nobody moves in answer, nobody knows what is right; and few windows make nothing certain."""
    expected, user = made(0)
    recorded, own = listener(expected, user, 1, 0.7, 0.0), listener(expected, user, 2, 0.3, 0.0)
    found = shortfall([responses(expected, (recorded, own), GROUPS)])
    assert found["head"] == pytest.approx(0.57, abs=0.1)
    assert found["mouth"] is None


def test_motion_that_reacts_to_nothing_has_no_shortfall() -> None:
    expected, user = made(0)
    still = np.zeros_like(user)
    assert shortfall([responses(expected, (still, still), GROUPS)]) == {"head": None, "mouth": None}


@pytest.mark.parametrize(("conversations", "told"), [(1, False), (FEWEST - 1, False), (FEWEST, True)])
def test_reactions_that_windows_taught_themselves_tell_nothing(conversations: int, told: bool) -> None:
    """Recorded motion fits them, noise included; the model's own would seem to fall short wherever nobody reacts. Nor
    do few conversations, which a model knows by heart."""
    names = [f"c{number}" for number in range(conversations)]
    assert len(set(map(fold_of, names))) == min(conversations, 2)
    samples = []
    for n, window in enumerate(windows_of(range(32))):
        meta = window.meta.model_copy(update={"conversation": names[n % conversations]})
        samples.append(replace(window, meta=meta))
    gate = Gate(PairsConfig(), SPEC, learn(samples, SPEC), groups={"head": range(3)})
    found = shortfall([gate.responses(samples, np.stack([s.avatar_motion for s in samples]))])
    assert set(found) == ({"head"} if told else set())
    assert bool(shortfall_line(found)) is told


def test_several_motions_of_a_window_are_one_observation() -> None:
    """Else asking three times would make chance look certain."""
    config = PairsConfig(rejected="own", per_window=3)
    draws = {seed: np.full((2, 5, 3), seed, np.float32) for seed in config.seeds}
    generator: Any = object.__new__(Generator)
    generator._config = config
    windows: Any = [None, None]
    ((numbers, own),) = generator._own(windows, {seed: (each, each) for seed, each in draws.items()})
    assert list(numbers) == [0, 1]
    np.testing.assert_array_equal(own, draws[1])


@pytest.mark.parametrize(
    ("found", "line"),
    [
        ({}, ""),
        ({"mouth": 0.0, "pose": None}, "reactions fall short of the recorded ones by nothing certain"),
        (
            {"mouth": 0.0, "pose": 0.27},
            "reactions fall short of the recorded ones by: pose 27%, others nothing certain",
        ),
        (
            {"brows": None, "mouth": -0.3, "pose": 0.27},
            "reactions fall short of the recorded ones by: pose 27% and go beyond the recorded ones by: mouth 30%,"
            " others nothing certain",
        ),
        ({"mouth": -0.3}, "reactions go beyond the recorded ones by: mouth 30%"),
        ({"mouth": 0.004, "pose": 1.0}, "reactions fall short of the recorded ones by: pose 100%, mouth under 1%"),
    ],
)
def test_it_is_told_in_one_line(found: dict[str, float], line: str) -> None:
    assert shortfall_line(found) == line
