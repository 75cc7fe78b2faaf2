"""Thresholds judge what was measured, and say what was wrong."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from visavis.pipeline.plan.quality import LIMITS, MEASURED, faults, worst_of
from visavis.pipeline.plan.workflow import Judge
from visavis.pipeline.state.tasks import Artifact, Task
from visavis.schemas.config import BuildConfig, QualityConfig
from visavis.schemas.errors import Reason
from visavis.schemas.face_rows import CastFacts, Figures
from visavis.schemas.rows import Source
from visavis.schemas.voice_rows import SpeechQualityFacts, VoicesFacts

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


HEARD = VoicesFacts(
    level_db=(-18, -20), clipped=(0, 0), bandwidth_hz=(8000, 8000), snr_db=(35, 30), residual_db=(-60, -40)
)
RATED = SpeechQualityFacts(sig=(3.5, 3.4), bak=(3.8, 3.9), ovrl=(3.1, 3.0), p808=(3.6, 3.5))


@pytest.mark.parametrize(
    ("wrong", "strict", "reason"),
    [
        ({"clipped": 0.02}, {"max_clipped": 0.001}, Reason.CLIPPED_SOUND),
        ({"bandwidth_hz": 3500.0}, {"min_bandwidth": 5000.0}, Reason.BAND_LIMITED),
        ({"level_db": -55.0}, {"min_level": -45.0}, Reason.FAINT_VOICE),
        ({"snr_db": 4.0}, {"min_snr": 10.0}, Reason.NOISY),
        ({"residual_db": -8.0}, {"max_residual": -20.0}, Reason.OTHER_VOICE),
        ({"sig": 1.9}, {"min_sig": 2.5}, Reason.POOR_SPEECH),
        ({"bak": 1.9}, {"min_bak": 2.5}, Reason.NOISY),
        ({"ovrl": 1.9}, {"min_ovrl": 2.5}, Reason.POOR_SPEECH),
        ({"p808": 1.9}, {"min_p808": 2.5}, Reason.POOR_SPEECH),
    ],
)
def test_sound_is_judged_where_that_is_asked_for(
    wrong: dict[str, float], strict: dict[str, float], reason: Reason
) -> None:
    good: VoicesFacts | SpeechQualityFacts = HEARD if wrong.keys() <= set(VoicesFacts.model_fields) else RATED
    (name,) = wrong
    bad = good.model_copy(update={name: (getattr(good, name)[0], wrong[name])})
    unknown = good.model_copy(update={name: (None, None)})
    config = QualityConfig(**strict)
    assert list(faults(bad, ("left", "right"), QualityConfig())) == []
    assert list(faults(good, ("left", "right"), config)) == list(faults(unknown, ("left", "right"), config)) == []
    ((found, sentence),) = faults(bad, ("left", "right"), config)
    assert found is reason
    assert sentence.startswith(f"right: {name} ")


def test_each_stage_tells_of_its_own_figures() -> None:
    for facts_of, stage in ((facts(), "cast"), (HEARD, "separate"), (RATED, "dnsmos")):
        known = [not math.isnan(value) for value in worst_of(facts_of)]
        assert known == [limit.stage == stage for limit in LIMITS]
        assert MEASURED[stage] is type(facts_of)
    half = worst_of(HEARD.model_copy(update={"snr_db": (None, 12.0)}))
    assert half[[limit.setting for limit in LIMITS].index("min_snr")] == 12.0


def test_a_conversation_goes_on_after_its_voices_only_if_they_sound_well_enough() -> None:
    task = Task("separate", "0" * 16, "talk.mp4", "artifacts/separate/x.safetensors", "p" * 12)
    made = Artifact(task.path, "0" * 16, HEARD.model_dump_json())
    for least, goes_on in ((-20.0, True), (29.0, True), (31.0, False)):
        judge = Judge(Source(uris=("talk.mp4",)), QualityConfig(min_snr=least), None)
        assert judge.passes(task, made) is goes_on


def test_a_threshold_of_what_is_not_measured_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"quality.min_ovrl needs dnsmos.enabled=true"):
        BuildConfig.model_validate({"quality": {"min_ovrl": 2.0}})
    BuildConfig.model_validate({"quality": {"min_ovrl": 2.0}, "dnsmos": {"enabled": True}})
