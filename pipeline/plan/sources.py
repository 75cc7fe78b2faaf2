"""Inputs as people name them → conversations to be ingested.

A file, a folder, a glob, any fsspec URL, or a list (`pipeline.plan.lists`). Two rows of one conversation with different
participants are one dyad with a file each, as are two files that the Seamless Interaction corpus names so
(`pipeline.plan.seamless`). A conversation of more than two is one item with all its files, which ingest rejects. A row
without a participant is a video that shows both people, and so is every other file. Roles are never an input.

What may be read at all, and whose word counts for what, is told in `schemas.access`. Everything that is wrong with a
name or a row ends planning in one line, before anything is built: a list is the user's to mend, and who lists a
hundred thousand files wants to hear of a row that names another server's secrets, not find it among the rejected. What
shows only at the connection is that file's rejection.
"""

from __future__ import annotations

import glob
import hashlib
import os
from array import array
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from fsspec import AbstractFileSystem

from visavis.pipeline.plan.beside import Siblings, is_sidecar
from visavis.pipeline.plan.found import WEB, Found, recognised, with_beside
from visavis.pipeline.plan.lists import ListFile
from visavis.pipeline.plan.places import Place, absolute
from visavis.pipeline.plan.scan import LIST_SUFFIXES, MEDIA_SUFFIXES, Notes, scan, scan_remote, suffix_of
from visavis.pipeline.plan.seamless import named
from visavis.pipeline.plan.stamps import remote_stamp, stamp_of
from visavis.schemas.access import Access, hosts_of
from visavis.schemas.config import SourcesConfig
from visavis.schemas.errors import UsageError
from visavis.schemas.rows import Given, Source
from visavis.schemas.secrets import hashable
from visavis.schemas.storage.faults import Blame, blame_of
from visavis.schemas.storage.files import is_there, locate, open_file
from visavis.schemas.uris import (
    file_name,
    is_ambiguous,
    is_local,
    local_path,
    local_uri,
    printable,
    shown,
    shown_in,
)
from visavis.schemas.words import counted

_BYTES_PER_SECOND = 5e6  # that a worker reads at least, for time limits
_UNKNOWN_SECONDS = 300.0
_BUFFER = 1 << 20  # bytes of a list elsewhere that are read at a time
_LARGEST_CROWD = 64  # files of one conversation; more, and the column holds something else


class Sources(Collection[Source]):
    """All conversations behind the inputs, in their order. Lists are read anew at every pass, never held.

    A dyad with a file per participant comes where its second file is listed; one whose second file is missing, and what
    has more than two files, at the end. `notes` tells what the inputs hold beside conversations.
    """

    def __init__(self, inputs: Sequence[str], pairs: Sequence[tuple[str, str]], access: Access) -> None:
        self._inputs, self._pairs, self._access = inputs, pairs, access
        self.notes = Notes()
        census = _Census()
        self._crowds: frozenset[int] = frozenset()
        # Also finds what is wrong with them.
        self._count = sum(1 for _ in self._groups(census.watched(self._rows(None, self.notes))))
        self._crowds = census.crowds()
        if self._crowds:
            self._count = sum(1 for _ in self._groups(self._rows(None, Notes())))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Source]:
        return self.starting_at(0)

    def starting_at(self, place: int) -> Iterator[Source]:
        """Those from this place on."""
        for rows in islice(self._groups(self._rows(Siblings(), Notes())), place, None):
            rows = sorted(rows, key=lambda r: r.participant or "")  # stable: unnamed files keep their order
            yield Source(
                uris=tuple(r.uri for r in rows),
                participants=tuple(r.participant for r in rows),
                conversation=rows[0].conversation,
                stamps=tuple(r.stamp for r in rows),
                sidecars=tuple(r.sidecars for r in rows) if any(r.sidecars for r in rows) else (),
                given=tuple(r.given or Given() for r in rows) if any(r.given for r in rows) else (),
            )

    def __contains__(self, source: object) -> bool:
        return any(source == other for other in self)

    def _rows(self, siblings: Siblings | None, notes: Notes) -> Iterator[Found]:
        """siblings: stamps and sidecars are wanted too."""
        for text in self._inputs:
            yield from _expand(text, self._access, siblings, notes)

    def _groups(self, rows: Iterator[Found]) -> Iterator[list[Found]]:
        waiting: defaultdict[str, list[Found]] = defaultdict(list)
        crowds: defaultdict[str, dict[tuple[str | None, str], Found]] = defaultdict(dict)
        for row in rows:
            if row.conversation is None or row.participant is None:
                yield [row]
            elif self._crowds and hash(row.conversation) in self._crowds:
                files = crowds[row.conversation]
                files.setdefault(row.identity, row)
                _not_too_many(row, len(files))
            else:
                alone = waiting.pop(row.conversation, [])
                if len(alone) == 1 and alone[0].identity != row.identity:
                    yield [alone[0], row]
                elif other := next((r for r in alone if r.identity != row.identity), None):
                    yield [other, row]
                    waiting[row.conversation] = [r for r in alone if r is not other]
                else:
                    _not_too_many(row, len(alone))
                    waiting[row.conversation] = [*alone, row]
        yield from ([row] for rows in waiting.values() for row in rows)
        yield from (list(files.values()) for files in crowds.values())
        yield from ([_one_file(name, self._access, Siblings()) for name in pair] for pair in self._pairs)


class _Census:
    """Finds the conversations of more than two files, at 16 bytes a row."""

    def __init__(self) -> None:
        self._conversations, self._files = array("q"), array("q")

    def watched(self, rows: Iterator[Found]) -> Iterator[Found]:
        """The same rows."""
        conversation, file = self._conversations.append, self._files.append
        for row in rows:
            if row.conversation is not None and row.participant is not None:
                conversation(hash(row.conversation))
                file(hash(row.identity))
            yield row

    def crowds(self) -> frozenset[int]:
        """Hashes of their names. Listing the same file twice makes none."""
        pairs_N2 = np.stack([np.asarray(self._conversations, np.int64), np.asarray(self._files, np.int64)], axis=1)
        found, counts = np.unique(pairs_N2[:, 0], return_counts=True)
        suspects_N2 = pairs_N2[np.isin(pairs_N2[:, 0], found[counts > 2])]
        found, counts = np.unique(np.unique(suspects_N2, axis=0)[:, 0], return_counts=True)
        return frozenset(found[counts > 2].tolist())


def find_sources(inputs: Sequence[str], pairs: Sequence[tuple[str, str]] = (), access: Access | None = None) -> Sources:
    """All conversations behind the inputs, in their order; `pairs` are dyads with a file per person.

    access: as `access_to` makes it; None: of default settings.

    Raises:
        UsageError: nothing given, no such file, an empty folder, a list that cannot be read or has a wrong row, or a
            name that may not be followed.
    """
    if not inputs and not pairs:
        raise UsageError("no input: name videos, folders, globs or a list (.jsonl, .csv, .parquet)")
    access = access or access_to(SourcesConfig(), inputs, pairs)
    return Sources(inputs, pairs, access)


def access_to(config: SourcesConfig, inputs: Sequence[str], pairs: Sequence[tuple[str, str]] = ()) -> Access:
    """What sources may be, where people name these on the command line.

    Raises:
        UsageError: a name that clients do not agree on.
    """
    hosts = set[str]()
    for name in (*inputs, *(name for pair in pairs for name in pair)):
        with _told(name):
            hosts |= hosts_of([name])
    return Access(config.protocols, config.private, frozenset(hosts))


def source_key(source: Source) -> str:
    """The item id of a listed conversation: its files' names, sizes and modification times."""
    plain: tuple[Any, ...] = (
        source.uris,
        source.participants,
        source.conversation,
        source.stamps,
        source.sidecars,
        *(given.model_dump() for given in source.given),
    )
    return hashlib.sha256(hashable(plain)).hexdigest()[:16]  # signed anew, it is the same item


def source_name(source: Source) -> str:
    """What a person would call it; may be printed anywhere. Where that may be several, with its key's first digits."""
    name = " + ".join(map(file_name, source.uris))
    return f"{name} ({source_key(source)[:8]})" if any(map(is_ambiguous, source.uris)) else name


def source_seconds(source: Source) -> float:
    """How long reading it may take, for time limits: of a size that is not known, a guess."""
    sizes = [stamp.partition(":")[0] for stamp in source.stamps]
    return sum(float(size) / _BYTES_PER_SECOND if size.isdecimal() else _UNKNOWN_SECONDS for size in sizes)


def _not_too_many(row: Found, files: int) -> None:
    if files > _LARGEST_CROWD:
        name = printable(row.conversation or "")[:60]
        raise UsageError(f"conversation {name!r} has more than {_LARGEST_CROWD} files: is `conversation` what it says?")


@contextmanager
def _told(name: str) -> Iterator[None]:
    """A name that is refused, in one line."""
    try:
        yield
    except ValueError as error:
        raise UsageError(f"{_shown(name)}: expected {error}") from error
    except OSError as error:
        if blame_of(error) is not Blame.DATA:
            raise
        raise UsageError(f"{_shown(name)}: {printable(shown_in(error.strerror or str(error)))}") from error


def _shown(name: str) -> str:
    return printable(shown(name))


def _expand(text: str, access: Access, siblings: Siblings | None, notes: Notes) -> Iterator[Found]:
    if not text:
        raise UsageError("an input is an empty name")
    if is_local(text):
        yield from _expand_local(text, access, siblings, notes)
        return
    with _told(text):
        access.check_kind(text)
        yield from _expand_remote(text, access, siblings, notes)


def _expand_local(text: str, access: Access, siblings: Siblings | None, notes: Notes) -> Iterator[Found]:
    path = _here(text)
    if any(mark in path for mark in "*?[") and not os.path.lexists(path):
        matching = sorted(name for name in glob.glob(path, recursive=True) if not is_sidecar(name))  # noqa: PTH207
        if not matching:
            raise UsageError(f"{_shown(text)}: no file matches")
        for name in matching:
            yield from _named(name, access, siblings, notes, inside=True)
    else:
        yield from _named(path, access, siblings, notes, inside=False)


def _named(path: str, access: Access, siblings: Siblings | None, notes: Notes, *, inside: bool) -> Iterator[Found]:
    """What a local path stands for. inside: of several, so that a folder without videos is no mistake."""
    suffix = suffix_of(path)
    if not os.path.lexists(path):
        raise UsageError(f"{printable(path)}: no such file or folder")
    if Path(path).is_dir():
        paths = scan(path, notes)
        _some_found(paths, path, notes, needed=not inside)
        yield from (_local(each, siblings) for each in paths)
    elif Path(path).exists() and not Path(path).is_file():
        raise UsageError(f"{printable(path)}: a pipe or device, not a file")
    elif suffix in LIST_SUFFIXES:
        with Path(path).open("rb") as file:
            yield from _listed(file, path, suffix, Place(path.rpartition("/")[0], access), siblings, notes)
    else:
        if suffix not in MEDIA_SUFFIXES:
            notes.said.append(
                f"{printable(path)}: taken as a video for all its name (lists are .jsonl, .csv, .parquet)"
            )
        yield _local(path, siblings)


def _expand_remote(text: str, access: Access, siblings: Siblings | None, notes: Notes) -> Iterator[Found]:
    fs, path = locate(text, access)
    suffix = suffix_of(path.partition("?")[0] if text.startswith("http") else path)
    exists = is_there(fs, path, text)
    if not exists and any(mark in path for mark in ("*[" if text.startswith("http") else "*?[")):
        matching = {str(name): info for name, info in fs.glob(path, detail=True).items() if not is_sidecar(str(name))}
        if not matching:
            raise UsageError(f"{_shown(text)}: no file matches")
        for name in sorted(matching):
            yield _elsewhere(fs, name, matching[name], siblings)
    elif not exists:
        raise UsageError(f"{_shown(text)}: no such file or folder")
    elif _is_folder(fs, path):
        found = scan_remote(fs, path, notes)
        _some_found(found, text, notes, needed=True)
        yield from (_elsewhere(fs, *each, siblings) for each in found)
    elif suffix in LIST_SUFFIXES:
        base = f"{fs.unstrip_protocol(path.rpartition('/')[0])}"
        with open_file(text, access) as file:
            buffered = cast(IO[bytes], BufferedReader(file, _BUFFER))
            yield from _listed(buffered, text, suffix, Place(base, access), siblings, notes)
    else:
        yield _elsewhere(fs, path, fs.info(path), siblings)


def _is_folder(fs: AbstractFileSystem, path: str) -> bool:
    """A web server does not tell, but by a page of links: nobody looks for these in what its name says is a file."""
    suffix = suffix_of(path.partition("?")[0])
    is_file = path.startswith(WEB) and (suffix in MEDIA_SUFFIXES or suffix in LIST_SUFFIXES)
    return not is_file and bool(fs.isdir(path))


def _some_found(found: Sequence[Any], folder: str, notes: Notes, *, needed: bool) -> None:
    if needed and not found:
        there = "; ".join(notes.lines()) or "nothing in it"
        raise UsageError(f"{_shown(folder)}: no video in this folder ({there})")


def _listed(
    file: IO[bytes], name: str, suffix: str, place: Place, siblings: Siblings | None, notes: Notes
) -> Iterator[Found]:
    listing, unasked = ListFile(name, suffix, place.uri), 0
    for row in listing.rows(file):
        stamp = ""
        if siblings:
            # Asking a store about each of a million files would take hours: there, the list's own columns count. And a
            # missing file is that row's rejection, not the run's end.
            stamp = stamp_of(local_path(row.uri)) if is_local(row.uri) else f"{row.size}:{row.modified}"
            for path in (row.given.turns, row.given.boxes) if row.given else ():
                stamp += f"+{stamp_of(local_path(path))}" if is_local(path) else ""
        found = Found(row.uri, row.conversation, row.participant, stamp, given=row.given)
        seamless = named(row.uri) is not None
        if is_local(row.uri) or (seamless and not row.uri.startswith(WEB)):
            yield with_beside(found, siblings)
        else:
            unasked += seamless
            yield recognised(found, None, None)
    notes.said.extend(listing.notes())
    if unasked:
        notes.said.append(
            f"{_shown(name)}: {counted(unasked, 'file')} of Seamless Interaction on web servers, which"
            " are not asked what lies beside them: name the folder to have sound and annotations from there, too"
        )


def _local(path: str, siblings: Siblings | None) -> Found:
    return recognised(Found(local_uri(path), stamp=stamp_of(path) if siblings else ""), siblings, None)


def _elsewhere(fs: AbstractFileSystem, path: str, info: dict[str, Any], siblings: Siblings | None) -> Found:
    return recognised(Found(str(fs.unstrip_protocol(path)), stamp=remote_stamp(info)), siblings, fs)


def _one_file(text: str, access: Access, siblings: Siblings) -> Found:
    if is_local(text):
        path = _here(text)
        if not Path(path).is_file():
            raise UsageError(f"{_shown(text)}: no such file")
        return _local(path, siblings)
    with _told(text):
        access.check_kind(text)
        fs, path = locate(text, access)
        if not is_there(fs, path, text) or _is_folder(fs, path):
            raise UsageError(f"{_shown(text)}: no such file")
        return _elsewhere(fs, path, fs.info(path), siblings)


def _here(text: str) -> str:
    with _told(text):
        return absolute(str(Path.cwd()), local_path(text))
