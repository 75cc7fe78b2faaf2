"""DPO of groups of dimensions, each with its own sigmoid: pose, mouth, brows, eyes.

    L = − Σ_g log σ(β · Δ_g) / G        Δ_g: the margin of eq. 12 with the norm's mean over the dimensions of group g

One dimension of twelve hides a nod: the mean over all of them is mostly about what both sides have in common. The idea
is that of group rewards that are normalised apart (GDPO-Listener, arXiv 2603.25020), carried over to pairs: no group's
margin can make up for another's, and a small group counts as much as a large one.

Groups follow the motion's columns: `pose` (rotation and translation of the head), and of the expression what its names
say in the words of ARKit (`browInnerUp`, `eyeBlinkLeft`, `jawOpen`, `mouthSmileLeft`); what has no such name is
`expression`. Of coefficients of a face model they are that model's (`exp`, `jaw`, `pose`), as in `objective.groups`.
`dpo.groups` names those that count: what is left out is held by the flow loss alone. `group_spans` takes
the margins of spans, as `segments` does: a sigmoid for each group and span. Limits: one group of all dimensions is
plain DPO, and with spans it is `segments`.

Watch `margin_NAME` and `accuracy_NAME` of each group that counts: one that stays at one half learns nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
import torch.nn.functional as F

from visavis.schemas import coefficients
from visavis.schemas.errors import UsageError
from visavis.schemas.manifest import MotionColumn, MotionSpec
from visavis.schemas.train import DpoConfig, TrainConfig
from visavis.training.flow import masked_mean
from visavis.training.preferences.pairs import Compared, Loss, margin, share_above, sizes
from visavis.training.preferences.segments import span_means, span_numbers

_FACE = {"brow": "brows", "eye": "eyes", "jaw": "mouth", "mouth": "mouth", "lip": "mouth", "tongue": "mouth"}
"""How names of columns begin, and the group that they belong to."""


def groups(compared: Compared, config: TrainConfig) -> Loss:
    assert compared.groups is not None  # the seam asks for them
    assert compared.reference_offsets is not None
    assert compared.group_weights is not None
    loss, logs = compared.valid.new_zeros((), dtype=torch.float32), {}
    for name, columns in compared.groups.items():
        (policy, reference) = (
            sizes((chosen[..., columns], rejected[..., columns]), config.dpo.norm)
            for chosen, rejected in (compared.policy_offsets, compared.reference_offsets)
        )
        margin_BT = margin(policy, reference)
        if config.dpo.group_spans:
            margin_BT = span_means(margin_BT, span_numbers(compared.pairs.state, config.dpo), compared.valid)
        of_group = masked_mean(-F.logsigmoid(config.dpo.beta * margin_BT), compared.valid)
        loss = loss + compared.group_weights[name] * of_group
        logs[f"margin_{name}"] = masked_mean(margin_BT, compared.valid)
        logs[f"accuracy_{name}"] = share_above(margin_BT, compared.valid)
    return loss, logs


def weights_of(names: Collection[str], config: DpoConfig, shortfall: Mapping[str, float] | None) -> Mapping[str, float]:
    """Of the groups that count: equal ones sum to 1.

    Args:
        shortfall: as the manifest of the pairs has it.

    Raises:
        UsageError: shortfall is wanted, and the pairs do not tell it.
    """
    if config.group_weights == "equal":
        return dict.fromkeys(names, 1 / len(names))
    if not shortfall:
        raise UsageError(
            "dpo.group_weights=shortfall: the pairs do not say where the model falls short; make them with"
            " chosen=ground_truth and shortfall_share above 0, of windows of several conversations"
        )
    if unknown := [name for name in names if name not in shortfall]:
        raise UsageError(f"dpo.group_weights=shortfall: the pairs have none for {unknown[0]}; leave dpo.group_by=part")
    if not any(shortfall[name] for name in names):
        raise UsageError(
            "dpo.group_weights=shortfall: these pairs have nothing to teach: the model falls short by nothing certain"
            f" in {', '.join(names)}"
        )
    return {name: shortfall[name] for name in names}


def groups_of(
    motion: MotionSpec, columns: Sequence[MotionColumn] | None, config: DpoConfig
) -> Mapping[str, tuple[int, ...]]:
    """Column numbers of the groups that count, in order.

    Args:
        columns: of the manifest; none: their names are not known.

    Raises:
        UsageError: a group is named that the motion does not have.
    """
    names = [column.name for column in columns] if columns else [f"column_{n}" for n in range(motion.dim)]
    parts = {n: "pose" for part in (motion.rotation, motion.translation) for n in range(*part)}
    parts |= {n: name for name, span in coefficients.groups_of(motion.codec).items() for n in range(motion.dim)[span]}
    found: dict[str, list[int]] = {}
    for n, name in enumerate(names):
        part = parts.get(n) or _part_of_face(name)
        found.setdefault(name if config.group_by == "column" else part, []).append(n)
    if unknown := [name for name in config.groups if name not in found]:
        raise UsageError(f"dpo.groups: the motion has no group {unknown[0]}; it has {', '.join(found)}")
    return {group: tuple(numbers) for group, numbers in found.items() if not config.groups or group in config.groups}


def _part_of_face(name: str) -> str:
    return next((part for begin, part in _FACE.items() if name.lower().startswith(begin)), "expression")
