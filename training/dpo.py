"""Preference tuning for flow models, per frame: Avatar Forcing, eq. 12.

    L = −log σ( −β · [ (‖v^w − v_θ(m_t^w)‖ − ‖v^w − v_ref(m_t^w)‖) − (‖v^l − v_θ(m_t^l)‖ − ‖v^l − v_ref(m_t^l)‖) ] )

w is the chosen side, l the rejected one; both are scored under the full condition with the same noise and the same
noise levels, v_ref is the frozen model of the first stage. The norm is a *mean* over latent dimensions (a sum
saturates the sigmoid at β = 1000), and the logarithm is taken before the mean over frames. Image Diffusion-DPO uses
squared errors, a factor ½ and β = 5000: not interchangeable.

Watch the logs: `implicit_accuracy` should rise from ½ while `chosen_policy` does not rise above `chosen_reference`
(both sides getting worse, the rejected one faster, is the classic failure).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from schemas.train import Norm
from training.flow import Noise, frame_error, interpolate, masked_mean
from training.model import Conditions, Keep, Listener


def preference_loss(
    chosen_policy: Tensor,
    chosen_reference: Tensor,
    rejected_policy: Tensor,
    rejected_reference: Tensor,
    valid: Tensor,
    beta: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Eq. 12 from errors per frame, each [B, T].

    Returns: the loss, and its logs as scalars. `margin` is how much more the policy improved on the chosen side
    than on the rejected one; `implicit_accuracy` the share of frames on which it did (ties count one half).
    """
    margin = (rejected_policy - rejected_reference) - (chosen_policy - chosen_reference)
    logs = {
        "implicit_accuracy": masked_mean((margin > 0).float() + 0.5 * (margin == 0), valid),
        "margin": masked_mean(margin, valid),
        "chosen_policy": masked_mean(chosen_policy, valid),
        "chosen_reference": masked_mean(chosen_reference, valid),
        "rejected_policy": masked_mean(rejected_policy, valid),
        "rejected_reference": masked_mean(rejected_reference, valid),
    }
    return masked_mean(-F.logsigmoid(beta * margin), valid), {k: v.detach() for k, v in logs.items()}


def pair_errors(
    model: Listener,
    chosen_BTD: Tensor,
    rejected_BTD: Tensor,
    reference_BD: Tensor,
    conditions: Conditions,
    noise: Noise,
    norm: Norm,
) -> tuple[Tensor, Tensor]:
    """Errors per frame of both sides, [B, T] each, under the full condition, in one pass. Motion is normalised."""
    both = Noise(noise.x0.repeat(2, 1, 1), noise.t.repeat(2, 1))
    x_t, target = interpolate(torch.cat([chosen_BTD, rejected_BTD]), both)
    code, _ = model.encoder(conditions, Keep.all(len(chosen_BTD), chosen_BTD.device))
    velocity = model.denoise_window(x_t, both.t, reference_BD.repeat(2, 1), model.codes(code.repeat(2, 1, 1)))
    chosen, rejected = frame_error(velocity.float(), target, norm).chunk(2)
    return chosen, rejected


def dpo_loss(
    policy: Listener,
    reference_model: Listener,
    chosen_BTD: Tensor,
    rejected_BTD: Tensor,
    reference_BD: Tensor,
    conditions: Conditions,
    noise: Noise,
    valid_BT: Tensor,
    *,
    beta: float,
    norm: Norm,
) -> tuple[Tensor, dict[str, Tensor]]:
    """`preference_loss` of a policy against a frozen reference model on a batch of pairs."""
    with torch.no_grad():
        chosen_ref, rejected_ref = pair_errors(
            reference_model, chosen_BTD, rejected_BTD, reference_BD, conditions, noise, norm
        )
    chosen, rejected = pair_errors(policy, chosen_BTD, rejected_BTD, reference_BD, conditions, noise, norm)
    return preference_loss(chosen, chosen_ref, rejected, rejected_ref, valid_BT, beta)
