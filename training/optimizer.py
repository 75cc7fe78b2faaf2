"""The optimizer of a run: Adam, its learning rate step by step, and the average of the weights that it leaves."""

from __future__ import annotations

import math

import torch

from visavis.training.inputs import Run
from visavis.training.model import Listener


def adam(run: Run) -> torch.optim.Adam:
    """Adam over the model's weights, with the moments that the run left off with."""
    optim = run.config.optim
    optimizer = torch.optim.Adam(run.model.parameters(), lr=optim.lr, betas=optim.betas, fused=True)
    if run.resumed is not None:
        optimizer.load_state_dict(run.resumed.optimizer)
    return optimizer


def learning_rate(step: int, steps: int, peak: float, warmup: int, schedule: str) -> float:
    """Linear warm-up, then constant, or a half cosine to zero."""
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def set_learning_rate(optimizer: torch.optim.Optimizer, run: Run, step: int) -> None:
    """That of the first stage, of preference tuning where there are pairs, or of a student's distillation."""
    optim, dpo, distill = run.config.optim, run.config.dpo, run.config.distill
    peak, warmup = (optim.lr, optim.warmup) if run.pairs is None else (dpo.lr, dpo.warmup)
    if distill.evaluations:
        peak, warmup = distill.lr, distill.warmup
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, run.steps, peak, warmup, optim.schedule)


@torch.no_grad()
def update_average(average: Listener, model: Listener, decay: float, step: int) -> None:
    """Exponential moving average of the weights; early steps count more, so a short run has one too."""
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
