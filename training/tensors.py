"""Files of tensors in safetensors' format, at the speed of the disk and with every claim checked before it counts.

The format is read and written here because its library takes headers of up to 100 MB, keeps the last of two tensors
of one name, maps files into memory, where somebody who cuts one short ends the process (SIGBUS), and hides what a full
disk says. The same tensors and note give the same bytes, and any reader of safetensors reads them.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import IO, Any

import torch
from torch import Tensor

from visavis.schemas.untrusted import bounded

MOST_HEADER = 8 << 20
"""Bytes of a header; one with a thousand tensors has 0.1 MB."""
_MOST_TENSORS = 100_000
_MOST_DIMENSIONS = 8
_LARGEST = 1 << 40  # of a dimension
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_NOTE = "__metadata__"


@dataclass(frozen=True)
class Entry:
    """A tensor in a file: bytes begin … end, counted from the end of the header."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Head:
    """What a file says it holds. note: texts beside the tensors. size: of the header, with its length, in bytes."""

    tensors: dict[str, Entry]
    note: dict[str, str]
    size: int


def write_tensors(file: IO[bytes], tensors: Mapping[str, Tensor], note: Mapping[str, str] | None = None) -> None:
    """Append a file of tensors, which may lie anywhere.

    Raises:
        OSError: as the file's.
    """
    ordered = sorted(tensors.items(), key=lambda each: (-each[1].element_size(), each[0]))  # so each is aligned
    header: dict[str, Any] = {_NOTE: dict(note)} if note else {}
    end = 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    bounded(len(text), MOST_HEADER, "bytes of a header")
    file.write(len(text).to_bytes(8, "little") + text)
    for _, tensor in ordered:
        file.write(_bytes_of(tensor.detach().cpu().contiguous()))


def read_head(file: IO[bytes]) -> Head:
    """What a file says, held against its size: tensors follow each other without gaps or overlaps, to its very end.

    Raises:
        ValueError, RecursionError, MemoryError: it is not such a file (see `schemas.untrusted.parsing`).
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if size < 10 or file.read(1) != b"{":
        raise ValueError("is no safetensors file")
    bounded(length, min(MOST_HEADER, size - 8), "bytes of a header")
    raw = json.loads(b"{" + file.read(length - 1), object_pairs_hook=_once, parse_constant=_refuse)
    note = raw.pop(_NOTE, {})
    if not isinstance(note, dict) or not all(isinstance(value, str) for value in note.values()):
        raise ValueError("the header's __metadata__ is no mapping of texts")
    bounded(len(raw), _MOST_TENSORS, "tensors")
    tensors = {name: _entry(name, value) for name, value in raw.items()}
    end = 0
    for name, entry in sorted(tensors.items(), key=lambda each: (each[1].begin, each[1].end)):
        if entry.begin != end:
            raise ValueError(f"{name[:80]} does not begin where the tensor before it ends")
        end = entry.end
    if 8 + length + end != size:
        raise ValueError(f"the tensors end at byte {8 + length + end}, the file at {size}")
    return Head(tensors, note, 8 + length)


def read_tensors(file: IO[bytes], head: Head, names: Iterable[str]) -> dict[str, Tensor]:
    """Some of a file's tensors, in memory of their own.

    Raises:
        EOFError: the file was cut short since its head was read.
    """
    found = {}
    for name in sorted(names, key=lambda name: head.tensors[name].begin):
        entry = head.tensors[name]
        tensor = torch.empty(entry.shape, dtype=entry.dtype)
        file.seek(head.size + entry.begin)
        left = _bytes_of(tensor)
        while len(left):
            count = file.readinto(left)  # type: ignore[attr-defined]
            if not count:
                raise EOFError(f"ends within {name[:80]}")
            left = left[count:]
        found[name] = tensor
    return found


def fit(expected: Mapping[str, Tensor], found: Mapping[str, Entry]) -> None:
    """See that a file holds just the expected tensors: names, shapes and types.

    Args:
        expected: may lie on the meta device.

    Raises:
        ValueError: it does not, and what is the first difference.
    """
    for name in sorted(expected.keys() | found.keys()):
        if name not in found or name not in expected:
            raise ValueError(f"{'lacks' if name not in found else 'has a tensor of no use'}: {name[:80]}")
        wanted, entry = expected[name], found[name]
        if (tuple(wanted.shape), wanted.dtype) != (entry.shape, entry.dtype):
            kind = f"{_NAMES[entry.dtype]} {list(entry.shape)}"
            raise ValueError(f"{name[:80]} is {kind}, expected {_NAMES[wanted.dtype]} {list(wanted.shape)}")


def looks_pickled(file: IO[bytes]) -> bool:
    """Whether a file is what torch.save wrote, now (a zip archive) or once (pickles in a row), by its first bytes.

    A length of a safetensors header may begin like a pickle; the header itself begins with a brace.
    """
    begin = file.read(9)
    return begin[8:] != b"{" and (begin[:4] == b"PK\x03\x04" or begin[:1] == b"\x80")


def _bytes_of(tensor: Tensor) -> memoryview:
    """A contiguous tensor's own memory."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _entry(name: str, raw: Any) -> Entry:
    if not isinstance(raw, dict) or raw.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name[:80]}: no description of a tensor")
    dtype, shape, (begin, end) = _DTYPES.get(str(raw["dtype"])), raw["shape"], _whole(raw["data_offsets"], 2)
    if dtype is None:
        raise ValueError(f"{name[:80]}: tensors of type {str(raw['dtype'])[:20]} are not read")
    shape = _whole(shape, _MOST_DIMENSIONS)
    if math.prod(shape) * dtype.itemsize != end - begin:
        raise ValueError(f"{name[:80]}: {list(shape)} is not what fits into its {end - begin} bytes")
    return Entry(dtype, shape, begin, end)


def _whole(values: Any, most: int) -> tuple[int, ...]:
    """A short list of whole numbers."""
    if not isinstance(values, list) or len(values) > most:
        raise ValueError("a tensor's shape or place is no short list")
    if not all(type(value) is int and 0 <= value <= _LARGEST for value in values):
        raise ValueError("a tensor's shape or place is not made of whole numbers")
    return tuple(values)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, in which no name comes twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice in the header")
    return found


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
