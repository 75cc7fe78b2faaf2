"""What is known of every item at the start of a run and since, small enough for millions of them.

The ledger says what became of items; one listing of the artifacts says which of them are still there. Both are kept
as sorted numpy columns, some 40 bytes an item: asking the storage for each artifact would take a day for a million
conversations on an object store, and a dictionary of rows tens of gigabytes.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from pipeline.ledger import Ledger, Outcome, latest_rows, uid_of
from pipeline.task import ARTIFACT_SUFFIX, Task
from schemas.errors import RunFailed, UsageError
from schemas.plain import MOST_BYTES
from schemas.untrusted import bounded, parsing
from stages.store import Store

M = TypeVar("M", bound=BaseModel)
Kind = tuple[str, str, str]
"""(status, reason, fingerprint): few distinct ones for millions of rows."""

_COLUMNS = ["uid", "status", "reason", "fingerprint", "inputs", "output", "facts"]
_BATCH = 100_000  # listed names that are looked up at once
_CHUNKS = 16
_FRESH = 50_000  # outcomes of this run that are kept as objects before they join the columns
_ROW = np.dtype(
    [
        ("uid", "u8"),
        ("inputs", "u8"),
        ("output", "u8"),
        ("has_output", "?"),
        ("present", "?"),  # the artifact is where the ledger says
        ("kind", "i4"),
        ("facts", "i4"),  # index into the facts; −1: none
    ],
    align=True,
)


class Verdict(NamedTuple):
    """What is known of one item."""

    status: str
    reason: str
    fingerprint: str
    inputs: str
    output: str
    facts: str
    present: bool


class Known:
    """Verdicts by (stage, key)."""

    def __init__(self, ledger: Ledger, store: Store) -> None:
        self._store = store
        self._kinds: list[Kind] = []
        self._kind_of: dict[Kind, int] = {}
        self._facts = pa.chunked_array([], pa.large_string())
        self._fresh: dict[int, Verdict] = {}
        self._listed: dict[str, frozenset[str]] = {}
        parts = []
        for table in ledger.tables(_COLUMNS):
            with parsing(lambda why: UsageError(f"{store.root}: the ledger's rows are not what a run writes ({why})")):
                parts.append(self._from_table(table))
        rows = np.concatenate([np.zeros(0, _ROW), *parts])
        rows = rows[latest_rows(rows["uid"])]
        self._rows = rows[np.argsort(rows["uid"])]
        self._index()
        if len(self._rows):
            self._rows["present"] = self._found()

    def get(self, stage: str, key: str) -> Verdict | None:
        uid = uid_of(stage, key)
        if (fresh := self._fresh.get(uid)) is not None:
            return fresh
        index = bisect_left(self._order, uid)
        if index == len(self._order) or self._order[index] != uid:
            return None
        inputs, output, has_output, present, kind, facts = (column[index] for column in self._columns)
        status, reason, fingerprint = self._kinds[kind]
        said = self._facts[facts].as_py() if facts >= 0 else ""
        made = f"{output:016x}" if has_output else ""
        return Verdict(status, reason, fingerprint, f"{inputs:016x}", made, said, bool(present))

    def settled(self, task: Task) -> Verdict | None:
        """The verdict, if nothing needs to be done: made from the same inputs with the same settings, and there."""
        known = self.get(task.stage, task.key)
        if known is None or known.status == "failed" or known.fingerprint != task.fingerprint:
            return None
        if known.output and not (known.present and all(map(self._was_there, task.files))):
            return None
        return known if known.inputs == task.digest() else None

    def _was_there(self, path: str) -> bool:
        """Whether a file existed when one of its folder was first asked for: one listing stands for all questions."""
        folder = path.partition("/")[0]
        if folder not in self._listed:
            self._listed[folder] = frozenset(f"{folder}/{name}" for name in self._store.names(folder))
        return path in self._listed[folder]

    def put(self, outcome: Outcome) -> None:
        """Take note of a new outcome."""
        self._fresh[uid_of(outcome.stage, outcome.key)] = Verdict(
            outcome.status, outcome.reason, outcome.fingerprint, outcome.inputs, outcome.output, outcome.facts, True
        )
        if len(self._fresh) >= _FRESH:
            self._merge_fresh()

    def _merge_fresh(self) -> None:
        rows = np.zeros(len(self._fresh), _ROW)
        facts_of: list[str] = []
        for n, (uid, v) in enumerate(self._fresh.items()):
            facts = len(self._facts) + len(facts_of) if v.facts else -1
            if v.facts:
                facts_of.append(v.facts)
            kind = self._kind((v.status, v.reason, v.fingerprint))
            rows[n] = (uid, int(v.inputs, 16), int(v.output or "0", 16), bool(v.output), True, kind, facts)
        self._tell(pa.chunked_array([facts_of], pa.large_string()))
        self._fresh.clear()
        rows = rows[np.argsort(rows["uid"])]
        where = np.searchsorted(self._uid, rows["uid"])
        old = np.zeros(len(rows), bool)
        inside = where < len(self._uid)
        old[inside] = self._uid[where[inside]] == rows["uid"][inside]
        self._rows[where[old]] = rows[old]
        self._rows = np.insert(self._rows, where[~old], rows[~old])
        self._index()

    def _index(self) -> None:
        self._uid = np.ascontiguousarray(self._rows["uid"])
        # Views, for single rows: searched and read in a tenth of the time of arrays.
        self._order = memoryview(self._uid)  # type: ignore[arg-type]
        self._columns = [memoryview(self._rows[name]) for name in _ROW.names[1:]]  # type: ignore[index]

    def _from_table(self, table: pa.Table) -> np.ndarray:
        rows = np.zeros(table.num_rows, _ROW)
        rows["uid"] = table["uid"].to_numpy()
        rows["inputs"], _ = _numbers(table["inputs"])
        rows["output"], rows["has_output"] = _numbers(table["output"])
        columns = [table[name].combine_chunks().dictionary_encode() for name in ("status", "reason", "fingerprint")]
        distinct, kind = np.unique(np.stack([c.indices.to_numpy() for c in columns]), axis=1, return_inverse=True)
        named = [[str(c.dictionary[int(code)]) for c, code in zip(columns, codes, strict=True)] for codes in distinct.T]
        rows["kind"] = np.array([self._kind((a, b, c)) for a, b, c in named], np.int32)[kind.reshape(-1)]
        has_facts = pc.not_equal(table["facts"], "")
        count = np.cumsum(has_facts.to_numpy())
        rows["facts"] = np.where(has_facts.to_numpy(), len(self._facts) + count - 1, -1)
        self._tell(table["facts"].filter(has_facts).cast(pa.large_string()))
        return rows

    def _tell(self, facts: pa.ChunkedArray) -> None:
        whole = pa.chunked_array([*self._facts.chunks, *facts.chunks], pa.large_string())
        # Few chunks: finding one's place among many takes longer than reading.
        self._facts = whole if whole.num_chunks < _CHUNKS else pa.chunked_array([whole.combine_chunks()])

    def _kind(self, kind: Kind) -> int:
        if kind not in self._kind_of:
            self._kind_of[kind] = len(self._kinds)
            self._kinds.append(kind)
        return self._kind_of[kind]

    def _found(self) -> np.ndarray:
        """Which rows' artifacts exist, made with the settings that the row names."""
        prints = np.array([_print_hash(fingerprint) for _, _, fingerprint in self._kinds], np.uint64)
        wanted = self._uid ^ prints[self._rows["kind"]]
        order = np.argsort(wanted)
        wanted = wanted[order]
        found = np.zeros(len(wanted), bool)
        names = self._store.names("artifacts")
        while batch := [_listed_uid(name) for name in islice(names, _BATCH)]:
            listed = np.array(batch, np.uint64)
            where = np.minimum(np.searchsorted(wanted, listed), len(wanted) - 1)
            found[order[where[wanted[where] == listed]]] = True
        return found


def told(facts: str, kind: type[M]) -> M:
    """What a stage left in the ledger for the plan (`Stage.facts`); the folder may be of others' making.

    Raises:
        RunFailed: it is not what the stage says.
    """
    with parsing(lambda why: RunFailed(f"the ledger holds facts that are no {kind.__name__} ({why}); build elsewhere")):
        bounded(len(facts), MOST_BYTES, "characters")
        return kind.model_validate_json(facts)


def _listed_uid(name: str) -> int:
    """Of an artifact's path below `artifacts/`, the number of its item and settings; 0 for other files."""
    parts = name.split("/")
    if len(parts) != 3:
        return 0
    stage, folder, file = parts
    return uid_of(stage, file.removesuffix(ARTIFACT_SUFFIX)) ^ _print_hash(folder.partition("-")[2])


@lru_cache(maxsize=64)
def _print_hash(fingerprint: str) -> int:
    return uid_of("fingerprint", fingerprint)


def _numbers(digests: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Digests of 16 hexadecimal digits as numbers, and where there is one at all."""
    plain = digests.to_pylist()
    if any(len(digest) not in (0, 16) for digest in plain):
        raise ValueError("a digest that is none")
    text = np.array(plain, "S16")
    there = text != b""
    filled = np.where(there, text, b"0" * 16)
    return np.frombuffer(bytes.fromhex(filled.tobytes().decode()), ">u8"), there
