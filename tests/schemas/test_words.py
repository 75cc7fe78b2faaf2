"""Words that messages share."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from visavis.schemas.words import candidates, counted, duration, first_difference

_SECONDS = {"s": 1, "min": 60, "h": 3600, "days": 86400}


def test_one_of_a_thing_is_singular_and_any_other_number_is_not() -> None:
    assert [counted(n, "window") for n in (0, 1, 2)] == ["0 windows", "1 window", "2 windows"]
    assert counted(3, "process", "processes") == "3 processes"


@given(st.floats(0, 1e7))
def test_a_duration_is_within_a_few_percent_of_what_it_stands_for(seconds: float) -> None:
    number, unit = duration(seconds).split()
    assert abs(float(number) * _SECONDS[unit] - seconds) <= max(0.051, 0.05 * seconds)
    assert unit == "s" or float(number) >= 2  # never `1 days`


def test_what_was_meant_comes_first_and_all_are_counted() -> None:
    names = [f"talk{n:02d}.mp4" for n in range(30)] + ["interview.mp4"]
    found = candidates("Intervew.mp4", names, "conversation")
    assert found.startswith("there are 31 conversations: interview.mp4, talk00.mp4, ")
    assert found.endswith(" and 21 more")
    assert candidates("x", ["a", "a"], "item") == "there is 1 item: a"
    assert candidates("x", [], "item") == "there is no item at all"
    assert candidates("x", ["a"], "sample", total=5) == "there are 5 samples: a and 4 more"


_settings = st.recursive(st.integers(0, 2), lambda inner: st.dictionaries(st.sampled_from("abc"), inner), max_leaves=6)


@given(_settings, _settings)
def test_a_difference_is_named_exactly_where_there_is_one(old: object, new: object) -> None:
    said = first_difference({"x": old}, {"x": new})
    assert (said == "") == (old == new)
    assert not said or re.match(r"x(\.[abc])*=", said)


def test_a_difference_says_where_what_was_and_what_is() -> None:
    old, new = {"windows": {"hop": 25, "length": 50}}, {"windows": {"hop": 25, "length": 100}}
    assert first_difference(old, new) == "windows.length=50 and now has 100"
