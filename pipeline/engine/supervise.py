"""A worker in a process of its own, and somebody who watches it.

A decoder that crashes, a file on which a model hangs, an item that needs more memory than there is: each of them takes
its process with it. So stages run in a child process, and its supervisor, which loads nothing, always lives to tell
what became of the item. Ray alone cannot: for all three it reports that a worker's connection ended.

Ray starts workers as background processes of the driver's terminal. The kernel suspends a whole group of them as soon
as one reads from that terminal, and a library that starts a program (scenedetect starts ffmpeg) reads from it without
knowing. So neither process has the terminal as its input (`detach`), and the child has no terminal at all.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil

from visavis.pipeline.engine.memory import bound_claims
from visavis.pipeline.engine.stopwatch import Stopwatch
from visavis.pipeline.engine.worker import Stages, Worker, outcome_of
from visavis.pipeline.state.ledger import Outcome
from visavis.pipeline.state.tasks import Task
from visavis.schemas.errors import VisavisError
from visavis.schemas.secrets import guard_output

_LOOK = 0.25  # seconds between two looks at the child
_STOPPED_SECONDS = 20.0  # that a child may be suspended before it is replaced
FAULTS = ("TimeLimit", "OutOfMemory", "WorkerStopped", "WorkerKilled", "WorkerCrashed")
"""Why an item failed that took its process with it, or that ended it."""
_VMSTAT = Path("/proc/vmstat")


class Supervisor:
    """Runs tasks in a child process, which it starts anew when it dies, hangs, grows too large or has done its share.

    Args:
        memory_gb: resident memory at which the child is stopped; 0: no limit. What it may claim is bounded too, as a
            file may grow it faster than anybody looks.
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
            The worker's outcome, or *failed* with one of `FAULTS`.

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
                began, clock = time.monotonic(), Stopwatch()
                while not self._pipe.poll(_LOOK):
                    fault = self._fault(watch, clock.seconds(), allowed, stage_of_work)
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
        return answer._replace(peak_mb=round(watch.peak_mb, 1))  # of this item, not of the process's life

    def close(self) -> None:
        """End the child, whatever it does."""
        if self._child is not None:
            self._pipe.close()
            self._kill_group()
            self._child.kill()
            self._child.join(10)
            self._child = None

    def _kill_group(self) -> None:
        """The child and the programs that it started. Its number is nobody else's until it was waited for."""
        assert self._child is not None
        if self._child.exitcode is None and self._child.pid:
            with contextlib.suppress(ProcessLookupError):  # it has not come as far as to have a group of its own
                os.killpg(self._child.pid, signal.SIGKILL)

    def _start(self) -> None:
        # Not forked: a process with Ray's or torch's threads in it does not survive that.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, self._stages, self._root, self._memory_gb)
        self._child = context.Process(target=_serve, args=arguments, daemon=True)
        self._child.start()
        theirs.close()
        self._items = 0

    def _fault(self, watch: _Watch, seconds: float, allowed: float, doing: str) -> tuple[str, str] | None:
        """Why the child must be ended now, if it must."""
        if watch.look() and self._memory_gb and watch.rss_mb > self._memory_gb * 1e3:
            return "OutOfMemory", f"held {watch.rss_mb / 1e3:.2f} GB, allowed are {self._memory_gb:g} (memory_gb)"
        if watch.stopped_seconds > _STOPPED_SECONDS:
            return "WorkerStopped", (
                f"somebody suspended the worker (SIGSTOP, or a program that wanted the terminal) for"
                f" {watch.stopped_seconds:.0f} s"
            )
        if seconds > allowed:
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
    """Follows a process's memory, and whether it is suspended."""

    def __init__(self, pid: int | None) -> None:
        self._process = psutil.Process(pid)
        self._stopped: Stopwatch | None = None
        self.rss_mb = self.peak_mb = self.stopped_seconds = 0.0

    def look(self) -> bool:
        try:
            self.rss_mb = self._process.memory_info().rss / 1e6
            stopped = self._process.status() == psutil.STATUS_STOPPED
        except psutil.Error:  # gone: the pipe will say so
            return False
        self.peak_mb = max(self.peak_mb, self.rss_mb)
        self._stopped = (self._stopped or Stopwatch()) if stopped else None
        self.stopped_seconds = self._stopped.seconds() if self._stopped else 0.0
        return True


def detach() -> None:
    """Give up the terminal as input, for this process and all that it starts, and do not be suspended because of it."""
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGTSTP):
            signal.signal(number, signal.SIG_IGN)  # is inherited by programs, too


def _serve(pipe: Connection, stages: Stages, root: str, memory_gb: float) -> None:
    """The child: for each task, says that its models are loaded, then what came of it."""
    detach()
    if memory_gb:
        bound_claims(memory_gb)
    os.setsid()  # a group of its own, without a terminal: what stops it does not stop its supervisor
    threading.Thread(target=_die_with, args=(os.getppid(),), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver decides
    guard_output()
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
    os.killpg(0, signal.SIGKILL)  # and what it started


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
