"""The account of a run, read from its ledger while it goes on or after; costs the run nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field
from rich.table import Table

from pipeline.folder import read_settings
from pipeline.ledger import Ledger, latest_rows
from pipeline.lock import holder
from pipeline.progress import time_left
from pipeline.run import PROGRESS_FILE
from pipeline.standing import read_standing
from pipeline.terminal import table
from schemas.errors import UsageError
from schemas.manifest import MANIFEST_NAME
from schemas.names import Count, Text
from schemas.plain import fitted, read_strict
from schemas.untrusted import parsing
from schemas.words import duration
from stages.store import Store

Account = dict[str, dict[str, Any]]
"""stage → counts and figures; `account_of` says which."""

_COLUMNS = ["uid", "stage", "status", "reason", "fingerprint", "media", "seconds", "peak_mb", "ended", "run"]
_QUANTILES = ("median", "p95", "max")
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
        # A stage behind the codec carries its id as a suffix.
        prints = [p for p in latest["fingerprint"].unique().to_pylist() if p.split("-")[0] == print_]
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


def read_status(root: str, dataset: str) -> dict[str, Any]:
    """What `visavis status --json` prints.

    Raises:
        UsageError: not a run's folder.
    """
    store = Store(root)
    settings = read_settings(store)
    owner = holder(store)
    built = store.exists(f"{dataset}/{MANIFEST_NAME}")
    standing = read_standing(store, held=owner is not None, built=built)
    progress = _progress(store) if standing["state"] in ("running", "killed") else None
    if progress:
        standing |= {name: progress[name] for name in ("phase", "finished", "total")}
    return {
        "run": root,
        "state": standing,
        "running": owner,
        "progress": progress if owner else None,
        "stages": account_of(Ledger(store), settings["fingerprints"]),
        "dataset": f"{root.rstrip('/')}/{dataset}" if built else None,
    }


def status_line(status: dict[str, Any]) -> str:
    """How the run stands, where its dataset is, and what to do next."""
    standing, dataset = status["state"], status["dataset"]
    phase = standing.get("phase")
    far = f" in {phase}, {standing['finished']} of {standing['total']} done" if phase else ""
    again = "the same command goes on from here"
    said = {
        "running": f"running{far}",
        "finished": "finished",
        "stopped": f"stopped{far}; {again}",
        "killed": f"killed{far}; {again}",
        "failed": f"failed{far}: {standing.get('message')}",
    }[standing["state"]]
    earlier = "" if standing["state"] == "finished" else " of an earlier run"
    return f"{said}\ndataset{earlier}: {dataset}" if dataset else f"{said}\nno dataset yet"


def status_tables(status: dict[str, Any]) -> list[Table | str]:
    """For people: what became of items, how long they took, what is at work, and how the run stands."""
    owner = status["running"]
    running = f" (running: process {owner['pid']} on {owner['host']})" if owner else ""
    counts = table(f"{status['run']}{running}", "stage", "ok", "rejected", "failed", left=("rejected", "failed"))
    columns = ("stage", "median", "p95", "max", "MB", "p95", "max", "items/s", "media h/h")
    figures = table("seconds per item, worker's peak MB, pace", *columns)
    for name, row in status["stages"].items():
        counts.add_row(name, str(row["ok"]), _listed(row["rejected"]), _listed(row["failed"]))
        times, memory = row["seconds_per_item"], row["peak_mb"]
        figures.add_row(
            name,
            *(f"{times[k]:.2f}" for k in _QUANTILES),
            *(f"{memory[k]:.0f}" for k in _QUANTILES),
            f"{row['items_per_second']:.3g}",
            f"{row['media_hours_per_hour']:.3g}" if row["media_hours_per_hour"] else "",
        )
    done = [counts, figures] if status["stages"] else []
    return [*done, *_at_work(status["progress"]), status_line(status)]


def _at_work(progress: dict[str, Any] | None) -> list[Table | str]:
    if progress is None:
        return []
    left = "" if progress["left"] is None else f", about {duration(progress['left'])} left"
    line = f"{progress['phase']}: {progress['finished']} of {progress['total']} done{left}"
    slowest = table("longest at work", "stage", "item", "host", "for", "try", left=("item", "host"))
    for item in progress["in_flight"]:
        name = f"{item['item']} ({item['key']})"
        slowest.add_row(item["stage"], name, item["host"], duration(item["seconds"]), str(item["attempt"]))
    waiting = [progress["waiting"]] if progress["waiting"] else []
    return [line, *waiting, slowest] if progress["in_flight"] else [line, *waiting]


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
    return dict(zip(_QUANTILES, found.round(3).tolist(), strict=True))


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


Seconds = Annotated[float, Field(ge=0, le=1e10)]


class _AtWork(BaseModel):
    stage: Text
    key: Text
    item: str
    host: Text
    seconds: Seconds
    attempt: Count


class _Progress(BaseModel):
    """What progress.json says to `status`; it may be of anybody's making."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    phase: Text
    total: Count
    finished: Count
    new: Count
    seconds: Seconds
    waiting: Text = ""
    in_flight: tuple[_AtWork, ...] = ()


def _progress(store: Store) -> dict[str, Any] | None:
    found = store.peek(PROGRESS_FILE)
    if found is None:  # it has just begun, or just ended
        return None
    with parsing(lambda why: UsageError(f"{store.root}/{PROGRESS_FILE} is not what a run writes ({why})")):
        progress = fitted(_Progress, read_strict(found)).model_dump(exclude_unset=True)
    before = progress["finished"] - progress["new"]
    left = time_left(progress["finished"], before, progress["total"], progress["seconds"])
    return progress | {"left": None if left is None else round(left)}


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in counts.items())
