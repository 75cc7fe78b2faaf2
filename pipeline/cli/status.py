"""The account of a run, read from its ledger while it goes on or after; costs the run nothing."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from rich.table import Table

from visavis.pipeline.engine.progress import time_left
from visavis.pipeline.engine.run import PROGRESS_FILE
from visavis.pipeline.engine.terminal import table
from visavis.pipeline.plan.run_folder import read_settings
from visavis.pipeline.state.account import QUANTILES, account_of, left_out
from visavis.pipeline.state.ledger import Ledger
from visavis.pipeline.state.lock import holder
from visavis.pipeline.state.standing import read_standing
from visavis.schemas.errors import UsageError
from visavis.schemas.manifest import MANIFEST_NAME
from visavis.schemas.names import Count, Text
from visavis.schemas.plain import fitted, read_strict
from visavis.schemas.storage.store import Store
from visavis.schemas.untrusted import parsing
from visavis.schemas.words import duration


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


def read_left_out(root: str) -> list[dict[str, str]]:
    """What `visavis status --left-out` prints: each item that was rejected or failed, and why.

    Raises:
        UsageError: not a run's folder.
    """
    store = Store(root)
    return list(left_out(Ledger(store), read_settings(store)["fingerprints"]))


def status_line(status: dict[str, Any]) -> str:
    """How the run stands, where its dataset is, and what to do next."""
    standing, dataset = status["state"], status["dataset"]
    phase = standing.get("phase")
    far = f" in {phase}, {standing['finished']} of {standing['total']} done" if phase else ""
    again = "the same command resumes"
    said = {
        "running": f"running{far}",
        "finished": "finished",
        "stopped": f"stopped{far}; {again}",
        "killed": f"killed{far}; {again}",
        "failed": f"failed{far}: {standing.get('message')}",
    }[standing["state"]]
    earlier = "" if standing["state"] == "finished" else " of an earlier run"
    return f"{said}\ndataset{earlier}: {dataset}" if dataset else f"{said}\nno dataset yet"


def result_line(status: dict[str, Any]) -> str:
    """How the run stands and what became of its items, in a few words."""
    stages = status["stages"].values()
    ok, rejected, failed = (
        sum(row["ok"] for row in stages),
        *(sum(sum(row[kind].values()) for row in stages) for kind in ("rejected", "failed")),
    )
    return f"{status['run']} {status['state']['state']}: {ok} ok, {rejected} rejected, {failed} failed"


def next_words(status: dict[str, Any]) -> tuple[str, ...]:
    """The command that comes next: to see more of a run at work, or to look at what is there."""
    if status["running"]:
        return "status", status["run"], "--watch", "10"
    return ("report", status["run"]) if status["dataset"] else ()


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
            *(f"{times[k]:.2f}" for k in QUANTILES),
            *(f"{memory[k]:.0f}" for k in QUANTILES),
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
