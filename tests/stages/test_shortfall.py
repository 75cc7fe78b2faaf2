"""Where a model's reactions fall short of the recorded ones is told apart from where the two merely differ."""

from __future__ import annotations

import numpy as np
import pytest

from visavis.stages.pairing.measurements import Expected, ReferenceStatistics, Windows
from visavis.stages.pairing.reference_statistics import LAGS
from visavis.stages.pairing.shortfall import responses, rounded, shortfall

WINDOWS, FRAMES, DIM = 400, 80, 4
GROUPS = {"head": (0, 1), "mouth": (2, 3)}
DELAY = 12


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
    [(0.7, 1.0, 0.0, 0.0), (0.35, 1.0, 0.5, 0.0), (0.7, 0.6, 0.0, 0.4), (0.0, 0.0, 1.0, 1.0), (0.95, 1.3, 0.0, 0.0)],
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


def test_motion_that_reacts_to_nothing_has_no_shortfall() -> None:
    expected, user = made(0)
    still = np.zeros_like(user)
    assert set(shortfall([responses(expected, (still, still), GROUPS)]).values()) == {0.0}
