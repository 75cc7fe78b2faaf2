"""Each side against the reference by itself: Condition Contrastive Alignment (arXiv 2410.09347).

    L = − log σ(β · Δ_w) − contrast · log σ(−β · Δ_l)        Δ = ‖v − v_ref(m_t)‖ − ‖v − v_θ(m_t)‖

A classifier between what goes with its condition and what does not; Δ plays the log-ratio of the two densities. Made
for losers of another condition it is what our `dropped` pairs are (motion that does not go with this user), and says
what they teach: guidance, without guidance at sampling. Other than in eq. 12 no side can pay for the other: the
chosen one must get better than the reference had it, whatever becomes of the rejected one.

Limit: at v_θ = v_ref the loss is (1 + contrast) · log 2, and with contrast = 1 its gradient is that of plain DPO with
the same β; so it is to first order in β. Where contrast = 0 the chosen side alone is left.

Watch `loss_chosen` and `loss_rejected`, the two terms without weight, log 2 each at the start: when the second falls
and the first does not, lower `contrast`.
"""

from __future__ import annotations

import torch.nn.functional as F

from visavis.schemas.train import TrainConfig
from visavis.training.flow import masked_mean
from visavis.training.preferences.pairs import Compared, Loss


def contrastive(compared: Compared, config: TrainConfig) -> Loss:
    beta = config.dpo.beta
    gain_chosen, gain_rejected = (
        before - after for before, after in zip(compared.reference, compared.policy, strict=True)
    )
    chosen = masked_mean(-F.logsigmoid(beta * gain_chosen), compared.valid)
    rejected = masked_mean(-F.logsigmoid(-beta * gain_rejected), compared.valid)
    return chosen + config.dpo.contrast * rejected, {"loss_chosen": chosen, "loss_rejected": rejected}
