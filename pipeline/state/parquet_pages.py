"""What a Parquet file claims of its pages, looked at before pyarrow allocates for it.

pyarrow believes what a file says: a page of a few bytes may claim two gigabytes, and a dictionary's one long value may
be repeated a million times. Page headers are small, and lie between the pages, so all of them are read here first; they
are Thrift's compact protocol, of which this reads as much as they use. From what they say follow the columns that are
better left as dictionaries, and how many rows may be taken at a time.

Where the pages lie is read of the footer in the same way: asked by pyarrow for what a group of rows says of a column, a
damaged one ends the process (`ColumnChunkMetaData`, pyarrow 26).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from typing import IO, Any, NamedTuple, TypeVar

import pyarrow.parquet as pq

from visavis.schemas.untrusted import TooLarge, bounded

MOST_FOOTER = 1 << 20
"""Bytes of what describes the columns and row groups."""
_MOST_PAGES_BYTES = 64 << 20  # of the largest pages of all columns together
_MOST_PAGES = 1_000_000
_FEW_ROWS = 1_000_000
_LEAST_ROW = 0.05  # bytes of the file for each row, where there are more than a few
_ROWS = 1 << 16  # that are taken at a time
_WORDS = 1024  # bytes of a dictionary that may be spelled out for every row of so many
_HEADERS = (256, 1 << 13, 1 << 20)  # bytes that are read of a header, which may hold statistics
_DELTA_BYTE_ARRAY = 7  # an encoding: each value goes on from the one before
_ROW_GROUPS, _COLUMNS, _META_DATA = 4, 1, 3  # fields of FileMetaData, RowGroup and ColumnChunk
_VALUES, _COMPRESSED_SIZE, _DATA_PAGE, _DICTIONARY_PAGE = 5, 7, 9, 11  # of ColumnMetaData
_Kind = TypeVar("_Kind")


class Reading(NamedTuple):
    """How to read a file within bounds: columns to be left as dictionaries, and rows at a time."""

    dictionaries: tuple[str, ...]
    rows: int


class _Page(NamedTuple):
    size: int  # bytes in the file, with its header
    unpacked: int
    values: int  # none, of a dictionary
    dictionary: bool
    encoding: int


def check_footer(file: IO[bytes]) -> None:
    """Raises TooLarge where what describes the file is larger than that of any list."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 8))
    tail = file.read(8)
    bounded(int.from_bytes(tail[:4], "little"), MOST_FOOTER, "bytes that describe the columns")
    file.seek(0)


def check_pages(file: IO[bytes], metadata: pq.FileMetaData, names: Collection[str]) -> Reading:
    """How to read columns, after a look at all of their pages.

    Raises:
        TooLarge: the pages claim more than those of a list can need.
        ValueError: not the headers of pages.
    """
    end = file.seek(0, os.SEEK_END)
    if metadata.num_rows > _FEW_ROWS:
        bounded(metadata.num_rows, end / _LEAST_ROW, f"rows in {end} bytes: is this a list?")
    largest: dict[str, int] = {}
    dictionaries, grown = set[str](), False
    pages = 0
    for path, start, size, values in _chunks(file, metadata, names):
        for page in _pages(file, start, min(size, end - start), values):
            pages += 1
            bounded(pages, _MOST_PAGES, "pages")
            largest[path] = max(largest.get(path, 0), page.unpacked)
            bounded(sum(largest.values()), _MOST_PAGES_BYTES, "bytes of pages at a time")
            grown |= page.encoding == _DELTA_BYTE_ARRAY
            if page.dictionary and page.unpacked > _WORDS:
                dictionaries.add(path)
    rows = max(1, min(_ROWS, _MOST_PAGES_BYTES // max(largest.values(), default=1))) if grown else _ROWS
    return Reading(tuple(sorted(dictionaries)), rows)


def _chunks(file: IO[bytes], metadata: pq.FileMetaData, names: Collection[str]) -> Iterator[tuple[str, int, int, int]]:
    """Column, first byte, bytes and values of whatever pyarrow reads for these columns."""
    paths = [metadata.schema.column(place).path for place in range(metadata.num_columns)]
    for row_group in _of(_footer(file), _ROW_GROUPS, list):
        columns = _of(row_group, _COLUMNS, list)
        if len(columns) != len(paths):  # asked for one that is not there, pyarrow ends the process
            raise ValueError("a group of rows with other columns than the rest")
        for path, chunk in zip(paths, columns, strict=True):
            if path.partition(".")[0] not in names:
                continue
            column = _of(chunk, _META_DATA, dict)
            start, size = _of(column, _DATA_PAGE, int), _of(column, _COMPRESSED_SIZE, int)
            if dictionary := column.get(_DICTIONARY_PAGE):
                start = min(start, dictionary)
            if start < 0 or size < 0:
                raise ValueError("a column that begins before the file")
            yield path, start, size, _of(column, _VALUES, int)


def _footer(file: IO[bytes]) -> dict[int, Any]:
    """What describes the file: `FileMetaData`, of a file whose footer is no larger than `MOST_FOOTER`."""
    end = file.seek(0, os.SEEK_END)
    file.seek(end - 8)
    size = int.from_bytes(file.read(4), "little")
    file.seek(max(0, end - 8 - size))
    try:
        return _Thrift(file.read(size)).struct()
    except IndexError:
        raise ValueError("a footer that is cut off") from None


def _of(struct: object, number: int, kind: type[_Kind]) -> _Kind:
    """A field of a struct."""
    field = struct.get(number) if isinstance(struct, dict) else None
    if not isinstance(field, kind):
        raise ValueError("a footer that lacks what pages need")
    return field


def _pages(file: IO[bytes], at: int, left: int, values: int) -> Iterator[_Page]:
    """As many as pyarrow reads: it stops at the number of values, whatever lies behind them."""
    while left > 0 and values > 0:
        page = _page(file, at, left)
        yield page
        at, left, values = at + page.size, left - page.size, values - page.values


def _page(file: IO[bytes], at: int, left: int) -> _Page:
    for size in _HEADERS:
        file.seek(at)
        data = file.read(min(size, left))
        header = _Thrift(data)
        try:
            fields = header.struct()
            break
        except IndexError:  # the header goes on
            if len(data) < size:
                raise ValueError("a page that is cut off") from None
    else:
        raise TooLarge(f"more than {_HEADERS[-1]} bytes of a page's header")
    unpacked, packed = fields.get(2), fields.get(3)
    if not isinstance(unpacked, int) or not isinstance(packed, int) or unpacked < 0 or packed < 0:
        raise ValueError("a page without a size")
    kinds: list[Any] = [fields.get(number) for number in (5, 7, 8)]  # of data, of a dictionary, of data in version 2
    encodings = [kind.get(4 if number == 2 else 2, -1) for number, kind in enumerate(kinds) if isinstance(kind, dict)]
    counts = [max(0, kind.get(1) or 0) for kind in (kinds[0], kinds[2]) if isinstance(kind, dict)]
    encoding = encodings[0] if encodings else -1
    return _Page(header.at + packed, unpacked, sum(counts), isinstance(kinds[1], dict), encoding)


# ---- Thrift's compact protocol ----

_TRUE, _FALSE, _BYTE, _NUMBERS, _DOUBLE, _BINARY, _LISTS, _STRUCT = 1, 2, 3, (4, 5, 6), 7, 8, (9, 10), 12
_DEEPEST = 8


class _Thrift:
    """Reads a struct. at: where it ends, once it is read. IndexError: it goes on after the data."""

    def __init__(self, data: bytes) -> None:
        self.at, self._data = 0, data

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Numbers, structs and lists of them by field; None for what else there is."""
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._number()
            fields[number] = self._value(head & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError("a header that is nested too deeply")
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind in _NUMBERS:
            return self._number()
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in _LISTS:
            return self._list(depth + 1)
        if kind in (_BYTE, _DOUBLE, _BINARY):
            self._skip({_BYTE: 1, _DOUBLE: 8}.get(kind) or self._varint())
        else:
            raise ValueError("a header that is none")
        return None

    def _list(self, depth: int) -> list[Any]:
        head, values = self._byte(), list[Any]()
        for _ in range(self._varint() if head >> 4 == 15 else head >> 4):
            if head & 15 in (_TRUE, _FALSE):  # in a list they take a byte
                self._skip(1)
            else:
                values.append(self._value(head & 15, depth))
        return values

    def _skip(self, size: int) -> None:
        self.at += size
        if self.at > len(self._data):
            raise IndexError

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > 63:
                raise ValueError("a number that never ends")

    def _number(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
