"""The executor on a cluster: pools of supervised workers, on a laptop or a thousand machines.

Ray places workers, moves tasks and reports when a machine is lost (`ray_workers`). Which task goes next,
how long it may take and how often it is tried is decided here, in the driver, where all of it can be seen. Stages with
the same needs share one pool, so on a laptop two workers do everything and no core waits for a stage that has nothing
to do; a stage with needs of its own (a GPU, more memory, certain machines) has a pool of its own, which grows and
shrinks with its queue.

How many workers a pool asks for follows from sums over the cluster; which machine has a gap for one is Ray's to find.
Nothing here looks at all workers or all tasks in each turn, or a thousand machines would wait for their driver.
"""

from __future__ import annotations

import itertools
import logging
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from visavis.pipeline.engine.cluster import Machine, amounts_of, is_local, start_ray, times
from visavis.pipeline.engine.executor import Engine, Executor, InFlight
from visavis.pipeline.engine.pools import Job, Pool, Worker, described, now, pools_of
from visavis.pipeline.engine.ray_workers import Answer, RayWorkers, Workers, check_code, failed_to_start
from visavis.pipeline.engine.supervise import FAULTS
from visavis.pipeline.engine.worker import Stages, outcome_of
from visavis.pipeline.state.ledger import Outcome
from visavis.pipeline.state.tasks import Task
from visavis.schemas.config import RunConfig
from visavis.schemas.errors import RunFailed, UsageError, VisavisError
from visavis.schemas.words import counted

_LOST_LIMIT = 5  # machines that may be lost under one task
_MACHINES_SECONDS = 5.0  # between two looks at which machines there are
_ASKED = 256  # workers that may wait for their place in a pool: so many, or as many as have theirs
_AVOID_SECONDS = 30.0  # that a retry waits for another worker than the one it failed on, while that one is idle
_SHIFT_SECONDS = 2.0  # between two times that workers change pools …
_SHIFT_PART = 50  # … one in so many at once
_IDLE_SECONDS = 15.0  # before a worker that nobody needs makes room for another pool
_RELEASE_SECONDS = 300.0  # before it gives its room back to the cluster, which may then shrink
_LATE_SECONDS = 30.0  # that a worker may take to start before people are told
_GRACE = 120.0  # on top of all limits, after which a supervisor itself counts as hung
_CALL_SECONDS = 15.0  # between two calls to a supervisor at work, which it answers at once …
_CALLS = 200  # … of so many a second at most, for the driver of a large cluster has other things to do
_SILENT_SECONDS = 40.0  # without an answer after which its work goes to another
_LOG = logging.getLogger(__name__)


def ray_engine(config: RunConfig) -> Engine:
    """Pools of workers on Ray."""

    @contextmanager
    def open_ray_executor(stages: Stages, root: str) -> Iterator[Executor]:
        start_ray(config.address)
        executor = RayExecutor(config, stages, RayWorkers(config, stages, root))
        try:
            with redirect_stdout(sys.stderr):  # where Ray's word of a lost machine goes, whatever it is told: not into
                yield executor  # what `--json` prints
        finally:
            executor.close()

    return open_ray_executor


class RayExecutor:
    """Decides who does what, and how many workers there are."""

    def __init__(self, config: RunConfig, stages: Stages, workers: Workers) -> None:
        self._config, self._cluster = config, workers
        self._pool_of = pools_of(config, stages)
        self._pools = list({id(pool): pool for pool in self._pool_of.values()}.values())
        self._numbers = itertools.count()
        self._rota: deque[Worker] = deque()  # placed workers, in the order in which they are looked after
        self._leaving: set[Worker] = set()  # at the end of their tasks, for another pool
        self._machines: list[Machine] = []
        self._has: dict[str, float] = {}  # all machines together
        self._looked = self._shifted = now() - 2 * _MACHINES_SECONDS
        self._look_around()

    def submit(self, task: Task) -> None:
        pool = self._pool_of[task.stage]
        pool.queues[task.stage].append(Job(task, self._config.limit_of(task.stage, task.seconds, task.guessed)))
        pool.queued += 1

    def has_capacity(self) -> bool:
        """Where one pool is the narrow place, the others go on until its queue is as long as there are workers."""
        active = [pool for pool in self._pools if pool.active] or self._pools[:1]
        return any(pool.queued < pool.capacity for pool in active) and (
            sum(pool.queued for pool in active) < 2 * sum(pool.capacity for pool in active) + 64
        )

    def wait(self, seconds: float = 1.0) -> list[Outcome]:
        self._look_around()
        self._staff()
        for pool in self._pools:
            self._assign(pool)
        answers = self._cluster.answers(seconds)
        outcomes = [self._hear(answer) for answer in answers]
        outcomes += self._look_after()  # after the answers, which may have waited for this process
        return [outcome for outcome in outcomes if outcome is not None]

    def in_flight(self) -> list[InFlight]:
        moment = now()
        return [
            InFlight(worker.job.task, worker.host, moment - worker.since, worker.job.attempt)
            for pool in self._pools
            for worker in pool.workers.values()
            if worker.job
        ]

    def waiting(self) -> str:
        for pool in self._pools:
            late = pool.late(_LATE_SECONDS)
            if late:
                wait = f"{counted(late, 'worker')} for {', '.join(pool.queues)} {'waits' if late == 1 else 'wait'}"
                return f"{wait} for room on the cluster ({described(pool.needs)})"
        return ""

    def close(self) -> None:
        for pool in self._pools:
            for worker in list(pool.workers.values()):
                self._dismiss(worker)

    # Who works on what

    def _assign(self, pool: Pool) -> None:
        for job in list(pool.retries) if pool.idle else ():
            if (worker := self._worker_for(job, pool)) is not None:
                pool.retries.remove(job)
                self._give(job, worker)
        deepest = not any(p is not pool and p.active and p.queued < len(p.workers) for p in self._pools)
        while pool.idle and pool.queued > len(pool.retries):
            self._give(pool.next_job(deepest=deepest), next(reversed(pool.idle.values())))

    def _worker_for(self, job: Job, pool: Pool) -> Worker | None:
        """An idle worker for a job that failed on one: another, or the same if there is no other to be had soon."""
        for worker in reversed(pool.idle.values()):
            if worker.number != job.avoid:
                return worker
        same = pool.idle.get(job.avoid)
        return same if same and (pool.placed == 1 or now() - job.since > _AVOID_SECONDS) else None

    def _give(self, job: Job, worker: Worker) -> None:
        del worker.pool.idle[worker.number]
        worker.pool.queued -= 1
        worker.job, worker.since = job, now()
        self._cluster.call(worker.handle, "run", job.task, job.attempt, job.limit, tag=(worker, job))

    def _again(self, job: Job) -> None:
        """Queue a job once more, before others."""
        pool = self._pool_of[job.task.stage]
        job.since = now()
        pool.retries.append(job)
        pool.queued += 1

    def _hear(self, answer: Answer) -> Outcome | None:
        worker, call = answer.tag
        if worker.gone:
            return None
        if call == "awake":  # also with an error: then its work ends with one, too
            worker.called = None
            return None
        if answer.error is not None:
            return self._lost(worker, *self._what_took(worker, answer.error))
        if call == "hello":
            self._welcome(worker, *answer.value)
            return None
        worker.job, worker.since = None, now()
        worker.pool.idle[worker.number] = worker
        if worker in self._leaving:
            self._dismiss(worker)
        if isinstance(answer.value, VisavisError):
            raise answer.value
        return self._judge(call, answer.value, worker)

    def _welcome(self, worker: Worker, host: str, node: str, code: Any) -> None:
        """A worker is placed."""
        if not is_local(self._config.address):
            check_code(host, code)
        worker.host, worker.node = host, node
        worker.since, worker.look = now(), now()
        del worker.pool.asked[worker.number]
        worker.pool.idle[worker.number] = worker
        self._rota.append(worker)

    def _judge(self, job: Job, outcome: Outcome, worker: Worker) -> Outcome | None:
        """The outcome, or none if the task gets another try on another worker."""
        if outcome.status != "failed" or job.attempt >= self._config.attempts:
            return outcome
        if outcome.reason in FAULTS:
            what = f"{job.task.stage} {job.task.item}"
            _LOG.warning(f"{what}: {outcome.reason} on {worker.host} ({outcome.detail}); tried once more")
        job.attempt += 1
        job.avoid = worker.number
        self._again(job)
        return None

    def _what_took(self, worker: Worker, error: Exception) -> tuple[str, str]:
        """Why a worker is gone together with its supervisor.

        Raises:
            RunFailed: it never began.
        """
        said = str(error)
        if worker.job is None and failed_to_start(error):
            raise RunFailed(f"workers cannot start on the cluster: {_last_line(said)}")
        if "memory" in said and "OOM killer" not in said:  # Ray's own watch over a machine's memory
            return "OutOfMemory", "Ray stopped the worker because its machine ran low on memory"
        return "", ""

    def _lost(self, worker: Worker, reason: str, detail: str) -> Outcome | None:
        """A worker is gone. No reason: most likely with its machine, though Ray may take half a minute to notice; that
        is not one of the item's tries."""
        job = worker.job
        self._dismiss(worker)
        if job is None:
            return None  # its machine went away before it had anything to do
        if not reason and job.lost < _LOST_LIMIT:
            job.lost += 1
            self._again(job)
            return None
        if not reason:
            were = f"{counted(job.lost + 1, 'machine')} {'were' if job.lost else 'was'}"
            reason, detail = "NodeLost", f"{were} lost while they worked on it"
        seconds = now() - worker.since
        outcome = outcome_of(job.task, "failed", reason, detail, seconds=seconds, peak_mb=0.0, attempt=job.attempt)
        return self._judge(job, outcome, worker)

    def _look_after(self) -> list[Outcome | None]:
        """Supervisors keep the limits; this is for one that cannot. They are looked after in turn."""
        pause = max(_CALL_SECONDS, len(self._rota) / _CALLS)
        lost = []
        while self._rota and self._rota[0].look <= now():
            worker = self._rota.popleft()
            if worker.job:
                lost.append(self._look_at(worker, worker.job, pause))
            if not worker.gone:
                worker.look = now() + pause
                self._rota.append(worker)
        return lost

    def _look_at(self, worker: Worker, job: Job, pause: float) -> Outcome | None:
        """A supervisor may be suspended, or hang as its machine does."""
        took = now() - worker.since
        if took > job.limit * 1.5 + self._config.setup_seconds + _GRACE:
            return self._lost(worker, "TimeLimit", "its machine does not answer")
        silent = 0.0 if worker.called is None else now() - worker.called
        if silent > _SILENT_SECONDS:
            _LOG.warning(
                f"the worker on {worker.host} has not answered for {silent:.0f} s (suspended, or its machine hangs):"
                f" another one does {job.task.stage} {job.task.item}"
            )
            return self._lost(worker, "", "")  # as if its machine were lost
        if worker.called is None and took > pause:
            worker.called = now()
            self._cluster.call(worker.handle, "awake", tag=(worker, "awake"))
        return None

    # How many workers there are

    def _look_around(self) -> None:
        """What the machines hold, all together and for each pool."""
        if now() - self._looked < _MACHINES_SECONDS:
            return
        self._looked, self._machines = now(), self._cluster.machines()
        names = {name for machine in self._machines for name in machine.amounts}
        self._has = {name: sum(m.amounts.get(name, 0.0) for m in self._machines) for name in names}
        for pool in self._pools:
            fits = {m.node: times(pool.needs, m.amounts) for m in self._machines if m.suits(pool.needs)}
            pool.nodes = frozenset(node for node, count in fits.items() if count)
            pool.capacity = pool.needs.max_workers or max(1, sum(fits.values()))

    def _staff(self) -> None:
        """Ask for workers and dismiss them, so that there are as many as there is work and room for."""
        for pool in reversed(self._pools):  # the deepest first: what was begun is finished first
            wanted = min(pool.capacity, max(pool.wanted, pool.needs.min_workers))
            if len(pool.workers) < wanted:
                self._ask(pool, wanted - len(pool.workers))
                if len(pool.workers) < wanted and not self._room(pool) and self._make_room(pool):
                    self._ask(pool, wanted - len(pool.workers))
            if pool.queued and pool.late(_IDLE_SECONDS):  # the cluster may grow for it, or it may not
                self._make_room(pool)
            if len(pool.workers) > wanted:
                self._release(pool, wanted)
            if wanted and not any(p.workers for p in self._pools):
                self._refuse(pool)

    def _ask(self, pool: Pool, count: int) -> None:
        """Ask for so many more workers, as far as the machines together have room. What an autoscaler adds machines for
        is asked for at once; else no more wait for a place than have one, as others may use the cluster, too."""
        if not pool.needs.max_workers:
            count = min(count, self._room(pool), max(_ASKED, pool.placed) - len(pool.asked))
        for _ in range(count):
            worker = Worker(next(self._numbers), self._cluster.start(pool.needs), pool, now())
            pool.workers[worker.number] = pool.asked[worker.number] = worker
            self._cluster.call(worker.handle, "hello", tag=(worker, "hello"))

    def _room(self, pool: Pool) -> int:
        """How many more of its workers the machines have room for, if there were no gaps between them."""
        left = dict(self._has)
        for other in self._pools:
            for name, one in amounts_of(other.needs).items():
                left[name] = left.get(name, 0.0) - one * len(other.workers)
        return max(0, times(pool.needs, left))

    def _make_room(self, pool: Pool) -> bool:
        """Take workers from other pools, at once if they are idle, else when their tasks end. True if there is room."""
        share = max(1, sum(len(p.workers) for p in self._pools) // _SHIFT_PART)
        if now() - self._shifted < _SHIFT_SECONDS or len(self._leaving) >= share:
            return False
        self._shifted = now()
        patient = pool.queued > 2 * pool.placed
        others = [p for p in self._pools if p is not pool and len(p.workers) > p.needs.min_workers]
        free = [w for p in others if not p.queued for w in p.idle.values() if w.node in pool.nodes]
        idle = [w for w in free if patient or now() - w.since > _IDLE_SECONDS][:share]
        for worker in idle:
            self._dismiss(worker)
        if not idle and patient:
            busy = [w for p in others if p.placed > 1 or not pool.placed for w in p.workers.values() if w.job]
            busy = [w for w in busy if w.node in pool.nodes and w not in self._leaving]
            # Not whoever is at work for longest: that is who has hours of video.
            self._leaving.update(sorted(busy, key=lambda w: w.job.task.seconds if w.job else 0.0)[:share])
        return bool(idle)

    def _release(self, pool: Pool, wanted: int) -> None:
        """Give back the room of workers that have had nothing to do for long, or have no place and are not needed."""
        for found, patience in ((pool.idle, _RELEASE_SECONDS), (pool.asked, _IDLE_SECONDS)):
            while found and len(pool.workers) > wanted:
                worker = next(iter(found.values()))
                if now() - worker.since <= patience:
                    break
                self._dismiss(worker)

    def _dismiss(self, worker: Worker) -> None:
        worker.gone, worker.job = True, None
        for place in (worker.pool.workers, worker.pool.asked, worker.pool.idle):
            place.pop(worker.number, None)
        self._leaving.discard(worker)
        self._cluster.stop(worker.handle)

    def _refuse(self, pool: Pool) -> None:
        have = [{k: v for k, v in m.amounts.items() if k in amounts_of(pool.needs)} for m in self._machines]
        names = ", ".join(pool.queues)
        raise UsageError(
            f"no worker for {names} fits: each takes {described(pool.needs)}, the machines have {have[:8]}"
        )


def _last_line(text: str) -> str:
    """Ray's messages end with the cause."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"
