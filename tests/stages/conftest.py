"""Fixtures of the stages' tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def variants(shared_media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the shared tool makes of the interview: 22 files. It takes half a minute."""
    import imageio_ffmpeg

    folder = tmp_path_factory.mktemp("variants")
    (folder / "bin").mkdir()
    (folder / "bin" / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    tool = shared_media.parent / "tools" / "make_awkward.sh"
    clip = shared_media / "conversation" / "interview.mp4"
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["bash", str(tool), str(clip), str(folder / "out")], env=os.environ | {"PATH": path}, check=True, timeout=250
    )
    return folder / "out"
