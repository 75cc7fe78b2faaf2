"""Push towards good and away from bad motion on the forward process: DiffusionNFT (arXiv 2509.16117, eq. 5).

    v± = (1 ∓ β) · v_ref ± β · v_θ
    L  = Σ over sides of  r · ‖v⁺ − v‖² + (1 − r) · ‖v⁻ − v‖²        r: reward of the side, 0 … 1

No likelihood and no sigmoid, so nothing saturates: where a side is good the policy is pulled to it, where it is bad its
mirror image across the reference is. At the minimum the policy is v_ref + (2 / β) · Δ, Δ the direction from bad to good
as the reference sees it: guidance, learnt from rewards; a smaller β goes further. The square is a mean over latent
dimensions, whatever `dpo.norm` says, because that minimum needs it. The method is meant for rounds: pairs of the
policy's own motion, made anew (`v_ref` is then the policy that made them).

Rewards come from the pair's record, as deviations from the mean of its two sides, for the same user:

    r = ½ ± ½ · clip(margin / reward_scale, −1, 1)        of chosen and of rejected

so a pair of which nothing is known but the margin has all that is needed. `reward: sides` is r = 1 and 0.

Limits: with β = 1 and r = 1 a side is supervised. At v_θ = v_ref the gradient of `sides` is that of plain DPO with
norm l2 and a β twice that of nft; with r = ½ it is 0, and anywhere else it leads back to v_ref.

Watch `policy_shift`, the mean square of v_θ − v_ref: nothing bounds it but the rewards, and where it grows while
`chosen_policy` rises above `chosen_reference`, β is too small or λ too large.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from visavis.schemas.pairs import PairRecord
from visavis.schemas.train import DpoConfig, TrainConfig
from visavis.training.flow import masked_mean
from visavis.training.preferences.pairs import Compared, Loss, size
from visavis.training.shapes import BT, BTD


def nft(compared: Compared, config: TrainConfig) -> Loss:
    assert compared.reference_offsets is not None  # the seam asks for them
    policy, reference = compared.policy_offsets, compared.reference_offsets
    reward_B = rewards(compared.pairs.records, config.dpo).to(policy[0].device)
    losses = [
        one_side(off, before, side_B[:, None], config.dpo.nft_beta)
        for off, before, side_B in zip(policy, reference, (reward_B, 1 - reward_B), strict=True)
    ]
    shift_BT = size(policy[0] - reference[0], "l2") + size(policy[1] - reference[1], "l2")
    chosen_BT = reward_B[:, None].expand_as(compared.valid)
    return masked_mean(losses[0] + losses[1], compared.valid), {
        "reward_chosen": masked_mean(chosen_BT, compared.valid),
        "policy_shift": masked_mean(shift_BT / 2, compared.valid),
    }


def one_side(policy_BTD: BTD, reference_BTD: BTD, reward: Tensor, beta: float) -> BT:
    """The loss of one side per frame, from offsets: v is taken off on both sides of the equation. reward: [B, 1]."""
    plus = (1 - beta) * reference_BTD + beta * policy_BTD
    minus = (1 + beta) * reference_BTD - beta * policy_BTD
    return reward * size(plus, "l2") + (1 - reward) * size(minus, "l2")


def rewards(records: Sequence[PairRecord], config: DpoConfig) -> Tensor:
    """Of the chosen side of each pair, float32 [B]; the rejected side has the rest up to 1."""
    if config.reward == "sides":
        return torch.ones(len(records))
    margins = torch.tensor([margin_of(record) for record in records])
    return 0.5 + 0.5 * (margins / config.reward_scale).clamp(-1, 1)


def margin_of(record: PairRecord) -> float:
    """How much better chosen is than rejected: by its scorer, or by reactivity in pairs that were not scored."""
    return record.reactivity_margin if record.score_margin is None else record.score_margin
