"""Checkpoints and cached answers on disks that are full, or without hard links."""

from __future__ import annotations

import errno
import logging
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from visavis.training.checkpoint import _replacing, keep_copy
from visavis.training.reference import ReferenceErrors

PLACES, BATCH, FRAMES = 40, 2, 50


@contextmanager
def full_after(size: int) -> Iterator[None]:
    """The kernel refuses to write files on past so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)


def ask(answers: ReferenceErrors, place: int) -> bool:
    """Whether the answer was known. It is right in any case."""
    pairs: Any = SimpleNamespace(keys=("a", f"b{place}"))
    noise: Any = SimpleNamespace(t=torch.full((BATCH, FRAMES), place / PLACES))
    asked = []
    right = (torch.full((BATCH, FRAMES), float(place)), torch.full((BATCH, FRAMES), place + 0.5))
    chosen, rejected = answers.of(place, pairs, noise, lambda: asked.append(place) or right)
    assert chosen.equal(right[0])
    assert rejected.equal(right[1])
    return not asked


def opened(folder: Path) -> ReferenceErrors:
    return ReferenceErrors(folder, {"run": 1}, PLACES, BATCH, FRAMES)


@pytest.mark.usefixtures("no_links")
def test_answers_are_kept_without_hard_links(tmp_path: Path) -> None:
    assert not ask(opened(tmp_path), 3)
    assert ask(opened(tmp_path), 3)
    assert not ask(opened(tmp_path), 4)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_ends_the_cache_and_not_the_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    answers = opened(tmp_path)
    with full_after(10_000), caplog.at_level(logging.WARNING):
        known = [ask(answers, place) for place in range(PLACES)]
    assert known == [False] * PLACES
    (line,) = caplog.messages
    assert str(tmp_path) in line
    assert "training goes on without it" in line
    again = [ask(opened(tmp_path), place) for place in range(PLACES)]
    assert again[:5] == [True] * 5
    assert not any(again[20:])


def test_a_checkpoint_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(b"old")

    def save() -> None:
        with _replacing(path) as temporary, temporary.open("wb") as file:
            file.write(bytes(100_000))

    with full_after(4096), pytest.raises(OSError, match="File too large") as caught:
        save()
    assert caught.value.filename == str(path)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("checkpoint.safetensors", b"old")]


@pytest.mark.usefixtures("no_links")
def test_a_copy_that_does_not_fit_is_not_half_there(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(bytes(100_000))
    with full_after(4096), pytest.raises(OSError, match="File too large") as caught:
        keep_copy(path, 500, 2, 1000)
    assert "checkpoint-0000500.safetensors" in str(caught.value.filename)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.safetensors"]
    keep_copy(path, 500, 2, 1000)
    assert (tmp_path / "checkpoint-0000500.safetensors").read_bytes() == path.read_bytes()
