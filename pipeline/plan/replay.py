"""Replay: one stage on one item, in this process, with nothing written. For debugging.

The task is found the way a build finds it: along the workflows of the listed conversations, with what the ledger knows.
An exception passes through, so a debugger stops where it was raised.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from pydantic import BaseModel

from visavis.pipeline.engine.run import known_steps
from visavis.pipeline.engine.worker import Worker
from visavis.pipeline.plan.build import Build
from visavis.pipeline.state.index import ItemIndex
from visavis.pipeline.state.ledger import Ledger, Outcome
from visavis.pipeline.state.tasks import Task
from visavis.schemas.errors import Rejected, UsageError
from visavis.schemas.rows import Row, Source
from visavis.schemas.storage.store import Store
from visavis.schemas.uris import printable
from visavis.schemas.words import candidates


def replay(build: Build, sources: Collection[Source], stage: str, item: str) -> dict[str, Any]:
    """Carry out `stage` on the first item whose key starts with `item`, or whose file's name holds it.

    Returns: what it made of the item this time, and what the ledger says of the last; plain JSON values.

    Raises:
        UsageError: no such stage or item, or what the item needs is not built.
        Exception: whatever the stage raises.
    """
    stages = [step.name for step in build.graph.steps.values() if step.of_conversation]
    if stage not in stages:  # fit, census and shard work on the corpus
        raise UsageError(f"--only takes {', '.join(stages)}, not {stage}")
    store = Store(build.root)
    index = ItemIndex(Ledger(store), store)
    task = _find(build, index, sources, stage, item)
    known = index.get(stage, task.key)
    said = f"{known.status} {known.reason}".strip() if known else "nothing"
    worker = Worker(build.stages, build.root)
    worker.set_up(stage)
    began = time.monotonic()
    rows: tuple[Row, ...] = ()
    reason, detail = None, ""
    try:
        rows = worker.rows(task)
    except Rejected as rejected:
        reason, detail = rejected.reason.value, rejected.detail
    return {
        "stage": stage,
        "key": task.key,
        "item": task.item,
        "ledger": said,
        "rejected": reason,
        "detail": detail,
        "rows": [_outline(row) for row in rows],
        "seconds": round(time.monotonic() - began, 3),
    }


def _find(build: Build, index: ItemIndex, sources: Collection[Source], stage: str, item: str) -> Task:
    seen: list[str] = []
    for task, _ in _tasks(build, index, sources):
        if task.stage != stage:
            continue
        if task.key.startswith(item) or printable(item) in task.item:
            return task
        seen.append(task.item)
    others = candidates(item, seen, "item") if seen else "no item has come that far: build it first"
    raise UsageError(f"no item {item!r} of {stage}; {others}")


def _tasks(build: Build, index: ItemIndex, sources: Collection[Source]) -> Iterator[tuple[Task, Outcome | None]]:
    """All tasks that a build could carry out now or has carried out."""
    codecs = build.codecs()
    for workflow in build.workflows(sources):
        bound = yield from known_steps(workflow, index)
        if bound is None:
            continue
        for codec in codecs:
            yield from known_steps(build.workflow_to_dyad(bound, codec), index)


def _outline(row: Any) -> Any:
    """A row for people: arrays as their shape and type, long tuples as their length and first entry."""
    if isinstance(row, np.ndarray):
        return f"{row.dtype} {list(row.shape)}"
    if isinstance(row, BaseModel):
        return {name: _outline(getattr(row, name)) for name in type(row).model_fields}
    if isinstance(row, tuple) and len(row) > 4:
        return [f"{len(row)} entries, the first:", _outline(row[0])]
    return [_outline(entry) for entry in row] if isinstance(row, tuple) else row
