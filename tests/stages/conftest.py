"""Fixtures of the stages' tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Once
from tests.stages.clapper import ffmpeg


@pytest.fixture(scope="session")
def variants(shared_media: Path, once: Once) -> Path:
    """What the shared tool makes of the interview, at half its size: 22 files. It takes ten seconds."""
    return once("variants", lambda folder: _make_variants(shared_media, folder)) / "out"


def _make_variants(media: Path, folder: Path) -> None:
    import imageio_ffmpeg

    (folder / "bin").mkdir()
    (folder / "bin" / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    tool = media.parent / "tools" / "make_awkward.sh"
    whole, clip = media / "conversation" / "interview.mp4", folder / "interview.mp4"
    one_thread = ("-threads", "1")  # the same bytes on any machine
    ffmpeg("-i", whole, "-t", "10", "-vf", "scale=iw/2:ih/2", "-preset", "veryfast", *one_thread, "-c:a", "copy", clip)
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["bash", str(tool), str(clip), str(folder / "out")], env=os.environ | {"PATH": path}, check=True, timeout=250
    )
