"""An executor carries out tasks. One in this process is here; the one on Ray is `pipeline.engine.ray_executor`.

Both are driven alike: the run submits tasks as they become possible and waits for outcomes. What is done is not
theirs to decide: artifacts say so (`pipeline.engine.worker`), and both write the same bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple, Protocol

from visavis.pipeline.engine.memory import machine_spared
from visavis.pipeline.engine.worker import Stages, Worker
from visavis.pipeline.state.ledger import Outcome
from visavis.pipeline.state.tasks import Task


class InFlight(NamedTuple):
    """A task at work: where, for how long (seconds), and which try it is."""

    task: Task
    host: str
    seconds: float
    attempt: int


class Executor(Protocol):
    """Workers for the stages of a run."""

    def submit(self, task: Task) -> None:
        """Queue a task."""

    def has_capacity(self) -> bool:
        """Whether workers would stand idle soon if nothing more is submitted."""

    def wait(self, seconds: float = 1.0) -> list[Outcome]:
        """Outcomes that came in since; waits so long at most for the first, so that the caller can look around.

        Raises:
            RunFailed: a stage cannot start, the cluster is lost, or the run's folder cannot be written.
        """

    def in_flight(self) -> list[InFlight]:
        """What is at work now."""

    def waiting(self) -> str:
        """What the executor itself waits for, such as room on a cluster; empty if for nothing."""


Engine = Callable[[Stages, str], AbstractContextManager[Executor]]
"""(stages, root of the run's folder) → an executor for as long as the block lasts."""


class _Alone:
    """One task after the other in this process."""

    def __init__(self, stages: Stages, root: str) -> None:
        self._worker = Worker(stages, root)
        self._depth = {name: depth for depth, name in enumerate(stages)}
        self._queues: dict[str, deque[Task]] = {name: deque() for name in stages}

    def submit(self, task: Task) -> None:
        self._queues[task.stage].append(task)

    def has_capacity(self) -> bool:
        return not any(self._queues.values())

    def wait(self, seconds: float = 1.0) -> list[Outcome]:
        # The deepest stage first: what was begun is finished before more is begun.
        for name in sorted(self._depth, key=lambda n: -self._depth[n]):
            if self._queues[name]:
                return [self._worker.run(self._queues[name].popleft())]
        return []

    def in_flight(self) -> list[InFlight]:
        return []

    def waiting(self) -> str:
        return ""


@contextmanager
def local_engine(stages: Stages, root: str) -> Iterator[Executor]:
    """Everything in this process: for debugging, notebooks and tests. No time limits, and a crash is a crash.

    While it works, this process can claim most of the machine's memory, and not all (`pipeline.engine.memory`).
    """
    with machine_spared():
        yield _Alone(stages, root)
