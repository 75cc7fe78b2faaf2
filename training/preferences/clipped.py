"""DPO at the noise levels that say something, weighted by how far the policy has moved: SDPO (arXiv 2505.21893).

    L = mean of  w · m · (− log σ(β · Δ))        Δ: the margin of eq. 12
    m = 1 where levels[0] ≤ t ≤ levels[1], else 0
    w = clip( exp(β · (Δ_w + Δ_l) / 2), 1 − clip, 1 + clip )        without gradient

Near pure noise (t = 0) no side can be told from another, and near clean motion (t = 1) both are read off the input:
frames at such levels add noise to the gradient and nothing else, so they are masked. The pairs were made by the
reference and are seen by a policy that has left it: w is the ratio of the two densities that DPO implies (β times what
the policy gained on both sides), so that pairs which the policy would no longer make count less. SDPO has the ratio of
one reverse step to the forward posterior; that needs a stochastic sampler, and ours is Euler's. Both papers clip it.

The mean is over all frames that are compared, masked or not, so that parts of a step add up: a narrow range of levels
is a smaller λ. With clip = 0 and levels from 0 to 1 it is plain DPO.

Watch `level_share`, how much of the compared frames is left, and `clip_weight`, the mean weight of these: at 1 − clip
it says that the policy has become worse at both sides.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from visavis.schemas.train import TrainConfig
from visavis.training.flow import masked_mean
from visavis.training.preferences.pairs import Compared, Loss, PairErrors, margin
from visavis.training.shapes import BT


def clipped(compared: Compared, config: TrainConfig) -> Loss:
    dpo, level_BT = config.dpo, compared.noise[0].t
    informative = (level_BT >= dpo.levels[0]) & (level_BT <= dpo.levels[1])
    weight_BT = weights(compared.policy, compared.reference, dpo.beta, dpo.clip)
    loss_BT = -F.logsigmoid(dpo.beta * margin(compared.policy, compared.reference))
    return masked_mean(weight_BT * loss_BT * informative, compared.valid), {
        "level_share": masked_mean(informative.to(loss_BT.dtype), compared.valid),
        "clip_weight": masked_mean(weight_BT, compared.valid & informative),
    }


@torch.no_grad()
def weights(policy: PairErrors, reference: PairErrors, beta: float, clip: float) -> BT:
    """w of each frame."""
    gained_BT = (reference[0] - policy[0]) + (reference[1] - policy[1])
    return torch.exp(beta * gained_BT / 2).clamp(1 - clip, 1 + clip)
