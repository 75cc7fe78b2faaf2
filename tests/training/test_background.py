"""Checkpoints in the background: what was to be written is written, whole, and what was not is told."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from visavis.schemas.train import TrainConfig
from visavis.training import background
from visavis.training.background import CheckpointWriter
from visavis.training.checkpoint import checkpoint_id, load_checkpoint, save_checkpoint
from visavis.training.train import train


def test_what_is_written_is_what_was_there_when_it_began(trained: Path, tmp_path: Path, monkeypatch):
    checkpoint, slow = load_checkpoint(trained), save_checkpoint
    written = tmp_path / "checkpoint.safetensors"

    def changed_meanwhile(given, path):
        for group in (checkpoint.model, checkpoint.ema):
            for tensor in group.values():
                tensor.zero_()
        slow(given, path)

    monkeypatch.setattr(background, "save_checkpoint", changed_meanwhile)
    then: list[str] = []
    writer = CheckpointWriter()
    writer.write(checkpoint, written, lambda: then.append(checkpoint_id(written)))
    writer.wait()
    assert then == [checkpoint_id(trained)] == [checkpoint_id(written)]


def test_the_error_of_a_write_is_raised_once_and_by_the_next_one(trained: Path, tmp_path: Path):
    checkpoint = load_checkpoint(trained)
    (tmp_path / "file").write_text("no folder")
    writer = CheckpointWriter()
    writer.write(checkpoint, tmp_path / "file" / "checkpoint.safetensors")
    with pytest.raises(OSError, match="file"):
        writer.write(checkpoint, tmp_path / "checkpoint.safetensors")
    writer.write(checkpoint, tmp_path / "checkpoint.safetensors")
    writer.wait()
    assert load_checkpoint(tmp_path / "checkpoint.safetensors").step == checkpoint.step


@pytest.mark.slow
def test_a_run_whose_checkpoint_could_not_be_written_fails_and_goes_on_from_the_one_before(
    windows: Path, tmp_path: Path, small_config: TrainConfig, monkeypatch: pytest.MonkeyPatch
):
    def full(given, path):
        if given.step == 6:
            raise OSError(28, "No space left on device", str(path))
        save_checkpoint(given, path)

    with monkeypatch.context() as patched:
        patched.setattr(background, "save_checkpoint", full)
        with pytest.raises(OSError, match="No space left"):
            train(str(windows), tmp_path / "cut", small_config)
    assert load_checkpoint(tmp_path / "cut" / "checkpoint.safetensors").step == 3
    again, whole = (train(str(windows), tmp_path / name, small_config) for name in ("cut", "whole"))
    assert checkpoint_id(again) == checkpoint_id(whole)


KILLED = """
import os, sys
from pathlib import Path
from dataclasses import replace
from visavis.training.background import CheckpointWriter
from visavis.training.checkpoint import load_checkpoint

def stuck(_descriptor):
    print("half way", flush=True)
    sys.stdin.read()

path = Path(sys.argv[1])
os.fsync = stuck
CheckpointWriter().write(replace(load_checkpoint(path), step=77), path)
"""


@pytest.mark.slow
def test_a_kill_during_a_write_leaves_the_checkpoint_before(trained: Path, tmp_path: Path):
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(replace(load_checkpoint(trained), step=5), path)
    command = [sys.executable, "-c", KILLED, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half way\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert load_checkpoint(path).step == 5
    assert torch.equal(*(each.ema["velocity.bias"] for each in (load_checkpoint(path), load_checkpoint(trained))))
