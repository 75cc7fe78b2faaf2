"""Fixtures of the stages' tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Once


@pytest.fixture(scope="session")
def variants(shared_media: Path, once: Once) -> Path:
    """What the shared tool makes of the interview: 22 files. It takes half a minute."""
    return once("variants", lambda folder: _make_variants(shared_media, folder)) / "out"


def _make_variants(media: Path, folder: Path) -> None:
    import imageio_ffmpeg

    (folder / "bin").mkdir()
    (folder / "bin" / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    tool = media.parent / "tools" / "make_awkward.sh"
    clip = media / "conversation" / "interview.mp4"
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["bash", str(tool), str(clip), str(folder / "out")], env=os.environ | {"PATH": path}, check=True, timeout=250
    )
