"""Of a recording of a public corpus: who speaks when, heard in the voices or given, and the voices as they are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from visavis.schemas import FPS
from visavis.schemas.config import DiarizeConfig
from visavis.schemas.imports import SpeechConfig
from visavis.schemas.recordings import Recorded, RecordedPerson, Recording
from visavis.schemas.rows import Diarization, Row, Turn
from visavis.schemas.sample import encode_audio
from visavis.schemas.section import Section
from visavis.schemas.voice_rows import Voices
from visavis.stages.base import Stage
from visavis.stages.corpora.layouts import voice_of
from visavis.stages.diarize import channel_turns, tidy
from visavis.stages.media.audio import speech_state
from visavis.stages.models.networks import load_voice_activity
from visavis.stages.voice.leakage import frame_power, residual_of_tracks
from visavis.stages.voice.sound import figures_of, track_sound
from visavis.training.runs import runs


class SpeechInput(Row):
    recorded: Recorded
    recording: Recording


class SpeechStage(Stage[SpeechInput, Diarization]):
    """A recording to the turns of both; a corpus of which nobody speaks is silent, and is no fault."""

    name = "speech"
    version = 1
    config: SpeechConfig

    def setup(self) -> None:
        self._activity = load_voice_activity()

    def process(self, item: SpeechInput) -> Iterator[Diarization]:
        """One row.

        Raises:
            Rejected: UNREADABLE.
        """
        recording = item.recording
        if recording.speech is None:
            tracks = [voice_of(item.recorded.layout, each, recording.frames) for each in _people(item.recorded)]
            turns = channel_turns(tracks, self._activity)
        else:
            turns = [
                Turn(speaker=number, start=first / FPS, end=last / FPS)
                for number in (0, 1)
                for first, last in runs(recording.speech >> number & 1 == 1)
            ]
        limits = DiarizeConfig(min_turn=self.config.min_turn, max_pause=self.config.max_pause)
        yield Diarization(
            conversation=recording.conversation,
            method="channels" if recording.speech is None else "given",
            speakers=2,
            turns=tidy(turns, recording.frames / FPS, limits),
        )


class VoicesInput(Row):
    recorded: Recorded
    recording: Recording
    diarization: Diarization


class VoicesStage(Stage[VoicesInput, Voices]):
    """The two voices of a recording, cut to its grid."""

    name = "voices"
    version = 2
    config: Section

    def process(self, item: VoicesInput) -> Iterator[Voices]:
        """One row.

        Raises:
            Rejected: UNREADABLE.
        """
        recording = item.recording
        state_T = speech_state(item.diarization.turns, recording.frames)
        tracks = [voice_of(item.recorded.layout, each, recording.frames) for each in _people(item.recorded)]
        powers = [frame_power(track) for track in tracks]
        residuals = residual_of_tracks(powers, state_T) if all(recording.heard) else (None, None)
        figures = figures_of("own_track", [track_sound(track) for track in tracks], powers, residuals, state_T)
        first, second = (np.frombuffer(encode_audio(track), np.uint8) for track in tracks)
        yield Voices(conversation=recording.conversation, audio=(first, second), figures=figures)


def _people(recorded: Recorded) -> tuple[RecordedPerson, ...]:
    """Both; of a solo clip the other one is nobody, and silent."""
    return (*recorded.people, RecordedPerson(name="nobody"))[:2]
