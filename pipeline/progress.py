"""Progress of a run: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pipeline.ledger import Outcome

_LINE_SECONDS = 10.0
"""Between two lines of a training run where there is no terminal to draw a bar on."""


class StageProgress:
    """Counts the outcomes of one stage and shows them."""

    def __init__(self, bar: Progress | None, name: str, total: int) -> None:
        self._bar = bar
        self._task = bar.add_task(name, total=total, note="") if bar else None
        self.counts: Counter[str] = Counter()

    def advance(self, outcome: Outcome) -> None:
        self.counts[outcome.status] += 1
        if self._bar and self._task is not None:
            self._bar.update(self._task, advance=1, note=describe(self.counts))


class Reporter:
    """Where a run tells a person how it goes."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)

    def line(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

    @contextmanager
    def stage(self, name: str, done: int, total: int) -> Iterator[StageProgress]:
        """Follow `total` tasks of a stage, of which `done` more need nothing."""
        if total == 0:
            self.line(f"{name:<10} {done} done before")
            yield StageProgress(None, name, 0)
            return
        started = time.monotonic()
        with self._bar() as bar:
            shown = StageProgress(bar, f"{name:<10}", total)
            yield shown
        before = f", {done} done before" if done else ""
        self.line(f"{name:<10} {describe(shown.counts)}{before}  {time.monotonic() - started:.1f} s")

    @contextmanager
    def items(self, name: str, total: int) -> Iterator[Callable[[], None]]:
        """Follow `total` things that all end well: gives the function to call after each."""
        started = time.monotonic()
        with self._bar() as bar:
            task = bar.add_task(f"{name:<10}", total=total, note="") if bar else None

            def advance() -> None:
                if bar and task is not None:
                    bar.update(task, advance=1)

            yield advance
        self.line(f"{name:<10} {total} done  {time.monotonic() - started:.1f} s")

    @contextmanager
    def training(self, name: str) -> Iterator[Callable[[int, int, dict[str, float]], None]]:
        """Follow a training run: gives the function that `training.train` calls after every step."""
        started = time.monotonic()
        with self._bar() as bar:
            task = bar.add_task(f"{name:<10}", total=None, note="") if bar else None
            said = 0.0

            def advance(step: int, steps: int, latest: dict[str, float]) -> None:
                nonlocal said
                note = f"loss {latest['loss']:.3f}, {latest['samples_s']:.0f} samples/s" if latest else ""
                if bar and task is not None:
                    bar.update(task, completed=step, total=steps, note=note)
                elif time.monotonic() - said > _LINE_SECONDS or step == steps:
                    said = time.monotonic()
                    self.line(f"{name:<10} step {step}/{steps}  {note}  {time.monotonic() - started:.0f} s")

            yield advance
        if bar:
            self.line(f"{name:<10} done in {time.monotonic() - started:.0f} s")

    @contextmanager
    def _bar(self) -> Iterator[Progress | None]:
        if not self.console.is_terminal:
            yield None
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(
            *columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self.console, transient=True
        ) as bar:
            yield bar


def describe(counts: Counter[str]) -> str:
    """`12 ok, 1 rejected`."""
    return ", ".join(f"{counts[s]} {s}" for s in ("ok", "rejected", "failed") if counts[s]) or "0"
