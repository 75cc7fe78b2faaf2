"""Arrays from a stranger's `.npz`: what is claimed is held against what is there before anything is allocated.

numpy's own reader looks for a member by two names, allocates what an array's header claims, and takes every compression
that zip knows. Here a member has one name and occurs once, is stored or deflated, and is plain numbers.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from typing import IO, cast

import numpy as np

from visavis.schemas.storage.files import Reader
from visavis.schemas.untrusted import bounded

_DIRECTORY = 1 << 20  # bytes of an archive's list of members
_HEADER = 1000  # characters of an array's header, which is a Python literal
_READ = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_END, _END_SIZE, _END64 = b"PK\x05\x06", 22, b"PK\x06\x07"
_LONGEST_COMMENT = 1 << 16


def read_members(file: Reader | io.BytesIO, names: tuple[str, ...], largest: int) -> tuple[np.ndarray, ...] | None:
    """Arrays of an archive.

    Args:
        names: without `.npy`.
        largest: bytes that an array may have.

    Returns:
        Booleans or numbers, read-only. None: the first of them is not there.

    Raises:
        Exception: whatever; the file is at fault, where its reading did not fail.
    """
    bounded(_directory_size(file), _DIRECTORY, "bytes of a list of members")
    with zipfile.ZipFile(cast(IO[bytes], file)) as archive:
        members = archive.namelist()
        if f"{names[0]}.npy" not in members:
            return None
        return tuple(_array(archive, members, name, largest) for name in names)


def _directory_size(file: Reader | io.BytesIO) -> int:
    """What the end of an archive says of its list of members, found as `zipfile` finds it."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _LONGEST_COMMENT - _END_SIZE - 20))
    tail = file.read()
    at = len(tail) - _END_SIZE
    if not (tail[at:].startswith(_END) and tail.endswith(b"\0\0")):
        at = tail.rfind(_END)
    if at < 0 or len(tail) < at + _END_SIZE:
        raise zipfile.BadZipFile("not an archive of arrays")
    if tail[max(0, at - 20) : at].startswith(_END64):
        raise zipfile.BadZipFile("an archive of more than 4 GB or 65535 members")
    found: int = struct.unpack_from("<L", tail, at + 12)[0]
    file.seek(0)
    return found


def _array(archive: zipfile.ZipFile, members: list[str], name: str, largest: int) -> np.ndarray:
    if members.count(f"{name}.npy") != 1:
        raise ValueError(f"{members.count(f'{name}.npy')} members {name}, one is expected")
    member = archive.getinfo(f"{name}.npy")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is compressed in a way that numpy does not write")
    bounded(member.file_size, largest, f"bytes of {name}")
    with archive.open(member) as packed:
        data = packed.read(largest + 1)
    return _parsed(data, name)


def _parsed(data: bytes, name: str) -> np.ndarray:
    text = io.BytesIO(data)
    version = np.lib.format.read_magic(text)
    if version not in _READ:
        raise ValueError(f"{name} is of npy version {version}")
    shape, by_column, dtype = _READ[version](text, max_header_size=_HEADER)
    if dtype.kind not in "bfiu" or min(shape, default=0) < 0:
        raise ValueError(f"{name} claims {dtype} {shape}, numbers are expected")
    count, left = math.prod(shape), len(data) - text.tell()
    if count * dtype.itemsize > left:
        raise ValueError(f"{name} claims {count * dtype.itemsize} bytes and holds {left}")
    return np.frombuffer(data, dtype, count, text.tell()).reshape(shape, order="F" if by_column else "C")
