"""What becomes a conversation, and why the rest is left out."""

from __future__ import annotations

import logging
import math
import shutil
from fractions import Fraction
from pathlib import Path

import av
import fsspec
import numpy as np
import pytest
from av.video.frame import PictureType

from visavis.schemas.config import IngestConfig
from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.rows import Conversation, Layout, Source
from visavis.stages.ingest import IngestStage


def write_clip(
    path: Path,
    *,
    seconds: float = 4.0,
    fps: float = 25,
    audio_from: float = 0.0,
    audio_to: float | None = None,
    sound: bool = True,
    keys: tuple[int, ...] = (),
    **options: str,
) -> Path:
    """A grey clip that gets lighter, with a tone. keys: pictures made key frames beside the regular ones."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        video.options = {"sc_threshold": "0", "forced-idr": "1", **options}
        audio = container.add_stream("aac", rate=16000, layout="mono") if sound else None
        for i in range(math.ceil(seconds * fps)):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), i % 200, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(1000 * i / fps), Fraction(1, 1000)
            frame.pict_type = PictureType.I if i in keys else PictureType.NONE
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            first, last = round(audio_from * 16000), round((seconds if audio_to is None else audio_to) * 16000)
            for at in range(first, last - 1023, 1024):
                tone = (3000 * np.sin(np.arange(at, at + 1024) / 10)).astype(np.int16)[None]
                block = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
                block.sample_rate, block.pts, block.time_base = 16000, at, Fraction(1, 16000)
                container.mux(audio.encode(block))
            container.mux(audio.encode(None))
    return path


def ingest(*uris: Path | str, participants: tuple[str | None, ...] = (), **config: float) -> Conversation:
    source = Source(uris=tuple(str(u) for u in uris), participants=participants)
    [conversation] = IngestStage(IngestConfig(**config)).process(source)
    return conversation


def reason_of(*uris: Path | str, participants: tuple[str | None, ...] = (), **config: float) -> Reason:
    with pytest.raises(Rejected) as error:
        ingest(*uris, participants=participants, **config)
    return error.value.reason


def test_one_file_is_two_people_in_one_frame(tmp_path: Path) -> None:
    conversation = ingest(write_clip(tmp_path / "a.mp4"))
    media = conversation.media[0]
    assert conversation.layout is Layout.ONE_FRAME
    assert conversation.participants == (f"{conversation.id}-0", f"{conversation.id}-1")
    assert (media.width, media.height, media.audio_rate, media.audio_channels) == (64, 48, 16000, 1)
    assert media.fps == pytest.approx(25)
    assert media.video_duration == pytest.approx(4.0, abs=0.002)
    assert media.bytes == (tmp_path / "a.mp4").stat().st_size
    assert 98 <= conversation.frames <= 100  # the tone ends up to 64 ms early


def test_two_files_are_one_person_each(tmp_path: Path) -> None:
    long, short = write_clip(tmp_path / "a.mp4", seconds=5), write_clip(tmp_path / "b.mp4", seconds=4)
    conversation = ingest(long, short, participants=("ann", None))
    assert conversation.layout is Layout.PER_PARTICIPANT
    assert conversation.participants == ("ann", f"{conversation.id}-1")
    assert conversation.frames == ingest(short).frames


def test_the_id_is_the_content(tmp_path: Path) -> None:
    a = write_clip(tmp_path / "a.mp4")
    moved = Path(shutil.copy(a, tmp_path / "elsewhere, renamed.mp4"))
    b = write_clip(tmp_path / "b.mp4", seconds=5)
    assert ingest(a).id == ingest(moved).id
    assert len({ingest(a).id, ingest(b).id, ingest(a, b).id}) == 3
    assert ingest(a, b).id == ingest(b, a).id == ingest(a, b, participants=("x", "y")).id  # names are not content


def test_remote_files_are_the_same_conversation(tmp_path: Path) -> None:
    local = write_clip(tmp_path / "a.mp4")
    with fsspec.open("memory://ingest/a.mp4", "wb") as file:
        file.write(local.read_bytes())
    assert ingest("memory://ingest/a.mp4").id == ingest(local).id
    assert reason_of("memory://ingest/missing.mp4") is Reason.UNREADABLE


def test_priming_and_small_differences_are_normal(tmp_path: Path) -> None:
    assert ingest(write_clip(tmp_path / "late.mp4", audio_from=0.5)).frames >= 98
    assert ingest(write_clip(tmp_path / "short.mp4", audio_to=3.6)).frames == pytest.approx(3.6 * 25, abs=2)


@pytest.mark.slow
def test_what_is_missing_at_the_end_is_cut_off(tmp_path: Path) -> None:
    mute = write_clip(tmp_path / "mute_at_the_end.mp4", seconds=40, audio_to=37.5)
    assert ingest(mute).frames == pytest.approx(37.5 * 25, abs=2)
    assert reason_of(mute, max_missing=0.05) is Reason.AV_LENGTH_MISMATCH
    black = write_clip(tmp_path / "black_at_the_end.mp4", seconds=37.5, audio_to=40)
    assert ingest(black).frames == pytest.approx(37.5 * 25, abs=2)
    late = write_clip(tmp_path / "late.mp4", seconds=40, audio_from=2.5)
    assert reason_of(late) is Reason.AV_LENGTH_MISMATCH
    most = write_clip(tmp_path / "most.mp4", seconds=40, audio_to=30)
    assert reason_of(most) is Reason.AV_LENGTH_MISMATCH


def test_reasons(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4")
    (tmp_path / "text.mp4").write_text("this is not a video\n")
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "no_moov.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    assert reason_of(tmp_path / "missing.mp4") is Reason.UNREADABLE
    assert reason_of(tmp_path) is Reason.UNREADABLE
    assert reason_of(tmp_path / "text.mp4") is Reason.UNREADABLE
    assert reason_of(tmp_path / "zero.mp4") is Reason.UNREADABLE
    assert reason_of(tmp_path / "no_moov.mp4") is Reason.UNREADABLE
    assert reason_of(write_clip(tmp_path / "mute.mp4", sound=False)) is Reason.NO_AUDIO
    assert reason_of(write_clip(tmp_path / "short.mp4", seconds=2)) is Reason.TOO_SHORT
    assert reason_of(write_clip(tmp_path / "half.mp4", seconds=8, audio_to=4)) is Reason.AV_LENGTH_MISMATCH
    assert reason_of(write_clip(tmp_path / "late.mp4", seconds=8, audio_from=4)) is Reason.AV_LENGTH_MISMATCH
    assert reason_of(write_clip(tmp_path / "slides.mp4", seconds=8, fps=0.5)) is Reason.NO_VIDEO
    assert reason_of(write_clip(tmp_path / "still.mp4", seconds=0.02, audio_to=4)) is Reason.NO_VIDEO


def test_a_dyad_needs_two_different_people(tmp_path: Path) -> None:
    a, b = write_clip(tmp_path / "a.mp4"), write_clip(tmp_path / "b.mp4", seconds=5)
    same_bytes = shutil.copy(a, tmp_path / "copy.mp4")
    assert reason_of(a, participants=("ann",)) is Reason.INCOMPLETE_DYAD
    assert reason_of(a, b, participants=("ann", "ann")) is Reason.INCOMPLETE_DYAD
    assert reason_of(a, b, tmp_path / "c.mp4") is Reason.INCOMPLETE_DYAD
    assert reason_of(a, same_bytes) is Reason.DUPLICATE_CONTENT


@pytest.mark.slow
def test_the_best_key_frame_of_each_twenty_seconds_is_kept(tmp_path: Path) -> None:
    def keyframes(every: int, forced: tuple[int, ...] = ()) -> tuple[tuple[int, ...], tuple[int, ...]]:
        path = write_clip(tmp_path / f"{every}.mp4", seconds=42, keys=forced, g=str(every))
        media = ingest(path).media[0]
        return media.keyframes, media.early_keyframes

    assert keyframes(1200) == ((), ())  # the first picture is no place to cut
    assert keyframes(89) == ((89, 534), ())
    assert keyframes(1) == ((1, 500, 1000), ())
    assert keyframes(90, forced=(121,)) == ((571, 1021), (121,))  # as an encoder does at a scene change


@pytest.mark.slow
def test_a_key_frame_is_named_by_the_first_frame_that_may_show_it(tmp_path: Path) -> None:
    media = ingest(write_clip(tmp_path / "a.mp4", seconds=65, fps=30, g="600")).media[0]
    expected = [min(n for n in range(2000) if round(1000 * i / 30) / 1000 <= (n + 0.5) / 25) for i in (600, 1200, 1800)]
    assert list(media.keyframes) == expected


def test_a_cut_off_file_has_the_length_that_is_left(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mkv", seconds=8)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    assert 75 < ingest(cut).frames < 150


@pytest.mark.slow
def test_storage_that_fails_is_not_the_files_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    def unplugged(*args: object, **kwargs: object) -> None:
        raise ConnectionResetError("connection reset by peer")

    monkeypatch.setattr(MemoryFileSystem, "_open", unplugged)
    with pytest.raises(ConnectionResetError):
        ingest("memory://ingest/any.mp4")


def test_ffmpeg_keeps_quiet(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken.mp4").write_bytes(write_clip(tmp_path / "a.mp4").read_bytes()[:3000])
    capfd.readouterr()
    av.logging.set_level(av.logging.ERROR)  # as importing torchvision does
    with caplog.at_level(logging.DEBUG):
        reason_of(tmp_path / "broken.mp4")
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_real_conversations(shared_media: Path) -> None:
    folder = shared_media / "conversation"
    assert ingest(folder / "interview.mp4").frames == 438
    assert ingest(folder / "two_in_frame.mp4").frames == 213  # 24 fps, 8.54 s
    assert ingest(folder / "pair_user.mp4", folder / "pair_avatar.mp4").frames == 395
