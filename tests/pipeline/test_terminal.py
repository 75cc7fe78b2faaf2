"""In front of a person, at a shell: a build ends, can be suspended, brought back and stopped."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.pipeline.terminal import Terminal, terminal

REPOSITORY = Path(__file__).parents[2]
CTRL_C, CTRL_Z = "\x03", "\x1a"


@pytest.fixture
def shell() -> Iterator[Terminal]:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash, whose job control a person uses")
    environment = os.environ | {"PS1": "ready> ", "PYTHONPATH": str(REPOSITORY)}
    with terminal([bash, "--norc", "--noprofile", "-i"], REPOSITORY, environment) as shown:
        yield shown


def build(media: Path, out: Path) -> str:
    clip = media / "conversation" / "two_in_frame.mp4"
    return shlex.join([sys.executable, "-m", "visavis", "build", "configs/default.yaml", str(clip), "--out", str(out)])


@pytest.mark.nightly("job control of a shell over a whole build of a real film")
def test_a_build_ends_also_after_it_was_suspended(shell: Terminal, shared_media: Path, tmp_path: Path) -> None:
    """It hung at `faces` for good: scenedetect starts ffmpeg, which read from the terminal, from the background."""
    shell.type(f"{build(shared_media, tmp_path / 'run')}\n")
    assert shell.watch(240, "diarize"), shell.text[-2000:]
    shell.type(CTRL_Z)
    assert shell.watch(60, "Stopped"), shell.text[-2000:]
    shell.watch(12)  # longer than a driver that is awake leaves between two looks
    shell.type("fg\n")
    assert shell.watch(240, "dataset: "), shell.text[-2000:]
    shell.type("echo code $?\n")
    assert shell.watch(60, "code 0"), shell.text[-2000:]
    assert "━" in shell.text  # bars
    assert (tmp_path / "run" / "dataset" / "manifest.json").exists()


@pytest.mark.nightly("keys at a terminal; SIGTERM and resume are in tests/e2e/test_faults.py")
def test_ctrl_c_twice_is_one_line_and_leaves_nobody_behind(shell: Terminal, shared_media: Path, tmp_path: Path) -> None:
    shell.type(f"{build(shared_media, tmp_path / 'run')}\n")
    assert shell.watch(240, "diarize"), shell.text[-2000:]
    started = psutil.Process(shell.process.pid).children(recursive=True)
    shell.type(CTRL_C)
    shell.watch(0.3)
    shell.type(CTRL_C)
    assert shell.watch(60, "stopped; the same command resumes"), shell.text[-2000:]
    shell.type("echo code $?\n")
    assert shell.watch(60, "code 130"), shell.text[-2000:]
    assert "Traceback" not in shell.text
    assert psutil.wait_procs(started, timeout=30)[1] == []
