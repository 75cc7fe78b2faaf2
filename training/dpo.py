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

from visavis.schemas.train import Norm
from visavis.training.flow import Noise, frame_error, interpolate, masked_mean
from visavis.training.loader import Batch
from visavis.training.model import Keep, Listener
from visavis.training.shapes import BT, Scalar, ValidBT

PairErrors = tuple[BT, BT]
"""Errors per frame of the chosen and of the rejected side, [B, T] each."""


def preference_loss(
    policy: PairErrors, reference: PairErrors, valid: ValidBT, beta: float
) -> tuple[Scalar, dict[str, Scalar]]:
    """Eq. 12 from errors.

    Returns: the loss, and its logs as scalars. `margin` is how much more the policy improved on the chosen side
    than on the rejected one; `implicit_accuracy` the share of frames on which it did (ties count one half).
    """
    margin = (policy[1] - reference[1]) - (policy[0] - reference[0])
    logs = {
        "implicit_accuracy": masked_mean((margin > 0).float() + 0.5 * (margin == 0), valid),
        "margin": masked_mean(margin, valid),
        "chosen_policy": masked_mean(policy[0], valid),
        "chosen_reference": masked_mean(reference[0], valid),
        "rejected_policy": masked_mean(policy[1], valid),
        "rejected_reference": masked_mean(reference[1], valid),
    }
    return masked_mean(-F.logsigmoid(beta * margin), valid), {k: v.detach() for k, v in logs.items()}


def pair_errors(model: Listener, pairs: Batch, noise: Noise, norm: Norm) -> PairErrors:
    """Errors of a model on both sides of pairs, under the full condition, in one pass."""
    assert pairs.chosen is not None  # the loader refuses pairs without both sides
    assert pairs.rejected is not None
    both = Noise(noise.x0.repeat(2, 1, 1), noise.t.repeat(2, 1))
    x_t, target = interpolate(model.normalise(torch.cat([pairs.chosen, pairs.rejected])), both)
    conditions = model.conditions(pairs.avatar_audio, pairs.user_audio, pairs.user_motion)
    code, _ = model.encoder(conditions, Keep.all(len(pairs.keys), x_t.device))
    reference = model.normalise(pairs.reference).repeat(2, 1)
    velocity = model.denoise_window(x_t, both.t, reference, model.codes(code.repeat(2, 1, 1)))
    chosen, rejected = frame_error(velocity.float(), target, norm).chunk(2)
    return chosen, rejected
