"""Both sides of pairs, as models see them: what every objective is given.

Both sides are scored under the full condition, at the same noise levels and, unless an objective says otherwise, with
the same noise. An offset is the velocity that a model gives minus the one that is right; an error is its size per
frame: |·| or |·|², a *mean* over latent dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from visavis.schemas.train import Norm
from visavis.training.flow import Noise, interpolate, masked_mean
from visavis.training.loader import Batch
from visavis.training.model import Keep, Listener
from visavis.training.shapes import BT, BTD, Scalar, ValidBT

PairNoise = tuple[Noise, Noise]
"""What the chosen and the rejected side are scored with; their levels are the same."""
PairOffsets = tuple[BTD, BTD]
"""Velocity minus the right one, of the chosen and of the rejected side, [B, T, D] each."""
PairErrors = tuple[BT, BT]
"""Errors per frame of the chosen and of the rejected side, [B, T] each."""
Loss = tuple[Scalar, dict[str, Scalar]]
"""A mean over compared frames, and what to watch, by name."""


@dataclass(frozen=True)
class Compared:
    """A batch of pairs, scored by the policy and by the frozen reference."""

    pairs: Batch
    noise: PairNoise
    valid: ValidBT  # frames whose sides are compared
    policy: PairErrors  # in `dpo.norm`
    reference: PairErrors
    policy_offsets: PairOffsets
    reference_offsets: PairOffsets | None = None  # where the objective asks for them
    groups: Mapping[str, tuple[int, ...]] | None = None  # columns of the motion, by the group's name


def pair_offsets(model: Listener, pairs: Batch, noise: PairNoise) -> PairOffsets:
    """Offsets of a model on both sides of pairs, under the full condition, in one pass."""
    assert pairs.chosen is not None  # the loader refuses pairs without both sides
    assert pairs.rejected is not None
    both = Noise(torch.cat([side.x0 for side in noise]), torch.cat([side.t for side in noise]))
    x_t, target = interpolate(model.normalise(torch.cat([pairs.chosen, pairs.rejected])), both)
    conditions = model.conditions(pairs.avatar_audio, pairs.user_audio, pairs.user_motion)
    code, _ = model.encoder(conditions, Keep.all(len(pairs.keys), x_t.device))
    reference = model.normalise(pairs.reference).repeat(2, 1)
    velocity = model.denoise_window(x_t, both.t, reference, model.codes(code.repeat(2, 1, 1)))
    chosen, rejected = (velocity.float() - target).chunk(2)
    return chosen, rejected


def size(offset_BTD: BTD, norm: Norm) -> BT:
    """Error per frame, averaged over latent dimensions."""
    return (offset_BTD.abs() if norm == "l1" else offset_BTD.square()).mean(dim=2)


def sizes(offsets: PairOffsets, norm: Norm) -> PairErrors:
    return size(offsets[0], norm), size(offsets[1], norm)


def margin(policy: PairErrors, reference: PairErrors) -> BT:
    """How much more the policy improved on the chosen side than on the rejected one, against the reference."""
    return (policy[1] - reference[1]) - (policy[0] - reference[0])


def share_above(margin_BT: BT, valid: ValidBT) -> Scalar:
    """Share of frames with a margin above 0; ties count one half."""
    return masked_mean((margin_BT > 0).float() + 0.5 * (margin_BT == 0), valid)


def watched(policy: PairErrors, reference: PairErrors, valid: ValidBT) -> dict[str, Scalar]:
    """What every objective logs: the share of frames on which the margin is above 0, the margin, and the errors."""
    margin_BT = margin(policy, reference)
    logs = {
        "implicit_accuracy": share_above(margin_BT, valid),
        "margin": masked_mean(margin_BT, valid),
        "chosen_policy": masked_mean(policy[0], valid),
        "chosen_reference": masked_mean(reference[0], valid),
        "rejected_policy": masked_mean(policy[1], valid),
        "rejected_reference": masked_mean(reference[1], valid),
    }
    return {name: value.detach() for name, value in logs.items()}
