"""The account of a run: what became of its items and how long they took, by stage, from the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from visavis.pipeline.state.ledger import Ledger, latest_rows
from visavis.pipeline.state.tasks import own_print

Account = dict[str, dict[str, Any]]
"""stage → counts and figures; `account_of` says which."""

_COLUMNS = ["uid", "stage", "status", "reason", "fingerprint", "media", "seconds", "peak_mb", "ended", "run"]
_TOLD = ["stage", "key", "item", "status", "reason", "detail"]
QUANTILES = ("median", "p95", "max")
_CODED = {"stage", "status", "reason", "fingerprint"}


def account_of(ledger: Ledger, fingerprints: Mapping[str, str]) -> Account:
    """What became of the items, for the settings that count now, in the order of the stages.

    Returns:
        Per stage `ok`, `rejected` by reason, `failed` by error; `seconds` (sum over items), `seconds_per_item` and
        `peak_mb` (of the worker) with median, p95 and max; and for the latest run `items_per_second` and
        `media_hours_per_hour` while the stage was at work.
    """
    latest = _latest(ledger)
    if latest is None:
        return {}
    stages: Account = {}
    for name, print_ in fingerprints.items():
        prints = [p for p in latest["fingerprint"].unique().to_pylist() if own_print(p) == print_]
        mine = latest.filter(
            pc.and_(pc.equal(latest["stage"], name), pc.is_in(latest["fingerprint"], pa.array(prints, pa.string())))
        )
        if mine.num_rows:
            stages[name] = _figures(mine)
    return stages


def rejections(stages: Account) -> dict[str, int]:
    """Rejected items by reason, over all stages."""
    counts = sum((Counter(row["rejected"]) for row in stages.values()), Counter[str]())
    return dict(sorted(counts.items()))


def left_out(ledger: Ledger, fingerprints: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Items that were rejected or failed, for the settings that count now, in the order of the stages.

    Yields: stage, key, item, status, reason and detail of each.
    """
    uids, found, before = [], list[tuple[int, dict[str, str]]](), 0
    for part in ledger.tables([*_TOLD, "uid", "fingerprint"]):
        uids.append(part["uid"].to_numpy())
        numbered = part.append_column("number", pa.array(np.arange(before, before + part.num_rows)))
        bad = numbered.filter(pc.not_equal(numbered["status"], "ok"))
        found.extend((row.pop("number"), row) for row in bad.drop_columns(["uid"]).to_pylist())
        before += part.num_rows
    last = set(latest_rows(np.concatenate(uids)).tolist()) if uids else set()
    order = {name: number for number, name in enumerate(fingerprints)}
    counts = [row for number, row in found if number in last and row["stage"] in order]
    for row in sorted(counts, key=lambda row: (order[row["stage"]], row["item"])):
        if own_print(row.pop("fingerprint")) == fingerprints[row["stage"]]:
            yield row


def _latest(ledger: Ledger) -> pa.Table | None:
    parts = []
    for part in ledger.tables(_COLUMNS):
        coded = [part[n].dictionary_encode() if n in _CODED else part[n] for n in _COLUMNS]
        parts.append(pa.table(coded, names=_COLUMNS))
    if not parts:
        return None
    rows = pa.concat_tables(parts).unify_dictionaries()
    rows = rows.take(pa.array(latest_rows(rows["uid"].to_numpy())))
    decoded = {n: rows[n].combine_chunks().dictionary_decode() if n in _CODED else rows[n] for n in _COLUMNS}
    return pa.table(decoded)


def _figures(rows: pa.Table) -> dict[str, Any]:
    grouped = rows.group_by(["status", "reason"]).aggregate([("uid", "count")])
    counts = {(row["status"], row["reason"]): row["uid_count"] for row in grouped.to_pylist()}
    worked = rows.filter(pc.greater(rows["peak_mb"], 0.0))  # others were decided by the driver
    return {
        "ok": sum(n for (status, _), n in counts.items() if status == "ok"),
        **{
            wanted: {reason: n for (status, reason), n in sorted(counts.items()) if status == wanted}
            for wanted in ("rejected", "failed")
        },
        "seconds": round(pc.sum(rows["seconds"]).as_py(), 3),
        "seconds_per_item": _spread(worked["seconds"]),
        "peak_mb": _spread(worked["peak_mb"]),
        **_pace(worked),
    }


def _spread(values: pa.ChunkedArray) -> dict[str, float]:
    numbers = values.to_numpy()
    found = np.quantile(numbers, [0.5, 0.95, 1.0], method="higher") if len(numbers) else np.zeros(3)
    return dict(zip(QUANTILES, found.round(3).tolist(), strict=True))


def _pace(worked: pa.Table) -> dict[str, float]:
    """Of the latest run that worked on the stage."""
    if not worked.num_rows:
        return {"items_per_second": 0.0, "media_hours_per_hour": 0.0}
    latest = worked.filter(pc.equal(worked["run"], pc.max(worked["run"])))
    ended = latest["ended"].to_numpy()
    took = max(1e-3, float(ended.max() - (ended - latest["seconds"].to_numpy()).min()))
    return {
        "items_per_second": round(latest.num_rows / took, 4),
        "media_hours_per_hour": round(pc.sum(latest["media"]).as_py() / took, 3),
    }
