"""Thresholds judge what was measured, and say what was wrong."""

from __future__ import annotations

import pytest

from visavis.pipeline.plan.quality import LIMITS, faults
from visavis.schemas.config import QualityConfig
from visavis.schemas.errors import Reason
from visavis.schemas.rows import CastFacts, Figures

GOOD = Figures(
    visible=1.0, face_size=180, sharpness=400, luminance=120, confidence=0.9, yaw=20, pitch=15, jitter=0.4
)  # fmt: skip


PICTURE = {"crowd": 0.0, "cuts": 0.0, "together": 60.0, "uncut": 60.0}


def facts(fresh: float = 1.0, **figures: float) -> CastFacts:
    """Of a conversation with these figures, its own or its second participant's."""
    picture = PICTURE | {name: value for name, value in figures.items() if name in PICTURE}
    second = GOOD.model_copy(update={name: value for name, value in figures.items() if name not in PICTURE})
    return CastFacts(**picture, fresh=(1.0, fresh), members=tuple(tuple(dict(f).values()) for f in (GOOD, second)))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"fresh": 0.6}, Reason.TOO_FEW_PICTURES),
        ({"together": 2.0}, Reason.FACE_NOT_VISIBLE),
        ({"uncut": 0.0}, Reason.TOO_MANY_CUTS),
        ({"crowd": 0.9}, Reason.TOO_MANY_PEOPLE),
        ({"cuts": 50.0}, Reason.TOO_MANY_CUTS),
        ({"face_size": 20.0}, Reason.SMALL_FACE),
        ({"sharpness": 5.0}, Reason.BLURRED),
        ({"luminance": 4.0}, Reason.BADLY_LIT),
        ({"luminance": 240.0}, Reason.BADLY_LIT),
        ({"yaw": 80.0}, Reason.TURNED_AWAY),
        ({"pitch": 60.0}, Reason.TURNED_AWAY),
        ({"jitter": 5.0}, Reason.JITTERY),
    ],
)
def test_each_threshold_has_its_reason(wrong: dict[str, float], reason: Reason) -> None:
    assert list(faults(facts(), ("left", "right"), QualityConfig())) == []
    ((found, sentence),) = faults(facts(**wrong), ("left", "right"), QualityConfig())
    assert found is reason
    assert sentence.startswith("picture: " if wrong.keys() & PICTURE.keys() else "right: ")
    assert any(f"quality.{limit.setting}" in sentence for limit in LIMITS)


def test_an_interview_that_shows_both_now_and_then_is_good_enough() -> None:
    edited = facts(visible=0.53, together=300.0, uncut=280.0)
    assert list(faults(edited, ("left", "right"), QualityConfig())) == []
    strict = QualityConfig(min_visible=0.8)  # a recipe from before
    assert [reason for reason, _ in faults(edited, ("left", "right"), strict)] == [Reason.FACE_NOT_VISIBLE]


def test_every_setting_bounds_a_figure() -> None:
    assert {limit.setting for limit in LIMITS} == set(QualityConfig.model_fields)
