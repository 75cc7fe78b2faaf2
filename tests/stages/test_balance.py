"""The plan mixes classes, prefers lively windows, and keeps people on one side."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.schemas.dyads import Census, DyadHead, Window, WindowClass
from visavis.schemas.section import Section
from visavis.schemas.windows_config import BalanceConfig
from visavis.stages.balance import BINS, held_out, histogram, keep_weights, name_number, plan_balance
from visavis.stages.census import CensusInput, CensusStage, merge, scale

SPEAKING, LISTENING, OVERLAP = WindowClass.SPEAKING, WindowClass.LISTENING, WindowClass.OVERLAP


def test_speaking_heavy_corpus_is_drawn_by_the_mixture() -> None:
    config = BalanceConfig(mixture={SPEAKING: 0.5, LISTENING: 0.4, OVERLAP: 0.1}, val_share=0)
    seconds = dict.fromkeys(WindowClass, 0.0) | {SPEAKING: 80.0, LISTENING: 20.0}
    plan = plan_balance(seconds, dict.fromkeys(WindowClass, 1.0), config)

    assert plan.seconds_before[SPEAKING] == 80
    # No overlap in the corpus: its share goes to the others in proportion.
    assert plan.mixture[SPEAKING] == pytest.approx(5 / 9)
    assert plan.mixture[OVERLAP] == 0
    assert plan.seconds_after[LISTENING] == pytest.approx(100 * 4 / 9, abs=0.01)


def test_lively_windows_are_kept_more_often_and_ties_alike() -> None:
    counted = histogram(np.array([1.0, 2.0, 2.0, 3.0]))
    assert keep_weights(np.array([1.0, 2.0, 3.0]), counted, 0.2).tolist() == [0.2, pytest.approx(0.6), 1.0]
    assert keep_weights(np.array([9.0, 0.0, 2.5]), counted, 0.2).tolist() == [1.0, 0.2, pytest.approx(0.866667)]
    assert keep_weights(np.array([1.0]), histogram(np.array([1.0])), 0.2).tolist() == [1.0]


values = st.lists(st.floats(0, 1e4), min_size=2, max_size=50)


@given(values, st.floats(0.01, 1))
def test_weights_rise_with_expressiveness_and_stay_in_range(expressiveness: list[float], dull: float) -> None:
    lively = np.sort(expressiveness)
    weights = keep_weights(lively, histogram(lively), dull)
    assert (np.diff(weights) >= 0).all()
    assert weights.min() >= dull - 1e-6
    assert weights.max() <= 1


def head(rng: np.random.Generator) -> DyadHead:
    labels = rng.choice(list(WindowClass), 12)
    windows = tuple(
        Window(key=f"w{n}", avatar=0, first=0, length=50, label=WindowClass(label), expressiveness=rng.uniform(0, 3))
        for n, label in enumerate(labels)
    )
    return DyadHead(windows=windows, moments=((10.0, *rng.integers(0, 9, 6)), (20.0, *rng.integers(0, 9, 6))))


def count(*dyads: DyadHead) -> Census:
    (row,) = CensusStage(Section()).process(CensusInput(dyads=dyads))
    return row


def test_a_census_in_parts_is_the_census_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    dyads = [head(rng) for _ in range(9)]
    whole, parts = count(*dyads), merge([count(*dyads[:4]), count(dyads[4]), count(*dyads[5:])])
    assert whole.counts.shape == (len(WindowClass), BINS)
    assert whole.counts.sum() == 9 * 12
    np.testing.assert_array_equal(whole.counts, parts.counts)
    np.testing.assert_array_equal(whole.moments, parts.moments)
    listening = sum(w.label is LISTENING for dyad in dyads for w in dyad.windows)
    assert whole.counts[list(WindowClass).index(LISTENING)].sum() == listening


def test_the_scale_of_the_motion_is_that_of_its_frames() -> None:
    motion = np.random.default_rng(1).normal([1.0, -2.0], [0.5, 3.0], (400, 2))
    halves = [(float(len(m)), *m.sum(0), *(m**2).sum(0)) for m in (motion[:100], motion[100:])]
    mean, std = scale(count(DyadHead(windows=(), moments=(halves[0], halves[1]))))
    np.testing.assert_allclose(mean, motion.mean(0))
    np.testing.assert_allclose(std, motion.std(0))


names = st.sampled_from([f"p{i}" for i in range(12)])


def sides(dyads: list[tuple[str, str]], share: float) -> list[bool]:
    numbers = np.array([[name_number(one), name_number(other)] for one, other in dyads], np.uint64)
    return held_out(numbers, share).tolist()


@given(st.lists(st.tuples(names, names), min_size=1), st.floats(0, 0.9))
def test_nobody_is_on_both_sides_whatever_the_order(dyads: list[tuple[str, str]], share: float) -> None:
    held = sides(dyads, share)
    people = [
        {name for pair, there in zip(dyads, held, strict=True) if there is side for name in pair}
        for side in (True, False)
    ]
    assert not people[0] & people[1]
    assert sides(dyads[::-1], share) == held[::-1]


@given(st.integers(2, 30), st.floats(0.01, 0.9))
def test_both_sides_get_someone(groups: int, share: float) -> None:
    assert set(sides([(f"a{i}", f"b{i}") for i in range(groups)], share)) == {True, False}


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_single_group_is_for_training(share: float) -> None:
    assert sides([("a", "b"), ("b", "c")], share) == [False, False]


def test_about_the_share_that_was_asked_for_is_held_out() -> None:
    assert np.mean(sides([(f"a{i}", f"b{i}") for i in range(2000)], 0.1)) == pytest.approx(0.1, abs=0.02)


def test_a_growing_corpus_moves_nobody() -> None:
    small = [(f"a{i}", f"b{i}") for i in range(40)]
    larger = [*small, *[(f"c{i}", f"d{i}") for i in range(40)]]
    assert sides(larger, 0.3)[:40] == sides(small, 0.3)
