"""Preference tuning for flow models, per frame: Avatar Forcing, eq. 12.

    L = −log σ( −β · [ (‖v^w − v_θ(m_t^w)‖ − ‖v^w − v_ref(m_t^w)‖) − (‖v^l − v_θ(m_t^l)‖ − ‖v^l − v_ref(m_t^l)‖) ] )

w is the chosen side, l the rejected one, v_ref the frozen model of the first stage. The norm is a *mean* over latent
dimensions (a sum saturates the sigmoid at β = 1000), and the logarithm is taken before the mean over frames. Image
Diffusion-DPO uses squared errors, a factor ½ and β = 5000: not interchangeable.

`dpo.objective=dpo`; its strength is then the paper's, β 1000 and λ .1.

Watch the logs: `implicit_accuracy` should rise from ½ while `chosen_policy` does not rise above `chosen_reference`
(both sides getting worse, the rejected one faster, is the classic failure).
"""

from __future__ import annotations

import torch.nn.functional as F

from visavis.schemas.train import TrainConfig
from visavis.training.flow import masked_mean
from visavis.training.preferences.pairs import Compared, Loss, PairErrors, margin
from visavis.training.shapes import Scalar, ValidBT


def dpo(compared: Compared, config: TrainConfig) -> Loss:
    return preference_loss(compared.policy, compared.reference, compared.valid, config.dpo.beta), {}


def preference_loss(policy: PairErrors, reference: PairErrors, valid: ValidBT, beta: float) -> Scalar:
    """Eq. 12 from errors: a mean over compared frames."""
    return masked_mean(-F.logsigmoid(beta * margin(policy, reference)), valid)
