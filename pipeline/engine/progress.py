"""Progress of a run: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shlex
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from visavis.pipeline.engine import metrics
from visavis.pipeline.engine.terminal import Terminal
from visavis.schemas.secrets import safe
from visavis.schemas.words import duration

if TYPE_CHECKING:  # a bar of a training needs nothing of a build
    from visavis.pipeline.engine.executor import InFlight
    from visavis.pipeline.state.ledger import Outcome

_LINE_SECONDS = 10.0
"""Between two lines of a training run where there is no terminal to draw a bar on."""
_NAME = 13  # characters of the longest name of a stage or phase


class PhaseProgress:
    """Follows the workflows of one phase (usually conversations) and the tasks of all stages on the way."""

    def __init__(self, reporter: Reporter, show: Callable[[], Progress | None], name: str, total: int) -> None:
        """show: puts bars on the terminal, if it is one; called when there is something to do for the first time."""
        self.before = 0  # workflows on which nothing had to be done
        self._reporter, self._show = reporter, show
        self._name, self._total = name, total
        self._began = self._beaten = time.monotonic()
        self._finished = 0
        self._expected: Counter[str] = Counter()
        self._skipped: Counter[str] = Counter()
        self._counts: dict[str, Counter[str]] = {}
        self._worked: defaultdict[str, float] = defaultdict(float)  # seconds
        self._bar: Progress | None = None
        self._whole: TaskID | None = None
        self._rows: dict[str, TaskID] = {}

    def expect(self, stage: str) -> None:
        """A task of a stage is to be done."""
        if not self._expected and (bar := self._show()):
            self._bar = bar
            self._whole = bar.add_task(f"{self._name:<{_NAME}}", total=self._total, note="", completed=self._finished)
        self._expected[stage] += 1
        if not self._bar or stage == self._name:  # a phase of this stage alone: the same bar
            return
        if stage not in self._rows:
            self._rows[stage] = self._bar.add_task(f"  {stage:<{_NAME - 2}}", total=0, note="")
        self._bar.update(self._rows[stage], total=self._expected[stage])

    def skip(self, stage: str) -> None:
        """A task of a stage needs nothing."""
        self._skipped[stage] += 1

    def advance(self, outcome: Outcome) -> None:
        """A task came to its end."""
        counts = self._counts.setdefault(outcome.stage, Counter())
        counts[outcome.status] += 1
        metrics.ended(outcome.stage, outcome.status)
        self._worked[outcome.stage] += outcome.seconds
        if self._bar and outcome.stage in self._rows:
            self._bar.update(self._rows[outcome.stage], advance=1, note=describe(counts))

    def finish(self, *, fresh: bool) -> None:
        """A workflow came to its end; not fresh: nothing had to be done on it."""
        self._finished += 1
        self.before += not fresh
        if self._bar and self._whole is not None:
            self._bar.update(self._whole, completed=self._finished, note=f"{self.before} cached" if self.before else "")

    def beat(self, at_work: Sequence[InFlight], waiting: str, seconds: float) -> None:
        """A line every so many seconds: how far it is, and which items have been at work for longest."""
        self._reporter.announce()
        metrics.at_work((f.task.stage for f in at_work), self._expected)
        metrics.reached(self._name, self._finished, self._total)
        if time.monotonic() - self._beaten < seconds:
            return
        self._beaten = time.monotonic()
        slowest = ", ".join(f"{f.task.stage} {f.task.item} {duration(f.seconds)} on {f.host}" for f in at_work[:3])
        counts = "; ".join(f"{stage} {describe(c)}" for stage, c in self._counts.items())
        left = time_left(self._finished, self.before, self._total, self._beaten - self._began)
        self._reporter.line(
            f"{self._name:<{_NAME}} {self._finished}/{self._total} after {duration(self._beaten - self._began)}"
            f"{'' if left is None else f', about {duration(left)} left'}{counts and '; ' + counts}"
            f"; {len(at_work)} at work{slowest and ': ' + slowest}{waiting and '; ' + waiting}"
        )

    def settle(self) -> None:
        """The phase is over, however it ended: nobody is at work, and this is how far it came."""
        metrics.at_work((), self._expected)
        metrics.reached(self._name, self._finished, self._total)

    def summary(self) -> Iterator[str]:
        """A line for each stage with what its items took, in all workers together; and how long the phase took."""
        took = duration(time.monotonic() - self._began)
        for stage in dict.fromkeys([*self._skipped, *self._expected]):
            counts, skipped = self._counts.get(stage), self._skipped[stage]
            if counts is None:
                yield f"{stage:<{_NAME}} {skipped} cached"
                continue
            before = f", {skipped} cached" if skipped else ""
            alone = f", done in {took}" if stage == self._name else ""
            yield f"{stage:<{_NAME}} {describe(counts)}{before}  {duration(self._worked[stage])} of work{alone}"
        if self._name not in self._expected and self._counts:
            yield f"{self._name:<{_NAME}} {self._finished} done in {took}"


def time_left(finished: int, before: int, total: int, seconds: float) -> float | None:
    """Seconds that a phase still takes if it goes on as it did; workflows that needed nothing do not count."""
    fresh = finished - before
    return (total - finished) * seconds / fresh if fresh > 0 else None


def command(*words: str) -> str:
    """A command as people would type it."""
    return shlex.join(["visavis", *words])


class Reporter:
    """Where a run tells a person how it goes."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Terminal(stderr=True)
        self._began = time.monotonic()
        self._announced = False

    def announce(self) -> None:
        """Say once where a cluster's dashboard is, if there is one."""
        if not self._announced and (url := metrics.dashboard()):
            self._announced = True
            self.line(f"Ray's dashboard is at {url}")

    def line(self, text: str) -> None:
        self.console.print(safe(text), highlight=False, markup=False, emoji=False, soft_wrap=True)

    def before(self, name: str, count: int) -> None:
        """So many things were there already."""
        self.line(f"{name:<{_NAME}} {count} cached")

    def end(self, text: str, *words: str, advice: str = "") -> None:
        """The last line of a command: what came of it, how long it took, and the command, or advice, that comes next.

        The time is that since the reporter was made, which is the first thing that a command does.
        """
        after = f"next: {command(*words)}" if words else advice
        self.line(f"{text}, in {duration(time.monotonic() - self._began)}{after and '; ' + after}")

    @contextmanager
    def phase(self, name: str, total: int) -> Iterator[PhaseProgress]:
        """Follow the workflows of a phase."""
        with ExitStack() as stack:
            shown = PhaseProgress(self, lambda: stack.enter_context(self._bar()), name, total)
            stack.callback(shown.settle)
            yield shown
        for line in shown.summary():
            self.line(line)

    @contextmanager
    def items(self, name: str, total: int) -> Iterator[Callable[[], None]]:
        """Follow `total` things that all end well: gives the function to call after each."""
        started = time.monotonic()
        with self._bar() as bar:
            task = bar.add_task(f"{name:<{_NAME}}", total=total, note="") if bar else None

            def advance() -> None:
                if bar and task is not None:
                    bar.update(task, advance=1)

            yield advance
        self.line(f"{name:<{_NAME}} {total} done in {duration(time.monotonic() - started)}")

    @contextmanager
    def training(self, name: str, total: int | None = None) -> Iterator[Callable[[int, int, dict[str, float]], None]]:
        """Follow a training run: gives the function that `training.train` calls after every step.

        total: steps, where they are known before the first one is done.
        """
        started = time.monotonic()
        with self._bar() as bar:
            task = bar.add_task(f"{name:<{_NAME}}", total=total, note="starting") if bar else None
            said = 0.0

            def advance(step: int, steps: int, latest: dict[str, float]) -> None:
                nonlocal said
                note = f"loss {latest['loss']:.3f}, {latest['samples_s']:.0f} samples/s" if latest else ""
                left = f", about {duration(latest['eta_s'])} left" if latest and step < steps else ""
                if bar and task is not None:
                    bar.update(task, completed=step, total=steps, note=note)
                elif time.monotonic() - said > _LINE_SECONDS or step == steps:
                    said = time.monotonic()
                    took = duration(time.monotonic() - started)
                    self.line(f"{name:<{_NAME}} step {step}/{steps}  {note}{left}  after {took}")

            yield advance
        if bar:
            self.line(f"{name:<{_NAME}} done in {duration(time.monotonic() - started)}")

    @contextmanager
    def _bar(self) -> Iterator[Progress | None]:
        if not self.console.is_terminal:
            yield None
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(
            *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self.console, transient=True
        ) as bar:
            yield bar


def describe(counts: Counter[str]) -> str:
    """`12 ok, 1 rejected`."""
    return ", ".join(f"{counts[s]} {s}" for s in ("ok", "rejected", "failed") if counts[s]) or "0"
