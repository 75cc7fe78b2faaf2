"""DPO of groups of dimensions, each with its own sigmoid: head, mouth, brows, eyes.

    L = − Σ_g log σ(β · Δ_g) / G        Δ_g: the margin of eq. 12 with the norm's mean over the dimensions of group g

One dimension of twelve hides a nod: the mean over all of them is mostly about what both sides have in common. The idea
is that of group rewards that are normalised apart (GDPO-Listener, arXiv 2603.25020), carried over to pairs: no group's
margin can make up for another's, and a small group counts as much as a large one. With one group of all dimensions it
is plain DPO.

Groups follow the motion's columns: rotation and translation of the head, and of the expression what its names say (in
the words of ARKit: `browInnerUp`, `eyeBlinkLeft`, `jawOpen`, `mouthSmileLeft`); what has no such name is `expression`.

Watch `margin_NAME` and `accuracy_NAME` of each group: a group that stays at one half has nothing to teach, one that is
above 0.9 from the start is what the pairs differ in anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F

from visavis.schemas.manifest import MotionColumn, MotionSpec
from visavis.schemas.train import TrainConfig
from visavis.training.flow import masked_mean
from visavis.training.preferences.pairs import Compared, Loss, margin, share_above, sizes

_FACE = {"brow": "brows", "eye": "eyes", "jaw": "mouth", "mouth": "mouth", "lip": "mouth", "tongue": "mouth"}
"""How names of columns begin, and the group that they belong to."""


def groups(compared: Compared, config: TrainConfig) -> Loss:
    assert compared.groups is not None  # the seam asks for them
    assert compared.reference_offsets is not None
    losses, logs = [], {}
    for name, columns in compared.groups.items():
        (policy, reference) = (
            sizes((chosen[..., columns], rejected[..., columns]), config.dpo.norm)
            for chosen, rejected in (compared.policy_offsets, compared.reference_offsets)
        )
        margin_BT = margin(policy, reference)
        losses.append(masked_mean(-F.logsigmoid(config.dpo.beta * margin_BT), compared.valid))
        logs[f"margin_{name}"] = masked_mean(margin_BT, compared.valid)
        logs[f"accuracy_{name}"] = share_above(margin_BT, compared.valid)
    return torch.stack(losses).mean(), logs


def groups_of(
    motion: MotionSpec, columns: Sequence[MotionColumn] | None, *, each: bool = False
) -> Mapping[str, tuple[int, ...]]:
    """Columns of each group, in order; every column is in one of them.

    Args:
        columns: of the manifest; none: their names are not known.
        each: every column is a group by itself.
    """
    names = [column.name for column in columns] if columns else [f"column_{n}" for n in range(motion.dim)]
    if each:
        return {name: (n,) for n, name in enumerate(names)}
    parts = {n: part for part in ("rotation", "translation") for n in range(*getattr(motion, part))}
    found: dict[str, list[int]] = {}
    for n, name in enumerate(names):
        found.setdefault(parts.get(n) or _part_of_face(name), []).append(n)
    return {group: tuple(numbers) for group, numbers in found.items()}


def _part_of_face(name: str) -> str:
    return next((part for begin, part in _FACE.items() if name.lower().startswith(begin)), "expression")
