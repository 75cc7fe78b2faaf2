"""DPO that rejects less where the chosen side gets worse: adaptive rejection scaling, after PG-DPO (arXiv 2511.19049).

    L = − log σ( β · (Δ_w − α · Δ_l) )        Δ = ‖v − v_ref(m_t)‖ − ‖v − v_θ(m_t)‖, what the policy gained on a side
    α = exp(− max(0, rise) / tolerance)       rise: of the chosen side's error over its window, as a share; no gradient

Both sides are much alike (one user, one head, mostly the same motion), so pushing the rejected one away takes the
chosen one along: its error rises, and eq. 12 is content as long as the other rises faster. PG-DPO scales the rejected
term by a sigmoid of (r_w − r_l) / r_l, rewards of the two sides. The implicit rewards at hand make that ratio large in
the very failure (both negative, r_l the more so), so what scales here is the failure itself, of each pair by itself: at
a rise of `tolerance` 37 % of the push away are left, at three times that 5 %, while the pull to the chosen side stays
whole. PG-DPO's second part, a regulariser for large margins, is not taken. With a tolerance without end it is plain
DPO.

Watch `rejection_scale`, the mean of α: at 1 the objective is plain DPO; near 0 it is supervised on the chosen side with
a sigmoid, and a smaller β or learning rate would waste less.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from visavis.schemas.train import TrainConfig
from visavis.training.flow import masked_mean
from visavis.training.preferences.pairs import Compared, Loss
from visavis.training.shapes import BT, ValidBT


def adaptive(compared: Compared, config: TrainConfig) -> Loss:
    gain_chosen, gain_rejected = (
        before - after for before, after in zip(compared.reference, compared.policy, strict=True)
    )
    scale_B1 = rejection_scale(compared.policy[0], compared.reference[0], compared.valid, config.dpo.tolerance)
    margin_BT = gain_chosen - scale_B1 * gain_rejected
    loss = masked_mean(-F.logsigmoid(config.dpo.beta * margin_BT), compared.valid)
    return loss, {"rejection_scale": masked_mean(scale_B1.expand_as(margin_BT), compared.valid)}


@torch.no_grad()
def rejection_scale(policy_BT: BT, reference_BT: BT, valid: ValidBT, tolerance: float) -> Tensor:
    """α of each pair, [B, 1], from errors of its chosen side; 1 where no frame is compared."""
    after, before = ((error_BT * valid).sum(dim=1, keepdim=True) for error_BT in (policy_BT, reference_BT))
    rise = (after - before) / before.clamp(min=torch.finfo(before.dtype).tiny)
    return torch.exp(-rise.clamp(min=0) / tolerance)
