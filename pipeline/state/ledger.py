"""The ledger: one row for what became of each item, as Parquet parts that anyone can query.

Rows are appended in parts, each committed atomically; the latest row of a (stage, key) counts. The driver
alone writes. A crash loses at most the rows since the last flush, and those are found again by the artifacts.

It compacts itself as a log-structured merge tree does (O'Neil et al. 1996): whenever enough small parts stand at
the end they become one larger part, which keeps only the latest row of each item. So the number of parts stays
small, each row is rewritten a few times at most, and no step holds more than a part of the whole.

A part is named by the first and the last of the appended parts that it holds (run and number), and by its writer, so
that no two writers ever share a name; and it lists what it was merged from. Two drivers may append and merge side by
side: a part that one of them reads for the last time may be in two larger ones then, which changes nothing, as parts
are read in the order of their last rows. Which of two rows counts that both wrote of an item at once, is open.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from visavis.pipeline.state.parquet_pages import check_footer, check_pages
from visavis.pipeline.state.tasks import Artifact
from visavis.schemas.errors import UsageError
from visavis.schemas.plain import read_strict, to_json
from visavis.schemas.storage.store import Store
from visavis.schemas.untrusted import bounded, parsing

FOLDER = "ledger"
_SUFFIX = ".parquet"
_FLUSH_ROWS = 500
_FLUSH_SECONDS = 5.0
_FAN = 16  # parts of one size that become one of the next
_PART = re.compile(r"\d{6,9}-\d{6,9}_\d{6,9}-\d{6,9}(_[0-9a-f]{12})?\.parquet")  # once without a writer
_MERGED = b"merged"  # metadata of a part: names of those that it was merged from
# What a part of ours cannot have: others may have put it there.
_PART_ROWS = 500_000
_PART_BYTES = 512 << 20
_PART_MEMORY = 2 << 30
_LARGEST = 200_000  # rows of a part; more are not merged, which bounds what a merge holds

Status = Literal["ok", "rejected", "failed"]


class Outcome(NamedTuple):
    """What became of one item: a row of the ledger, and, with fewer columns, of `pipeline.state.index`.

    reason: a rejection's reason or an error's class. inputs, output: digests of what went in and came out.
    facts: what the plan needs to know of the output (`Stage.facts`). media: seconds of media. ended: Unix time.
    """

    stage: str
    key: str
    item: str  # what a person would call it: a file name, a conversation
    status: Status
    reason: str = ""
    detail: str = ""
    inputs: str = ""
    output: str = ""
    facts: str = ""
    media: float = 0.0
    seconds: float = 0.0
    peak_mb: float = 0.0
    host: str = ""
    attempt: int = 1
    ended: float = 0.0
    fingerprint: str = ""
    run: int = 0

    def artifact(self, path: str) -> Artifact | None:
        """What was made, whether it was left out afterwards or not; path: the task's."""
        return Artifact(path, self.output, self.facts) if self.status == "ok" or self.output else None


_SCHEMA = pa.schema(
    [
        pa.field(name, {float: pa.float64(), int: pa.int64()}.get(type(Outcome._field_defaults.get(name)), pa.string()))
        for name in Outcome._fields
    ]
    + [pa.field("uid", pa.uint64())]  # of (stage, key): millions of rows are told apart as numbers
)
_TEXTS = [field.name for field in _SCHEMA if pa.types.is_string(field.type)]


def uid_of(stage: str, key: str) -> int:
    """A number that stands for an item of a stage; 64 bits of a hash."""
    return int.from_bytes(hashlib.blake2b(f"{stage}/{key}".encode(), digest_size=8).digest(), "little")


def latest_rows(uid_N: np.ndarray) -> np.ndarray:
    """Indices of the last row of each item, in the order of rows, for `uid` of rows in the order they were written."""
    reverse = uid_N[::-1]
    _, first = np.unique(reverse, return_index=True)
    return np.sort(len(uid_N) - 1 - first)


@dataclass(frozen=True)
class _Part:
    """What a part's footer says."""

    rows: int
    merged: frozenset[str] = frozenset()


class Ledger:
    """Reads and appends the rows of a run's folder."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pending: list[Outcome] = []
        self._flushed = time.monotonic()
        self._heads: dict[str, _Part] = {}
        self._mine = self._parts()
        self.run = 1 + max((int(_span(name)[1].split("-")[0]) for name in self._mine), default=0)
        self._part = 0
        self._writer = uuid.uuid4().hex[:12]

    def tidy(self) -> None:
        """Remove the parts that a killed run had merged into a larger one."""
        merged = self._merged(self._mine)
        for name in filter(merged.__contains__, self._named()):
            self._store.delete(f"{FOLDER}/{name}")

    def append(self, outcome: Outcome) -> None:
        self._pending.append(outcome)
        if len(self._pending) >= _FLUSH_ROWS or time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Commit what was appended."""
        self._flushed = time.monotonic()
        if not self._pending:
            return
        rows = [{**o._asdict(), "run": self.run, "uid": uid_of(o.stage, o.key)} for o in self._pending]
        number = f"{self.run:06d}-{self._part:06d}"
        self._write(number, number, pa.Table.from_pylist(rows, schema=_SCHEMA))
        self._part += 1
        self._pending.clear()
        self._compact()

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Committed rows, part by part, oldest first. Safe beside a run that compacts."""
        names = self._parts()
        while names:
            try:
                yield self._read(names[0], columns)
                names = names[1:]
            except FileNotFoundError:  # merged into a later one meanwhile
                names = [name for name in self._parts() if _place(name) >= _place(names[0])]

    def latest(self) -> dict[tuple[str, str], Outcome]:
        """The row that counts for each (stage, key). For small runs and tests: holds everything at once."""
        rows: dict[tuple[str, str], Outcome] = {}
        for table in self.tables():
            for row in table.drop_columns(["uid"]).to_pylist():
                rows[row["stage"], row["key"]] = Outcome(**row)
        return rows

    def _compact(self) -> None:
        """Merge the parts at the end, where there are enough of one size."""
        tail: list[str] = []
        level = _level(self._heads[self._mine[-1]].rows)
        for name in reversed(self._mine):
            if _level(self._heads[name].rows) > level or self._heads[name].rows > _LARGEST:
                break
            tail.insert(0, name)
        if len(tail) < _FAN or sum(self._heads[name].rows for name in tail) > _LARGEST:
            return
        tables = {name: table for name in tail if (table := self._read_if_there(name)) is not None}
        older = self._mine[: -len(tail)]
        self._mine = [*older, *tables]
        if len(tables) < _FAN:
            return
        self._mine = older
        merged = pa.concat_tables(tables.values())
        merged = merged.take(pa.array(latest_rows(merged["uid"].to_numpy())))
        first, *_, last = tables
        # It lists what it holds: from then on those parts are not read any more, also if a crash leaves them there.
        self._write(_span(first)[0], _span(last)[1], merged.replace_schema_metadata({_MERGED: to_json(sorted(tables))}))
        for name in tables:
            self._store.delete(f"{FOLDER}/{name}")
        self._compact()

    def _read_if_there(self, name: str) -> pa.Table | None:
        """None: another driver has merged it; whatever it held is in a part of that driver's."""
        with suppress(FileNotFoundError):
            return self._read(name)
        return None

    def _write(self, first: str, last: str, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        name = f"{first}_{last}_{self._writer}{_SUFFIX}"
        self._store.write(f"{FOLDER}/{name}", sink.getvalue().to_pybytes())
        self._heads[name] = _Part(table.num_rows)
        self._mine.append(name)

    def _read(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        with self._parsing(name):
            return _table(self._file(name), [*_SCHEMA.names] if columns is None else [*columns])

    def _head(self, name: str) -> _Part:
        with self._parsing(name):
            told = self._file(name).metadata
            merged = read_strict((told.metadata or {}).get(_MERGED, b"[]"))
            return _Part(int(told.num_rows), frozenset(filter(_PART.fullmatch, merged)))

    def _file(self, name: str) -> pq.ParquetFile:
        """A part that is small enough to be one of ours. Texts are read by their distinct values: a million rows of one
        long text are a few bytes in the file, and in memory."""
        data = self._store.read(f"{FOLDER}/{name}", _PART_BYTES)
        check_footer(io.BytesIO(data))
        file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=_TEXTS)
        bounded(file.metadata.num_rows, _PART_ROWS, "rows")
        claimed = sum(file.metadata.row_group(n).total_byte_size for n in range(file.metadata.num_row_groups))
        bounded(claimed, _PART_MEMORY, "bytes")
        check_pages(io.BytesIO(data), file.metadata, _SCHEMA.names)
        return file

    def _parsing(self, name: str) -> AbstractContextManager[None]:
        where = f"{self._store.root.rstrip('/')}/{FOLDER}/{name}"
        return parsing(lambda why: UsageError(f"{where} is no part of a ledger ({why}); remove it"))

    def _named(self) -> list[str]:
        """Parts, whether they count or not; what else lies there is nobody's."""
        return [name for name in self._store.list(FOLDER, _SUFFIX) if _PART.fullmatch(name)]

    def _parts(self) -> list[str]:
        """Names of the parts that count, oldest first: those that another one holds do not."""
        while True:
            names = self._named()
            try:
                self._heads |= {name: self._head(name) for name in names if name not in self._heads}
            except FileNotFoundError:  # merged meanwhile, into one that was not listed yet
                continue
            return sorted(set(names) - self._merged(names), key=_place)

    def _merged(self, names: Iterable[str]) -> frozenset[str]:
        """Names of the parts that these were merged from."""
        return frozenset[str]().union(*(self._heads[name].merged for name in names))


def _table(file: pq.ParquetFile, columns: Sequence[str]) -> pa.Table:
    """Columns of a part. Those that it has not, as older ones, are empty.

    Raises:
        TooLarge: texts that would not fit into memory, were each row to hold its own.
    """
    table = file.read([name for name in columns if name in file.schema_arrow.names])
    fields = [_SCHEMA.field(name) for name in columns]
    whole = []
    for field in fields:
        if field.name not in table.column_names:
            whole.append(pa.nulls(table.num_rows, field.type))
            continue
        column = table[field.name]
        if pa.types.is_dictionary(column.type):
            bounded(sum(map(_length, column.chunks)), _PART_MEMORY, "bytes of text")
        whole.append(column.cast(field.type))
    return pa.table(whole, schema=pa.schema(fields))


def _length(texts: pa.DictionaryArray) -> int:
    """Bytes, each row with its own text."""
    return int(pc.sum(pc.binary_length(texts.dictionary).take(texts.indices)).as_py() or 0)


def _span(name: str) -> tuple[str, str]:
    """The first and the last of the appended parts (run and number) that a part holds."""
    first, last, *_ = name.removesuffix(_SUFFIX).split("_")
    return first, last


def _place(name: str) -> tuple[str, int, str]:
    """What parts are read in the order of: their last rows; and smaller ones before those that may hold them."""
    first, last = _span(name)
    return last, first != last, name


def _level(rows: int) -> int:
    return max(0, math.floor(math.log(max(1, rows / _FLUSH_ROWS), _FAN)))
