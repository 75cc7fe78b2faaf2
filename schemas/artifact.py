"""Rows to bytes and back: safetensors with the plain fields as JSON in its header.

Deterministic (same rows, same bytes), self-describing, readable from any language, and nothing in it
can run as code. Several rows of one type make one artifact.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, overload

import numpy as np
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from schemas.errors import DatasetError
from schemas.rows import Head, Row

R = TypeVar("R", bound=Row)
H = TypeVar("H", bound=Head)

_ARRAY = "$array"
_HEADER = "visavis"


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
    try:
        tensors = load_tensors(data)
        header = _header(data)
        if header["rows"] and header["kind"] != kind.__name__:
            raise DatasetError(f"artifact holds {header['kind']} rows, expected {kind.__name__}")
        return tuple(kind.model_validate(_join(plain, tensors)) for plain in header["rows"])
    except (SafetensorError, KeyError, ValueError, ValidationError) as error:
        raise DatasetError(f"not a readable {kind.__name__} artifact: {str(error).splitlines()[0]}") from error


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
        (row,) = load_rows(self._read(self._paths[index]), self._kind)
        return row


def read_note(data: bytes) -> dict[str, str]:
    """The strings that were kept beside the rows."""
    try:
        return {str(k): str(v) for k, v in _header(data)["note"].items()}
    except (KeyError, ValueError) as error:
        raise DatasetError(f"not a readable artifact: {error}") from error


def load_heads(read_head: Callable[[int], bytes], kind: type[H]) -> tuple[H, ...]:
    """Decode some of the plain fields that `dump_rows` wrote, from the artifact's first bytes alone.

    Args:
        read_head: gives the first n bytes of the artifact.

    Raises:
        DatasetError: not such a file, or rows of another type or shape of fields.
    """
    try:
        size = 8 + int.from_bytes(read_head(8), "little")
        header = _header(read_head(size))
        if header["rows"] and header["kind"] != kind.whole.__name__:
            raise DatasetError(f"artifact holds {header['kind']} rows, expected {kind.whole.__name__}")
        return tuple(kind.model_validate({name: row[name] for name in kind.model_fields}) for row in header["rows"])
    except (KeyError, ValueError, ValidationError) as error:
        raise DatasetError(f"not a readable {kind.whole.__name__} artifact: {str(error).splitlines()[0]}") from error


def _header(data: bytes) -> dict[str, Any]:
    size = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][_HEADER])
    return header


def _split(value: Any, path: str, tensors: dict[str, np.ndarray]) -> Any:
    if isinstance(value, np.ndarray):
        tensors[path] = np.ascontiguousarray(value)
        return {_ARRAY: path}
    if isinstance(value, BaseModel):
        return {name: _split(getattr(value, name), f"{path}.{name}", tensors) for name in type(value).model_fields}
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
