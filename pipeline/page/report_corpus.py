"""What became of a corpus, from the ledger: each conversation's outcome and figures, in columns."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from visavis.pipeline.plan.quality import LIMITS, MEASURED, worst_of
from visavis.pipeline.state.index import parse_facts
from visavis.pipeline.state.ledger import Ledger, latest_rows
from visavis.pipeline.state.tasks import artifact_path, own_print
from visavis.schemas import FPS
from visavis.schemas.config import QualityConfig
from visavis.schemas.dyads import DyadFacts, WindowClass
from visavis.schemas.rows import Outline
from visavis.schemas.storage.store import Store
from visavis.stages.base import Stage

MOST = 50_000
"""Conversations in a page; of a larger corpus it shows so many, chosen by the hash that is their key."""

_COLUMNS = ["uid", "stage", "key", "item", "status", "reason", "detail", "output", "facts", "media", "fingerprint"]
_ID = 16  # hexadecimal digits that keys of a conversation's items begin with
OUTCOMES = ("kept", "rejected", "failed", "unfinished")


@dataclass
class Entry:
    """A conversation. made: (stage, key) → the fingerprint under which something was made of it.

    id: empty where it did not get past ingest. worst: `worst_of` all that was measured, empty where nothing was.
    """

    key: str
    name: str
    seconds: float
    id: str = ""
    outcome: str = "unfinished"
    stage: str = ""
    reason: str = ""
    detail: str = ""
    worst: tuple[float, ...] = ()
    windows: tuple[int, ...] = (0,) * len(WindowClass)
    people: tuple[str, ...] = ()
    made: dict[tuple[str, str], str] = field(default_factory=dict)


@dataclass
class Corpus:
    """total: conversations that the ledger knows; `entries` are these, or a sample of them."""

    total: int
    entries: list[Entry]

    @property
    def counts(self) -> Counter[str]:
        return Counter(entry.outcome for entry in self.entries)

    def by_reason(self) -> dict[str, list[Entry]]:
        """Those that were left out, by reason or error, the most frequent first."""
        found: defaultdict[str, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            if entry.reason:
                found[entry.reason].append(entry)
        return dict(sorted(found.items(), key=lambda each: (-len(each[1]), each[0])))


def read_corpus(store: Store, fingerprints: Mapping[str, str], most: int = MOST) -> Corpus:
    """Every conversation of a build with its outcome under the present settings, in the order of their keys.

    Args:
        fingerprints: of the stages, in their order, as run.json has them.
        most: conversations that are held; of more, those with the least keys, which are hashes.
    """
    ledger = Ledger(store)
    listed = _rows(ledger, {"ingest": fingerprints.get("ingest", "")})
    keys = sorted(listed["key"].to_pylist())
    entries: dict[str, Entry] = {}
    taken = set(keys[:most])
    for row in listed.to_pylist():
        if row["key"] in taken:
            entry = Entry(row["key"], row["item"] or "", _seconds(row["media"]))
            _ingested(entry, row)
            entries[entry.id or entry.key] = entry
    later = {name: print_ for name, print_ in fingerprints.items() if name != "ingest"}
    of_each: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in _rows(ledger, later, pa.array(sorted(entries), pa.string())).to_pylist():
        of_each[row["key"][:_ID]].append(row)
    order = {name: place for place, name in enumerate(fingerprints)}
    for id_, entry in entries.items():
        if entry.id and not entry.reason:
            _went(entry, sorted(of_each.get(id_, ()), key=lambda row: (order[row["stage"]], row["key"])))
    return Corpus(len(keys), sorted(entries.values(), key=lambda entry: entry.key))


def read_made(store: Store, stage: type[Stage[Any, Any]], entry: Entry) -> list[bytes]:
    """The artifacts that a stage made of a conversation, in the order of their keys."""
    wanted = sorted((key, print_) for (name, key), print_ in entry.made.items() if name == stage.name)
    return [store.read(artifact_path(stage.name, stage.version, print_, key)) for key, print_ in wanted]


def limits_of(corpus: Corpus, config: QualityConfig) -> list[dict[str, Any]]:
    """For the page: each threshold with the figures that it bounds, one list for each figure, aligned with `measured`
    conversations; null for what is not known. What nobody measured is left out."""
    fields = QualityConfig.model_fields
    measured = [entry.worst for entry in corpus.entries if entry.worst]
    found: dict[str, dict[str, Any]] = {}
    for place, limit in enumerate(LIMITS):
        values = [worst[place] if math.isfinite(worst[place]) else None for worst in measured]
        if all(value is None for value in values):
            continue
        about = fields[limit.setting]
        one = found.setdefault(
            limit.setting,
            {
                "setting": limit.setting,
                "least": limit.is_least,
                "bound": limit.bound(config),
                "what": about.description or "",
                "figures": [],
            },
        )
        told = {"name": limit.figure, "reason": limit.reason.value, "stage": limit.stage}
        one["figures"].append(told | {"values": values})
    return list(found.values())


def columns_of(entries: Sequence[Entry], shown: set[str]) -> dict[str, Any]:
    """The table of a page, by column; repeated texts by their number. shown: ids that have a page of their own."""
    stages, reasons, details = _Words(), _Words(), _Words()
    return {
        "id": [entry.id or entry.key for entry in entries],
        "name": [entry.name for entry in entries],
        "people": [" + ".join(entry.people) for entry in entries],
        "outcome": [OUTCOMES.index(entry.outcome) for entry in entries],
        "stage": [stages(entry.stage) for entry in entries],
        "reason": [reasons(entry.reason) for entry in entries],
        "detail": [details(entry.detail) for entry in entries],
        "seconds": [round(entry.seconds, 1) for entry in entries],
        "windows": [list(entry.windows) if any(entry.windows) else 0 for entry in entries],
        "measured": [int(bool(entry.worst)) for entry in entries],
        "shown": [int(entry.id in shown) for entry in entries],
        "words": {"stage": stages.known, "reason": reasons.known, "detail": details.known},
    }


class _Words:
    """Numbers for texts, in the order in which they come first."""

    def __init__(self) -> None:
        self._number: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        return self._number.setdefault(text, len(self._number))

    @property
    def known(self) -> list[str]:
        return list(self._number)


def _rows(ledger: Ledger, fingerprints: Mapping[str, str], ids: pa.Array | None = None) -> pa.Table:
    """The latest row of each item of these stages under these settings; ids: of these conversations only."""
    parts = []
    for part in ledger.tables(_COLUMNS):
        wanted = pc.is_in(part["stage"], pa.array(list(fingerprints), pa.string()))
        if ids is not None:
            wanted = pc.and_(wanted, pc.is_in(pc.utf8_slice_codeunits(part["key"], 0, _ID), ids))
        part = part.filter(wanted)
        pairs = zip(part["stage"].to_pylist(), part["fingerprint"].to_pylist(), strict=True)
        parts.append(part.filter(pa.array([own_print(p) == fingerprints[s] for s, p in pairs], pa.bool_())))
    if not parts:
        return pa.table({name: [] for name in _COLUMNS})
    rows = pa.concat_tables(parts)
    return rows.take(pa.array(latest_rows(rows["uid"].to_numpy())))


def _ingested(entry: Entry, row: Mapping[str, Any]) -> None:
    if row["output"] and row["facts"]:
        outline = parse_facts(row["facts"], Outline)
        if row["status"] == "ok":
            entry.id = outline.id
        entry.seconds = outline.frames / FPS
    entry.made["ingest", row["key"]] = row["fingerprint"]
    _ended(entry, row)


def _went(entry: Entry, rows: Sequence[Mapping[str, Any]]) -> None:
    """Follow a conversation through the stages to where it ended."""
    for row in rows:
        if row["status"] == "ok" or row["output"]:
            entry.made[row["stage"], row["key"]] = row["fingerprint"]
        if row["stage"] in MEASURED and row["facts"]:
            found = worst_of(parse_facts(row["facts"], MEASURED[row["stage"]]))
            before = entry.worst or found
            entry.worst = tuple([old if math.isnan(new) else new for new, old in zip(found, before, strict=True)])
        if row["stage"] == "windows" and row["facts"]:
            dyad = parse_facts(row["facts"], DyadFacts)
            entry.windows, entry.people = dyad.windows, dyad.participants
        if not entry.reason:
            _ended(entry, row)
    if not entry.reason and any(row["stage"] == "windows" and row["status"] == "ok" for row in rows):
        entry.outcome = "kept"


def _ended(entry: Entry, row: Mapping[str, Any]) -> None:
    if row["status"] != "ok":
        entry.outcome, entry.stage = row["status"], row["stage"]
        entry.reason, entry.detail = row["reason"] or row["status"], row["detail"] or ""


def _seconds(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else 0.0
