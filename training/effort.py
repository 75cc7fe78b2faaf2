"""Effort where the user matters: weights of frames in the flow loss of further steps.

    w = 1 + κ · d / mean(d)        d = ‖v_ref(x_t, t, all that is seen) − v_ref(x_t, t, the same without the user)‖²

v_ref is the frozen checkpoint that the steps began from, and (x_t, t) the very input at which the flow loss is taken.
A listener's reactions are few: on most frames the user explains nothing, and their errors are what most of the gradient
is about. Preferences change *what* is learned (they overshoot); this changes where effort goes. The weight depends on
nothing but the network's own input, not on the motion that is right, so the minimiser of the squared error stays what
it was, E[v | input]: only how soon it is reached there differs, and how well by a small network. For the same reason a
sample that is shown without its user has d = 0 and weight 1: a weight that knew the hidden user would shift the mean.

The mean is over the valid frames of the batch whose user is seen, and of one process: it is the same in a run that is
resumed. It costs two passes of the frozen model for each of the flow loss.
"""

from __future__ import annotations

import torch

from visavis.training.flow import Noise, interpolate, masked_mean
from visavis.training.model import Conditions, Keep, Listener
from visavis.training.shapes import BD, BT, BTD, ValidBT


@torch.no_grad()
def user_effect(
    frozen: Listener, x1_BTD: BTD, reference_BD: BD, conditions: Conditions, keep: Keep, noise: Noise
) -> BT:
    """d: how much the user changes the frozen model's velocity, a mean over dimensions; 0 where no user is seen."""
    x_t, _ = interpolate(x1_BTD, noise)
    seen, unseen = (
        frozen(x_t, noise.t, reference_BD, conditions, each).float()
        for each in (keep, Keep(keep.avatar, torch.zeros_like(keep.user)))
    )
    return (seen - unseen).square().mean(dim=2) * keep.user[:, None]


def effort(effect_BT: BT, keep: Keep, valid: ValidBT, weight: float) -> BT:
    """w of each frame. weight: κ."""
    usual = masked_mean(effect_BT, valid & keep.user[:, None])
    return 1 + weight * effect_BT / usual.clamp(min=1e-12)
