"""Steps whose loss or gradients are not finite: they change no weights, and end the run.

A GPU works behind the host, so what it found in a step is asked for when the next one is under way, or when it is
written down, whichever comes first.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from visavis.schemas.errors import RunFailed
from visavis.training.checkpoint import CHECKPOINT_NAME
from visavis.training.inputs import Run
from visavis.training.objective import Losses, Part

_SUSPECTS = 8
"""Samples that are named when a loss is not finite."""


@dataclass(frozen=True)
class Taken:
    """A step that was taken, and what tells whether its numbers were finite. Scalars are on the device."""

    step: int
    parts: list[Part]
    losses: list[Losses]
    loss: Tensor
    norm: Tensor

    @cached_property
    def broken(self) -> Tensor:
        """float32, 1 or 0, as a fused optimizer wants it."""
        return (~(torch.isfinite(self.loss) & torch.isfinite(self.norm))).float()


def check(run: Run, taken: Taken | None, saved: int, out: Path, *, asked: bool = False) -> bool:
    """Whether somebody asked to stop, in any process.

    Raises:
        RunFailed: in all processes, where a step's loss or gradients are not finite in one.
    """
    broken, stopping = run.group.total([taken is not None and bool(taken.broken), asked])
    if broken and taken is not None:
        raise RunFailed(_what_broke(run, taken, saved, out))
    return bool(stopping)


def _what_broke(run: Run, taken: Taken, saved: int, out: Path) -> str:
    """A sentence that is the same in all processes: the samples whose own error is not finite, or all of the step."""
    broken = [
        key
        for part, each in zip(taken.parts, taken.losses, strict=True)
        for key, error_T in zip(part.windows.keys, each.error_BT, strict=True)
        if not torch.isfinite(error_T).all()
    ]
    everything = [key for part in taken.parts for key in part.keys]
    said = [json.loads(text) for text in run.group.gather(json.dumps([broken, everything, taken.loss.item()]))]
    suspects = [key for each in said for key in each[0]] or [key for each in said for key in each[1]]
    named = ", ".join(suspects[:_SUSPECTS]) + (f" and {len(suspects) - _SUSPECTS} more" if suspects[_SUSPECTS:] else "")
    value = sum(each[2] for each in said) / run.group.size
    left = f"{out / CHECKPOINT_NAME} is of step {saved}" if saved else "no checkpoint was written before it"
    return (
        f"step {taken.step + 1}: loss is {value}, gradient norm {taken.norm.item()}; {left}; "
        f"lower the learning rate, or look at the samples {named}"
    )
