"""Processes that read and decode give what the trainer's own thread gives, in the same order."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from tests.training.synthetic import write_dataset
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import DatasetError
from visavis.training import readers
from visavis.training.dataset import Dataset
from visavis.training.loader import Batch, Loader, prefetch

LISTENING, SPEAKING = WindowClass.LISTENING, WindowClass.SPEAKING
COUNTS = {SPEAKING: 5, LISTENING: 7}


@contextmanager
def loading(folder: Path, batch: int = 4, **settings: Any) -> Iterator[Loader]:
    loader = Loader(Dataset(str(folder)), batch, **settings)
    try:
        yield loader
    finally:
        loader.close()


def drawn(loader: Loader, batches: int) -> list[tuple[Batch, dict[str, Any]]]:
    return list(islice(iter(loader), batches))


def same(one: Batch, other: Batch) -> bool:
    names = [name for name, value in vars(one).items() if isinstance(value, torch.Tensor)]
    return (one.keys, one.records) == (other.keys, other.records) and all(
        torch.equal(getattr(one, name), getattr(other, name)) for name in names
    )


@pytest.mark.slow
@pytest.mark.parametrize("chunk_bytes", [1, readers.CHUNK_BYTES])
def test_the_same_batches_and_positions_come_from_processes(
    tmp_path: Path, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(readers, "CHUNK_BYTES", chunk_bytes)
    folder = write_dataset(tmp_path, COUNTS, weight=0.6, frames=10)
    with loading(folder, beside=True) as beside, loading(folder) as here:
        ours, theirs = drawn(here, 12), drawn(beside, 12)
    assert [state for _, state in ours] == [state for _, state in theirs]
    assert all(same(one, other) for (one, _), (other, _) in zip(ours, theirs, strict=True))
    state = json.loads(json.dumps(ours[4][1]))
    with loading(folder, beside=True, state=state) as again:
        assert all(same(one, other) for (one, _), (other, _) in zip(ours[5:], drawn(again, 7), strict=True))


@pytest.mark.slow
def test_pairs_come_with_their_records(pairs: Path):
    with loading(pairs, 2, beside=True) as beside, loading(pairs, 2) as here:
        (one, _), (other, _) = drawn(beside, 1)[0], drawn(here, 1)[0]
    assert one.records
    assert same(one, other)


@pytest.mark.slow
def test_an_unreadable_sample_is_skipped_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    def spoil(key: str, members: dict[str, bytes]) -> dict[str, bytes]:
        return members | {"user.audio.flac": b"not audio"} if key == "listening-00003" else members

    folder = write_dataset(tmp_path, {LISTENING: 4}, damage=spoil, frames=10)
    with loading(folder, beside=True, max_bad=1) as beside, loading(folder, max_bad=1) as here:
        ours, theirs = drawn(here, 6), drawn(beside, 6)
    assert [(batch.keys, state) for batch, state in ours] == [(batch.keys, state) for batch, state in theirs]
    assert set(caplog.messages) == {"left out: sample listening-00003: user.audio: audio is not FLAC"}
    with loading(folder, beside=True) as beside, pytest.raises(DatasetError, match="1 unreadable sample in"):
        drawn(beside, 6)


@pytest.mark.slow
def test_a_shard_that_is_gone_is_said_in_the_same_words(tmp_path: Path):
    folder = write_dataset(tmp_path, {LISTENING: 4}, frames=10)
    next(folder.rglob("*.tar")).unlink()
    with loading(folder, beside=True) as beside, pytest.raises(DatasetError, match=r"^shard .* is missing$"):
        drawn(beside, 1)


def processes() -> set[psutil.Process]:
    """All that this one has started, itself or by others, and that are at work."""
    return {each for each in psutil.Process().children(recursive=True) if each.status() != psutil.STATUS_ZOMBIE}


@pytest.mark.slow
def test_a_process_that_was_ended_is_an_error_and_none_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = write_dataset(tmp_path, COUNTS, frames=10)

    monkeypatch.setattr(readers, "CHUNK_BYTES", 1)  # little is read ahead
    with loading(folder, beside=True) as first:
        drawn(first, 1)  # the server that starts them stays
    before = processes()
    with loading(folder, beside=True) as beside, pytest.raises(DatasetError, match="windows ended"):  # noqa: PT012
        drawn(beside, 1)
        for process in processes() - before:
            process.kill()
        drawn(beside, 20)
    assert processes() <= before


@pytest.mark.slow
def test_what_asks_all_processes_to_stop_leaves_the_trainer_its_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(readers, "CHUNK_BYTES", 1)
    folder = write_dataset(tmp_path, COUNTS, frames=10)
    with loading(folder, beside=True) as first:
        drawn(first, 1)
    before = processes()
    with loading(folder, beside=True) as beside:
        drawn(beside, 1)
        reading = processes() - before
        assert len(reading) == len(COUNTS)
        for process in reading:
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
        assert len(drawn(beside, 20)) == 20


@pytest.mark.slow
def test_a_thread_that_reads_ahead_can_be_left_at_any_time(tmp_path: Path):
    folder = write_dataset(tmp_path, COUNTS, frames=10)
    with loading(folder, beside=True) as first:
        drawn(first, 1)
    before, threads = processes(), threading.active_count()
    with loading(folder, beside=True) as beside:
        ahead = prefetch(beside)
        next(ahead)
        ahead.close()
    assert processes() <= before
    assert threading.active_count() <= threads
