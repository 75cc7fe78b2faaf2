"""What lies in a folder: videos, and by suffix everything that a scan passes over.

Local folders are walked here, not by fsspec, whose idea of a path has syntax in it (`~`, `*`, `[`, `::`). Links to
folders are followed, each real folder once; hidden files, hidden folders and folders of runs are passed over.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from stat import S_ISREG
from typing import Any

from fsspec import AbstractFileSystem

from visavis.pipeline.plan.beside import is_sidecar
from visavis.schemas.errors import UsageError
from visavis.schemas.uris import printable

MEDIA_SUFFIXES = frozenset((
    ".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".mpeg", ".wmv", ".flv", ".mts", ".m2ts",
    ".m2t", ".mxf", ".3gp", ".3g2", ".ogv", ".ogm", ".vob", ".m1v", ".m2v", ".mpe", ".mpv", ".f4v", ".asf",
    ".dv", ".y4m", ".divx", ".qt", ".rm", ".rmvb", ".mod", ".tod", ".nut", ".wtv", ".trp", ".insv",
))  # fmt: skip
LIST_SUFFIXES = frozenset(
    [".parquet"] + [f"{kind}{gz}" for kind in (".jsonl", ".ndjson", ".csv", ".tsv") for gz in ("", ".gz")]
)

_RUN = "run.json"  # in a run's folder: what lies in there is ours
_NAMED = 5  # of what is named one by one; the rest is counted
_KINDS = 12  # of suffixes that are listed
_LONGEST_SUFFIX = 12  # characters; more is no suffix but a sentence with a full stop


@dataclass
class Notes:
    """What the inputs hold beside conversations, for people to see.

    passed_over: suffix → files in folders. lists, unread: paths, named one by one. said: lines about lists.
    """

    passed_over: Counter[str] = field(default_factory=Counter)
    lists: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """One for each kind of finding."""
        if self.passed_over:
            ordered = sorted(self.passed_over.items(), key=lambda kind: (-kind[1], kind[0]))
            rest = sum(count for _, count in ordered[_KINDS:])
            kinds = [f"{count} {printable(kind)}" for kind, count in ordered[:_KINDS]]
            yield f"passed over: {', '.join(kinds)}{f', {rest} others' if rest else ''}"
        if self.lists:
            yield f"lists inside a folder are not read, name them as inputs: {_some(self.lists)}"
        if self.unread:
            yield f"not looked into: {_some(self.unread)}"
        yield from self.said


def suffix_of(path: str) -> str:
    """In lower case; `.csv.gz` is one."""
    suffixes = PurePosixPath(path).suffixes[-2:]
    double = "".join(suffixes).lower()
    return double if double in LIST_SUFFIXES else suffixes[-1].lower() if suffixes else ""


def scan(folder: str, notes: Notes) -> list[str]:
    """The videos at any depth below a local folder, by path.

    Raises:
        UsageError: the folder itself cannot be read.
    """
    videos: list[str] = []
    seen: set[tuple[int, int]] = set()
    real, linked = [folder], list[str]()
    while real or linked:
        inside = real.pop() if real else linked.pop(0)  # links come last: a real folder's own name is the better one
        try:
            place = os.stat(inside)  # noqa: PTH116
            if (place.st_dev, place.st_ino) in seen:
                notes.passed_over["link to a folder that is scanned already"] += 1
                continue
            seen.add((place.st_dev, place.st_ino))
            entries = list(os.scandir(inside))
        except OSError as error:
            if inside == folder:
                raise UsageError(f"{printable(folder)}: cannot read this folder ({error.strerror})") from error
            notes.unread.append(f"{inside} ({error.strerror})")
            continue
        if inside != folder and any(entry.name == _RUN for entry in entries):
            notes.passed_over["folder of a run"] += 1
            continue
        for entry in entries:
            if entry.name.startswith("."):
                notes.passed_over["hidden"] += 1
            elif _leads_to_folder(entry):
                (linked if entry.is_symlink() else real).append(entry.path)
            elif _is_video(entry.path, notes) and _is_file(entry, notes):
                videos.append(entry.path)
        linked.sort()
    return sorted(videos)


def scan_remote(fs: AbstractFileSystem, folder: str, notes: Notes) -> list[tuple[str, dict[str, Any]]]:
    """The videos at any depth below a folder elsewhere, by path, each with what its file system says of it."""
    found = {str(name): info for name, info in fs.find(folder, detail=True).items()}
    return [(name, found[name]) for name in sorted(found) if _is_video(name, notes)]


def _is_video(path: str, notes: Notes) -> bool:
    suffix = suffix_of(path)
    if suffix in MEDIA_SUFFIXES:
        return True
    if suffix in LIST_SUFFIXES:
        notes.lists.append(path)
    elif not is_sidecar(path):
        notes.passed_over[suffix if 1 < len(suffix) <= _LONGEST_SUFFIX else "without a suffix"] += 1
    return False


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _is_file(entry: os.DirEntry[str], notes: Notes) -> bool:
    """Opening a pipe or a device may take for ever. A link that leads nowhere is an item: it is rejected as one."""
    try:
        regular = S_ISREG(entry.stat().st_mode)
    except OSError:
        return True
    if not regular:
        notes.passed_over["pipe, socket or device"] += 1
    return regular


def _some(paths: list[str]) -> str:
    more = len(paths) - _NAMED
    return ", ".join(printable(path) for path in sorted(paths)[:_NAMED]) + (f" and {more} more" if more > 0 else "")
