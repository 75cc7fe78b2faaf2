"""The crew on Ray: pools of supervised workers on a laptop or a cluster.

Ray places workers, moves tasks and tells when a machine is lost. Which task goes next, how long it may take and how
often it is tried is decided here, in the driver, where all of it can be seen. Stages with the same needs share one
pool, so on a laptop two workers do everything and no core waits for a stage that has nothing to do; a stage with needs
of its own (a GPU, more memory, certain machines) has a pool of its own, which grows and shrinks with its queue.
"""

from __future__ import annotations

import itertools
import logging
import math
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

from pipeline.crew import Crew, Engine, InFlight
from pipeline.ledger import Outcome
from pipeline.machines import Machine, amounts_of, is_local, start_ray, take, times
from pipeline.memory import default_limit
from pipeline.stopwatch import Stopwatch
from pipeline.supervise import FAULTS, Supervisor, detach
from pipeline.task import AnyStage, Stages, Task, outcome_of
from schemas.config import RunConfig, StageResources
from schemas.errors import RunFailed, UsageError, VisavisError
from schemas.secrets import guard_output
from schemas.words import counted

_LOST_LIMIT = 5  # machines that may be lost under one task
_SHIFT_SECONDS = 2.0  # between two workers that change pools
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
    def open_fleet(stages: Stages, root: str) -> Iterator[Crew]:
        start_ray(config.address)
        fleet = _Fleet(config, stages, root)
        try:
            with redirect_stdout(sys.stderr):  # where Ray's word of a lost machine goes, whatever it is told: not into
                yield fleet  # what `--json` prints
        finally:
            fleet.close()

    return open_fleet


class _RayWorker:
    """The actor: a supervisor on some machine. It answers `awake` also while `run` is at work."""

    def __init__(self, stages: list[Any], root: str, memory_gb: float, recycle: int, setup: float) -> None:
        """stages: the reference to them in a list, or Ray would load their modules before this runs."""
        detach()
        guard_output()
        import ray

        loaded: Stages = ray.get(stages[0])
        self._supervisor = Supervisor(loaded, root, memory_gb=memory_gb, recycle=recycle, setup_seconds=setup)

    def awake(self) -> bool:
        return True

    def hello(self) -> tuple[str, str]:
        """Host name and Ray's id of the machine."""
        import ray

        return socket.gethostname(), ray.get_runtime_context().get_node_id()

    def run(self, task: Task, attempt: int, limit: float) -> Outcome | VisavisError:
        try:
            return self._supervisor.run(task, attempt, limit)
        except VisavisError as error:
            return error


@dataclass
class _Job:
    task: Task
    limit: float
    attempt: int = 1
    lost: int = 0
    avoid: int = -1  # the worker on which it failed


@dataclass
class _Hand:
    """A worker as the driver sees it."""

    number: int
    actor: Any
    pool: _Pool
    since: Stopwatch = field(default_factory=Stopwatch)  # it began what it does now, or became idle
    heard: Stopwatch = field(default_factory=Stopwatch)  # since its last answer, or since it was called first
    call: Any = None  # the answer that is waited for
    host: str = ""
    node: str = ""
    job: _Job | None = None
    leaves: bool = False  # at the end of its task, for another pool
    hung: bool = False

    @property
    def idle(self) -> bool:
        return bool(self.host) and self.job is None


@dataclass
class _Pool:
    """Workers for stages of the same needs."""

    needs: StageResources
    queues: dict[str, deque[_Job]]  # by stage, the deepest last
    hands: list[_Hand] = field(default_factory=list)

    @property
    def queued(self) -> int:
        return sum(len(queue) for queue in self.queues.values())

    @property
    def placed(self) -> int:
        """Workers that run somewhere."""
        return sum(bool(hand.host) for hand in self.hands)

    def late(self, seconds: float) -> int:
        """Workers that have not started in so many seconds, most likely for want of a machine."""
        return sum(not hand.host and hand.since.seconds() > seconds for hand in self.hands)

    @property
    def wanted(self) -> int:
        """Workers that there is work for."""
        return self.queued + sum(hand.job is not None for hand in self.hands)


class _Fleet:
    def __init__(self, config: RunConfig, stages: Stages, root: str) -> None:
        import ray

        self._ray = ray
        self._config, self._root = config, root
        self._stages = stages
        self._shared = ray.put(dict(stages))
        self._remote = ray.remote(max_restarts=0, max_task_retries=0, max_concurrency=2)(_RayWorker)
        self._pool_of = _pools(config, stages)
        self._pools = list({id(pool): pool for pool in self._pool_of.values()}.values())
        self._numbers = itertools.count()
        self._pending: dict[Any, _Hand] = {}
        self._known_machines: tuple[float, list[Machine]] = (-math.inf, [])
        self._shifted = 0.0

    def submit(self, task: Task) -> None:
        limit = self._config.limit_of(task.stage, task.seconds)
        self._pool_of[task.stage].queues[task.stage].append(_Job(task, limit))

    def hungry(self) -> bool:
        return any(pool.queued < self._capacity(pool) for pool in self._active())

    def wait(self) -> list[Outcome]:
        self._staff()
        for pool in self._pools:
            self._assign(pool)
        self._check_hung()
        given_up = [self._give_up(hand) for hand in self._silent()]
        if not self._pending:
            time.sleep(0.05)
            return [outcome for outcome in given_up if outcome is not None]
        refs = list(self._pending)
        self._ray.wait(refs, num_returns=1, timeout=1.0)
        done, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
        answers = [self._take(ref) for ref in done]
        return [outcome for outcome in (*given_up, *answers) if outcome is not None]

    def in_flight(self) -> list[InFlight]:
        return [
            InFlight(hand.job.task, hand.host, hand.since.seconds(), hand.job.attempt)
            for pool in self._pools
            for hand in pool.hands
            if hand.job
        ]

    def waiting(self) -> str:
        for pool in self._pools:
            late = pool.late(_LATE_SECONDS)
            if late:
                wait = f"{counted(late, 'worker')} for {', '.join(pool.queues)} {'waits' if late == 1 else 'wait'}"
                return f"{wait} for room on the cluster ({_told(pool.needs)})"
        return ""

    def close(self) -> None:
        for pool in self._pools:
            for hand in list(pool.hands):
                self._dismiss(hand)

    # Who works on what

    def _assign(self, pool: _Pool) -> None:
        for hand in pool.hands:
            if not pool.queued:
                return
            if hand.leaves or not hand.idle:
                continue
            job = self._next_job(pool, hand)
            if job is None:  # what is left was tried on this one; another may have it
                continue
            hand.job, hand.since, hand.heard = job, Stopwatch(), Stopwatch()
            self._pending[hand.actor.run.remote(job.task, job.attempt, job.limit)] = hand

    def _next_job(self, pool: _Pool, hand: _Hand) -> _Job | None:
        # What was begun is finished before more is begun, unless another pool would stand idle for it.
        starving = any(other is not pool and other.queued < len(other.hands) for other in self._active())
        queues = list(pool.queues.values())
        for queue in queues if starving else reversed(queues):
            for job in queue:
                if job.avoid != hand.number or len(pool.hands) == 1:
                    queue.remove(job)
                    return job
        return None

    def _take(self, ref: Any) -> Outcome | None:
        hand = self._pending.pop(ref)
        job = hand.job
        try:
            answer = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            return self._lost(hand, error)
        if job is None:
            hand.host, hand.node = answer
            return None
        hand.job, hand.since = None, Stopwatch()
        if hand.leaves:
            self._dismiss(hand)
        if isinstance(answer, VisavisError):
            raise answer
        return self._judge(job, answer, hand)

    def _judge(self, job: _Job, outcome: Outcome, hand: _Hand) -> Outcome | None:
        """The outcome, or none if the task gets another try on another worker."""
        if outcome.status != "failed" or job.attempt >= self._config.attempts:
            return outcome
        if outcome.reason in FAULTS:
            what = f"{job.task.stage} {job.task.item}"
            _LOG.warning(f"{what}: {outcome.reason} on {hand.host} ({outcome.detail}); tried once more")
        job.attempt += 1
        job.avoid = hand.number
        self._pool_of[job.task.stage].queues[job.task.stage].appendleft(job)
        return None

    def _lost(self, hand: _Hand, error: Exception) -> Outcome | None:
        """A worker is gone together with its supervisor."""
        job, said = hand.job, str(error)
        self._dismiss(hand)
        if job is None:
            if "The actor died because of an error raised in its creation task" in said:
                raise RunFailed(f"workers cannot start on the cluster: {_last_line(said)}")
            return None  # its machine went away before it had anything to do
        if hand.hung:
            reason, detail = "TimeLimit", "its machine does not answer"
        elif "memory" in said and "OOM killer" not in said:  # Ray's own watch over a machine's memory
            reason, detail = "OutOfMemory", "Ray stopped the worker because its machine ran low on memory"
        elif job.lost < _LOST_LIMIT:
            # Most likely with its machine, though Ray may take half a minute to notice: not one of the item's tries.
            job.lost += 1
            self._pool_of[job.task.stage].queues[job.task.stage].appendleft(job)
            return None
        else:
            were = f"{counted(job.lost + 1, 'machine')} {'were' if job.lost else 'was'}"
            reason, detail = "NodeLost", f"{were} lost while they worked on it"
        seconds = hand.since.seconds()
        outcome = outcome_of(job.task, "failed", reason, detail, seconds=seconds, peak_mb=0.0, attempt=job.attempt)
        return self._judge(job, outcome, hand)

    def _check_hung(self) -> None:
        """Supervisors keep the limits; this is for one that cannot, on a machine that hangs."""
        for pool in self._pools:
            for hand in pool.hands:
                if hand.job and hand.since.seconds() > hand.job.limit * 1.5 + self._config.setup_seconds + _GRACE:
                    hand.hung = True
                    self._ray.kill(hand.actor)  # its call ends with an error, and `_lost` takes it from there

    def _silent(self) -> list[_Hand]:
        """Supervisors at work that do not answer when they are called."""
        busy = [hand for pool in self._pools for hand in pool.hands if hand.job]
        calls = [hand.call for hand in busy if hand.call is not None]
        answered = set(self._ray.wait(calls, num_returns=len(calls), timeout=0)[0]) if calls else set()
        pause = max(_CALL_SECONDS, len(busy) / _CALLS)
        for hand in busy:
            if hand.call in answered:  # also with an error: then its work ends with one, too
                hand.call, hand.heard = None, Stopwatch()
            elif hand.call is None and hand.heard.seconds() > pause:
                hand.call, hand.heard = hand.actor.awake.remote(), Stopwatch()
        return [hand for hand in busy if hand.call is not None and hand.heard.seconds() > _SILENT_SECONDS]

    def _give_up(self, hand: _Hand) -> Outcome | None:
        """A supervisor is suspended, or its machine stands still: as if the machine were lost."""
        assert hand.job is not None
        what, seconds = f"{hand.job.task.stage} {hand.job.task.item}", hand.heard.seconds()
        _LOG.warning(
            f"the worker on {hand.host} has not answered for {seconds:.0f} s (suspended, or its machine hangs):"
            f" another one does {what}"
        )
        return self._lost(hand, TimeoutError("no answer"))

    # How many workers there are

    def _staff(self) -> None:
        """Start and dismiss workers, so that there are as many as there is work and room for."""
        for pool in reversed(self._pools):  # the deepest first: what was begun is finished first
            wanted = min(self._capacity(pool), max(pool.wanted, pool.needs.min_workers))
            while len(pool.hands) < wanted and (self._has_room(pool) or self._make_room(pool)):
                self._start(pool)
            if pool.queued and pool.late(_IDLE_SECONDS):  # the cluster may grow for it, or it may not
                self._make_room(pool)
            for hand in [h for h in pool.hands if h.idle and h.since.seconds() > _RELEASE_SECONDS]:
                if len(pool.hands) > wanted:
                    self._dismiss(hand)
            if wanted and not any(p.hands for p in self._pools):
                have = [{k: v for k, v in m.amounts.items() if k in amounts_of(pool.needs)} for m in self._machines()]
                names = ", ".join(pool.queues)
                raise UsageError(
                    f"no worker for {names} fits: each takes {_told(pool.needs)}, the machines have {have}"
                )

    def _make_room(self, pool: _Pool) -> bool:
        """Take one worker from another pool, at once if it is idle, else when its task ends. True if there is room."""
        now = time.monotonic()
        if now - self._shifted < _SHIFT_SECONDS or any(h.leaves for p in self._pools for h in p.hands):
            return False
        others = [p for p in self._pools if p is not pool and len(p.hands) > p.needs.min_workers]
        idle = [h for p in others for h in p.hands if h.idle and (not p.queued)]
        patient = pool.queued > 2 * pool.placed
        idle = [h for h in idle if h.since.seconds() > _IDLE_SECONDS or patient]
        if idle:
            self._shifted = now
            self._dismiss(max(idle, key=lambda h: h.since.seconds()))
            return self._has_room(pool)
        busy = [h for p in others if len(p.hands) > 1 or not pool.placed for h in p.hands if h.job]
        if busy and patient:
            self._shifted = now
            max(busy, key=lambda h: h.since.seconds()).leaves = True
        return False

    def _start(self, pool: _Pool) -> None:
        needs = pool.needs
        options: dict[str, Any] = {"num_cpus": needs.cpus, "num_gpus": needs.gpus, "scheduling_strategy": "SPREAD"}
        if needs.memory_gb:
            options["memory"] = needs.memory_gb * 1e9
        if needs.labels:
            options["label_selector"] = dict(needs.labels)
        actor = self._remote.options(**options).remote(
            [self._shared], self._root, self._limit_gb(needs), self._config.recycle_items, self._config.setup_seconds
        )
        hand = _Hand(next(self._numbers), actor, pool)
        pool.hands.append(hand)
        self._pending[actor.hello.remote()] = hand

    def _limit_gb(self, needs: StageResources) -> float:
        """What a worker may hold. 0: no limit, as on a cluster of which we do not know what else it does."""
        if needs.memory_gb is not None:
            return needs.memory_gb
        return default_limit(needs.cpus) if is_local(self._config.address) else 0.0

    def _dismiss(self, hand: _Hand) -> None:
        hand.pool.hands.remove(hand)
        self._pending = {ref: other for ref, other in self._pending.items() if other is not hand}
        self._ray.kill(hand.actor)

    def _active(self) -> list[_Pool]:
        """Pools that take part now; those of stages that are not due yet have no workers."""
        return [pool for pool in self._pools if pool.hands or pool.queued] or self._pools[:1]

    def _capacity(self, pool: _Pool) -> int:
        """How many workers a pool may have."""
        if pool.needs.max_workers:
            return pool.needs.max_workers
        return max(
            1, sum(times(pool.needs, machine.amounts) for machine in self._machines() if machine.suits(pool.needs))
        )

    def _has_room(self, pool: _Pool) -> bool:
        """Whether some machine has room for one more; if a number is asked for, the cluster may grow to make some."""
        if pool.needs.max_workers:
            return True
        free = {machine.node: dict(machine.amounts) for machine in self._machines()}
        waiting = []
        for hand in (hand for p in self._pools for hand in p.hands):
            if hand.node in free:
                take(hand.pool.needs, free[hand.node])
            elif not hand.host:
                waiting.append(hand.pool.needs)
        for needs in [*waiting, pool.needs]:  # those that are not placed yet will be, somewhere
            suiting = (free[m.node] for m in self._machines() if m.suits(needs))
            place = next((left for left in suiting if times(needs, left)), None)
            if place is None:
                return False
            take(needs, place)
        return True

    def _machines(self) -> list[Machine]:
        when, machines = self._known_machines
        if time.monotonic() - when > 5.0:
            machines = [Machine(n["NodeID"], n["Resources"], n["Labels"]) for n in self._ray.nodes() if n["Alive"]]
            self._known_machines = (time.monotonic(), machines)
        return machines


def _pools(config: RunConfig, stages: Stages) -> dict[str, _Pool]:
    """Each stage's pool."""
    by_needs: dict[str, _Pool] = {}
    pools = {}
    for name, stage in stages.items():
        needs = config.resources.get(name) or _default_needs(stage)
        shape = needs.model_dump_json(exclude={"limit_seconds", "limit_factor"})
        pool = by_needs.setdefault(shape, _Pool(needs, {}))
        pool.queues[name] = deque()
        pools[name] = pool
    return pools


def _default_needs(stage: AnyStage) -> StageResources:
    needs = stage.resources
    return StageResources(cpus=needs.cpus, gpus=needs.gpus, memory_gb=needs.memory_gb)


def _told(needs: StageResources) -> str:
    labels = [f"{name}={value}" for name, value in needs.labels.items()]
    amounts = {"CPU": needs.cpus, "GPU": needs.gpus, "GB": needs.memory_gb}
    return ", ".join([*(f"{amount:g} {name}" for name, amount in amounts.items() if amount), *labels])


def _last_line(text: str) -> str:
    """Ray's messages end with the cause."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"
