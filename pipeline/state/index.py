"""What is known of every item at the start of a run and since, small enough for millions of them.

The ledger says what became of items; one listing of the artifacts says which of them are still there. Both are kept
as sorted numpy columns, some 40 bytes an item: asking the storage for each artifact would take a day for a million
conversations on an object store, and a dictionary of rows tens of gigabytes.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache
from itertools import islice
from multiprocessing.pool import AsyncResult, ThreadPool
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from visavis.pipeline.state.ledger import Ledger, Outcome, latest_rows, uid_of
from visavis.pipeline.state.tasks import ARTIFACT_SUFFIX, Task
from visavis.schemas.errors import RunFailed, UsageError
from visavis.schemas.plain import MOST_BYTES
from visavis.schemas.storage.store import Store
from visavis.schemas.untrusted import bounded, parsing

M = TypeVar("M", bound=BaseModel)
Kind = tuple[str, str, str]
"""(status, reason, fingerprint): few distinct ones for millions of rows."""

_COLUMNS = ["uid", "status", "reason", "fingerprint", "inputs", "output", "facts"]
_BATCH = 100_000  # listed names that are looked up at once
_SETTINGS = "fingerprint"  # what uids of settings begin with
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


class ItemIndex:
    """Outcomes by (stage, key), with what a plan needs of them: names, hosts and times are in the ledger alone."""

    def __init__(self, ledger: Ledger, store: Store) -> None:
        self._store = store
        self._kinds: list[Kind] = []
        self._kind_of: dict[Kind, int] = {}
        self._facts = pa.chunked_array([], pa.large_string())
        self._fresh: dict[int, Outcome] = {}
        self._listed: dict[str, frozenset[str]] = {}
        parts = []
        for table in ledger.tables(_COLUMNS):
            with parsing(lambda why: UsageError(f"{store.root}: the ledger's rows are not what a run writes ({why})")):
                parts.append(self._from_table(table))
        rows = np.concatenate([np.zeros(0, _ROW), *parts])
        rows = rows[latest_rows(rows["uid"])]
        self._rows = rows[np.argsort(rows["uid"])]
        self._index()
        self._unlisted = len(self._rows) > 0
        self._listing: AsyncResult[np.ndarray] | None = None

    def has(self, stage: str, key: str) -> bool:
        """Whether anything is known of an item."""
        uid = uid_of(stage, key)
        return uid in self._fresh or self._place(uid) is not None

    def count(self, fingerprint: str) -> int:
        """Rows that were made with these settings, in earlier runs."""
        kinds = [number for number, (_, _, print_) in enumerate(self._kinds) if print_ == fingerprint]
        return int(np.isin(self._rows["kind"], kinds).sum())

    def get(self, stage: str, key: str) -> Outcome | None:
        return self._find(stage, key)[0]

    def _find(self, stage: str, key: str) -> tuple[Outcome | None, int | None]:
        """An item's outcome; and the row, if it is of an earlier run."""
        uid = uid_of(stage, key)
        if (fresh := self._fresh.get(uid)) is not None:
            return fresh, None
        if (index := self._place(uid)) is None:
            self._begin_listing()
            return None, None
        _, inputs, output, has_output, _, kind, facts = self._rows[index].item()
        status, reason, fingerprint = self._kinds[kind]
        outcome = Outcome(
            stage,
            key,
            "",
            status,
            reason,
            inputs=f"{inputs:016x}",
            output=f"{output:016x}" if has_output else "",
            facts=self._facts[facts].as_py() if facts >= 0 else "",
            fingerprint=fingerprint,
        )
        return outcome, index

    def _place(self, uid: int) -> int | None:
        """Which row of earlier runs."""
        index = bisect_left(self._order, uid)
        return index if index < len(self._order) and self._order[index] == uid else None

    def _begin_listing(self) -> None:
        """List what was made before, in a thread: of a large store it takes minutes, and new items need not wait."""
        if self._unlisted:
            aside = ThreadPool(1)  # of daemons: a run that cannot begin does not wait for its end
            self._listing, self._unlisted = aside.apply_async(self._found), False
            aside.close()

    def _await_listing(self) -> None:
        self._begin_listing()
        if self._listing is not None:
            self._rows["present"] = self._listing.get()
            self._listing = None

    def settled(self, task: Task) -> Outcome | None:
        """The outcome, if nothing needs to be done: made from the same inputs with the same settings, and there."""
        known, row = self._find(task.stage, task.key)
        if known is None or known.status == "failed" or known.fingerprint != task.fingerprint:
            return None
        if known.output and not (self._is_there(row) and all(map(self._was_there, task.files))):
            return None
        return known if known.inputs == task.digest() else None

    def _is_there(self, row: int | None) -> bool:
        """Whether an artifact is where the ledger says."""
        if row is None:  # of this run
            return True
        self._await_listing()
        return bool(self._rows["present"][row])

    def _was_there(self, path: str) -> bool:
        """Whether a file existed when one of its folder was first asked for: one listing stands for all questions."""
        folder = path.partition("/")[0]
        if folder not in self._listed:
            self._listed[folder] = frozenset(f"{folder}/{name}" for name in self._store.names(folder))
        return path in self._listed[folder]

    def put(self, outcome: Outcome) -> None:
        """Take note of a new outcome."""
        self._fresh[uid_of(outcome.stage, outcome.key)] = outcome._replace(item="", detail="", host="")
        if len(self._fresh) >= _FRESH:
            self._merge_fresh()

    def _merge_fresh(self) -> None:
        self._await_listing()
        rows = np.zeros(len(self._fresh), _ROW)
        facts_of: list[str] = []
        for n, (uid, o) in enumerate(self._fresh.items()):
            facts = len(self._facts) + len(facts_of) if o.facts else -1
            if o.facts:
                facts_of.append(o.facts)
            kind = self._kind((o.status, o.reason, o.fingerprint))
            rows[n] = (uid, int(o.inputs, 16), int(o.output or "0", 16), bool(o.output), True, kind, facts)
        self._add_facts(pa.chunked_array([facts_of], pa.large_string()))
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
        self._order = memoryview(self._uid)  # type: ignore[arg-type]  # searched in a tenth of an array's time

    def _from_table(self, table: pa.Table) -> np.ndarray:
        rows = np.zeros(table.num_rows, _ROW)
        rows["uid"] = table["uid"].to_numpy()
        rows["inputs"], _ = _numbers(table["inputs"])
        rows["output"], rows["has_output"] = _numbers(table["output"])
        columns = [table[name].combine_chunks().dictionary_encode() for name in ("status", "reason", "fingerprint")]
        shape = [len(c.dictionary) for c in columns]
        distinct, kind = np.unique(
            np.ravel_multi_index([c.indices.to_numpy() for c in columns], shape), return_inverse=True
        )
        names = [
            c.dictionary.take(codes).to_pylist()
            for c, codes in zip(columns, np.unravel_index(distinct, shape), strict=True)
        ]
        rows["kind"] = np.array([self._kind(kind) for kind in zip(*names, strict=True)], np.int32)[kind]
        has_facts = pc.not_equal(table["facts"], "")
        count = np.cumsum(has_facts.to_numpy())
        rows["facts"] = np.where(has_facts.to_numpy(), len(self._facts) + count - 1, -1)
        self._add_facts(table["facts"].filter(has_facts).cast(pa.large_string()))
        return rows

    def _add_facts(self, facts: pa.ChunkedArray) -> None:
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
        prints = np.array([uid_of(_SETTINGS, fingerprint) for _, _, fingerprint in self._kinds], np.uint64)
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


def parse_facts(facts: str, kind: type[M]) -> M:
    """What a stage left in the ledger for the plan (`Stage.facts`); the folder may be of others' making.

    Raises:
        RunFailed: it is not what the stage says.
    """
    with parsing(lambda why: RunFailed(f"the ledger holds facts that are no {kind.__name__} ({why}); build elsewhere")):
        bounded(len(facts), MOST_BYTES, "characters")
        return kind.model_validate_json(facts)


def _listed_uid(name: str) -> int:
    """Of an artifact's path below `artifacts/`, the number of its item and settings; 0 for other files."""
    folder, _, file = name.rpartition("/")
    stage, print_ = _folder(folder)
    return uid_of(stage, file.removesuffix(ARTIFACT_SUFFIX)) ^ print_ if stage else 0


@lru_cache(maxsize=256)
def _folder(path: str) -> tuple[str, int]:
    """Of a folder `STAGE/vVERSION-FINGERPRINT`, the stage and the number of its settings; no stage: of other names."""
    stage, _, settings = path.partition("/")
    return ("", 0) if "/" in settings or not settings else (stage, uid_of(_SETTINGS, settings.partition("-")[2]))


def _numbers(digests: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Digests of 16 hexadecimal digits as numbers, and where there is one at all."""
    plain = digests.combine_chunks()
    length = pc.binary_length(plain).to_numpy(zero_copy_only=False)
    there = length == 16
    if not (there | (length == 0)).all():
        raise ValueError("a digest that is none")
    numbers = np.zeros(len(plain), np.uint64)
    joined = pc.binary_join(pa.LargeListArray.from_arrays([0, len(plain)], plain), "")[0].as_py()
    numbers[there] = np.frombuffer(bytes.fromhex(joined), ">u8")
    return numbers, there
