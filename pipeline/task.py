"""A task: one stage applied to one item, and the worker that carries it out.

A task says where its inputs lie, not what they are: the worker loads them, so arrays never pass the driver.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, get_args, get_origin

from threadpoolctl import threadpool_limits

from pipeline.ledger import Outcome
from schemas.artifact import dump_rows, load_rows, read_note
from schemas.errors import DatasetError, Rejected
from schemas.rows import Row
from stages.base import Stage
from stages.store import Store

AnyStage = Stage[Any, Any]


@dataclass(frozen=True)
class Artifact:
    """A committed artifact: its path in the run's folder, and the digest of its content."""

    path: str
    digest: str


@dataclass(frozen=True)
class Task:
    """Apply a stage to one item.

    inputs: field of the stage's In → the artifacts it is loaded from. inline: fields given as plain data.
    whole: In is loaded from a single artifact (or inline data) instead of being put together from fields.
    files: paths of the run's folder that the stage writes beside its artifact.
    places: inline fields that say where something lies and not what it is: a corpus can be moved.
    """

    key: str
    item: str
    path: str
    fingerprint: str
    inputs: Mapping[str, tuple[Artifact, ...]] = field(default_factory=dict)
    inline: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    places: tuple[str, ...] = ()

    def digest(self) -> str:
        """What the output depends on, beside the stage's settings: content of all inputs."""
        plain = {
            "inputs": {name: [a.digest for a in artifacts] for name, artifacts in self.inputs.items()},
            "inline": {name: value for name, value in self.inline.items() if name not in self.places},
        }
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


WHOLE = "*"
"""Name of the single input of a stage whose In is itself an artifact's row."""


class Worker:
    """Holds a stage that is set up, and runs tasks with it. One per process of a stage's pool."""

    def __init__(self, stage: AnyStage, root: str) -> None:
        self._stage = stage
        self._store = Store(root)
        self._threads = max(1, int(stage.resources.cpus))
        with _threads(self._threads):
            stage.setup()

    def run(self, task: Task) -> Outcome:
        """Carry out a task. Never raises for what the item or the stage did: that is the outcome."""
        started = time.monotonic()
        try:
            with _threads(self._threads):
                output = self._commit(task)
            status, reason, detail = "ok", "", ""
        except Rejected as rejected:
            status, reason, detail, output = "rejected", rejected.reason.value, rejected.detail, ""
        except Exception as error:  # noqa: BLE001 - the boundary where any bug of a stage becomes a ledger row
            status, reason, output = "failed", type(error).__name__, ""
            detail = f"{error}\n{traceback.format_exc(limit=-6)}"
        return Outcome(
            stage=self._stage.name,
            key=task.key,
            item=task.item,
            status=status,  # type: ignore[arg-type]
            reason=reason,
            detail=detail,
            inputs=task.digest(),
            output=output,
            seconds=round(time.monotonic() - started, 4),
            peak_mb=round(_peak_mb(), 1),
            host=socket.gethostname(),
            attempt=1,
            fingerprint=task.fingerprint,
        )

    def _commit(self, task: Task) -> str:
        found = committed(self._store, task)
        if found is not None:  # another attempt got there, and only its ledger row was lost
            return found
        rows = list(self._stage.process(self._load(task)))
        data = dump_rows(rows, note={"inputs": task.digest(), "stage": self._stage.name, "item": task.item})
        self._store.write(task.path, data)
        return content_digest(data)

    def _load(self, task: Task) -> Row:
        kind = type(self._stage).types()[0]
        if WHOLE in task.inputs:
            return self._read(task.inputs[WHOLE], kind)[0]
        values: dict[str, Any] = dict(task.inline)
        for name, artifacts in task.inputs.items():
            wanted = kind.model_fields[name].annotation
            many = get_origin(wanted) is tuple
            rows = self._read(artifacts, get_args(wanted)[0] if many else wanted)
            values[name] = rows if many else rows[0]
        return kind.model_validate(values)

    def _read(self, artifacts: tuple[Artifact, ...], kind: Any) -> tuple[Row, ...]:
        return tuple(row for a in artifacts for row in load_rows(self._store.read(a.path), kind))


def committed(store: Store, task: Task) -> str | None:
    """The digest of a task's artifact if it exists, was made from the same inputs, and all its files are there."""
    if not store.exists(task.path) or not all(store.exists(path) for path in task.files):
        return None
    data = store.read(task.path)
    try:
        fits = read_note(data).get("inputs") == task.digest()
    except DatasetError:  # damaged: make it again
        return None
    return content_digest(data) if fits else None


def content_digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def artifact_path(stage: str, version: int, fingerprint: str, key: str) -> str:
    """Path = f(stage, version, settings that matter, item)."""
    return str(PurePosixPath("artifacts", stage, f"v{version}-{fingerprint}", f"{key}.safetensors"))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """The same number of threads on every engine and machine: sums then have the same last bit everywhere."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 0
    os.environ["OMP_NUM_THREADS"] = str(count)
    if torch:
        torch.set_num_threads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        if torch:
            torch.set_num_threads(before)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
