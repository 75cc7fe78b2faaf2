"""Voices and faces of real clips, as they are and with their sound tampered with.

The labels of the interview were written down by looking: at the lips of both people, picture by picture, beside the
spectrogram of the sound. Both talk at once for long; they are good to about 0.2 s.
"""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Callable
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from tests.stages.test_faces import real_conversation, real_faces
from visavis.pipeline.demo.truth import diarization_error
from visavis.schemas import FPS
from visavis.schemas.config import BindConfig, DiarizeConfig
from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.face_rows import Cast
from visavis.schemas.rows import Binding, Conversation, Diarization, Turn
from visavis.stages.bind import BindInput, BindStage
from visavis.stages.cast import CastInput, CastStage
from visavis.stages.diarize import DiarizeStage
from visavis.stages.media.audio import speech_state

pytestmark = pytest.mark.nightly("real films, which are not part of a clone; made voices are in test_bind.py")

HOST, GUEST = 0, 1
INTERVIEW = tuple(
    Turn(speaker=speaker, start=start, end=end)
    for speaker, start, end in (
        (HOST, 0.0, 1.45), (HOST, 2.0, 2.3), (HOST, 3.0, 8.35), (HOST, 9.0, 9.45), (HOST, 10.35, 10.75),
        (HOST, 15.0, 17.15), (GUEST, 0.0, 1.6), (GUEST, 1.9, 10.05), (GUEST, 11.1, 16.25),
    )
)  # fmt: skip
LATE, EARLY = "adelay=500:all=1", "atrim=start=0.5,asetpts=PTS-STARTPTS"


@functools.cache
def diarizer() -> DiarizeStage:
    stage = DiarizeStage(DiarizeConfig())
    stage.setup()
    return stage


@functools.cache
def cast_of(*uris: Path) -> Cast:
    [cast] = CastStage().process(CastInput(conversation=real_conversation(*uris), faces=real_faces(*uris)))
    return cast


def heard(conversation: Conversation) -> Diarization:
    [diarization] = diarizer().process(conversation)
    return diarization


def bound(
    conversation: Conversation,
    cast: Cast,
    tampered: Callable[[Diarization], Diarization] = lambda as_it_is: as_it_is,
) -> Binding:
    return bound_to(tampered(heard(conversation)), conversation, cast)


def bound_to(diarization: Diarization, conversation: Conversation, cast: Cast, **config: float) -> Binding:
    given = BindInput(conversation=conversation, diarization=diarization, cast=cast)
    [binding] = BindStage(BindConfig(**config)).process(given)
    return binding


def with_sound(clip: Path, to: Path, sound: str) -> Conversation:
    """The same pictures, with the sound sent through a filter of ffmpeg."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-i", str(clip), "-c:v", "copy", "-af", sound]
    subprocess.run([*command, "-shortest", str(to)], check=True)
    frames = real_conversation(clip).frames  # the grid of the pictures, of which the cast is known
    return real_conversation(to).model_copy(update={"frames": frames})


def every_other_flipped(diarization: Diarization) -> Diarization:
    """Half of the turns, every other one, in the other's name."""
    turns = tuple(t.model_copy(update={"speaker": t.speaker ^ i % 2}) for i, t in enumerate(diarization.turns))
    return diarization.model_copy(update={"turns": turns})


def test_an_interview_in_which_both_talk_at_once(shared_media: Path) -> None:
    clip = shared_media / "conversation" / "interview.mp4"
    conversation = real_conversation(clip)
    binding = bound(conversation, cast_of(clip))
    assert [p.score > 0.3 for p in binding.participants] == [True, True]
    seconds = conversation.frames / FPS
    assert diarization_error(INTERVIEW, binding.turns, seconds) < 0.2
    assert binding.corrected > 0  # the host's "okay" at 10.5 s, which the diarizer took for the guest's
    state_T = speech_state(binding.turns, conversation.frames)
    assert (state_T[round(10.4 * FPS) : round(10.7 * FPS)] == 1).all()
    assert (state_T[round(11.5 * FPS) : round(14.8 * FPS)] == 2).all()
    for participant in binding.participants:
        assert participant.offset_ms == pytest.approx(0, abs=40)


def test_two_in_frame_change_turns_when_they_do(shared_media: Path) -> None:
    clip = shared_media / "conversation" / "two_in_frame.mp4"
    binding = bound(real_conversation(clip), cast_of(clip))
    assert [turn.speaker for turn in binding.turns] == [1, 0]
    assert binding.turns[0].end == pytest.approx(4.533, abs=0.2)
    assert binding.turns[1].start == pytest.approx(4.533, abs=0.2)


def test_a_confused_ear_is_set_right(shared_media: Path) -> None:
    clip = shared_media / "conversation" / "two_in_frame.mp4"
    conversation, cast = real_conversation(clip), cast_of(clip)
    found_T, wanted_T = (
        speech_state(bound(conversation, cast, tampered).turns, conversation.frames)
        for tampered in (every_other_flipped, lambda as_it_is: as_it_is)
    )
    assert (found_T == wanted_T).mean() > 0.95


def test_two_who_talk_at_the_camera_are_no_dialogue(shared_media: Path) -> None:
    clip = shared_media / "conversation" / "both_talk.mp4"
    with pytest.raises(Rejected) as rejection:
        bound(real_conversation(clip), cast_of(clip))
    assert rejection.value.reason is Reason.UNBOUND_VOICE


def test_a_pair_of_files_keeps_its_voices(shared_media: Path) -> None:
    user, avatar = (shared_media / "conversation" / f"pair_{who}.mp4" for who in ("user", "avatar"))
    binding = bound(real_conversation(user, avatar), cast_of(user, avatar))
    assert [p.speaker for p in binding.participants] == [0, 1]


@pytest.mark.parametrize("name", ["interview", "two_in_frame"])
@pytest.mark.parametrize(("sound", "late"), [(LATE, 500), (EARLY, -500)])
def test_sound_that_is_half_a_second_off_is_found(
    name: str, sound: str, late: int, shared_media: Path, tmp_path: Path
) -> None:
    clip = shared_media / "conversation" / f"{name}.mp4"
    with pytest.raises(Rejected) as rejection:
        bound(with_sound(clip, tmp_path / "shifted.mp4", sound), cast_of(clip))
    assert rejection.value.reason is Reason.AV_OFFSET
    assert rejection.value.detail.split(": ")[1].split(" ms ")[1].startswith("late" if late > 0 else "early")


def test_a_dubbed_voice_fits_the_lips_at_no_offset(shared_media: Path, tmp_path: Path) -> None:
    """Turns as they were and other people's words in them. The clip is short, so the limit is, too."""
    clip = shared_media / "conversation" / "interview.mp4"
    original = heard(real_conversation(clip))
    bound_to(original, real_conversation(clip), cast_of(clip), max_unsynced=15)
    other = shared_media / "diarization" / "pyannote_sample.wav"
    files = ["-i", str(clip), "-i", str(other), "-map", "0:v", "-map", "1:a"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *files, "-c:v", "copy", "-shortest"]
    subprocess.run([*command, str(tmp_path / "dubbed.mp4")], check=True)
    dubbed = real_conversation(tmp_path / "dubbed.mp4").model_copy(update={"frames": real_conversation(clip).frames})
    with pytest.raises(Rejected) as rejection:
        bound_to(original, dubbed, cast_of(clip), max_unsynced=15)
    assert rejection.value.reason is Reason.DUBBED
    binding = bound_to(original, dubbed, cast_of(clip))  # under three minutes: told by a figure
    assert all(p.offset_ms is None and p.offset_confidence < 12 for p in binding.participants)


@pytest.mark.parametrize("name", ["interview", "two_in_frame"])
def test_exchanged_channels_change_nothing(name: str, shared_media: Path, tmp_path: Path) -> None:
    clip = shared_media / "conversation" / f"{name}.mp4"
    binding = bound(with_sound(clip, tmp_path / "swapped.mp4", "pan=stereo|c0=c1|c1=c0"), cast_of(clip))
    whole = bound(real_conversation(clip), cast_of(clip))
    frames = real_conversation(clip).frames
    assert np.mean(speech_state(binding.turns, frames) == speech_state(whole.turns, frames)) > 0.95


def test_a_muted_clip_has_no_speech(shared_media: Path, tmp_path: Path) -> None:
    clip = shared_media / "conversation" / "interview.mp4"
    with pytest.raises(Rejected) as rejection:
        bound(with_sound(clip, tmp_path / "muted.mp4", "volume=0"), cast_of(clip))
    assert rejection.value.reason is Reason.NO_SPEECH
