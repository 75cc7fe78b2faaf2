"""A worker in a process of its own, and somebody who watches it.

A decoder that crashes, a file on which a model hangs, an item that needs more memory than there is: each of them takes
its process with it. So stages run in a child process, and its supervisor, which loads nothing, always lives to tell
what became of the item. Ray alone cannot: for all three it reports that a worker's connection ended.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil

from pipeline.ledger import Outcome
from pipeline.task import Stages, Task, Worker, outcome_of
from schemas.errors import VisavisError

_LOOK = 0.25  # seconds between two looks at the child
_VMSTAT = Path("/proc/vmstat")


class Supervisor:
    """Runs tasks in a child process, which it starts anew when it dies, hangs, grows too large or has done its share.

    Args:
        memory_gb: resident memory at which the child is stopped; 0: no limit.
        setup_seconds: time that a stage has to load its models.
        recycle: items after which the child is replaced, so that leaks of libraries do not add up; 0: never.
    """

    def __init__(self, stages: Stages, root: str, *, memory_gb: float, recycle: int, setup_seconds: float) -> None:
        self._stages, self._root = stages, root
        self._memory_gb, self._recycle, self._setup_seconds = memory_gb, recycle, setup_seconds
        self._child: BaseProcess | None = None
        self._pipe: Connection
        self._items = 0

    def run(self, task: Task, attempt: int, limit: float) -> Outcome:
        """Carry out a task within `limit` seconds, models' loading apart.

        Returns:
            The worker's outcome, or *failed* with TimeLimit, OutOfMemory, WorkerKilled or WorkerCrashed.

        Raises:
            RunFailed, UsageError: as `Worker.run`.
        """
        if self._child is None or not self._child.is_alive() or (self._recycle and self._items >= self._recycle):
            self.close()
            self._start()
        self._items += 1
        oom_kills = _oom_kills()
        watch = _Watch(self._child.pid if self._child else None)
        began = time.monotonic()
        try:
            self._pipe.send((task, attempt))
            for stage_of_work, allowed in (("loading models", self._setup_seconds), ("", limit)):
                began = time.monotonic()
                while not self._pipe.poll(_LOOK):
                    fault = self._fault(watch, began, allowed, stage_of_work)
                    if fault:
                        self.close()
                        return _lost(task, *fault, began, watch.peak_mb, attempt)
                answer = self._pipe.recv()
                if isinstance(answer, VisavisError):
                    raise answer
        except (EOFError, ConnectionError, BrokenPipeError):
            reason, detail = self._epitaph(oom_kills, watch)
            return _lost(task, reason, detail, began, watch.peak_mb, attempt)
        watch.look()
        return replace(answer, peak_mb=round(watch.peak_mb, 1))  # of this item, not of the process's life

    def close(self) -> None:
        """End the child, whatever it does."""
        if self._child is not None:
            self._pipe.close()
            self._child.kill()
            self._child.join(10)
            self._child = None

    def _start(self) -> None:
        # Not forked: a process with Ray's or torch's threads in it does not survive that.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._child = context.Process(target=_serve, args=(theirs, self._stages, self._root), daemon=True)
        self._child.start()
        theirs.close()
        self._items = 0

    def _fault(self, watch: _Watch, began: float, allowed: float, doing: str) -> tuple[str, str] | None:
        """Why the child must be stopped now, if it must."""
        if watch.look() and self._memory_gb and watch.rss_mb > self._memory_gb * 1e3:
            return "OutOfMemory", f"held {watch.rss_mb / 1e3:.2f} GB, allowed are {self._memory_gb:g} (memory_gb)"
        if time.monotonic() - began > allowed:
            return "TimeLimit", f"took longer than {allowed:.0f} s{doing and ', ' + doing}"
        return None

    def _epitaph(self, oom_kills: int, watch: _Watch) -> tuple[str, str]:
        """What the child died of."""
        assert self._child is not None
        self._child.join(10)
        code = self._child.exitcode
        held = f"it held {watch.peak_mb:.0f} MB"
        self.close()
        if code == -signal.SIGKILL and _oom_kills() > oom_kills:
            return "OutOfMemory", f"the machine's memory ran out and the kernel killed the worker; {held}"
        if code in (-signal.SIGKILL, -signal.SIGTERM):
            return "WorkerKilled", f"somebody sent the worker {signal.Signals(-code).name}; {held}"
        name = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        return "WorkerCrashed", f"{name}: a bug in native code, or in the file that it read; {held}"


class _Watch:
    """Follows a process's memory."""

    def __init__(self, pid: int | None) -> None:
        self._process = psutil.Process(pid)
        self.rss_mb = self.peak_mb = 0.0

    def look(self) -> bool:
        try:
            self.rss_mb = self._process.memory_info().rss / 1e6
        except psutil.Error:  # gone: the pipe will say so
            return False
        self.peak_mb = max(self.peak_mb, self.rss_mb)
        return True


def _serve(pipe: Connection, stages: Stages, root: str) -> None:
    """The child: for each task, says that its models are loaded, then what came of it."""
    threading.Thread(target=_die_with, args=(os.getppid(),), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides
    worker = Worker(stages, root)
    for task, attempt in _received(pipe):
        try:
            worker.set_up(task.stage)
            pipe.send("ready")
            pipe.send(worker.run(task, attempt))
        except VisavisError as error:
            pipe.send(error)


def _received(pipe: Connection) -> Iterator[tuple[Task, int]]:
    with contextlib.suppress(EOFError):  # the supervisor is done with us
        while True:
            yield pipe.recv()


def _die_with(parent: int) -> None:
    """A worker whose supervisor was killed must not go on alone."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _oom_kills() -> int:
    """How often this machine's kernel killed for memory."""
    if not _VMSTAT.exists():
        return 0
    counts = dict(line.split() for line in _VMSTAT.read_text().splitlines())
    return int(counts.get("oom_kill", 0))


def _lost(task: Task, reason: str, detail: str, began: float, peak_mb: float, attempt: int) -> Outcome:
    return outcome_of(
        task, "failed", reason, detail, seconds=time.monotonic() - began, peak_mb=peak_mb, attempt=attempt
    )
