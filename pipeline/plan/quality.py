"""Quality: which conversations are good enough to learn from.

`stages.cast` measures, this module judges, from a few numbers that the ledger keeps: moving a threshold measures
nothing again. Defaults follow published filters for talking-head corpora (luminance 10…210, no blurred faces, near
frontal, at most two people); what is a matter of degree is set so that the real dialogues we know pass with a margin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from visavis.schemas.config import QualityConfig
from visavis.schemas.errors import Reason
from visavis.schemas.rows import CastFacts, Figures


class Limit(NamedTuple):
    """A threshold: a field of `QualityConfig`, the figure that it bounds, and what crossing it is called."""

    setting: str
    figure: str
    reason: Reason

    @property
    def is_least(self) -> bool:
        return self.setting.startswith("min_")

    def bound(self, config: QualityConfig) -> float:
        value: float = getattr(config, self.setting)
        return value

    def crossed(self, value: Any, config: QualityConfig) -> Any:
        """bool, of a number or of each of an array's. An array for each of a million conversations would take longer
        than all else that is asked of them."""
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
)


_PLACES = {name: place for place, name in enumerate(Figures.model_fields) if name not in CastFacts.model_fields}


def values_of(facts: CastFacts, limit: Limit) -> tuple[float, ...]:
    """The figure that a limit bounds: of each participant, or of the conversation."""
    if limit.figure in _PLACES:
        return tuple(values[_PLACES[limit.figure]] for values in facts.members)
    value: float | tuple[float, ...] = getattr(facts, limit.figure)
    return value if isinstance(value, tuple) else (value,)


def faults(facts: CastFacts, names: Sequence[str], config: QualityConfig) -> Iterator[tuple[Reason, str]]:
    """All that speaks against a conversation: reason, and a sentence with the number. names: of the participants."""
    for limit in LIMITS:
        values = values_of(facts, limit)
        for i, value in enumerate(values):
            if limit.crossed(value, config):
                whose = names[i] if len(values) > 1 else "picture"
                wanted = f"{'at least' if limit.is_least else 'at most'} {limit.bound(config):g}"
                yield limit.reason, f"{whose}: {limit.figure} {value:g}, {wanted} (quality.{limit.setting})"
