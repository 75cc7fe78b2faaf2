"""Equal landmarks of any number of recordings, brought together on disk: a hash join in parts (a Grace join).

    rows (hash, recording, frame)  → parts by hash      → rows that are equal side by side
    matches (pair, frame, frame)   → parts by recording → all matches of a pair side by side

What is held is one part and a buffer; a part that is too large is parted once more. A hash that many recordings have,
as of a dial tone or of a hundred copies, is matched with its first recordings only, so time stays in proportion to the
rows; those that come first are those that would be kept.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from visavis.schemas.storage.faults import about
from visavis.stages.duplicates.alignment import LEAST_VOTES
from visavis.stages.duplicates.landmarks import Landmarks

_PARTS = 128
_LARGE = 1 << 22  # rows of a part; joining one takes 70 bytes of memory a row
_DEEPEST = 4  # 32 bits
_BUFFER = 1 << 20  # rows
_FIRST = 16  # recordings of a hash that the others are matched with
_AGAIN = 4  # rows of a hash in one recording that count: the rest is a sound that repeats

_ROW = np.dtype([("hash", "<u4"), ("recording", "<u4"), ("frame", "<i4")])
_MATCH = np.dtype([("one", "<u4"), ("other", "<u4"), ("frame", "<i4"), ("other_frame", "<i4")])


class Pair(NamedTuple):
    """Frames of the landmarks that two recordings have in common, int32 [M]; `one` comes first."""

    one: int
    other: int
    frame_M: np.ndarray
    other_frame_M: np.ndarray


class Matches:
    """Collects landmarks in a temporary folder, which is gone when it is closed (`contextlib.closing`)."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="visavis-")
        self._rows = _Parts(Path(self._folder.name) / "rows", _ROW, "hash")

    def add(self, recording: int, found: Landmarks) -> None:
        """Landmarks of a recording, or of a part of it."""
        rows = np.empty(len(found.hash_M), _ROW)
        rows["hash"], rows["recording"], rows["frame"] = found.hash_M, recording, found.frame_M
        self._rows.add(rows)

    @property
    def bytes(self) -> int:
        """On disk."""
        return sum(file.stat().st_size for file in Path(self._folder.name).rglob("*") if file.is_file())

    def pairs(self, rank: np.ndarray) -> Iterator[Pair]:
        """Pairs with enough in common to be looked at, once. rank: of each recording, int [C]; the lower one comes
        first."""
        matches = _Parts(Path(self._folder.name) / "matches", _MATCH, "other")
        for rows in self._rows:
            for found in _matched(np.unique(rows), rank):  # pieces that overlap tell the same twice
                matches.add(found)
        for found in matches:
            yield from _paired(found, rank)

    def close(self) -> None:
        self._folder.cleanup()


class _Parts:
    """Rows in files by a number of theirs; a buffer is written when it is full. level: how often they were parted."""

    def __init__(self, folder: Path, kind: np.dtype, number: str, level: int = 0) -> None:
        folder.mkdir()
        self._folder, self._kind, self._number, self._level = folder, kind, number, level
        self._held: list[np.ndarray] = []
        self._count = 0

    def add(self, rows: np.ndarray) -> None:
        self._held.append(rows)
        self._count += len(rows)
        if self._count >= _BUFFER:
            self._write()

    def __iter__(self) -> Iterator[np.ndarray]:
        """Part by part, each once; where the buffer never was full all are one."""
        if not any(self._folder.iterdir()):
            if self._count:
                yield np.concatenate(self._held)
            return
        self._write()
        for part in range(_PARTS):
            if (path := self._folder / str(part)).exists():
                yield from self._read(path)
                path.unlink()

    def _read(self, path: Path) -> Iterator[np.ndarray]:
        count = path.stat().st_size // self._kind.itemsize
        if count <= _LARGE or self._level == _DEEPEST:
            yield np.fromfile(path, self._kind)
            return
        finer = _Parts(path.with_suffix(".parts"), self._kind, self._number, self._level + 1)
        for first in range(0, count, _BUFFER):
            finer.add(np.fromfile(path, self._kind, _BUFFER, offset=first * self._kind.itemsize))
        yield from finer

    def _write(self) -> None:
        if not self._count:
            return
        rows = np.concatenate(self._held)
        parts = (rows[self._number] // _PARTS**self._level % _PARTS).astype(np.uint8)
        order = np.argsort(parts, kind="stable")
        edges = np.searchsorted(parts[order], np.arange(_PARTS + 1))
        with about(self._folder.name):
            for part in np.flatnonzero(np.diff(edges)):
                with (self._folder / str(part)).open("ab") as file:
                    rows[order[edges[part] : edges[part + 1]]].tofile(file)
        self._held, self._count = [], 0


def _matched(rows: np.ndarray, rank: np.ndarray) -> Iterator[np.ndarray]:
    """Each row with those of its hash in the first recordings, but for its own. rows: at least one."""
    rank_R = rank[rows["recording"]]
    order = np.lexsort((rows["frame"], rank_R, rows["hash"]))
    rows, rank_R = rows[order], rank_R[order]
    other_hash = rows["hash"][1:] != rows["hash"][:-1]
    few = _since(np.append(True, other_hash | (rank_R[1:] != rank_R[:-1]))) < _AGAIN
    rows, rank_R = rows[few], rank_R[few]
    other_hash = rows["hash"][1:] != rows["hash"][:-1]
    before_R = _since(np.append(True, other_hash))  # rows of the hash that come before
    recordings_R = np.cumsum(np.append(True, other_hash | (rank_R[1:] != rank_R[:-1])))
    for place in range(_FIRST * _AGAIN):
        later = np.flatnonzero(before_R > place)
        if not len(later):
            return
        earlier = later - before_R[later] + place
        first = recordings_R[earlier] - recordings_R[later - before_R[later]] < _FIRST
        wanted = first & (rank_R[earlier] != rank_R[later])
        match = np.empty(int(wanted.sum()), _MATCH)
        match["one"], match["frame"] = rows["recording"][earlier[wanted]], rows["frame"][earlier[wanted]]
        match["other"], match["other_frame"] = rows["recording"][later[wanted]], rows["frame"][later[wanted]]
        yield match


def _since(new_R: np.ndarray) -> np.ndarray:
    """How many rows ago the last one was that is new."""
    number_R = np.arange(len(new_R))
    since: np.ndarray = number_R - np.maximum.accumulate(np.where(new_R, number_R, 0))
    return since


def _paired(found: np.ndarray, rank: np.ndarray) -> Iterator[Pair]:
    found = found[np.lexsort((found["other_frame"], found["frame"], rank[found["one"]], rank[found["other"]]))]
    new = np.append(True, (found["one"][1:] != found["one"][:-1]) | (found["other"][1:] != found["other"][:-1]))
    edges = np.append(np.flatnonzero(new), len(found))
    for place in np.flatnonzero(np.diff(edges) >= LEAST_VOTES):
        these = found[edges[place] : edges[place + 1]]
        yield Pair(int(these["one"][0]), int(these["other"][0]), these["frame"], these["other_frame"])
