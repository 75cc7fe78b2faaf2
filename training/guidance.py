"""Classifier-free guidance: which branches are evaluated, and how their velocities are summed."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from visavis.schemas.errors import UsageError
from visavis.schemas.train import Drop, SamplerConfig
from visavis.schemas.words import counted
from visavis.training.model import Keep

Branch = tuple[bool, bool]
"""Does a guidance branch see the avatar's audio, and the user?"""

_KEPT: dict[Drop, Branch] = {
    "full": (True, True),
    "no_user": (True, False),
    "no_avatar": (False, True),
    "none": (False, False),
}


def check_student(evaluations: int, config: SamplerConfig) -> None:
    """See that a student is asked for what it was distilled for, and no more.

    Args:
        evaluations: of the model (`Listener.evaluations`).

    Raises:
        UsageError: it is not.
    """
    if evaluations and (config.steps, config.guidance) != (evaluations, "none"):
        raise UsageError(
            f"the checkpoint is a student, distilled for {counted(evaluations, 'evaluation')} a block without further"
            f" guidance, and {config.steps} with guidance {config.guidance} were asked for; set"
            f" sampler.steps={evaluations} and sampler.guidance=none, or take its teacher"
        )


def guidance_weights(config: SamplerConfig, drop: Drop = "full") -> dict[Branch, float]:
    """The guided velocity as a weighted sum over branches; weights sum to 1, and no branch is evaluated in vain.

    paper (eq. 14): v(∅,∅) + w_a·[v(a,∅) − v(∅,∅)] + w_u·[v(∅,u) − v(∅,∅)]
    full: v(a,u) + (w_a − 1)·[v(a,u) − v(∅,u)] + (w_u − 1)·[v(a,u) − v(a,∅)]

    Dropped conditions are dropped from every branch.
    """
    w_a, w_u = config.w_a, config.w_u
    weights: dict[Branch, float]
    if config.guidance == "paper":
        weights = {(False, False): 1 - w_a - w_u, (True, False): w_a, (False, True): w_u}
    elif config.guidance == "full":
        weights = {(True, True): w_a + w_u - 1, (False, True): 1 - w_a, (True, False): 1 - w_u}
    else:
        weights = {(True, True): 1.0}
    avatar, user = _KEPT[drop]
    merged: dict[Branch, float] = {}
    for (sees_avatar, sees_user), weight in weights.items():
        branch = (sees_avatar and avatar, sees_user and user)
        merged[branch] = merged.get(branch, 0.0) + weight
    return {branch: weight for branch, weight in merged.items() if weight != 0}


def guided(weights: dict[Branch, float], velocity: Float[Tensor, "_ T D"]) -> Float[Tensor, "_ T D"]:
    """Weighted sum over branches stacked in the batch: [branches · S, T, D] → [S, T, D]."""
    parts = velocity.chunk(len(weights))
    return sum((w * v for w, v in zip(weights.values(), parts, strict=True)), torch.zeros_like(parts[0]))


def kept_by(weights: dict[Branch, float], sessions: int, device: torch.device) -> Keep:
    avatar, user = zip(*weights, strict=True)
    return Keep(
        torch.tensor(avatar, device=device).repeat_interleave(sessions),
        torch.tensor(user, device=device).repeat_interleave(sessions),
    )
