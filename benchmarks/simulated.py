"""A cluster of many machines in one process, in virtual time: `benchmarks.scheduler` drives the scheduler on it."""

from __future__ import annotations

import argparse
import hashlib
import heapq
import itertools
import math
import random
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks.plan import FACTS
from visavis.pipeline.engine.cluster import Machine, amounts_of
from visavis.pipeline.engine.pools import Pool
from visavis.pipeline.engine.ray_workers import CALL, OUTCOME, Answer, code_digests, unpacked
from visavis.pipeline.state.ledger import Outcome
from visavis.pipeline.state.tasks import Task
from visavis.schemas import FPS
from visavis.schemas.config import StageResources
from visavis.schemas.rows import Outline

CORES, MEMORY = 16, 64e9
LENGTHS = (20.0, 90.0, 7200.0)  # shortest, median, longest
SPREAD = 1.2  # of the logarithm
START = (2.0, 6.0)  # seconds
LATENCY = 0.002
WORK = {  # seconds on one core: for itself, and for each second of media
    "ingest": (0.5, 0.002),
    "diarize": (0.5, 0.12),
    "faces": (1.0, 0.75),
    "cast": (0.3, 0.005),
    "bind": (0.5, 0.05),
    "separate": (0.5, 0.05),
}
GPU_FASTER = 8.0
DIES = 1 / 20_000
MACHINE_EVERY, MISSED, BACK = 120.0, 30.0, 300.0
AUTOSCALER = 120.0
FIRST = "00000000.mp4"  # of the list


class Clock:
    """The driver's: its CPU time, the simulation's apart, and what it waited."""

    def __init__(self) -> None:
        self.waited = self.apart = self.charged = 0.0
        self._began = time.process_time()

    def cpu(self) -> float:
        """Seconds that the driver computed."""
        return time.process_time() - self._began - self.apart

    def now(self) -> float:
        return self.cpu() + self.charged + self.waited

    @contextmanager
    def outside(self) -> Iterator[None]:
        """What is done in this block is not the driver's doing."""
        began = time.process_time()
        yield
        self.apart += time.process_time() - began


class Actor:
    """A simulated worker."""

    __slots__ = ("busy", "lost", "machine", "needs", "pending", "placed", "stopped")

    def __init__(self, needs: StageResources) -> None:
        self.needs = needs
        self.machine: Node | None = None
        self.pending: dict[int, Any] = {}  # calls that are not answered: their tags
        self.busy = self.placed = self.lost = self.stopped = False

    @property
    def gpu(self) -> bool:
        return self.needs.gpus > 0


class Node:
    """A simulated machine."""

    def __init__(self, number: int, *, gpu: bool) -> None:
        self.machine = Machine(f"n{number}", {"CPU": CORES, "memory": MEMORY} | ({"GPU": 4.0} if gpu else {}), {})
        self.there = True
        self.empty()

    def empty(self) -> None:
        self.free = dict(self.machine.amounts)
        self.actors: set[Actor] = set()

    def fits(self, amounts: dict[str, float]) -> bool:
        return self.there and all(self.free.get(name, 0.0) >= one - 1e-9 for name, one in amounts.items())


class Simulated:
    """A cluster, as `pipeline.engine.ray_workers.Workers`."""

    def __init__(self, clock: Clock, options: argparse.Namespace) -> None:
        self.clock, self._rng = clock, random.Random(options.seed)
        self._ray, self._hang = options.ray_us * 1e-6, options.hang
        self._nodes = [Node(number, gpu=number < options.gpus) for number in range(options.machines)]
        self._numbers = itertools.count()
        self._events: list[tuple[float, int, Any]] = []
        self._waiting: dict[str, deque[Actor]] = defaultdict(deque)
        self._gaps: dict[str, list[Node]] = {}
        self.asked: list[tuple[float, float]] = []  # (virtual time, driver's CPU)
        self.busy, self.workers = [0, 0], [0, 0]  # without and with a GPU
        self.log: list[tuple[float, list[int], list[int]]] = []  # (time, workers at work, workers)
        self.done: list[tuple[float, float, Task]] = []  # (when it ended, seconds, task)
        self.deaths = self.losses = 0  # workers that died, machines that went
        self.pools: Sequence[Pool] = ()  # the scheduler's
        self.queued = [0.0, 0.0]  # when tasks last waited for such workers
        self.wasted = 0.0  # seconds that workers were idle while tasks waited for such
        self.last_but_first = 0.0  # when the last task was done that is not the first item's
        self.last_begun = 0.0  # when the last conversation was begun
        self.lengths: dict[str, float] = {}
        self._scaling = False
        if options.autoscale:
            for node in self._nodes[options.machines // 10 :]:
                node.there = False
        self._autoscale = options.autoscale
        if options.faults:
            self._after(MACHINE_EVERY, self._lose_machine)

    # what the scheduler calls

    def machines(self) -> list[Machine]:
        with self.clock.outside():
            return [node.machine for node in self._nodes if node.there]

    def start(self, needs: StageResources) -> Actor:
        self.clock.charged += self._ray
        with self.clock.outside():
            self.asked.append((self.clock.now(), self.clock.cpu()))
            actor = Actor(needs)
            self._waiting[needs.model_dump_json()].append(actor)
            self._place()
            return actor

    def call(self, worker: Actor, what: str, *arguments: Any, tag: Any) -> None:
        self.clock.charged += self._ray
        if arguments:
            CALL.dump_json(arguments)
        with self.clock.outside():
            number = next(self._numbers)
            worker.pending[number] = tag
            if what == "awake":
                self._after(LATENCY, lambda: None if worker.lost else self._answer(worker, number, True))
            elif what == "run":
                self._run(worker, number, *arguments)

    def answers(self, seconds: float) -> list[Answer]:
        found = self._come_in(seconds)
        return [Answer(tag, unpacked(value), error) for tag, value, error in found]

    def _come_in(self, seconds: float) -> list[Answer]:
        with self.clock.outside():
            self._found: list[Answer] = []
            began, ends = self.clock.now(), self.clock.now() + seconds
            for pool in self.pools:
                if pool.queued:
                    self.queued[pool.needs.gpus > 0] = began
            idle = sum(min(len(pool.idle), pool.queued) for pool in self.pools)
            while True:
                while self._events and self._events[0][0] <= self.clock.now():
                    heapq.heappop(self._events)[2]()
                if self._found or self.clock.now() >= ends:
                    break
                coming = min(self._events[0][0], ends) if self._events else ends
                self.clock.waited += max(1e-9, coming - self.clock.now())
            self.log.append((self.clock.now(), [*self.busy], [*self.workers]))
            self.wasted += idle * (self.clock.now() - began)
            return self._found

    def stop(self, worker: Actor) -> None:
        with self.clock.outside():
            self._end(worker)
            self._place()

    # what a cluster does

    def _after(self, seconds: float, what: Any) -> None:
        heapq.heappush(self._events, (self.clock.now() + seconds, next(self._numbers), what))

    def _place(self) -> None:
        """Give waiting workers a machine, the first that has room."""
        for shape, queue in self._waiting.items():
            while queue and queue[0].stopped:
                queue.popleft()
            while queue:
                amounts = amounts_of(queue[0].needs)
                gaps = self._gaps.setdefault(shape, list(self._nodes))
                while gaps and not gaps[-1].fits(amounts):
                    gaps.pop()
                if not gaps:
                    break
                if not (actor := queue.popleft()).stopped:
                    self._begin(actor, gaps[-1], amounts)
            if queue and self._autoscale and not self._scaling:
                self._scaling = True
                self._after(AUTOSCALER, self._scale)

    def _begin(self, actor: Actor, node: Node, amounts: dict[str, float]) -> None:
        actor.machine = node
        node.actors.add(actor)
        for name, one in amounts.items():
            node.free[name] -= one
        hello = (node.machine.node, node.machine.node, code_digests())
        self._after(self._rng.uniform(*START), lambda: self._placed(actor, hello))

    def _placed(self, actor: Actor, hello: Any) -> None:
        if not (actor.stopped or actor.lost):
            self.workers[actor.gpu] += 1
            actor.placed = True
            self._answer(actor, min(actor.pending), hello)

    def _answer(self, actor: Actor, number: int, value: Any, error: Exception | None = None) -> None:
        tag = actor.pending.pop(number, None)
        if tag is not None and not actor.stopped:
            self._found.append(Answer(tag, value, error))

    def _run(self, actor: Actor, number: int, task: Task, attempt: int, limit: float) -> None:
        actor.busy = True
        self.busy[actor.gpu] += 1
        own, each = WORK.get(task.stage, (1.0, 0.0))
        media = task.seconds
        if task.stage == "ingest":
            media, self.last_begun = self.length(task), self.clock.now()
        seconds = (own + each * media) * self._rng.lognormvariate(0.0, 0.2) / (GPU_FASTER if actor.needs.gpus else 1.0)
        hangs = self._hang and task.stage == "ingest" and task.item == FIRST
        if self._rng.random() < DIES:
            self._after(self._rng.uniform(0.0, seconds), lambda: self._die(actor))
        elif hangs or seconds > limit:
            made = self._outcome(task, attempt, limit, "failed", "TimeLimit")
            self._after(limit, lambda: self._ended(actor, number, task, made))
        else:
            made = self._outcome(task, attempt, seconds, "ok", "")
            self._after(LATENCY + seconds, lambda: self._ended(actor, number, task, made))

    def _ended(self, actor: Actor, number: int, task: Task, outcome: Outcome) -> None:
        if number in actor.pending and not (actor.stopped or actor.lost):
            actor.busy = False
            self.busy[actor.gpu] -= 1
            self.done.append((self.clock.now(), outcome.seconds, task))
            if outcome.item != FIRST:
                self.last_but_first = self.clock.now()
            self._answer(actor, number, OUTCOME.dump_json(outcome))

    def _outcome(self, task: Task, attempt: int, seconds: float, status: Any, reason: str) -> Outcome:
        facts = FACTS[task.stage](task) if task.stage in FACTS and status == "ok" else ""
        if task.stage == "ingest" and status == "ok":
            facts = self._outline(task)
        output = hashlib.sha256(task.path.encode()).hexdigest()[:16] if status == "ok" else ""
        return Outcome(
            stage=task.stage, key=task.key, item=task.item, status=status, reason=reason, detail="",
            inputs=task.digest(), output=output, facts=facts, media=0.0, seconds=seconds,
            peak_mb=500.0, host="n", attempt=attempt, ended=0.0, fingerprint=task.fingerprint,
        )  # fmt: skip

    def length(self, task: Task) -> float:
        """Seconds of a conversation; the same however often it is asked."""
        shortest, median, longest = LENGTHS
        return min(longest, max(shortest, random.Random(task.key).lognormvariate(math.log(median), SPREAD)))

    def _outline(self, task: Task) -> str:
        frames = int(self.length(task) * FPS)
        return Outline(
            id=hashlib.sha256(task.key.encode()).hexdigest()[:16], identity=task.key, frames=frames,
            keyframes=(tuple(range(500, frames, 500)),), early_keyframes=((),),
        ).model_dump_json()  # fmt: skip

    def _die(self, actor: Actor) -> None:
        """With its supervisor."""
        self.deaths += 1
        pending = dict(actor.pending)
        for number in pending:
            self._answer(actor, number, None, RuntimeError("the worker died"))
        self._end(actor)

    def _end(self, actor: Actor) -> None:
        if actor.stopped:
            return
        actor.stopped = True
        self._gone(actor)
        node = actor.machine
        if node is not None and not actor.lost:
            node.actors.discard(actor)
            for name, one in amounts_of(actor.needs).items():
                node.free[name] += one
            for gaps in self._gaps.values():
                gaps.append(node)

    def _gone(self, actor: Actor) -> None:
        self.busy[actor.gpu] -= actor.busy
        self.workers[actor.gpu] -= actor.placed
        actor.busy = actor.placed = False

    def _lose_machine(self) -> None:
        node = self._rng.choice([n for n in self._nodes if n.there])
        node.there = False
        self.losses += 1
        lost = list(node.actors)
        for actor in lost:
            self._gone(actor)
            actor.lost = True
        self._after(MISSED, lambda: self._miss(lost))
        self._after(BACK, lambda: self._come_back(node))
        self._after(MACHINE_EVERY, self._lose_machine)

    def _miss(self, lost: list[Actor]) -> None:
        for actor in lost:
            if not actor.stopped:
                self._die(actor)

    def _come_back(self, node: Node) -> None:
        node.empty()
        node.there = True
        for gaps in self._gaps.values():
            gaps.append(node)
        self._place()

    def _scale(self) -> None:
        for node in self._nodes:
            if not node.there:
                self._come_back(node)
