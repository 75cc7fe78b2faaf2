"""Quality: which conversations are good enough to learn from.

Stages measure (`MEASURED`), this module judges, from a few numbers that the ledger keeps: moving a threshold measures
nothing again. Defaults follow published filters for talking-head corpora (luminance 10…210, no blurred faces, near
frontal, at most two people); what is a matter of degree is set so that the real dialogues we know pass with a margin.
No sound is left out by default: what is usual differs too much between corpora.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from visavis.schemas.config import QualityConfig
from visavis.schemas.errors import Reason
from visavis.schemas.face_rows import CastFacts, Figures
from visavis.schemas.voice_rows import SpeechQualityFacts, VoicesFacts
from visavis.stages.cast import CastStage
from visavis.stages.dnsmos import DnsmosStage
from visavis.stages.separate import SeparateStage

Facts = CastFacts | VoicesFacts | SpeechQualityFacts

MEASURED: Mapping[str, type[Facts]] = {
    CastStage.name: CastFacts,
    SeparateStage.name: VoicesFacts,
    DnsmosStage.name: SpeechQualityFacts,
}
"""Stages that measure, and what the ledger keeps of it."""


class Limit(NamedTuple):
    """A threshold: a field of `QualityConfig`, the figure that it bounds, what crossing it is called, and who measures
    that figure."""

    setting: str
    figure: str
    reason: Reason
    stage: str = CastStage.name

    @property
    def is_least(self) -> bool:
        return self.setting.startswith("min_")

    def bound(self, config: QualityConfig) -> float:
        value: float = getattr(config, self.setting)
        return value

    def crossed(self, value: Any, config: QualityConfig) -> Any:
        """bool, of a number or of each of an array's. An array for each of a million conversations would take longer
        than all else that is asked of them. NaN, which is not known, crosses nothing."""
        return value < self.bound(config) if self.is_least else value > self.bound(config)


LIMITS = (
    Limit("min_fresh", "fresh", Reason.TOO_FEW_PICTURES),
    Limit("min_together", "together", Reason.FACE_NOT_VISIBLE),
    Limit("min_together", "uncut", Reason.TOO_MANY_CUTS),
    Limit("min_visible", "visible", Reason.FACE_NOT_VISIBLE),
    Limit("max_crowd", "crowd", Reason.TOO_MANY_PEOPLE),
    Limit("max_cuts", "cuts", Reason.TOO_MANY_CUTS),
    Limit("min_face", "face_size", Reason.SMALL_FACE),
    Limit("min_sharpness", "sharpness", Reason.BLURRED),
    Limit("min_luminance", "luminance", Reason.BADLY_LIT),
    Limit("max_luminance", "luminance", Reason.BADLY_LIT),
    Limit("max_yaw", "yaw", Reason.TURNED_AWAY),
    Limit("max_pitch", "pitch", Reason.TURNED_AWAY),
    Limit("max_jitter", "jitter", Reason.JITTERY),
    Limit("max_clipped", "clipped", Reason.CLIPPED_SOUND, SeparateStage.name),
    Limit("min_bandwidth", "bandwidth_hz", Reason.BAND_LIMITED, SeparateStage.name),
    Limit("min_level", "level_db", Reason.FAINT_VOICE, SeparateStage.name),
    Limit("min_snr", "snr_db", Reason.NOISY, SeparateStage.name),
    Limit("max_residual", "residual_db", Reason.OTHER_VOICE, SeparateStage.name),
    Limit("min_sig", "sig", Reason.POOR_SPEECH, DnsmosStage.name),
    Limit("min_bak", "bak", Reason.NOISY, DnsmosStage.name),
    Limit("min_ovrl", "ovrl", Reason.POOR_SPEECH, DnsmosStage.name),
    Limit("min_p808", "p808", Reason.POOR_SPEECH, DnsmosStage.name),
)

_PLACES = {name: place for place, name in enumerate(Figures.model_fields) if name not in CastFacts.model_fields}


def values_of(facts: Facts, limit: Limit) -> tuple[float, ...]:
    """The figure that a limit bounds: of each participant, or of the conversation. NaN: not known."""
    if isinstance(facts, CastFacts) and limit.figure in _PLACES:
        return tuple(values[_PLACES[limit.figure]] for values in facts.members)
    found: float | tuple[float | None, ...] = getattr(facts, limit.figure)
    values = found if isinstance(found, tuple) else (found,)
    return tuple(math.nan if value is None else value for value in values)


def worst_of(facts: Facts) -> list[float]:
    """Of each of `LIMITS` the value nearest to or furthest beyond it; NaN: not known, or not in these facts."""
    found = []
    for limit in LIMITS:
        values = values_of(facts, limit) if type(facts) is MEASURED[limit.stage] else ()
        known = [value for value in values if not math.isnan(value)]
        found.append(float((min if limit.is_least else max)(known)) if known else math.nan)
    return found


def faults(facts: Facts, names: Sequence[str], config: QualityConfig) -> Iterator[tuple[Reason, str]]:
    """All that speaks against a conversation: reason, and a sentence with the number. names: of the participants."""
    for limit in LIMITS:
        values = values_of(facts, limit) if type(facts) is MEASURED[limit.stage] else ()
        for i, value in enumerate(values):
            if limit.crossed(value, config):
                whose = names[i] if len(values) > 1 else "picture"
                wanted = f"{'at least' if limit.is_least else 'at most'} {limit.bound(config):g}"
                yield limit.reason, f"{whose}: {limit.figure} {value:g}, {wanted} (quality.{limit.setting})"
