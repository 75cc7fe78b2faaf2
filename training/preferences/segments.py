"""DPO of spans about as long as a reaction, each with its own sigmoid: DenseDPO (arXiv 2506.03517).

    L = − Σ_s n_s · log σ(β · Δ_s) / Σ_s n_s        Δ_s: mean margin of the n_s compared frames of span s

A frame by itself hardly tells a nod from none: its noise says more than its motion. A mean over the window tells it no
better, for the nod is a tenth of it. DenseDPO has a label for each segment, and makes both sides from one recording so
that segments correspond; here they correspond because both sides have the same user, and chosen is preferred in all.

Spans are `equal` (of `span` seconds from the window's start, the last one may be shorter) or `turns`: a new one begins
where either person begins to speak, so that a listening span is what the user says and the pause in which it is
answered. Frames that are not compared count in no span. A span weighs as much as it has frames, so that parts of a
step add up. With spans of one frame it is plain DPO.

Watch `span_accuracy`, the share of compared frames that lie in spans with a margin above 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from visavis.schemas import FPS
from visavis.schemas.sample import AVATAR_SPEAKS, USER_SPEAKS
from visavis.schemas.train import DpoConfig, TrainConfig
from visavis.training.flow import masked_mean
from visavis.training.preferences.pairs import Compared, Loss, margin, share_above
from visavis.training.shapes import BT, ValidBT


def segments(compared: Compared, config: TrainConfig) -> Loss:
    margin_BT = margin(compared.policy, compared.reference)
    spans_BT = span_numbers(compared.pairs.state, config.dpo)
    of_span_BT = span_means(margin_BT, spans_BT, compared.valid)
    loss = masked_mean(-F.logsigmoid(config.dpo.beta * of_span_BT), compared.valid)
    return loss, {"span_accuracy": share_above(of_span_BT, compared.valid)}


def span_numbers(state_BT: Tensor, config: DpoConfig) -> Int[Tensor, "B T"]:
    """In which span of its window each frame lies, counted from 0. state_BT: uint8, as a sample's `state`."""
    frames = state_BT.shape[1]
    if config.spans == "equal":
        length = max(1, round(config.span * FPS))
        return (torch.arange(frames, device=state_BT.device) // length).expand(state_BT.shape)
    speaks_BTP = torch.stack([state_BT & bit > 0 for bit in (AVATAR_SPEAKS, USER_SPEAKS)], dim=2)
    begins_BT = torch.zeros_like(state_BT, dtype=torch.bool)
    begins_BT[:, 1:] = (speaks_BTP[:, 1:] & ~speaks_BTP[:, :-1]).any(dim=2)
    return begins_BT.long().cumsum(dim=1)


def span_means(value_BT: BT, spans_BT: Int[Tensor, "B T"], valid: ValidBT) -> BT:
    """At each frame the mean over the compared frames of its span; 0 where there is none."""
    weight_BT = valid.to(value_BT.dtype)
    zeros = torch.zeros_like(value_BT)  # a window has no more spans than frames
    total = zeros.scatter_add(1, spans_BT, value_BT * weight_BT)
    count = zeros.scatter_add(1, spans_BT, weight_BT)
    return (total / count.clamp(min=1)).gather(1, spans_BT)
