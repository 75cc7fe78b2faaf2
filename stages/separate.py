"""Each participant's own voice: what a listener model is told that the avatar says, and what it hears of the user.

    per_participant   the own track, as it is
    one_frame         the mix inside the participant's turns, with soft edges: overlap stays in both
      + convtasnet    where both speak, a separation network's outputs instead (`stages.voice.overlaps`)

What is left of the other voice is measured (`stages.voice.leakage`) and goes with every sample: a listener's "silent"
track in which the other can be heard teaches a model to move its lips to the user's voice. So does how each track
sounds (`stages.voice.sound`). The ledger has both, and `pipeline.plan.quality` judges by them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from visavis.schemas import SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.schemas.config import SeparateConfig
from visavis.schemas.rows import Binding, Conversation, Layout, Row, Turn
from visavis.schemas.sample import encode_audio
from visavis.schemas.voice_rows import VoiceFigures, Voices, VoicesFacts
from visavis.stages.base import Resources, Stage
from visavis.stages.media.audio import sound_of, speech_state, turn_mask
from visavis.stages.models.devices import pick_device
from visavis.stages.voice.leakage import frame_power, residual_of_mix, residual_of_tracks
from visavis.stages.voice.overlaps import WINDOW, Patch, Speech, patches, picture
from visavis.stages.voice.separator import weights_digest
from visavis.stages.voice.sound import figures_of, track_sound

if TYPE_CHECKING:
    from visavis.stages.models.networks import SpeakerEncoder
    from visavis.stages.voice.separator import Separator

_REHEARSALS = 4  # windows of overlap made of what both say alone, to measure a network on
_SAID = 3 * SAMPLE_RATE  # samples that each says in one, two thirds of them at once
_LEAST_SAID = SAMPLE_RATE // 2


_Made = tuple[tuple[np.ndarray, np.ndarray], tuple[VoiceFigures, VoiceFigures]]
"""FLAC of both voices, and what is known of them."""


class SeparateInput(Row):
    """A conversation, and who of its participants speaks when."""

    conversation: Conversation
    binding: Binding


class SeparateStage(Stage[SeparateInput, Voices]):
    """A bound conversation to a track for each participant. No more than two hours of sound are in memory for one."""

    name: ClassVar[str] = "separate"
    version: ClassVar[int] = 3
    config: SeparateConfig

    def __init__(self, config: SeparateConfig) -> None:
        super().__init__(config)

    @classmethod
    def digests(cls, config: SeparateConfig) -> Mapping[str, str]:
        """Of the weights, where they are used."""
        return {"weights": weights_digest(config)} if config.backend == "convtasnet" else {}

    @property
    def resources(self) -> Resources:
        """A GPU for the network, if one is asked for."""
        wanted = self.config.backend == "convtasnet" and self.config.device == "cuda"
        return Resources(gpus=1.0 if wanted else 0.0)

    def setup(self) -> None:
        """Load the networks, if any.

        Raises:
            UsageError: one of them is missing, or another file.
        """
        if self.config.backend == "convtasnet":
            from visavis.stages.models.networks import load_speaker_encoder
            from visavis.stages.voice.separator import load_separator

            device = pick_device(self.config.device)
            self._separator = load_separator(self.config, device)
            self._encoder = load_speaker_encoder(device)

    def process(self, item: SeparateInput) -> Iterator[Voices]:
        """One row.

        Raises:
            Rejected: NO_AUDIO, UNREADABLE.
        """
        state_T = speech_state(item.binding.turns, item.conversation.frames)
        own = item.conversation.layout is Layout.PER_PARTICIPANT
        audio, figures = self._own_tracks(item, state_T) if own else self._from_mix(item, state_T)
        yield Voices(conversation=item.conversation.id, audio=audio, figures=figures)

    def facts(self, rows: Sequence[Voices]) -> str:
        """`VoicesFacts`."""
        one, other = rows[0].figures
        both = {name: (getattr(one, name), getattr(other, name)) for name in VoicesFacts.model_fields}
        return VoicesFacts(**both).model_dump_json()

    def _own_tracks(self, item: SeparateInput, state_T: np.ndarray) -> _Made:
        audio, powers, sounds = [], [], []
        for participant in item.binding.participants:
            track_N = sound_of(item.conversation.media[participant.media], item.conversation.frames)
            audio.append(_flac(track_N))
            powers.append(frame_power(track_N))
            sounds.append(track_sound(track_N))
        residuals = residual_of_tracks(powers, state_T)
        return (audio[0], audio[1]), figures_of("own_track", sounds, powers, residuals, state_T)

    def _from_mix(self, item: SeparateInput, state_T: np.ndarray) -> _Made:
        turns, fade = item.binding.turns, self.config.fade
        mix_N = sound_of(item.conversation.media[0], item.conversation.frames)
        laid, crosstalk = (
            network_patches(mix_N, turns, self._separator, self._encoder, fade)
            if self.config.backend == "convtasnet"
            else ([], None)
        )
        audio, gains, sounds = [], [], []
        for participant in (0, 1):
            voice_N = turn_mask(turns, participant, item.conversation.frames, fade)
            for patch in laid:
                voice_N[patch.span] *= 1 - patch.weight
            gains.append(frame_power(voice_N))
            voice_N *= mix_N
            for patch in laid:
                voice_N[patch.span] += patch.weight * patch.voices[participant]
            audio.append(_flac(voice_N))
            sounds.append(track_sound(voice_N))
        patched_T, power_T = patched(laid, len(state_T)) if laid else None, frame_power(mix_N)
        residuals = residual_of_mix(power_T, gains, state_T, patched_T=patched_T, crosstalk=crosstalk)
        method: Literal["mask", "network"] = "network" if laid else "mask"
        return (audio[0], audio[1]), figures_of(method, sounds, (power_T, power_T), residuals, state_T)


def network_patches(
    mix_N: np.ndarray, turns: Sequence[Turn], separator: Separator, encoder: SpeakerEncoder, fade: float
) -> tuple[list[Patch], float | None]:
    """What a network makes of the overlaps, and its crosstalk: the power of the other's voice over the mix's there.

    Crosstalk is measured on a rehearsal, where the truth is known (`stages.voice.leakage`); None where it cannot be
    told.
    """
    speech = Speech.of(mix_N, turns)
    alone = (speech.alone(0), speech.alone(1))
    pictures = (picture(encoder, alone[0]), picture(encoder, alone[1]))
    laid = patches(speech, pictures, separator, encoder, fade)
    if not laid or min(map(len, alone)) < _LEAST_SAID:
        return laid, None
    truth_2N, rehearsed = rehearsal(alone)
    found = patches(Speech.of(truth_2N.sum(0), rehearsed), pictures, separator, encoder, 0.0)
    errors = np.concatenate([patch.voices[0] - truth_2N[0, patch.span] for patch in found])
    mixed = np.concatenate([patch.voices.sum(0) for patch in found])
    power = float(np.square(mixed).sum(dtype=np.float64))
    return laid, float(np.square(errors).sum(dtype=np.float64)) / power / 2 if power else None


def rehearsal(alone: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, list[Turn]]:
    """Overlaps of what two people say alone: their voices apart, float32 [2, N], and their turns.

    Each window has up to two seconds of overlap in its middle, and half as much or more of one person alone on either
    side.
    """
    both = 2 * min(_SAID, *map(len, alone)) // 3
    count = min(_REHEARSALS, max(1, min(map(len, alone)) // _SAID))
    voices_2N, turns = np.zeros((2, count * WINDOW), np.float32), []
    for participant, voice_N in enumerate(alone):
        length = min(len(voice_N), (WINDOW + both) // 2)
        begin = (WINDOW - both) // 2 if participant else (WINDOW + both) // 2 - length
        for number, first in enumerate(np.linspace(0, len(voice_N) - length, count).astype(int).tolist()):
            start = number * WINDOW + begin
            voices_2N[participant, start : start + length] = voice_N[first : first + length]
            turns.append(Turn(speaker=participant, start=start / SAMPLE_RATE, end=(start + length) / SAMPLE_RATE))
    return voices_2N, turns


def patched(laid: Sequence[Patch], frames: int) -> np.ndarray:
    """Mean square of the patches' weights in each frame, float32 [T]."""
    patched_T = np.zeros(frames, np.float32)
    for patch in laid:
        frame, before = divmod(patch.first, SAMPLES_PER_FRAME)
        after = -(before + len(patch.weight)) % SAMPLES_PER_FRAME
        power = frame_power(np.pad(patch.weight, (before, after)))
        patched_T[frame : frame + len(power)] += power
    return patched_T


def _flac(audio_N: np.ndarray) -> np.ndarray:
    return np.frombuffer(encode_audio(audio_N), np.uint8)
