"""The ledger: one row for what became of each item, as Parquet parts that anyone can query.

Rows are appended in parts, each committed atomically; the latest row of a (stage, key) counts. The driver
alone writes. A crash loses at most the rows since the last flush, and those are found again by the artifacts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from stages.store import Store

FOLDER = "ledger"
_FLUSH_ROWS = 500
_FLUSH_SECONDS = 5.0

Status = Literal["ok", "rejected", "failed"]


@dataclass(frozen=True)
class Outcome:
    """What became of one item.

    reason: a rejection's reason or an error's class. inputs, output: digests of what went in and came out.
    """

    stage: str
    key: str
    item: str  # what a person would call it: a file name, a conversation
    status: Status
    reason: str
    detail: str
    inputs: str
    output: str
    seconds: float
    peak_mb: float
    host: str
    attempt: int
    fingerprint: str
    run: int = 0


_SCHEMA = pa.schema(
    [
        pa.field(f.name, {"float": pa.float64(), "int": pa.int64()}.get(str(f.type), pa.string()))
        for f in fields(Outcome)
    ]
)


class Ledger:
    """Reads and appends the rows of a run's folder."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pending: list[Outcome] = []
        self._flushed = time.monotonic()
        names = self._parts()
        self._run = 1 + max((int(n.split("-")[0]) for n in names), default=0)
        self._part = 0

    def append(self, outcome: Outcome) -> None:
        self._pending.append(outcome)
        if len(self._pending) >= _FLUSH_ROWS or time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Commit what was appended."""
        self._flushed = time.monotonic()
        if not self._pending:
            return
        rows = [{**asdict(outcome), "run": self._run} for outcome in self._pending]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), sink)
        self._store.write(f"{FOLDER}/{self._run:06d}-{self._part:06d}.parquet", sink.getvalue().to_pybytes())
        self._part += 1
        self._pending.clear()

    def latest(self) -> dict[tuple[str, str], Outcome]:
        """The row that counts for each (stage, key)."""
        rows: dict[tuple[str, str], Outcome] = {}
        for outcome in self._read():
            rows[outcome.stage, outcome.key] = outcome
        for outcome in self._pending:
            rows[outcome.stage, outcome.key] = outcome
        return rows

    def _read(self) -> Iterator[Outcome]:
        for name in self._parts():
            table = pq.read_table(pa.BufferReader(self._store.read(f"{FOLDER}/{name}")), schema=_SCHEMA)
            for row in table.to_pylist():
                yield Outcome(**row)

    def _parts(self) -> list[str]:
        return self._store.list(FOLDER, ".parquet")
