"""A shard taken apart: a plain tar of regular files, and nothing else that calls itself one.

Shards come from others. A general tar reader opens what is compressed, fills holes, follows extended headers of any
size and believes whatever length it is told: 10 kB become gigabytes. What we and WebDataset write needs none of that.
So a shard is blocks of 512 bytes with `ustar` headers (GNU's kind of them as well) for regular files, uncompressed; all
else is refused. Nothing is copied beyond what lies in the shard's own bytes.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Mapping

Members = Mapping[str, bytes]
MOST_MEMBERS = 64
"""Of a sample; eleven are ours."""

_BLOCK = tarfile.BLOCKSIZE
_MAGIC = (b"ustar\x00", b"ustar ")  # POSIX, GNU
_NAME = re.compile(r"([A-Za-z0-9_-]{1,200})\.([A-Za-z0-9_-]{1,40}(?:\.[A-Za-z0-9_-]{1,40}){0,3})")


def samples_of(data: bytes) -> Iterator[tuple[str, Members]]:
    """Keys and members (by extension, in small letters) of a shard's samples, in its order.

    Raises:
        ValueError: not a plain tar, or no samples of which each has a key and members of its own.
    """
    seen: set[str] = set()
    key, members = "", dict[str, bytes]()
    for name, content in _files(data):
        found = _NAME.fullmatch(name)
        if found is None:
            raise ValueError(f"{name[:80]!r} is no member of a sample (KEY.EXTENSION, of letters, digits, _ and -)")
        extension = found[2].lower()
        if found[1] != key:
            if members:
                yield key, members
            key, members = found[1], {}
            if key in seen:
                raise ValueError(f"sample {key} comes twice")
            seen.add(key)
        if extension in members or len(members) == MOST_MEMBERS:
            raise ValueError(f"{name!r} comes twice" if extension in members else f"sample {key} has too many members")
        members[extension] = content
    if members:
        yield key, members


def _files(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files in a tar."""
    at, size = 0, len(data)
    while data[at : at + _BLOCK].count(b"\0") != _BLOCK:
        entry = _header(data[at : at + _BLOCK])
        at += _BLOCK
        if not 0 <= entry.size <= size - at:
            raise ValueError(f"{entry.name[:80]!r} claims {entry.size} bytes, and {size - at} follow")
        yield entry.name, data[at : at + entry.size]
        at += -(-entry.size // _BLOCK) * _BLOCK
    if data.count(b"\0", at) != size - at:
        raise ValueError("something follows its end")


def _header(block: bytes) -> tarfile.TarInfo:
    if block[257:263] not in _MAGIC:
        raise ValueError("ends without a mark" if len(block) < _BLOCK else "not an uncompressed tar")
    try:
        entry = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise ValueError(str(error)) from error
    if block[156:157] not in (b"0", b"\0") or not entry.isreg():
        raise ValueError(f"{entry.name[:80]!r} is not a plain file (type {block[156:157]!r})")
    return entry
