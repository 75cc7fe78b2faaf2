"""DPO with a supervised term on the chosen side: Reg-DPO (arXiv 2511.01450), SoPo (arXiv 2412.05095).

    L = L_DPO + anchor · ‖v^w − v_θ(m_t^w)‖        in the norm of the flow loss, under the full condition

DPO knows differences only: it is content where both sides get worse and the rejected one faster. The flow loss beside
it holds windows of the corpus, drawn by the corpus' mixture; this term holds the very motion that is preferred. With
anchor = 0 it is plain DPO.

Watch `loss_anchor`, the term without its weight: it should fall, or stay.
"""

from __future__ import annotations

from visavis.schemas.train import TrainConfig
from visavis.training.flow import masked_mean
from visavis.training.preferences.dpo import preference_loss
from visavis.training.preferences.pairs import Compared, Loss, size


def anchored(compared: Compared, config: TrainConfig) -> Loss:
    preference = preference_loss(compared.policy, compared.reference, compared.valid, config.dpo.beta)
    supervised = masked_mean(size(compared.policy_offsets[0], config.objective.norm), compared.valid)
    return preference + config.dpo.anchor * supervised, {"loss_anchor": supervised}
