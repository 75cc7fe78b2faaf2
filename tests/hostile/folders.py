"""Hostile output folders: what somebody who shares the disk may have put there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np


def write_all(folder: Path, outside: Path, seed: int) -> Iterator[Path]:
    """Folders that a run is told to use. outside: a folder with files that nobody may touch."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for name, data in locks(rng):
        yield _with(folder / f"lock_{name}", "lock.json", data)
    for name, data in plain(rng):
        for file in ("run.json", "state.json", "progress.json"):
            yield _with(folder / f"{file}_{name}", file, data)
    for name in ("artifacts", "ledger", "dataset", "staging"):
        place = folder / f"link_{name}"
        place.mkdir()
        (place / name).symlink_to(outside)
        yield place
    for name in ("run.json", "lock.json", "state.json", "progress.json", ".lock", "events.jsonl"):
        place = folder / f"link_{name}"
        place.mkdir()
        (place / name).symlink_to(outside / "secret.json")
        yield place
    place = folder / "fifo_run"
    place.mkdir()
    os.mkfifo(place / "run.json")
    yield place
    place = folder / "device_run"
    place.mkdir()
    (place / "run.json").symlink_to("/dev/zero")
    yield place
    for i in range(3):
        yield _with(folder / f"ledger_{i}", f"ledger/part-{i:06d}.parquet", rng.bytes(500))


def _with(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_bytes(data)
    return folder


def locks(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """lock.json."""
    owner = {"id": "x", "pid": 1, "host": "elsewhere", "born": 0.0, "namespace": 1}
    times = {"future": "2999-01-01T00:00:00+00:00", "last": "9999-12-31T23:59:59-23:59", "naive": "2999-01-01T00:00:00"}
    times |= {
        "soon": (datetime.now(UTC) + timedelta(hours=3)).isoformat(),
        "first": "0001-01-01T00:00:00+23:59",
        "word": "now",
    }
    for name, time in times.items():
        yield name, json.dumps(owner | {"started": time, "renewed": time}).encode()
    for name, time in {"number": 1e308, "none": None, "array": [], "negative": -1e308}.items():
        yield name, json.dumps(owner | {"started": time, "renewed": time}).encode()
    yield "pid", json.dumps(owner | {"pid": -1, "born": "x", "renewed": times["soon"]}).encode()
    yield "host", json.dumps(owner | {"host": "\x1b[2J" * 9999, "renewed": times["soon"]}).encode()
    yield from plain(rng)


def plain(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """JSON that is none, or too much."""
    yield "deep", b"[" * 200_000
    yield "empty", b""
    yield "null", b"null"
    yield "list", b"[1, 2, 3]"
    yield "bytes", rng.bytes(2000)
    yield "control", b'{"version": "\\u001b[2J", "command": "\\u202e<script>"}'
    yield "digits", b'{"version": ' + b"9" * 100_000 + b"}"
    yield "long", b'{"x": "' + b"a" * (80 << 20) + b'"}'
