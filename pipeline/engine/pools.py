"""What the scheduler keeps of its work: jobs, workers, and pools of workers for stages of the same needs.

Everything that is asked in each turn is counted as it changes, or is the first of an ordered dict.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from visavis.pipeline.engine.stopwatch import Stopwatch
from visavis.pipeline.engine.worker import AnyStage, Stages
from visavis.pipeline.state.tasks import Task
from visavis.schemas.config import RunConfig, StageResources

now = Stopwatch.now


@dataclass(eq=False)
class Job:
    task: Task
    limit: float
    attempt: int = 1
    lost: int = 0
    avoid: int = -1  # the worker on which it failed
    since: float = 0.0  # it failed


@dataclass(eq=False)
class Worker:
    """A worker as the driver sees it."""

    number: int
    handle: Any
    pool: Pool
    since: float  # it was asked for, began what it does now, or became idle
    host: str = ""
    node: str = ""
    job: Job | None = None
    look: float = 0.0  # when to look after it next
    called: float | None = None  # when; None: it has answered
    gone: bool = False


@dataclass(eq=False)
class Pool:
    """Workers for stages of the same needs. Each worker is in `workers`, and in `asked`, `idle` or at work."""

    needs: StageResources
    queues: dict[str, deque[Job]]  # by stage, the deepest last
    retries: list[Job] = field(default_factory=list)  # jobs that had a worker before
    queued: int = 0
    workers: dict[int, Worker] = field(default_factory=dict)
    asked: dict[int, Worker] = field(default_factory=dict)  # not placed yet, oldest first
    idle: dict[int, Worker] = field(default_factory=dict)  # idle for longest first
    capacity: int = 1  # how many it may have
    nodes: frozenset[str] = frozenset()  # machines on which one fits

    @property
    def placed(self) -> int:
        return len(self.workers) - len(self.asked)

    @property
    def wanted(self) -> int:
        """Workers that there is work for."""
        return self.queued + self.placed - len(self.idle)

    @property
    def active(self) -> bool:
        """Whether it takes part now; pools of stages that are not due yet have no workers."""
        return bool(self.workers or self.queued)

    def late(self, seconds: float) -> int:
        """Workers that have not started in so many seconds, most likely for want of a machine."""
        return sum(1 for _ in itertools.takewhile(lambda w: now() - w.since > seconds, self.asked.values()))

    def next_job(self, *, deepest: bool) -> Job:
        """What was begun is finished before more is begun, or not."""
        queues = reversed(self.queues.values()) if deepest else self.queues.values()
        return next(queue for queue in queues if queue).popleft()


def pools_of(config: RunConfig, stages: Stages) -> dict[str, Pool]:
    """Each stage's pool."""
    by_needs: dict[str, Pool] = {}
    pools = {}
    for name, stage in stages.items():
        needs = config.resources.get(name) or _default_needs(stage)
        shape = needs.model_dump_json(exclude={"limit_seconds", "limit_factor"})
        pool = by_needs.setdefault(shape, Pool(needs, {}))
        pool.queues[name] = deque()
        pools[name] = pool
    return pools


def _default_needs(stage: AnyStage) -> StageResources:
    needs = stage.resources
    return StageResources(cpus=needs.cpus, gpus=needs.gpus, memory_gb=needs.memory_gb)


def described(needs: StageResources) -> str:
    labels = [f"{name}={value}" for name, value in needs.labels.items()]
    amounts = {"CPU": needs.cpus, "GPU": needs.gpus, "GB": needs.memory_gb}
    return ", ".join([*(f"{amount:g} {name}" for name, amount in amounts.items() if amount), *labels])
