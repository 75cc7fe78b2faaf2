"""The worker that carries out tasks in this process, and what became of each."""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, get_args, get_origin

from threadpoolctl import threadpool_limits

from visavis.pipeline.engine.memory import peak_mb
from visavis.pipeline.state.ledger import Outcome, Status
from visavis.pipeline.state.tasks import WHOLE, Artifact, Task, content_digest
from visavis.schemas.access import allowing
from visavis.schemas.artifact import StoredRows, dump_rows, load_heads, load_rows, read_note
from visavis.schemas.errors import DatasetError, Rejected, RunFailed, VisavisError
from visavis.schemas.rows import Conversation, Head, Row
from visavis.schemas.secrets import safe
from visavis.schemas.storage.faults import as_os_error
from visavis.schemas.storage.store import Store
from visavis.stages.base import Stage
from visavis.training.home import ensure_home

AnyStage = Stage[Any, Any]
Stages = Mapping[str, AnyStage]


STORAGE = "storage"
"""Reason of items that failed because a file could not be read or written."""
_DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


class Worker:
    """Runs tasks of several stages in this process. A stage's models are loaded at its first task, and kept."""

    def __init__(self, stages: Stages, root: str) -> None:
        ensure_home()
        self._stages = stages
        self._store = Store(root)
        self._ready: set[str] = set()

    def run(self, task: Task, attempt: int = 1) -> Outcome:
        """Carry out a task. What the item or the stage did is the outcome, never an exception.

        Raises:
            RunFailed: the stage's models cannot be loaded, or the run's folder not be written, whatever the item.
            UsageError: a model is missing, and the user can do something about it.
        """
        stage = self._stages[task.stage]
        self.set_up(task.stage)
        with threads(max(1, int(stage.resources.cpus))), allowing(stage.access):
            started = time.monotonic()
            try:
                output, facts = self._commit(stage, task)
                status, reason, detail = "ok", "", ""
            except Rejected as rejected:
                status, reason, detail, output, facts = "rejected", rejected.reason.value, rejected.detail, "", ""
            except Exception as error:
                if (blame := self._output_fault(error)) is not None:
                    raise blame from error
                status, output, facts = "failed", "", ""
                reason, said = _failure(error)
                detail = f"{said}\n{traceback.format_exc(limit=-6)}"
        return outcome_of(
            task,
            status,  # type: ignore[arg-type]
            reason,
            detail,
            output=output,
            facts=facts,
            seconds=time.monotonic() - started,
            peak_mb=peak_mb(),
            attempt=attempt,
        )

    def _output_fault(self, error: Exception) -> RunFailed | None:
        """A full or read-only disk would fail every item after this one: it stops the run instead."""
        if not isinstance(error, OSError):
            return None
        where = str(error.filename or self._store.root)
        denied = isinstance(error, PermissionError) and f"{where}/".startswith(f"{self._store.root.rstrip('/')}/")
        if error.errno not in _DISK_FAULTS and not denied:
            return None
        return RunFailed(f"{where}: {error.strerror or error}; what was committed stays, run again to go on from there")

    def set_up(self, name: str) -> None:
        """Load a stage's models, if that is not done."""
        if name in self._ready:
            return
        stage = self._stages[name]
        try:
            with threads(max(1, int(stage.resources.cpus))):
                stage.setup()
        except VisavisError:
            raise
        except Exception as error:
            raise RunFailed(f"{name} cannot start: {type(error).__name__}: {error}") from error
        self._ready.add(name)

    def _commit(self, stage: AnyStage, task: Task) -> tuple[str, str]:
        """Digest and facts of the task's artifact."""
        data = committed(self._store, task)
        if data is None:  # else another attempt got there, and only its ledger row was lost
            rows = self.rows(task)
            facts = stage.facts(rows)
            # Not what a person calls the item: of twins either may be built first, and the bytes are the same.
            note = {"inputs": task.digest(), "stage": stage.name, "facts": facts}
            data = dump_rows(rows, note=note)
            self._store.write(task.path, data)
        return content_digest(data), read_note(data).get("facts", "")

    def rows(self, task: Task) -> tuple[Row, ...]:
        """What the stage makes of a task, uncommitted. Raises whatever the stage raises."""
        stage = self._stages[task.stage]
        return tuple(stage.process(self._load(type(stage).types()[0], task)))

    def _load(self, kind: Any, task: Task) -> Row:
        if WHOLE in task.inputs:
            return _placed(self._read(task.inputs[WHOLE], kind)[0], task)
        values: dict[str, Any] = dict(task.inline)
        for name, artifacts in task.inputs.items():
            wanted = kind.model_fields[name].annotation
            if get_origin(wanted) is Sequence:
                values[name] = StoredRows([a.path for a in artifacts], self._store.read, get_args(wanted)[0])
            elif get_origin(wanted) is tuple:
                values[name] = self._read(artifacts, get_args(wanted)[0])
            else:
                values[name] = _placed(self._read(artifacts, wanted)[0], task)
        return kind.model_validate(values)

    def _read(self, artifacts: tuple[Artifact, ...], kind: Any) -> tuple[Row, ...]:
        if issubclass(kind, Head):
            return tuple(row for a in artifacts for row in load_heads(partial(self._store.read_head, a.path), kind))
        return tuple(row for a in artifacts for row in load_rows(self._store.read(a.path), kind))


def _placed(row: Row, task: Task) -> Row:
    return row.at(task.addresses) if isinstance(row, Conversation) else row


def _failure(error: Exception) -> tuple[str, str]:
    """Reason and message of a failed item."""
    known = as_os_error(error, "")
    if known is None or isinstance(error, MemoryError):
        return type(error).__name__, str(error)
    where = known.filename or getattr(error, "filename", None)
    return STORAGE, f"{where}: {known.strerror}" if where else str(known.strerror)


def committed(store: Store, task: Task) -> bytes | None:
    """A task's artifact, if it exists and was made from the same inputs.

    Files beside it are not vouched for by it: other settings may have written others of that name since. Only the
    ledger, which knows the last that was written, does (`ItemIndex.settled`).
    """
    if task.files or not store.exists(task.path):
        return None
    data = store.read(task.path)
    try:
        fits = read_note(data).get("inputs") == task.digest()
    except DatasetError:  # damaged: make it again
        return None
    return data if fits else None


def outcome_of(
    task: Task,
    status: Status,
    reason: str,
    detail: str,
    *,
    output: str = "",
    facts: str = "",
    seconds: float,
    peak_mb: float,
    attempt: int,
) -> Outcome:
    """What became of a task, on this machine, now."""
    return Outcome(
        stage=task.stage,
        key=task.key,
        item=safe(task.item),
        status=status,
        reason=safe(reason),
        detail=safe(detail, task.keys()) if detail else "",
        inputs=task.digest(),
        output=output,
        facts=facts,
        media=0.0 if task.guessed else task.seconds,
        seconds=round(seconds, 4),
        peak_mb=round(peak_mb, 1),
        host=socket.gethostname(),
        attempt=attempt,
        ended=round(time.time(), 3),
        fingerprint=task.fingerprint,
    )


@contextmanager
def threads(count: int) -> Iterator[None]:
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
