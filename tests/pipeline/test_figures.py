"""Tables for people: whatever was found can be printed, and what is not defined is a dash."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from visavis.pipeline.cli.tables import UNDEFINED, doubt_tables, metrics_tables, pairs_table
from visavis.pipeline.plan.pairs import PairsSummary, nothing_left
from visavis.schemas.manifest import Histogram
from visavis.schemas.pairs import GateConfig
from visavis.schemas.words import in_words
from visavis.stages.pairing.gate import BINS, RANGES

METRICS = [f"{name}_{part}" for part in ("expression", "pose") for name in ("pcc", "lagged_delay", "fd")]
anything = st.none() | st.floats()
figures = st.fixed_dictionaries(dict.fromkeys(METRICS, anything))


def printed(*tables: Any) -> str:
    file = io.StringIO()
    Console(width=80, file=file).print(*tables)
    return file.getvalue()


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(figures, min_size=7, max_size=7), st.dictionaries(st.sampled_from(METRICS), anything), st.booleans())
def test_any_figures_can_be_printed_in_80_columns(
    rows: list[dict[str, float | None]], floor: dict[str, float | None], seeds: bool
) -> None:
    names = ("model", "model_no_user", "ground_truth", "hold_still", "copy_user", "mean_motion", "shuffled")
    found = dict(zip(names, rows, strict=True))
    models = {name: {"all": found[name]} for name in names[:2]}
    result = {
        "rows": {name: {"all": row} for name, row in found.items()},
        "standard_errors": models,
        "spread": models if seeds else {},
        "noise_floor": {"all": floor},
        "windows": {"all": 3},
        "seeds": [0, 1],
    }
    text = printed(*metrics_tables(found), *doubt_tables(result, "all"))
    assert "nan" not in text
    assert "inf" not in text
    assert max(map(len, text.splitlines())) <= 80
    if any(value is None or not math.isfinite(value) for row in rows for value in row.values()):
        assert UNDEFINED in text


@given(
    st.lists(st.sampled_from([0, 0, 1, 7]), min_size=BINS, max_size=BINS),
    st.integers(0, 3),
    st.none() | st.floats(-9, 9),
)
def test_any_gate_can_be_printed(counts: list[int], undefined: int, bound: float | None) -> None:
    found = {
        name: Histogram(low=low, high=high, counts=tuple(counts), undefined=undefined)
        for name, (low, high) in RANGES.items()
    }
    text = printed(pairs_table(found, GateConfig().model_dump() | {"min_energy_margin": bound}))
    assert "nan" not in text
    assert (UNDEFINED in text) == (not any(counts))


def summary(gated: dict[str, int], windows: int = 12) -> PairsSummary:
    tried = sum(gated.values())
    return PairsSummary("d", windows, windows - tried, tried, 0, gated, {}, {}, (), 1)


@pytest.mark.parametrize(
    ("gated", "said"),
    [
        ({"off_manifold": 12}, "none of 12 pairs: 12 off manifold; the model moves as nobody in the dataset does"),
        (
            {"broken_motion": 7, "off_manifold": 5},
            "none of 12 pairs: 7 broken motion, 5 off manifold; the model's motion",
        ),
        ({"off_manifold": 2, "too_similar": 9}, "9 too similar, 2 off manifold; leave less to the rejected motion"),
        ({"not_finite": 3}, "3 not finite; look at the checkpoint's training"),
        ({"not_measured": 3}, "3 not measured; the avatar's face"),
        ({"not_less_reactive": 3}, "3 not less reactive; the rejected motion reacts"),
        ({"less_motion_energy": 3}, "3 less motion energy; lower gate.min_energy_margin"),
        ({}, "all 12 windows were passed over, as without the labels of where or too little expressive"),
    ],
)
def test_a_gate_that_leaves_nothing_says_what_dominates_and_what_to_do(gated: dict[str, int], said: str) -> None:
    assert said in nothing_left(summary(gated))
    assert "{" not in nothing_left(summary(gated))
    assert "\n" not in nothing_left(summary(gated))


def test_counts_are_words_the_largest_first() -> None:
    assert in_words({"b_b": 1, "a": 1, "c": 30}) == "30 c, 1 a, 1 b b"
    assert in_words({}) == ""
