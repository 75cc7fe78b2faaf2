"""Thresholds judge what was measured, and say what was wrong."""

from __future__ import annotations

import pytest

from schemas.config import QualityConfig
from schemas.errors import Reason
from schemas.rows import CastFacts, Figures
from stages.quality import LIMITS, faults

GOOD = Figures(
    visible=1.0, face_size=180, sharpness=400, luminance=120, confidence=0.9, yaw=20, pitch=15, jitter=0.4
)  # fmt: skip


def facts(crowd: float = 0.0, cuts: float = 0.0, **figures: float) -> CastFacts:
    """Of a conversation whose second participant has these figures."""
    second = GOOD.model_copy(update=figures)
    return CastFacts(crowd=crowd, cuts=cuts, members=tuple(tuple(dict(f).values()) for f in (GOOD, second)))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"visible": 0.5}, Reason.FACE_NOT_VISIBLE),
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
    assert sentence.startswith("right: " if "crowd" not in wrong and "cuts" not in wrong else "picture: ")
    assert any(f"quality.{limit.setting}" in sentence for limit in LIMITS)


def test_every_setting_bounds_a_figure() -> None:
    assert {limit.setting for limit in LIMITS} == set(QualityConfig.model_fields)
