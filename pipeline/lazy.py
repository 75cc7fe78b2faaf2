"""A crew that is called together when there is something to do: a run that finds everything done starts nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from pipeline.crew import Crew, Engine, InFlight
from pipeline.ledger import Outcome
from pipeline.task import Stages, Task


class _WhenNeeded:
    """Opens the crew at the first task."""

    def __init__(self, open_crew: Callable[[], Crew]) -> None:
        self._open = open_crew
        self._crew: Crew | None = None

    def submit(self, task: Task) -> None:
        if self._crew is None:
            self._crew = self._open()
        self._crew.submit(task)

    def hungry(self) -> bool:
        return self._crew is None or self._crew.hungry()

    def wait(self, seconds: float = 1.0) -> list[Outcome]:
        return self._crew.wait(seconds) if self._crew else []

    def in_flight(self) -> list[InFlight]:
        return self._crew.in_flight() if self._crew else []

    def waiting(self) -> str:
        return self._crew.waiting() if self._crew else ""


@contextmanager
def when_needed(engine: Engine, stages: Stages, root: str, begin: Callable[[], None]) -> Iterator[Crew]:
    """An engine's crew, opened with the first task that is submitted, if there is any.

    Args:
        begin: called once the crew is there, before its first task.

    Raises:
        UsageError: at the first task, if there is no crew.
    """
    with ExitStack() as stack:

        def open_crew() -> Crew:
            crew = stack.enter_context(engine(stages, root))
            begin()
            return crew

        yield _WhenNeeded(open_crew)
