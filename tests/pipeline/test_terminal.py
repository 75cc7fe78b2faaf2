"""In front of a person: a build on a terminal ends, and whatever suspends a worker is noticed and named."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.pipeline.terminal import terminal

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_build_on_a_terminal_ends(shared_media: Path, tmp_path: Path) -> None:
    """It hung at `faces` for good: scenedetect starts ffmpeg, which reads from the terminal, from the background."""
    clip = str(shared_media / "conversation" / "two_in_frame.mp4")
    words = [
        sys.executable,
        "-m",
        "pipeline.cli",
        "build",
        "configs/default.yaml",
        clip,
        "--out",
        str(tmp_path / "run"),
    ]
    with terminal(words, REPOSITORY) as shown:
        assert shown.watch(240, "dataset: "), shown.text[-2000:]
        assert shown.watch(30)
        assert shown.process.wait(30) == 0
    assert "faces" in shown.text
    assert "━" in shown.text  # bars
    assert (tmp_path / "run" / "dataset" / "manifest.json").exists()
