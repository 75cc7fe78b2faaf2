"""metrics.jsonl: one JSON object a line, flushed as it is written, readable while a run is under way.

Sums stay on the device until a line is due, so logging does not make a GPU wait at every step.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
from torch import Tensor

QUARTILES = 4


class MetricsLog:
    """Means over the steps since the last line, by name; losses also by quartile of the noise level."""

    def __init__(self, path: Path, step: int) -> None:
        """Lines of steps after `step` (of a run that was cut off after its last checkpoint) are dropped."""
        self.path = path
        self.latest: dict[str, float] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text(encoding="utf-8").splitlines() if step and path.exists() else []
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self._reset()

    def _reset(self) -> None:
        self.waited = 0.0  # seconds without a batch
        self._started = time.perf_counter()
        self._samples = 0
        self._steps = 0
        self._sums: dict[str, Tensor] = {}
        self._error: Tensor | None = None
        self._count: Tensor | None = None

    def add(self, values: dict[str, Tensor], t_BT: Tensor, error_BT: Tensor, valid_BT: Tensor) -> None:
        """Take in one step: scalars, and the error of each frame with its noise level."""
        self._steps += 1
        self._samples += len(t_BT)
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value.detach()
        quartile = (t_BT * QUARTILES).long().clamp(max=QUARTILES - 1)[valid_BT]
        error = torch.bincount(quartile, weights=error_BT[valid_BT].double(), minlength=QUARTILES)
        count = torch.bincount(quartile, minlength=QUARTILES)
        self._error = error if self._error is None else self._error + error
        self._count = count if self._count is None else self._count + count

    def write(self, step: int, **extra: float) -> None:
        """One line: means since the last one."""
        line: dict[str, float] = {"step": step}
        line |= {name: value.item() / self._steps for name, value in self._sums.items()}
        if self._error is not None and self._count is not None:
            by_quartile = (self._error / self._count.clamp(min=1)).tolist()
            line |= {f"loss_t{i + 1}of{QUARTILES}": value for i, value in enumerate(by_quartile)}
        seconds = time.perf_counter() - self._started
        line |= {"samples_s": self._samples / seconds, "data_wait_share": self.waited / seconds, **extra}
        self.latest = line
        self.write_line(line)
        self._reset()

    def write_line(self, line: dict[str, float]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
