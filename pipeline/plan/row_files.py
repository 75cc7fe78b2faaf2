"""CSV, JSON lines and Parquet as rows of the same columns, streamed.

What is wrong with a file's form is told in one line with the row: a quote that is never closed, a row that does not fit
the header, an array where lines are expected, bytes that are no UTF-8. A `;`, tab or `|` between columns is recognised
by the header, UTF-16 by its mark. A line and a row have an end (`_LONGEST`), Parquet's pages are looked at before they
are unpacked (`pipeline.state.parquet_pages`), and what a list unpacks to has a measure, so memory and time are bounded
whatever the file holds. Whatever a library raises for it is one line, too.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import IO, Any, NoReturn, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from visavis.pipeline.state.parquet_pages import MOST_FOOTER, check_footer, check_pages
from visavis.schemas.errors import UsageError
from visavis.schemas.plain import distinct
from visavis.schemas.secrets import hidden
from visavis.schemas.untrusted import TooLarge, bounded, first_line, parsing
from visavis.schemas.uris import printable, shown

Cells = Sequence[Any]
"""Values of the wanted columns, None where there is none."""

_LONGEST = 1 << 20  # characters of a line or a quoted field
_LONGEST_ROW = 4 * _LONGEST  # characters of a row of CSV, which may be on many lines
_MOST_COLUMNS = 10_000
_MOST_BLANK = 1_000_000  # blank lines one after the other
_ROWS = 1 << 13  # of Parquet that are Python's objects at a time
_PARQUET: dict[str, Any] = {  # a part of a column at a time, not all of it
    "pre_buffer": False,
    "buffer_size": 1 << 20,
    "thrift_string_size_limit": MOST_FOOTER,
    "thrift_container_size_limit": 100_000,
}
_LONGEST_NAME = 1 << 16  # bytes, where a column says how long its names are
_FREE_BYTES, _MOST_GROWN = 8 << 20, 200  # from so many on, names may be so many times the size of what packs them
_DELIMITERS = ",;\t|"
_TEXT = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())
_MOST_KEYS = 100  # of JSON objects that are remembered, to name those that are not read


class Table:
    """One list while it is read.

    columns: names as found. row: number of the row that was read last, from 1; lines: how many lines it took.

    Raises, while rows are taken:
        UsageError: not such a file, or a row that is out of form. One line.
    """

    def __init__(self, name: str, suffix: str, wanted: Sequence[str], aliases: Mapping[str, Sequence[str]]) -> None:
        self.name, self.suffix = printable(shown(name)), suffix.removesuffix(".gz")
        self.columns: dict[str, None] = {}
        self.row, self.lines = 0, 1
        self._gzip = suffix.endswith(".gz")
        self._wanted, self._aliases = wanted, aliases
        self._place = ""
        self._taken = 0  # characters of a row of CSV

    def rows(self, file: IO[bytes]) -> Iterator[Cells]:
        """The wanted cells of every row. The file may be closed at the end."""
        # What libraries raise for a broken file. A disk or network that fails has an errno: not the list's fault.
        with parsing(lambda why: UsageError(f"{self.name}: not a readable {self.suffix} list ({why})")):
            data = cast(IO[bytes], _Unpacked(file)) if self._gzip else file
            yield from _READERS[self.suffix](self, data)
        if not self.row:
            raise UsageError(f"{self.name}: no rows in this list")

    def fail(self, what: str) -> NoReturn:
        """Say what is wrong with the row that was read last."""
        row = f" row {self.row}{self._place}" if self.row else ""
        raise UsageError(f"{self.name}:{row} {what}")

    def meant(self, column: str) -> str:
        """A hint where a column is absent and another one looks like it."""
        if column in self.columns:
            return ""
        plain = {name.strip().lower(): name for name in self.columns if name not in self._wanted}
        alias = next((plain[name] for name in (column, *self._aliases.get(column, ())) if name in plain), None)
        close = get_close_matches(column, list(plain), 1, 0.75)
        name = alias or (plain[close[0]] if close else None)
        return f"; is `{printable(name)[:40]}` meant as `{column}`?" if name else ""

    def _parquet(self, file: IO[bytes]) -> Iterator[Cells]:
        check_footer(file)
        table = pq.ParquetFile(file, **_PARQUET)
        schema = table.schema_arrow
        places = self._places([str(name) for name in schema.names])
        for name, place in places.items():
            if not _plain(schema.field(place).type):
                self.fail(f"column `{name}` is {str(schema.field(place).type)[:60]}, expected text or whole numbers")
        own = {name: schema.names[place] for name, place in places.items()}
        reading = check_pages(file, table.metadata, frozenset(own.values()))
        table = pq.ParquetFile(file, metadata=table.metadata, read_dictionary=list(reading.dictionaries), **_PARQUET)
        given, most = 0, max(_FREE_BYTES, _MOST_GROWN * file.seek(0, os.SEEK_END))
        for batch in table.iter_batches(reading.rows, columns=list(own.values())):
            for start in range(0, batch.num_rows, _ROWS):
                part = batch.slice(start, _ROWS)
                given += sum(map(_bytes, part.columns))
                bounded(given, most, f"bytes of names, more than {_MOST_GROWN} times the file: is this a list?")
                nothing = [None] * part.num_rows
                found = {name: _values(part.column(part.schema.get_field_index(own[name]))) for name in own}
                for cells in zip(*(found.get(name, nothing) for name in self._wanted), strict=True):
                    self.row += 1
                    yield cells

    def _jsonl(self, file: IO[bytes]) -> Iterator[Cells]:
        decode = json.JSONDecoder(object_pairs_hook=distinct).raw_decode
        needed, wanted, columns = self._wanted[0], self._wanted, self.columns
        blank = 0
        for number, line in enumerate(self._lines(file), 1):
            line = line.strip()
            if not line:
                blank += 1
                if blank > _MOST_BLANK:
                    self.fail(_BLANK)
                continue
            blank = 0
            self.row += 1
            self._place = f" (line {number})" if number != self.row else ""
            try:
                row, end = decode(line)
                if end < len(line):
                    raise ValueError(f"more text after character {end}")
            except (ValueError, RecursionError) as error:
                hint = _ARRAY if line[0] == "[" else ""
                self.fail(f"is not JSON, so this is not a readable .jsonl list: {first_line(error)}{hint}")
            if not isinstance(row, dict):
                self.fail(f"is no JSON object: {printable(hidden(line))[:40]}{_ARRAY if line[0] == '[' else ''}")
            for key in row:
                if key not in columns and len(columns) < _MOST_KEYS:
                    columns[key] = None
            if needed not in row:
                self.columns = dict.fromkeys(row)
                self.fail(f"has no `{needed}`{self.meant(needed)}")
            get = row.get
            yield [get(name) for name in wanted]

    def _csv(self, file: IO[bytes]) -> Iterator[Cells]:
        csv.field_size_limit(_LONGEST)
        lines = self._ending_rows(self._lines(file))
        header, delimiter, before = self._header(lines)
        found = self._places(header)
        places = [found.get(name, -1) for name in self._wanted]
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        width, last, blank = len(header), 0, 0
        while True:
            self._taken = 0
            self._place = f" (line {before + last + 1})"
            self.row += 1
            try:
                row = next(reader, None)
            except csv.Error as error:
                self.fail(_CSV_FAULTS.get(str(error).split(" ")[0], f"has quotes amiss ({error})"))
            if row is not None and any(map(str.strip, row)):
                self._fits(row, width, delimiter)
                self.lines, last = reader.line_num - last, reader.line_num
                row.append("")
                blank = 0
                yield [row[place] for place in places]
            else:  # the end, a blank line, or one of nothing but commas, as Excel leaves them
                self.row -= 1
                last = reader.line_num
                if row is None:
                    return
                blank += 1
                if blank > _MOST_BLANK:
                    self.fail(_BLANK)

    def _ending_rows(self, lines: Iterator[str]) -> Iterator[str]:
        """The same lines. A row may be on many, by quoted fields."""
        for line in lines:
            self._taken += len(line)
            if self._taken > _LONGEST_ROW:
                self.fail("goes on for more than four million characters: is a quote never closed?")
            yield line

    def _fits(self, row: list[str], width: int, delimiter: str) -> None:
        if len(row) == width:
            return
        if len(row) < width or any(map(str.strip, row[width:])):
            fields = f"{len(row)} field{'s' if len(row) != 1 else ''}"
            self.fail(f"has {fields}, the header has {width}; what holds {delimiter!r} needs quotes around it")
        del row[width:]

    def _header(self, lines: Iterator[str]) -> tuple[list[str], str, int]:
        """Names, what is between them, and how many lines that took."""
        for number, line in enumerate(lines, 1):
            if not line.strip() or (line.lower().startswith("sep=") and len(line.strip()) == 5):  # Excel reads that
                continue
            found = {d: _split(line, d) for d in _DELIMITERS}
            fitting = [d for d in _DELIMITERS if self._wanted[0] in found[d]]
            delimiter = fitting[0] if fitting else max(_DELIMITERS, key=lambda d: len(found[d]))
            return found[delimiter], delimiter, number
        raise UsageError(f"{self.name}: no rows in this list")

    def _places(self, found: list[str]) -> dict[str, int]:
        """The wanted columns → where they are. Blanks around names do not count."""
        if len(found) > _MOST_COLUMNS:
            self.fail(f"{len(found)} columns: is this a list?")
        names = [name.strip() for name in found]
        self.columns = dict.fromkeys(names)
        for name in self._wanted:
            if names.count(name) > 1:
                self.fail(f"{names.count(name)} columns are named `{name}`; rename all but one")
        needed = self._wanted[0]
        if needed not in names:
            listed = ", ".join(printable(name)[:40] for name in names[:10]) or "none"
            self.fail(f"no column `{needed}`{self.meant(needed)} (columns found: {listed})")
        return {name: names.index(name) for name in self._wanted if name in names}

    def _lines(self, file: IO[bytes]) -> Iterator[str]:
        head = file.read(4)
        file.seek(0)
        text = io.TextIOWrapper(file, _encoding(head), errors="surrogateescape", newline="")
        while line := text.readline(_LONGEST + 1):
            if len(line) > _LONGEST:
                self.fail("goes on in a line of more than a million characters: is this a list?")
            yield line

    def broken(self, why: str) -> UsageError:
        """For what a value raises that nobody thought of."""
        return UsageError(f"{self.name}: row {self.row}{self._place} cannot be read ({why})")


_READERS: dict[str, Callable[[Table, IO[bytes]], Iterator[Cells]]] = {
    ".parquet": Table._parquet,
    ".jsonl": Table._jsonl,
    ".ndjson": Table._jsonl,
    ".csv": Table._csv,
    ".tsv": Table._csv,
}
_ARRAY = "; a list has one object a line: `jq -c .[]` makes such lines of an array"
_BLANK = "is followed by more than a million blank lines: is this a list?"
_CSV_FAULTS = {
    "unexpected": "has a quote that is never closed",
    "field": "has a field of more than a million characters: is a quote never closed?",
}


class _Unpacked(gzip.GzipFile):
    """A list as it was before gzip. Zeros pack a thousandfold, and names do not."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(fileobj=file)
        self._packed, self._given = file, 0

    def read(self, size: int | None = -1) -> bytes:
        return self._counted(super().read(size))

    def read1(self, size: int = -1) -> bytes:
        return self._counted(super().read1(size))

    def _counted(self, data: bytes) -> bytes:
        self._given += len(data)
        if self._given > _FREE_BYTES and self._given > _MOST_GROWN * self._packed.tell():
            raise TooLarge(f"unpacks to more than {_MOST_GROWN} times its size: is this a list?")
        return data


def _encoding(head: bytes) -> str:
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if b"\0" in head:
        raise ValueError("neither UTF-8 nor marked as UTF-16; save it as UTF-8")
    return "utf-8-sig"


def _split(line: str, delimiter: str) -> list[str]:
    try:
        return [name.strip() for name in next(csv.reader([line], delimiter=delimiter, strict=True), [])]
    except csv.Error:
        return []


def _plain(kind: pa.DataType) -> bool:
    """Types that hold text, whole numbers, or times."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    t = pa.types
    number = t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind)
    text = kind in (*_TEXT, pa.string_view(), pa.binary_view())
    return text or number or t.is_null(kind) or t.is_timestamp(kind) or t.is_date(kind)


def _bytes(column: pa.Array) -> int:
    """Of all names in a column of text, spelled out."""
    if pa.types.is_dictionary(column.type):
        if column.type.value_type not in _TEXT:
            return 0
        return pc.sum(pc.take(pc.binary_length(column.dictionary), column.indices)).as_py() or 0
    return pc.sum(pc.binary_length(column)).as_py() or 0 if column.type in _TEXT else 0


def _values(column: pa.Array) -> list[Any]:
    if pa.types.is_dictionary(column.type) and _bytes(column) < _FREE_BYTES and len(column.dictionary) > len(column):
        column = column.dictionary_decode()  # faster, where words seldom come twice
    if pa.types.is_dictionary(column.type):
        words = _values(column.dictionary)
        return [None if place is None else words[place] for place in column.indices.to_pylist()]
    if column.type in _TEXT:
        longest = pc.max(pc.binary_length(column)).as_py() or 0
        bounded(longest, _LONGEST_NAME, "bytes of a name")
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":  # Python's times end at microseconds
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    values: list[Any] = column.to_pylist()
    return values
