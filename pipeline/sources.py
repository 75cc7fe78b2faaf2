"""Inputs as people name them → conversations to be ingested.

A file, a folder, a glob, any fsspec URL, or a list (.jsonl, .csv, .parquet) with the column `uri` and, where
known, `conversation` and `participant`, `size` and `modified`. Two rows of one conversation with different participants
are one dyad with a file each, as are two files that the Seamless Interaction corpus names so (`pipeline.seamless`);
everything else is one conversation per file. Roles are never an input.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import posixpath
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from pydantic_core import to_json

from pipeline.seamless import Siblings, is_sidecar, named
from schemas.errors import UsageError
from schemas.rows import Row, Source

MEDIA_SUFFIXES = {".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".mpeg", ".wmv", ".flv"}
LIST_SUFFIXES = {".jsonl", ".csv", ".parquet"}


_BYTES_PER_SECOND = 5e6  # that a worker reads at least, for time limits
_UNKNOWN_SECONDS = 300.0


class _Listed(Row):
    uri: str
    conversation: str | None = None
    participant: str | None = None
    stamp: str = ""
    sidecars: tuple[str, ...] = ()
    corpus: bool = False  # who it is was read off the file's name


class Sources(Collection[Source]):
    """All conversations behind the inputs, in their order. Lists are read anew at every pass, never held.

    A dyad with a file per participant comes where its second file is listed; one whose second file is missing, and what
    a corpus has more than two files of, at the end.
    """

    def __init__(self, inputs: Sequence[str], pairs: Sequence[tuple[str, str]]) -> None:
        self._inputs, self._pairs = inputs, pairs
        self._crowds: frozenset[str] = frozenset()  # conversations of more than two
        people: defaultdict[str, set[str]] = defaultdict(set)
        self._count = sum(1 for _ in self._groups(_watched(self._rows(), people)))  # also finds what is wrong with them
        self._crowds = frozenset(name for name, found in people.items() if len(found) > 2)
        if self._crowds:
            self._count = sum(1 for _ in self._groups(self._rows()))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Source]:
        for rows in self._groups(self._rows(Siblings())):
            rows = sorted(rows, key=lambda r: r.participant or "")  # stable: unnamed files keep their order
            yield Source(
                uris=tuple(r.uri for r in rows),
                participants=tuple(r.participant for r in rows),
                conversation=rows[0].conversation,
                stamps=tuple(r.stamp for r in rows),
                sidecars=tuple(r.sidecars for r in rows) if any(r.sidecars for r in rows) else (),
            )

    def __contains__(self, source: object) -> bool:
        return any(source == other for other in self)

    def _rows(self, siblings: Siblings | None = None) -> Iterator[_Listed]:
        """siblings: stamps and sidecars are wanted too."""
        for text in self._inputs:
            yield from _expand(text, siblings)

    def _groups(self, rows: Iterator[_Listed]) -> Iterator[list[_Listed]]:
        waiting: dict[str, _Listed] = {}
        crowds: defaultdict[str, list[_Listed]] = defaultdict(list)
        for row in rows:
            if not (row.conversation and row.participant):  # a video that shows both people
                yield [row]
            elif row.conversation in self._crowds:
                crowds[row.conversation].append(row)
            elif row.conversation in waiting:
                yield [waiting.pop(row.conversation), row]
            else:
                waiting[row.conversation] = row
        yield from ([row] for row in waiting.values())
        yield from crowds.values()
        yield from ([_one_file(uri, Siblings()) for uri in pair] for pair in self._pairs)


def find_sources(inputs: Sequence[str], pairs: Sequence[tuple[str, str]] = ()) -> Sources:
    """All conversations behind the inputs, in their order; `pairs` are dyads with a file per person.

    Raises:
        UsageError: nothing given, no such file, an empty folder, or a list that cannot be read.
    """
    if not inputs and not pairs:
        raise UsageError("no input: name videos, folders, globs or a list (.jsonl, .csv, .parquet)")
    return Sources(inputs, pairs)


def source_key(source: Source) -> str:
    """The item id of a listed conversation: its files' names, sizes and modification times."""
    plain = (source.uris, source.participants, source.conversation, source.stamps, source.sidecars)
    return hashlib.sha256(to_json(plain)).hexdigest()[:16]


def source_name(source: Source) -> str:
    """What a person would call it."""
    return " + ".join(uri.rpartition("/")[2] for uri in source.uris)


def source_seconds(source: Source) -> float:
    """How long reading it may take, for time limits: of a size that is not known, a guess."""
    sizes = [stamp.partition(":")[0] for stamp in source.stamps]
    return sum(float(size) / _BYTES_PER_SECOND if size.isdecimal() else _UNKNOWN_SECONDS for size in sizes)


def _watched(rows: Iterator[_Listed], people: defaultdict[str, set[str]]) -> Iterator[_Listed]:
    """The same rows; notes who is in the conversations of a corpus."""
    for row in rows:
        if row.corpus and row.conversation and row.participant:
            people[row.conversation].add(row.participant)
        yield row


def _expand(text: str, siblings: Siblings | None) -> Iterator[_Listed]:
    fs, path = _locate(text)
    suffix = PurePosixPath(path).suffix.lower()
    if any(mark in path for mark in "*?[") and not fs.exists(path):
        matching = {name: info for name, info in fs.glob(path, detail=True).items() if not is_sidecar(str(name))}
        yield from _found(fs, matching, siblings, f"{text}: no file matches")
    elif not fs.exists(path):
        raise UsageError(f"{text}: no such file or folder")
    elif fs.isdir(path):
        found = fs.find(path, detail=True).items()
        videos = {name: info for name, info in found if PurePosixPath(str(name)).suffix.lower() in MEDIA_SUFFIXES}
        wanted = ", ".join(sorted(MEDIA_SUFFIXES))
        yield from _found(fs, videos, siblings, f"{text}: no video in this folder (looked for {wanted})")
    elif suffix in LIST_SUFFIXES:
        yield from _read_list(text, fs, path, suffix, siblings)
    else:
        yield _recognised(_Listed(uri=_uri(fs, path), stamp=_stamp(fs.info(path))), siblings, fs, path)


def _found(
    fs: AbstractFileSystem, files: dict[str, Any], siblings: Siblings | None, otherwise: str
) -> Iterator[_Listed]:
    if not files:
        raise UsageError(otherwise)
    for name in sorted(files):
        yield _recognised(_Listed(uri=_uri(fs, name), stamp=_stamp(files[name])), siblings, fs, str(name))


def _recognised(row: _Listed, siblings: Siblings | None, fs: AbstractFileSystem | None, path: str) -> _Listed:
    """A corpus' file with what its name says of it, where the list does not say otherwise, and its sidecars."""
    name = named(path)
    if name is None or name.suffix not in MEDIA_SUFFIXES:
        return row
    update: dict[str, Any] = {}
    if not (row.conversation or row.participant):
        update = {"conversation": name.conversation, "participant": name.participant, "corpus": True}
    if siblings:
        if fs is None:
            fs, path = _locate(path)
        beside = siblings.of(fs, path)
        update["sidecars"] = tuple(_uri(fs, found) for found in beside)
        update["stamp"] = "+".join([row.stamp, *(_stamp(info) for info in beside.values())])
    return row.model_copy(update=update)


def _read_list(
    text: str, fs: AbstractFileSystem, path: str, suffix: str, siblings: Siblings | None
) -> Iterator[_Listed]:
    folder = "" if not isinstance(fs, LocalFileSystem) else str(PurePosixPath(path).parent)
    remote = "" if folder else f"{fs.unstrip_protocol(str(PurePosixPath(path).parent))}/"
    try:
        with fs.open(path, "rb") as file:
            for number, row in enumerate(_READERS[suffix](file), 1):
                if not isinstance(row, dict) or not row.get("uri"):
                    raise UsageError(f"{text}: row {number} has no `uri`")
                uri = str(row["uri"])
                if "://" not in uri and not uri.startswith("/"):  # relative to the list, so that a corpus can be moved
                    uri = f"{remote}{uri}" if remote else posixpath.normpath(f"{folder}/{uri}")
                values = {name: str(row[name]) for name in ("conversation", "participant") if row.get(name)}
                # A missing file is that row's rejection, not the run's end.
                listed = _Listed(uri=uri, stamp=_listed_stamp(uri, row) if siblings else "", **values)
                yield _recognised(listed, siblings, None, uri)
    except (ValueError, pa.ArrowException) as error:
        raise UsageError(f"{text}: not a readable {suffix} list ({str(error).splitlines()[0]})") from error


def _parquet_rows(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    for batch in pq.ParquetFile(file).iter_batches():
        yield from batch.to_pylist()


def _csv_rows(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    yield from csv.DictReader(io.TextIOWrapper(file, "utf-8-sig", newline=""))


def _jsonl_rows(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    yield from (json.loads(line) for line in file if line.strip())


_READERS = {".parquet": _parquet_rows, ".csv": _csv_rows, ".jsonl": _jsonl_rows}


def _one_file(text: str, siblings: Siblings) -> _Listed:
    fs, path = _locate(text)
    if not fs.isfile(path):
        raise UsageError(f"{text}: no such file")
    return _recognised(_Listed(uri=_uri(fs, path), stamp=_stamp(fs.info(path))), siblings, fs, path)


def _locate(text: str) -> tuple[AbstractFileSystem, str]:
    try:
        fs, path = fsspec.core.url_to_fs(text)
    except (ValueError, ImportError) as error:
        raise UsageError(f"{text}: {str(error).splitlines()[0]}") from error
    return fs, str(path)


def _uri(fs: AbstractFileSystem, path: str) -> str:
    return str(Path(path).absolute()) if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(path))


def _stamp(info: dict[str, Any]) -> str:
    changed = next((info[k] for k in ("ETag", "mtime", "LastModified", "last_modified", "updated") if info.get(k)), "")
    return f"{info.get('size')}:{changed}"


def _listed_stamp(uri: str, row: dict[str, Any]) -> str:
    """What tells a listed file from a later one of the same name.

    Asking an object store about each of a million files would take hours: there, the list's own columns `size` and
    `modified` count, and without them the name alone.
    """
    if "://" in uri and not uri.startswith("file://"):
        return f"{row.get('size') or ''}:{row.get('modified') or ''}"
    try:
        found = os.stat(uri.removeprefix("file://"))  # noqa: PTH116 - a million times
    except OSError:
        return "absent"
    return f"{found.st_size}:{found.st_mtime}"
