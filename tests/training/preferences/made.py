"""Batches of pairs, and offsets without a model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from tests.training.synthetic import DIM, as_pair, sample
from tests.training.test_causality import inputs
from visavis.schemas.pairs import PairRecord
from visavis.training.flow import Noise
from visavis.training.loader import Batch
from visavis.training.preferences.pairs import Compared, sizes


def pairs_of(frames: int) -> Batch:
    """Two pairs whose motion is noise."""
    x = inputs(frames)
    return Batch(
        keys=("a", "b"),
        avatar_motion=x["user_motion"],
        user_motion=x["user_motion"],
        avatar_audio=x["avatar_audio"],
        user_audio=x["user_audio"],
        state=torch.zeros(2, frames, dtype=torch.uint8),
        valid=torch.ones(2, frames, 2, dtype=torch.bool),
        reference=x["reference"],
        chosen=x["user_motion"],
        rejected=x["noisy_motion"],
        records=(record(0.3), record(-0.1)),
    )


def record(margin: float, **changes: Any) -> PairRecord:
    found = as_pair(sample(0, frames=4)).pair
    assert found is not None
    return found.model_copy(update={"reactivity_margin": margin, **changes})


def compared(frames: int = 11, *, seed: int = 0, scale: float = 1.0, **changes: Any) -> Compared:
    """Two pairs with random offsets, float64; the policy's can be differentiated. Some frames are not compared."""
    generator = torch.Generator().manual_seed(seed)
    offsets = scale * torch.randn(4, 2, frames, DIM, generator=generator, dtype=torch.float64)
    policy = (offsets[0].requires_grad_(), offsets[1].requires_grad_())
    reference = (offsets[2], offsets[3])
    level = torch.rand(2, frames, generator=generator, dtype=torch.float64)
    noise = Noise(torch.zeros(2, frames, DIM, dtype=torch.float64), level)
    valid = torch.ones(2, frames, dtype=torch.bool)
    valid[1, 2:5] = False
    made = Compared(
        pairs=pairs_of(frames),
        noise=(noise, noise),
        valid=valid,
        policy=sizes(policy, "l1"),
        reference=sizes(reference, "l1"),
        policy_offsets=policy,
        reference_offsets=reference,
        groups={"all": tuple(range(DIM))},
    )
    return replace(made, **changes)
