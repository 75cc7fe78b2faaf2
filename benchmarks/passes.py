"""How many frames go through the denoiser: the currency in which ways to tune can be compared.

A step with pairs costs several times a step without: both sides go through the policy and through the frozen model, and
the model's own motion had to be sampled first. What is counted is counted as it happens, not worked out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch

from visavis.training.model import Listener
from visavis.training.objective import Objective


@dataclass
class Passes:
    """Frames that went through: with a backward pass, and without."""

    learning: int = 0
    frozen: int = 0


@contextmanager
def counted(*, steps_only: bool) -> Iterator[Passes]:
    """Count in this process. steps_only: what happens inside training steps, so no validation."""
    passes, inside = Passes(), [not steps_only]
    denoise, forward = Listener.denoise, Objective.forward

    def counting(self: Listener, x_BTD: torch.Tensor, *args: Any) -> Any:
        frames = x_BTD.shape[0] * x_BTD.shape[1]
        if inside[0] and torch.is_grad_enabled():
            passes.learning += frames
        elif inside[0]:
            passes.frozen += frames
        return denoise(self, x_BTD, *args)

    def step(self: Objective, *args: Any, **named: Any) -> Any:
        inside[0] = True
        try:
            return forward(self, *args, **named)
        finally:
            inside[0] = not steps_only

    with patch.object(Listener, "denoise", counting), patch.object(Objective, "forward", step):
        yield passes
