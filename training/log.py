"""metrics.jsonl: one JSON object a line, flushed as it is written, readable while a run is under way.

What is not defined, or not finite, is null.

Sums stay on the device until a line is due, so logging does not make a GPU wait at every step; then they are summed
over the processes, and the first one writes. The same numbers go to TensorBoard's event files, where its package is
installed.
"""

from __future__ import annotations

import json
import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visavis.schemas.extras import install
from visavis.schemas.plain import to_json
from visavis.schemas.storage.faults import about
from visavis.training.process_group import Processes

METRICS_NAME = "metrics.jsonl"
EVENTS_NAME = "tensorboard"
QUARTILES = 4
_GROUPS = {
    "loss": "loss",
    "val": "val",
    "samples": "speed",
    "media": "speed",
    "data": "speed",
    "eta": "speed",
    "gpu": "speed",
}


class MetricsLog:
    """Means over the steps since the last line, by name; losses also by quartile of the noise level."""

    def __init__(self, out: Path, step: int, group: Processes, window_s: float) -> None:
        """Lines of steps after `step` (of a run that was cut off after its last checkpoint) are dropped.

        window_s: seconds of media in a sample.
        """
        self.path = out / METRICS_NAME
        self.latest: dict[str, float] = {}
        self._group, self._device, self._window_s = group, group.device, window_s
        self._events: Any = None  # torch's SummaryWriter has no types
        if group.first:
            out.mkdir(parents=True, exist_ok=True)
            lines = self.path.read_text(encoding="utf-8").splitlines() if step and self.path.exists() else []
            kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
            with about(self.path):
                self.path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
            self._events = _event_writer(out / EVENTS_NAME, step)
        self._reset()

    def _reset(self) -> None:
        self.waited = 0.0  # seconds without a batch
        self._started = time.perf_counter()
        self._samples = 0
        self._steps = 0
        self._sums: dict[str, Tensor] = {}
        self._error = torch.zeros(QUARTILES, dtype=torch.float64, device=self._device)
        self._count = torch.zeros(QUARTILES, dtype=torch.float64, device=self._device)
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def add(self, values: dict[str, Tensor]) -> None:
        """Take in scalars of a step. Those that are parts of a mean over all processes may come in several calls."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value.detach()

    def add_errors(self, t_BT: Tensor, error_BT: Tensor, valid_BT: Tensor) -> None:
        """Take in the error of each frame with its noise level."""
        self._samples += len(t_BT)
        quartile = (t_BT * QUARTILES).long().clamp(max=QUARTILES - 1).flatten()
        valid = valid_BT.flatten().double()
        self._error.index_add_(0, quartile, error_BT.flatten().double() * valid)
        self._count.index_add_(0, quartile, valid)

    def end_step(self) -> None:
        self._steps += 1

    def write(self, step: int, steps: int, *, lr: float, bad_samples: int) -> None:
        """One line: means since the last one, over all processes, which call this together."""
        names, size = list(self._sums), self._group.size
        own = torch.cat([torch.stack([v.double() for v in self._sums.values()]), self._error, self._count]).tolist()
        *totals, samples, bad = self._group.total([*own, self._samples, bad_samples])
        means = [value / (size * self._steps) for value in totals[: len(names)]]
        errors, counts = totals[len(names) : -QUARTILES], totals[-QUARTILES:]
        seconds = time.perf_counter() - self._started
        memory = torch.cuda.max_memory_allocated(self._device) / 1e9 if self._device.type == "cuda" else 0.0
        waited, memory = self._group.largest([self.waited, memory])

        line = {"step": step, **dict(zip(names, means, strict=True))}
        for i in range(QUARTILES):
            line[f"loss_t{i + 1}of{QUARTILES}"] = errors[i] / counts[i] if counts[i] else math.nan
        line |= {
            "samples_s": samples / seconds,
            "media_hours_s": samples * self._window_s / 3600 / seconds,
            "data_wait_share": waited / seconds,
            "eta_s": (steps - step) * seconds / self._steps,
            **({"gpu_peak_gb": memory} if memory else {}),
            "lr": lr,
            "bad_samples": int(bad),
        }
        self.latest = line
        self.write_line(line)
        self._reset()

    def write_line(self, line: dict[str, float]) -> None:
        """Only the first process writes."""
        if not self._group.first:
            return
        with about(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(to_json(line, sort_keys=False) + "\n")
        if self._events is not None:
            for name, value in line.items():
                if name != "step":
                    group = _GROUPS.get(name.split("_")[0], "train")
                    self._events.add_scalar(f"{group}/{name}", value, int(line["step"]))
            self._events.flush()

    def close(self) -> None:
        if self._events is not None:
            self._events.close()


def _event_writer(folder: Path, step: int) -> Any:
    """TensorBoard then forgets what an earlier run wrote of later steps."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logging.getLogger(__name__).warning("no TensorBoard files: %s", install("tensorboard"))
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)
