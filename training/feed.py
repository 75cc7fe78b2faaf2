"""What a step is taken on: batches of this process' loaders, read ahead, and the share that each has in the step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

from visavis.training.inputs import Run
from visavis.training.loader import Batch, Loader, prefetch
from visavis.training.log import MetricsLog
from visavis.training.objective import Part


class Feed:
    """Parts of steps, and the loaders' positions after the last of them. To be closed."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._loaders: dict[str, Loader] = {"windows": run.loader(run.windows, "windows")}
        if run.pairs is not None:
            self._loaders["pairs"] = run.loader(run.pairs, "pairs")
        self._close = ExitStack()
        for loader in self._loaders.values():
            self._close.callback(loader.close)
        self._ahead = {
            name: self._close.enter_context(closing(prefetch(_pinned(loader) if run.device.type == "cuda" else loader)))
            for name, loader in self._loaders.items()
        }
        self.positions: dict[str, Any] = {}

    @property
    def bad(self) -> int:
        """Windows that could not be read so far."""
        return len(self._loaders["windows"].bad)

    def next(self) -> Part:
        batches = {}
        for name, ahead in self._ahead.items():
            batches[name], self.positions[name] = next(ahead)
        return Part(**batches)

    def next_parts(self, log: MetricsLog) -> tuple[list[Part], list[list[float]]]:
        """The batches of a step, and the share that each has in its frames (see `training.objective`).

        Raises, in all processes, what went wrong in one.
        """
        run, waiting = self._run, time.perf_counter()
        parts: list[Part] = []
        error = None
        try:
            parts = [self.next() for _ in range(run.config.optim.accumulate)]
        except Exception as caught:  # noqa: BLE001 - raised again by `agree`, in all processes
            error = caught
        log.waited += time.perf_counter() - waiting
        counts = [part.counts(run.config.dpo) for part in parts]
        own = [sum(column) for column in zip(*counts, strict=True)] or [0, 0, 0]
        failed, *totals = run.group.total([error is not None, *own])
        if failed:
            run.group.agree(error)
        return parts, [[run.group.size * n / max(t, 1) for n, t in zip(row, totals, strict=True)] for row in counts]

    def close(self) -> None:
        self._close.close()


def _pinned(loader: Loader) -> Iterator[tuple[Batch, dict[str, Any]]]:
    for batch, state in loader:
        yield batch.pinned(), state
