"""Rows to bytes and back: safetensors with the plain fields as JSON in its header.

Deterministic (same rows, same bytes), self-describing, readable from any language, and nothing in it
can run as code. Several rows of one type make one artifact.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, overload

import numpy as np
from pydantic import BaseModel
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from visavis.schemas.errors import DatasetError
from visavis.schemas.plain import fitted, read_strict
from visavis.schemas.rows import Head, Row
from visavis.schemas.untrusted import bounded, parsing

R = TypeVar("R", bound=Row)
H = TypeVar("H", bound=Head)

_ARRAY = "$array"
_HEADER = "visavis"
_HEADER_BYTES = 64 << 20  # of plain fields and of where the arrays lie; an hour of talk has some 2 MB


def dump_rows(rows: Sequence[Row], *, note: dict[str, str] | None = None) -> bytes:
    """Encode rows of one type.

    Args:
        rows: any number of rows, all of the same class.
        note: strings kept beside them in the header (`read_note`).
    """
    kinds = {type(row).__name__ for row in rows}
    if len(kinds) > 1:
        raise ValueError(f"rows of one artifact must share a type, got {sorted(kinds)}")
    tensors: dict[str, np.ndarray] = {}
    plain = [_split(row, f"{i}", tensors) for i, row in enumerate(rows)]
    header = {"kind": kinds.pop() if kinds else "", "rows": plain, "note": note or {}}
    # One metadata entry only: safetensors writes several in an order that differs from run to run.
    # One tensor more than the arrays: it refuses a file without any.
    return save_tensors(
        {"count": np.array([len(rows)], np.int64), **tensors},
        metadata={_HEADER: json.dumps(header, sort_keys=True, ensure_ascii=False)},
    )


def load_rows(data: bytes, kind: type[R]) -> tuple[R, ...]:
    """Decode what `dump_rows` wrote.

    Raises:
        DatasetError: not such a file, or rows of another type or shape of fields.
    """
    with parsing(lambda why: DatasetError(f"not a readable {kind.__name__} artifact: {why}")):
        header = _header(data)
        _check_kind(header, kind)
        tensors = load_tensors(data)
        return tuple(fitted(kind, _join(plain, tensors)) for plain in header["rows"])


def load_row(data: bytes, kind: type[R]) -> R:
    """The only row of an artifact.

    Raises:
        DatasetError: as `load_rows`, or there are more or none.
    """
    rows = load_rows(data, kind)
    if len(rows) != 1:
        raise DatasetError(f"not a readable {kind.__name__} artifact: {len(rows)} rows, expected one")
    return rows[0]


class StoredRows(Sequence[R]):
    """Rows of which each is an artifact's only one: loaded when it is looked at, and not kept.

    Looking at one raises DatasetError as `load_rows` does.
    """

    def __init__(self, paths: Sequence[str], read: Callable[[str], bytes], kind: type[R]) -> None:
        self._paths, self._read, self._kind = paths, read, kind

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, index: int) -> R: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[R]: ...
    def __getitem__(self, index: int | slice) -> R | Sequence[R]:
        if isinstance(index, slice):
            return StoredRows(self._paths[index], self._read, self._kind)
        return load_row(self._read(self._paths[index]), self._kind)


def read_note(data: bytes) -> dict[str, str]:
    """The strings that were kept beside the rows."""
    with parsing(lambda why: DatasetError(f"not a readable artifact: {why}")):
        return {str(k): str(v) for k, v in _header(data)["note"].items()}


def load_heads(read_head: Callable[[int], bytes], kind: type[H]) -> tuple[H, ...]:
    """Decode some of the plain fields that `dump_rows` wrote, from the artifact's first bytes alone.

    Args:
        read_head: gives the first n bytes of the artifact.

    Raises:
        DatasetError: not such a file, or rows of another type or shape of fields.
    """
    with parsing(lambda why: DatasetError(f"not a readable {kind.whole.__name__} artifact: {why}")):
        size = int.from_bytes(read_head(8), "little")
        bounded(size, _HEADER_BYTES, "bytes of an artifact's header")
        header = _header(read_head(8 + size))
        _check_kind(header, kind.whole)
        return tuple(fitted(kind, {name: row[name] for name in kind.model_fields}) for row in header["rows"])


def _header(data: bytes) -> dict[str, Any]:
    size = int.from_bytes(data[:8], "little")
    bounded(size, _HEADER_BYTES, "bytes of an artifact's header")
    outer = read_strict(data[8 : 8 + size], _HEADER_BYTES, finite=False)
    header: dict[str, Any] = read_strict(outer["__metadata__"][_HEADER], _HEADER_BYTES, finite=False)
    return header


def _check_kind(header: dict[str, Any], kind: type[Row]) -> None:
    if header["rows"] and header["kind"] != kind.__name__:
        raise ValueError(f"it holds {str(header['kind'])[:40]} rows, expected {kind.__name__}")


def _split(value: Any, path: str, tensors: dict[str, np.ndarray]) -> Any:
    if isinstance(value, np.ndarray):
        tensors[path] = np.ascontiguousarray(value)
        return {_ARRAY: path}
    if isinstance(value, BaseModel):
        later = value.later if isinstance(value, Row) else frozenset[str]()
        fields = ((name, getattr(value, name)) for name in type(value).model_fields)
        return {name: _split(field, f"{path}.{name}", tensors) for name, field in fields if name not in later or field}
    if isinstance(value, tuple | list):
        return [_split(v, f"{path}.{i}", tensors) for i, v in enumerate(value)]
    return value


def _join(value: Any, tensors: dict[str, np.ndarray]) -> Any:
    if isinstance(value, dict):
        if set(value) == {_ARRAY}:
            return tensors[value[_ARRAY]]
        return {k: _join(v, tensors) for k, v in value.items()}
    if isinstance(value, list):
        return tuple(_join(v, tensors) for v in value)
    return value
