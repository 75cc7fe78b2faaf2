"""Inputs as people name them → conversations to be ingested.

A file, a folder, a glob, any fsspec URL, or a list (.jsonl, .csv, .parquet) with the column `uri` and, where
known, `conversation` and `participant`. Two rows of one conversation with different participants are one dyad
with a file each; everything else is one conversation per file. Roles are never an input.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from schemas.errors import UsageError
from schemas.rows import Row, Source

MEDIA_SUFFIXES = {".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".mpeg", ".wmv", ".flv"}
LIST_SUFFIXES = {".jsonl", ".csv", ".parquet"}


class _Listed(Row):
    uri: str
    conversation: str | None = None
    participant: str | None = None


def find_sources(inputs: Sequence[str], pairs: Sequence[tuple[str, str]] = ()) -> list[Source]:
    """All conversations behind the inputs, in their order; `pairs` are dyads with a file per person.

    Raises:
        UsageError: nothing given, no such file, an empty folder, or a list that cannot be read.
    """
    if not inputs and not pairs:
        raise UsageError("no input: name videos, folders, globs or a list (.jsonl, .csv, .parquet)")
    listed = [row for text in inputs for row in _expand(text)]
    sources = list(_group(listed))
    sources += [_source([_Listed(uri=_one_file(uri)) for uri in pair], None) for pair in pairs]
    return sources


def source_key(source: Source) -> str:
    """The item id of a listed conversation: its files' names, sizes and modification times."""
    return hashlib.sha256(json.dumps(source.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:16]


def source_name(source: Source) -> str:
    """What a person would call it."""
    return " + ".join(PurePosixPath(uri).name for uri in source.uris)


def _expand(text: str) -> Iterator[_Listed]:
    fs, path = _locate(text)
    suffix = PurePosixPath(path).suffix.lower()
    if any(mark in path for mark in "*?[") and not fs.exists(path):
        found = sorted(str(p) for p in fs.glob(path))
        if not found:
            raise UsageError(f"{text}: no file matches")
        for name in found:
            yield _Listed(uri=_uri(fs, name))
    elif not fs.exists(path):
        raise UsageError(f"{text}: no such file or folder")
    elif fs.isdir(path):
        found = sorted(str(p) for p in fs.find(path) if PurePosixPath(str(p)).suffix.lower() in MEDIA_SUFFIXES)
        if not found:
            raise UsageError(f"{text}: no video in this folder (looked for {', '.join(sorted(MEDIA_SUFFIXES))})")
        for name in found:
            yield _Listed(uri=_uri(fs, name))
    elif suffix in LIST_SUFFIXES:
        yield from _read_list(text, fs, path, suffix)
    else:
        yield _Listed(uri=_uri(fs, path))


def _read_list(text: str, fs: AbstractFileSystem, path: str, suffix: str) -> Iterator[_Listed]:
    data = fs.cat_file(path)
    try:
        rows: Iterable[dict[str, Any]]
        if suffix == ".parquet":
            rows = pq.read_table(pa.BufferReader(data)).to_pylist()
        elif suffix == ".csv":
            rows = csv.DictReader(io.StringIO(data.decode("utf-8-sig")))
        else:
            rows = [json.loads(line) for line in data.decode().splitlines() if line.strip()]
        for number, row in enumerate(rows, 1):
            if not isinstance(row, dict) or not row.get("uri"):
                raise UsageError(f"{text}: row {number} has no `uri`")
            uri = str(row["uri"])
            if "://" not in uri and not Path(uri).is_absolute():  # relative to the list, so that a corpus can be moved
                uri = str(PurePosixPath(path).parent / uri)
                uri = _uri(fs, uri)
            values = {name: str(row[name]) for name in ("conversation", "participant") if row.get(name)}
            yield _Listed(
                uri=_uri(*_locate(uri)), **values
            )  # a missing file is that row's rejection, not the run's end
    except (ValueError, pa.ArrowException) as error:
        raise UsageError(f"{text}: not a readable {suffix} list ({str(error).splitlines()[0]})") from error


def _group(listed: Iterable[_Listed]) -> Iterator[Source]:
    groups: dict[str, list[_Listed]] = {}
    for number, row in enumerate(listed):
        # Without a participant, a row is a video that shows both people.
        name = row.conversation if row.conversation and row.participant else f"\0{number}"
        groups.setdefault(name, []).append(row)
    for rows in groups.values():
        yield _source(rows, rows[0].conversation)


def _source(rows: list[_Listed], conversation: str | None) -> Source:
    rows = sorted(rows, key=lambda r: r.participant or "")  # stable: unnamed files keep their order
    return Source(
        uris=tuple(r.uri for r in rows),
        participants=tuple(r.participant for r in rows),
        conversation=conversation,
        stamps=tuple(_stamp(r.uri) for r in rows),
    )


def _one_file(text: str) -> str:
    fs, path = _locate(text)
    if not fs.isfile(path):
        raise UsageError(f"{text}: no such file")
    return _uri(fs, path)


def _locate(text: str) -> tuple[AbstractFileSystem, str]:
    try:
        fs, path = fsspec.core.url_to_fs(text)
    except (ValueError, ImportError) as error:
        raise UsageError(f"{text}: {str(error).splitlines()[0]}") from error
    return fs, str(path)


def _uri(fs: AbstractFileSystem, path: str) -> str:
    return str(Path(path).absolute()) if isinstance(fs, LocalFileSystem) else str(fs.unstrip_protocol(path))


def _stamp(uri: str) -> str:
    fs, path = _locate(uri)
    try:
        info = fs.info(path)
    except FileNotFoundError:
        return "absent"
    changed = next((info[k] for k in ("ETag", "mtime", "LastModified", "last_modified", "updated") if info.get(k)), "")
    return f"{info.get('size')}:{changed}"
