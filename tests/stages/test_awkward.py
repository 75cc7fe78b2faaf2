"""Every awkward file is worked on, or rejected with the right reason; nothing crashes, hangs, chatters or is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.stages.clapper import seen_and_heard, write_clapper
from visavis.schemas.config import IngestConfig
from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.rows import Conversation, Source
from visavis.stages.ingest import IngestStage
from visavis.stages.media.audio import read_audio
from visavis.stages.media.video import display_size, frames_on_grid

AWKWARD: dict[str, int | Reason] = {
    "autoeditor_SAR-2by3.mp4": 50,
    "autoeditor_h264-mjpeg.mp4": 50,  # with cover art
    "autoeditor_man-on-green-screen.mp4": 610,
    "autoeditor_mov_text.mp4": 48,
    "autoeditor_testsrc-hevc.mp4": 50,
    "decord_corrupted.mp4": Reason.NO_AUDIO,
    "decord_unordered.mov": Reason.NO_AUDIO,
    "decord_video_180.mov": Reason.NO_AUDIO,
    "decord_video_90.mov": Reason.NO_AUDIO,
    "mediabunny_annex-b.mp4": Reason.NO_AUDIO,
    "mediabunny_cursed-vfr.mp4": Reason.NO_AUDIO,
    "mediabunny_edit-list-discard.mp4": Reason.NO_AUDIO,
    "mediabunny_frag-buck-bunny.mp4": 124,
    "mediabunny_multiple-aac-tracks.mp4": Reason.NO_VIDEO,
    "mediabunny_rotate-buck-bunny.mp4": 48,
    "moviepy_no_duration.webm": 121,
    "moviepy_video_with_failing_audio.mp4": 280,
    "moviepy_zero_byte_result.webm": Reason.UNREADABLE,
    "pyannote_empty.wav": Reason.NO_VIDEO,
    "pyscenedetect_delayed_start.mp4": Reason.NO_AUDIO,
    "torchcodec_av1_video.mkv": Reason.NO_AUDIO,
    "torchcodec_h264_10bits.mp4": Reason.NO_AUDIO,
    "torchcodec_h265_video.mp4": Reason.NO_AUDIO,
    "torchcodec_nasa_13013.mp4": 325,
}
"""Frames of the grid where a conversation could be in it, or why not."""

NAMES = [
    "two words.mp4",
    "-dash.mp4",
    "--help.mp4",
    'it\'s "quoted".mp4',
    "größe 日本 🎬.mp4",
    "a%20b?c#d.mp4",
    "%03d.mp4",
    "two\nlines.mp4",
    "concat:a.mp4|b.mp4",
    "pipe:0",
    "data:video.mp4",
    "http:clip.mp4",
    "file:clip.mp4",
    "$HOME `ls` ;.mp4",
    "star*[1].mp4",
    "no ending",
]


def worth(path: Path) -> int | Reason:
    """The length of a conversation in grid frames, or the reason for which it is none."""
    found = take_in(path)
    return found.frames if isinstance(found, Conversation) else found


def take_in(path: Path) -> Conversation | Reason:
    try:
        (conversation,) = IngestStage(IngestConfig(min_duration=1.0)).process(Source(uris=(str(path),)))
    except Rejected as rejected:
        return rejected.reason
    return conversation


@pytest.mark.slow
def test_every_file_ends_in_a_length_or_a_reason(shared_media: Path) -> None:
    folder = shared_media / "awkward"
    assert {path.name: worth(path) for path in folder.iterdir()} == AWKWARD


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, outcome in AWKWARD.items() if isinstance(outcome, int)])
def test_what_is_taken_in_is_seen_and_heard_to_its_end(name: str, shared_media: Path) -> None:
    path = shared_media / "awkward" / name
    conversation = take_in(path)
    assert isinstance(conversation, Conversation)
    frames, media = conversation.frames, conversation.media[0]
    shapes = {rgb.shape for _, rgb in frames_on_grid(str(path), 0, frames, max_side=160)}
    scale = 160 / max(media.width, media.height)
    assert shapes == {(round(media.height * scale), round(media.width * scale), 3)}
    assert display_size(str(path)) == (media.width, media.height)
    sound = read_audio(str(path), frames)
    assert np.isfinite(sound).all()
    assert sound.any() == (name != "moviepy_no_duration.webm")  # its sound is digital silence


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, outcome in AWKWARD.items() if outcome is Reason.NO_AUDIO])
def test_pictures_without_sound_show_all_the_same(name: str, shared_media: Path) -> None:
    """As the second file of a pair, or for a stage used alone."""
    pictures = [rgb.mean() for _, rgb in frames_on_grid(str(shared_media / "awkward" / name), 0, 25, max_side=320)]
    assert len(pictures) == 25
    assert max(pictures) > 10
    with pytest.raises(Rejected) as error:
        read_audio(str(shared_media / "awkward" / name))
    assert error.value.reason is Reason.NO_AUDIO


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clapper(tmp_path_factory.mktemp("names") / "clip.mp4", [1.0], [i / 25 for i in range(50)])


@pytest.mark.parametrize("name", NAMES)
def test_any_name_will_do(name: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).write_bytes(clip.read_bytes())
    monkeypatch.chdir(tmp_path)
    for uri in (Path(name), tmp_path / name):
        assert worth(uri) == 50
        assert seen_and_heard(uri, 50) == ([25], [25])
        assert len(list(frames_on_grid(str(uri), 0, 5, decoder="decord"))) == 5


@pytest.mark.nightly("60 real and awkward files in one worker, its memory and its files")
def test_nothing_chatters_or_stays_behind(shared_media: Path, variants: Path, clip: Path, tmp_path: Path) -> None:
    """All files through ingest, sound, both decoders and the face model, in one process as a worker would."""
    for name in NAMES[:4]:
        (tmp_path / name).write_bytes(clip.read_bytes())
    folders = [str(folder) for folder in (shared_media / "awkward", variants, tmp_path)]
    command = [sys.executable, "-W", "always", "-m", "tests.stages.worker", *folders]
    root = Path(__file__).parents[2]
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        command, cwd=root, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=200
    )
    assert done.stderr == ""
    assert done.returncode == 0
    (line,) = done.stdout.splitlines()
    report = json.loads(line)
    assert len(report["outcomes"]) == len(AWKWARD) + 22 + 4
    assert set(report["outcomes"].values()) <= {"ok", *Reason}
    assert report["processes"] == []
    assert report["files"] == []
    assert report["peak_mb"] < 900  # measured: 790, of which 500 come with Silero, which tells speech from music
