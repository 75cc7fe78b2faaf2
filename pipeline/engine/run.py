"""A run's folder, and the one way in which stages are carried out in it.

OUT/run.json        the settings, and the fingerprint of every stage
OUT/state.json      how the run stands or ended
OUT/progress.json   what is at work now, while a run is
OUT/artifacts/…     what stages made, one file per item
OUT/ledger/…        what became of every item
OUT/dataset/…       shards and manifest

What happens to one conversation is written as a *workflow*: a generator that yields the tasks it needs next and is sent
what came of them. Many workflows are open at once, so stages overlap wherever items do not wait for each other, while
each workflow still reads from top to bottom.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Generic, Self, TypeVar

from visavis.pipeline.engine.executor import Executor
from visavis.pipeline.engine.failures import Failures
from visavis.pipeline.engine.progress import PhaseProgress, Reporter
from visavis.pipeline.engine.worker import AnyStage, outcome_of
from visavis.pipeline.state.index import ItemIndex
from visavis.pipeline.state.ledger import Ledger, Outcome
from visavis.pipeline.state.lock import Hold
from visavis.pipeline.state.tasks import Artifact, Task
from visavis.schemas.config import RunConfig
from visavis.schemas.errors import Reason
from visavis.schemas.markers import fields_by_digest, shaping
from visavis.schemas.plain import to_json
from visavis.schemas.secrets import without_signatures
from visavis.schemas.section import Section
from visavis.schemas.storage.store import Store

PROGRESS_FILE = "progress.json"
_PROGRESS_SECONDS = 5.0
_SLOWEST = 20  # tasks in flight that progress.json lists
_TURN_SECONDS = 0.25  # in which workflows are begun before outcomes are looked for, and others told how far it is

T = TypeVar("T")


def made_of(done: Mapping[str, Artifact | None]) -> list[Artifact]:
    """What tasks made that ended ok, by key: the same order whichever ended first."""
    return [made for _, made in sorted(done.items()) if made]


Workflow = Generator["Sequence[Task]", "list[Artifact | None]", T]


class Run:
    """Executes stages inside a run's folder, skipping what is done, recording what happens."""

    def __init__(self, root: str, executor: Executor, limits: RunConfig, reporter: Reporter, hold: Hold) -> None:
        self.root = root
        self.store = Store(root)
        self.ledger = Ledger(self.store)
        self.ledger.tidy()
        self.index = ItemIndex(self.ledger, self.store)
        self.reporter = reporter
        self.processed = 0
        self.executor = executor
        self.limits = limits
        self._hold = hold
        self._said = time.monotonic()
        self._phase: _Phase[Any] | None = None

    def follow(
        self, name: str, workflows: Iterable[Workflow[T]], total: int, before: Iterable[Workflow[T]] = ()
    ) -> Iterator[T]:
        """Go many workflows at once, and yield what each returns, in the order in which they end.

        before: workflows of earlier runs, most of which need nothing. They are looked through while workers have enough
        to do, so that no worker waits for that.

        Raises:
            RunFailed: too many failures, in a row or as a share.
        """
        phase = _Phase(self, name, total, iter(workflows), iter(before))
        self._phase = phase
        with self.reporter.phase(name, total) as phase.progress:
            while phase.more or phase.open:
                turn_ends, begun = time.monotonic() + _TURN_SECONDS, True
                while begun and time.monotonic() < turn_ends:
                    begun = phase.begin(has_capacity=phase.more and self.executor.has_capacity())
                    yield from phase.take()
                if phase.open:
                    for outcome in self.executor.wait(0.0 if begun else 1.0):
                        phase.settle(outcome)
                yield from phase.take()
                self._tell(phase)
        self.ledger.flush()
        phase.check_failures()

    def execute(self, name: str, tasks: Iterable[Task], total: int) -> dict[str, Artifact | None]:
        """Carry out independent tasks. Returns what came of them, by key, in the order in which they ended.

        Raises:
            RunFailed: too many failures, in a row or as a share.
        """

        def workflow(task: Task) -> Workflow[tuple[str, Artifact | None]]:
            (made,) = yield [task]
            return task.key, made

        return dict(self.follow(name, (workflow(task) for task in tasks), total))

    @property
    def how_far(self) -> dict[str, Any]:
        """The phase that was begun last, and how many of its workflows have ended; empty before the first."""
        phase = self._phase
        return {"phase": phase.name, "finished": phase.finished, "total": phase.total} if phase else {}

    def pending(self, tasks: Iterable[Task]) -> bool:
        """Whether `execute` would do anything."""
        return any(self.index.settled(task) is None for task in tasks)

    def record(self, outcome: Outcome) -> None:
        """Put an outcome into the ledger."""
        self.ledger.append(outcome)
        self.index.put(outcome)
        self.processed += 1

    def reject(self, task: Task, reason: Reason, detail: str) -> None:
        """Leave out an item that the corpus, not the item alone, makes unusable. Recorded once."""
        known = self.index.get(task.stage, task.key)
        if known and (known.status, known.reason) != ("rejected", reason.value):
            self.record(_decided(task, "rejected", reason.value, detail, known))

    def keep(self, task: Task) -> None:
        """Take an item back in that another corpus made unusable: its twin is no longer listed."""
        known = self.index.get(task.stage, task.key)
        if known and known.status == "rejected":
            self.record(_decided(task, "ok", "", "", known))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with suppress(OSError) if kind else nullcontext():  # of a full disk people are told already
            self.close()

    def close(self) -> None:
        """Commit what is known, whatever happened."""
        self.ledger.flush()
        self.store.delete(PROGRESS_FILE)
        self.store.sweep()  # what workers that died had begun to write, in this run or before

    def _tell(self, phase: _Phase[T]) -> None:
        """A heartbeat for people, and progress.json for `visavis status`."""
        now = time.monotonic()
        if now - self._said < _PROGRESS_SECONDS:
            return
        self._said = now
        self._hold.check()
        at_work = sorted(self.executor.in_flight(), key=lambda f: -f.seconds)
        phase.progress.beat(at_work, self.executor.waiting(), self.limits.heartbeat)
        progress = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "run": self.ledger.run,
            "phase": phase.name,
            "total": phase.total,
            "finished": phase.finished,
            "new": phase.finished - phase.progress.before,
            "seconds": round(now - phase.began, 1),
            "updated": round(time.time(), 1),
            "working": len(at_work),
            "waiting": self.executor.waiting(),
            "in_flight": [
                {
                    "stage": f.task.stage,
                    "item": f.task.item,
                    "key": f.task.key,
                    "host": f.host,
                    "seconds": round(f.seconds, 1),
                    "attempt": f.attempt,
                }
                for f in at_work[:_SLOWEST]
            ],
        }
        self.store.write(PROGRESS_FILE, to_json(progress, sort_keys=False).encode())


@dataclass
class _Open(Generic[T]):
    """A workflow on which somebody is."""

    workflow: Workflow[T]
    answers: list[Artifact | None] = field(default_factory=list)
    missing: int = 0
    fresh: bool = False  # something had to be done


class _Phase(Generic[T]):
    """The workflows of one `Run.follow`."""

    def __init__(
        self, run: Run, name: str, total: int, workflows: Iterator[Workflow[T]], before: Iterator[Workflow[T]]
    ) -> None:
        self.name, self.total = name, total
        self.open = self.finished = 0
        self.more = True  # workflows are left
        self.began = time.monotonic()
        self.progress: PhaseProgress
        self._run = run
        self._waiting: dict[tuple[str, str], list[tuple[_Open[T], int, Task]]] = {}  # the first asked for it
        self._ended: deque[T] = deque()
        self._failures = Failures(run.limits)
        self._workflows, self._before = workflows, before
        self._at_once = True  # the last workflow of an earlier run needed nothing

    def begin(self, *, has_capacity: bool) -> bool:
        """Begin the next workflow; False if none is due. has_capacity: workers want work."""
        if not has_capacity and not self._at_once:
            return False
        order = (self._workflows, self._before) if has_capacity and self._at_once else (self._before, self._workflows)
        for source in order if has_capacity else order[:1]:
            workflow, stays = next(source, None), self.open
            if workflow is not None:
                self.open += 1
                self._step(_Open(workflow), first=True)
            if source is self._before:
                self._at_once = workflow is not None and self.open == stays
            if workflow is not None:
                return True
        self.more &= not has_capacity
        return False

    def take(self) -> Iterator[T]:
        """What the workflows returned that ended since."""
        while self._ended:
            yield self._ended.popleft()

    def settle(self, outcome: Outcome) -> None:
        """Record an outcome and go on with the workflow that waits for it, and with others that wait for the same."""
        (entry, slot, task), *others = self._waiting.pop((outcome.stage, outcome.key))
        self._run.record(outcome)
        self.progress.advance(outcome)
        self._failures.add(outcome, self.total)
        entry.fresh = True
        if outcome.status == "ok":
            entry.answers[slot] = outcome.artifact(task.path)
        self._arrived(entry)
        for other, place, same in others:  # the same item, from other inputs perhaps: then it is done again
            if self._answered(other, place, same):
                self._arrived(other)

    def _arrived(self, entry: _Open[T]) -> None:
        entry.missing -= 1
        if not entry.missing:
            self._step(entry)

    def check_failures(self) -> None:
        self._failures.check()

    def _step(self, entry: _Open[T], *, first: bool = False) -> None:
        """Go on until something has to be waited for."""
        while True:
            try:
                wanted = next(entry.workflow) if first else entry.workflow.send(entry.answers)
            except StopIteration as end:
                self._end(entry, end.value)
                return
            first = False
            entry.answers = [None] * len(wanted)
            entry.missing = sum(not self._answered(entry, slot, task) for slot, task in enumerate(wanted))
            if entry.missing:
                return

    def _answered(self, entry: _Open[T], slot: int, task: Task) -> bool:
        if (others := self._waiting.get((task.stage, task.key))) is not None:
            others.append((entry, slot, task))
            return False
        known = self._run.index.settled(task)
        if known is None:
            self._waiting[task.stage, task.key] = [(entry, slot, task)]
            self._run.executor.submit(task)
            self.progress.expect(task.stage)
            return False
        entry.answers[slot] = known.artifact(task.path)
        self.progress.skip(task.stage)
        return True

    def _end(self, entry: _Open[T], result: T) -> None:
        self.open -= 1
        self.finished += 1
        self._ended.append(result)
        self.progress.finish(fresh=entry.fresh)


def known_steps(workflow: Workflow[T], index: ItemIndex) -> Generator[tuple[Task, Outcome | None], None, T | None]:
    """Go a workflow as far as is known, without doing anything: yields its tasks and what is known of them.

    Returns:
        What the workflow returns, or None if it cannot be gone to its end yet.
    """
    try:
        wanted = next(workflow)
        while True:
            outcomes = [index.settled(task) for task in wanted]
            yield from zip(wanted, outcomes, strict=True)
            if None in outcomes:
                return None
            wanted = workflow.send([o.artifact(task.path) for task, o in zip(wanted, outcomes, strict=True) if o])
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        workflow.close()


def next_stage(workflow: Workflow[Any], index: ItemIndex) -> str:
    """The stage that somebody on this workflow waits for; empty if nothing is left to do on it."""
    return next((task.stage for task, outcome in known_steps(workflow, index) if outcome is None), "")


def _decided(task: Task, status: Any, reason: str, detail: str, known: Outcome) -> Outcome:
    """An outcome that the driver decides, without work, of an item whose artifact stands as it is."""
    made = {"output": known.output, "facts": known.facts}
    outcome = outcome_of(task, status, reason, detail, **made, seconds=0.0, peak_mb=0.0, attempt=1)
    return outcome._replace(inputs=known.inputs)


def as_long_as(holds: Callable[[], bool], workflow: Workflow[T]) -> Workflow[T | None]:
    """A workflow that is left at its next step, with None, once something no longer holds."""
    try:
        answers = yield next(workflow)
        while holds():
            answers = yield workflow.send(answers)
        workflow.close()
        return None
    except StopIteration as end:
        value: T = end.value
        return value


def fingerprint(
    stage: type[AnyStage],
    config: Section | Mapping[str, Section],
    *upstream: str,
    digests: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Digest of everything but the item that shapes a stage's output.

    digests: of what lies where the settings say (`ByDigest`), by field.
    """
    places = fields_by_digest(type(config)) if isinstance(config, Section) else digests
    plain = {
        "stage": stage.name,
        "version": stage.version,
        # Nor does it matter who asks for a file.
        "config": without_signatures(shaping(config) | {name: digests.get(name) for name in places}),
        "upstream": sorted(upstream),
    }
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]
