"""A run's folder, and the one way in which stages are carried out in it.

OUT/run.json        the settings, and the fingerprint of every stage
OUT/artifacts/…     what stages made, one file per item
OUT/ledger/…        what became of every item
OUT/dataset/…       shards and manifest
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.engine import Engine
from pipeline.ledger import Ledger, Outcome
from pipeline.progress import Reporter
from pipeline.task import AnyStage, Artifact, Task
from schemas.config import RunConfig, Section
from schemas.errors import Reason, RunFailed, UsageError
from stages.store import Store

RUN_FILE = "run.json"


class Run:
    """Executes stages inside a run's folder, skipping what is done, recording what happens."""

    def __init__(self, root: str, engine: Engine, limits: RunConfig, reporter: Reporter) -> None:
        self.root = root
        self.store = Store(root)
        self.ledger = Ledger(self.store)
        self.reporter = reporter
        self._engine = engine
        self._limits = limits
        self._known = self.ledger.latest()
        self.processed = 0

    def execute(self, stage: AnyStage, tasks: Sequence[Task]) -> dict[str, Artifact]:
        """Carry out what is not done yet.

        Returns:
            The artifacts of the items that ended ok, by key, in the order of `tasks`.

        Raises:
            RunFailed: too many failures, in a row or as a share.
        """
        settled = {task.key: self._settled(stage.name, task) for task in tasks}
        todo = [task for task in tasks if settled[task.key] is None]
        artifacts = {
            task.key: Artifact(task.path, known.output)
            for task in tasks
            if (known := settled[task.key]) is not None and known.status == "ok"
        }
        paths = {task.key: task.path for task in todo}
        in_row = failed = 0
        with self.reporter.stage(stage.name, len(tasks) - len(todo), len(todo)) as progress:
            for outcome in self._engine(stage, todo, self.root) if todo else ():
                self.record(outcome)
                progress.advance(outcome)
                if outcome.status == "ok":
                    artifacts[outcome.key] = Artifact(paths[outcome.key], outcome.output)
                in_row = in_row + 1 if outcome.status == "failed" else 0
                failed += outcome.status == "failed"
                if in_row >= self._limits.max_failures_in_row:
                    raise RunFailed(f"{stage.name}: {in_row} failures in a row, the last: {_cause(outcome)}")
        self.ledger.flush()
        if failed > self._limits.max_failure_share * len(tasks):
            last = next(o for o in reversed(self._known.values()) if o.stage == stage.name and o.status == "failed")
            raise RunFailed(
                f"{stage.name}: {failed} of {len(tasks)} items failed, for example {last.item}: {_cause(last)}"
                " (run again to retry them, or allow more with --set run.max_failure_share=…)"
            )
        return {task.key: artifacts[task.key] for task in tasks if task.key in artifacts}

    def pending(self, stage: AnyStage, tasks: Sequence[Task]) -> list[Task]:
        """The tasks that `execute` would carry out."""
        return [task for task in tasks if self._settled(stage.name, task) is None]

    def record(self, outcome: Outcome) -> None:
        """Put an outcome into the ledger."""
        self.ledger.append(outcome)
        self._known.pop((outcome.stage, outcome.key), None)  # so that the latest is the last
        self._known[outcome.stage, outcome.key] = outcome
        self.processed += 1

    def reject(self, stage: str, task: Task, reason: Reason, detail: str) -> None:
        """Leave out an item that the corpus, not the item alone, makes unusable. Recorded once."""
        known = self._known[stage, task.key]
        if (known.status, known.reason, known.detail) != ("rejected", reason.value, detail):
            self.record(replace(known, status="rejected", reason=reason.value, detail=detail, seconds=0.0))

    def keep(self, stage: str, task: Task) -> None:
        """Take an item back in that another corpus made unusable: its twin is no longer listed."""
        known = self._known[stage, task.key]
        if known.status == "rejected":
            self.record(replace(known, status="ok", reason="", detail=""))

    def _settled(self, stage: str, task: Task) -> Outcome | None:
        """The known outcome, if nothing needs to be done: made from the same inputs with the same settings."""
        known = self._known.get((stage, task.key))
        if known is None or known.status == "failed":
            return None
        if (known.fingerprint, known.inputs) != (task.fingerprint, task.digest()):
            return None
        if known.status == "rejected" and not known.output:
            return known
        if not all(self.store.exists(path) for path in (task.path, *task.files)):
            return None
        return replace(known, status="ok")


def _cause(outcome: Outcome) -> str:
    return f"{outcome.reason}: {outcome.detail.splitlines()[0] if outcome.detail else 'no message'}"


def fingerprint(stage: type[AnyStage], config: Section, *upstream: str) -> str:
    """Digest of everything but the item that shapes a stage's output."""
    plain = {
        "stage": stage.name,
        "version": stage.version,
        "config": config.model_dump(mode="json", exclude={"device"}),  # where it runs does not shape the data
        "upstream": sorted(upstream),
    }
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


@contextmanager
def locked(root: str) -> Iterator[None]:
    """Hold a run's folder. The lock dies with its process, so a killed run leaves none.

    Raises:
        UsageError: another run is at work in it.
    """
    if not Store(root).local:  # object stores have no lock: commits are atomic, but two runs would do work twice
        yield
        return
    folder = Path(root)
    folder.mkdir(parents=True, exist_ok=True)
    owner = folder / "lock.json"
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        who = json.loads(owner.read_text()) if owner.exists() else {}
        holder = f"process {who.get('pid', '?')} on {who.get('host', '?')}"
        raise UsageError(f"{root} is in use by {holder}; wait for it or choose another --out") from None
    try:
        owner.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def remember_settings(store: Store, settings: dict[str, Any], *, replace_old: bool) -> None:
    """Write run.json, or refuse a folder that other settings made.

    Raises:
        UsageError: the folder belongs to other settings; names the first difference.
    """
    if store.exists(RUN_FILE) and not replace_old:
        old = json.loads(store.read(RUN_FILE))["config"]
        difference = _first_difference(old, settings["config"])
        if difference:
            raise UsageError(
                f"{store.root} was built with {difference};"
                " choose another --out, or --reconfigure to rebuild what changed"
            )
    store.write(RUN_FILE, (json.dumps(settings, indent=1) + "\n").encode())  # stages stay in their order


def _first_difference(old: Any, new: Any, path: str = "") -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            found = _first_difference(old.get(key), new.get(key), f"{path}.{key}" if path else key)
            if found:
                return found
        return ""
    return "" if old == new else f"{path}={old} and now has {new}"
