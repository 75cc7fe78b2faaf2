"""The plan mixes classes, prefers lively windows, and keeps people on one side."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.config import BalanceConfig
from schemas.rows import Window, WindowClass
from stages.balance import DyadSummary, keep_weight, plan_windows, split_participants


def dyad(name: str, *windows: tuple[WindowClass, float]) -> DyadSummary:
    entries = tuple(
        Window(key=f"{name}-0-{i:07d}", avatar=0, first=i * 50, length=50, label=label, expressiveness=lively)
        for i, (label, lively) in enumerate(windows)
    )
    return DyadSummary(name, (f"{name}-a", f"{name}-b"), entries)


SPEAKING, LISTENING = WindowClass.SPEAKING, WindowClass.LISTENING


def test_speaking_heavy_corpus_is_drawn_by_the_mixture() -> None:
    corpus = [dyad(f"d{i}", *[(SPEAKING, 1.0)] * 8, *[(LISTENING, 1.0)] * 2) for i in range(5)]
    config = BalanceConfig(mixture={SPEAKING: 0.5, LISTENING: 0.4, WindowClass.OVERLAP: 0.1}, val_share=0)
    _, plan = plan_windows(corpus, config)

    assert plan.seconds_before[SPEAKING] == 80
    assert plan.seconds_before[LISTENING] == 20
    # No overlap in the corpus: its share goes to the others in proportion.
    assert plan.mixture[SPEAKING] == pytest.approx(5 / 9)
    assert plan.mixture[WindowClass.OVERLAP] == 0
    assert plan.seconds_after[LISTENING] == pytest.approx(100 * 4 / 9, abs=0.01)


def test_lively_windows_are_kept_more_often_and_ties_alike() -> None:
    scale = np.array([1.0, 2.0, 2.0, 3.0])
    weights = [keep_weight(e, scale, 0.2) for e in (1.0, 2.0, 3.0)]
    assert weights == [0.2, pytest.approx(0.6), 1.0]
    assert keep_weight(9.0, scale, 0.2) == 1.0  # livelier than anything seen in training
    assert keep_weight(1.0, np.array([1.0]), 0.2) == 1.0


def test_the_plan_does_not_depend_on_the_order_of_conversations() -> None:
    corpus = [dyad(f"d{i}", (SPEAKING, i), (LISTENING, 10 - i)) for i in range(6)]
    assert plan_windows(corpus, BalanceConfig()) == plan_windows(corpus[::-1], BalanceConfig())


names = st.sampled_from([f"p{i}" for i in range(12)])


@given(st.lists(st.tuples(names, names), min_size=1), st.floats(0, 0.9))
def test_nobody_is_on_both_sides(dyads: list[tuple[str, str]], share: float) -> None:
    split = split_participants(dyads, share)
    assert set(split) == {name for pair in dyads for name in pair}
    assert all(split[one] == split[other] for one, other in dyads)


@given(st.integers(2, 30), st.floats(0.01, 0.9))
def test_both_sides_get_someone(groups: int, share: float) -> None:
    split = split_participants([(f"a{i}", f"b{i}") for i in range(groups)], share)
    assert set(split.values()) == {"train", "val"}


def test_a_growing_corpus_moves_nobody() -> None:
    small = [(f"a{i}", f"b{i}") for i in range(40)]
    before = split_participants(small, 0.3)
    after = split_participants([*small, *[(f"c{i}", f"d{i}") for i in range(40)]], 0.3)
    assert {name: after[name] for name in before} == before
