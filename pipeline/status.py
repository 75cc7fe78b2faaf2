"""The account of a run, read from its ledger; costs the run nothing."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from rich.table import Table

from pipeline.ledger import Ledger
from pipeline.run import RUN_FILE
from schemas.errors import UsageError
from schemas.manifest import MANIFEST_NAME
from stages.store import Store

Account = dict[str, dict[str, Any]]
"""stage → {"ok": n, "rejected": {reason: n}, "failed": {error: n}, "seconds": s, "peak_mb": m}"""


def account(ledger: Ledger, fingerprints: dict[str, str]) -> Account:
    """Count what became of the items, for the settings that count now, in the order of the stages."""
    stages: Account = {}
    for outcome in ledger.latest().values():
        # A stage behind the codec carries its id as a suffix.
        if outcome.fingerprint.split("-")[0] != fingerprints.get(outcome.stage):
            continue
        row = stages.setdefault(
            outcome.stage, {"ok": 0, "rejected": Counter(), "failed": Counter(), "seconds": 0.0, "peak_mb": 0.0}
        )
        if outcome.status == "ok":
            row["ok"] += 1
        else:
            row[outcome.status][outcome.reason] += 1
        row["seconds"] = round(row["seconds"] + outcome.seconds, 3)
        row["peak_mb"] = max(row["peak_mb"], outcome.peak_mb)
    return {name: _plain(stages[name]) for name in fingerprints if name in stages}


def rejections(stages: Account) -> dict[str, int]:
    """Rejected items by reason, over all stages."""
    counts: Counter[str] = Counter()
    for row in stages.values():
        counts.update(row["rejected"])
    return dict(sorted(counts.items()))


def read_status(root: str, dataset: str) -> dict[str, Any]:
    """What `visavis status --json` prints.

    Raises:
        UsageError: not a run's folder.
    """
    store = Store(root)
    if not store.exists(RUN_FILE):
        raise UsageError(f"{root}: not a run's folder ({RUN_FILE} is missing)")
    run = json.loads(store.read(RUN_FILE))
    path = f"{dataset}/{MANIFEST_NAME}"
    return {
        "run": root,
        "running": _owner(store),
        "stages": account(Ledger(store), run["fingerprints"]),
        "dataset": store.full(dataset) if store.exists(path) else None,
    }


def status_table(status: dict[str, Any]) -> Table:
    """For people."""
    table = Table(title=f"{status['run']}{' (running)' if status['running'] else ''}")
    for column in ("stage", "ok", "rejected", "failed", "seconds", "peak MB"):
        table.add_column(column, justify="left" if column in ("stage", "rejected", "failed") else "right")
    for name, row in status["stages"].items():
        table.add_row(
            name, str(row["ok"]), _listed(row["rejected"]), _listed(row["failed"]),
            f"{row['seconds']:.1f}", f"{row['peak_mb']:.0f}",
        )  # fmt: skip
    return table


def _owner(store: Store) -> dict[str, Any] | None:
    if not store.local:
        return None
    try:
        owner: dict[str, Any] = json.loads((Path(store.root) / "lock.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return owner


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {k: dict(sorted(v.items())) if isinstance(v, Counter) else v for k, v in row.items()}


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in counts.items())
