"""DPO of groups of dimensions, each with its own sigmoid: pose, mouth, brows, eyes.

    L = − Σ_g w_g · log σ(β · Δ_g) + keep · ‖v_θ(m_t) − v_ref(m_t)‖²
        Δ_g: the margin of eq. 12 with the norm's mean over the dimensions of group g
        ‖·‖²: over the dimensions of groups with w_g = 0, divided by all dimensions, of both sides

One dimension of twelve hides a nod: the mean over all of them is mostly about what both sides have in common. The idea
is that of group rewards that are normalised apart (GDPO-Listener, arXiv 2603.25020), carried over to pairs: no group's
margin can make up for another's, and a small group counts as much as a large one.

Groups share the network's weights, so a push on one moves them all: nods that are taught alone make smiles larger, too.
What is right already is therefore kept where the reference model has it: distilled, on the very inputs of the pairs,
which costs no pass. Without it only the flow loss holds the others, and it hardly notices.

Groups follow the motion's columns: `pose` (rotation and translation of the head), and of the expression what its names
say in the words of ARKit (`browInnerUp`, `eyeBlinkLeft`, `jawOpen`, `mouthSmileLeft`); what has no such name is
`expression`. Of coefficients of a face model they are that model's (`exp`, `jaw`, `pose`), as in `objective.groups`.
`dpo.groups` names those that count. `group_spans` takes the margins of spans, as `segments` does: a sigmoid for each
group and span. Limits: one group of all dimensions is `segments`, and without spans plain DPO.

Watch `margin_NAME` and `accuracy_NAME` of each group that counts: one that stays at one half learns nothing.
`loss_kept` is by how much the others have moved: where it grows, raise `keep` or lower λ.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
import torch.nn.functional as F

from visavis.schemas import coefficients
from visavis.schemas.errors import UsageError
from visavis.schemas.manifest import Manifest, MotionColumn, MotionSpec
from visavis.schemas.train import DpoConfig, TrainConfig
from visavis.training.flow import masked_mean
from visavis.training.preferences.pairs import Compared, Loss, margin, share_above, sizes
from visavis.training.preferences.segments import span_means, span_numbers
from visavis.training.shapes import BT

Shortfall = Mapping[str, float | None]
"""By group, at most 1, as the manifest of pairs has it; none: nobody knows."""
MOST_SHORT = 2 / 3
"""Of a reaction that the model has less than a third of, preferences teach no timing: pushed, nods that fell short by
.58 came in answer, and those that did by .76 at any time (docs/results-preferences.md, docs/results-shortfall.md)."""
_FACE = {"brow": "brows", "eye": "eyes", "jaw": "mouth", "mouth": "mouth", "lip": "mouth", "tongue": "mouth"}
"""How names of columns begin, and the group that they belong to."""


def groups(compared: Compared, config: TrainConfig) -> Loss:
    assert compared.groups is not None  # the seam asks for them
    assert compared.reference_offsets is not None
    assert compared.group_weights is not None
    loss, logs = compared.valid.new_zeros((), dtype=torch.float32), {}
    teaching = {name: columns for name, columns in compared.groups.items() if compared.group_weights[name]}
    for name, columns in teaching.items():
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
    moved_BT = _moved(compared, {column for columns in teaching.values() for column in columns})
    if moved_BT is not None:
        logs["loss_kept"] = masked_mean(moved_BT, compared.valid)
        loss = loss + config.dpo.keep * logs["loss_kept"]
    return loss, logs


def _moved(compared: Compared, taught: Collection[int]) -> BT | None:
    """How far the velocity of all other columns has moved from the reference's, over both sides; none without others.
    Offsets are of the same velocity that is right, so their difference is that of the velocities."""
    assert compared.reference_offsets is not None
    dim = compared.policy_offsets[0].shape[2]
    others = [column for column in range(dim) if column not in taught]
    if not others:
        return None
    both = zip(compared.policy_offsets, compared.reference_offsets, strict=True)
    moved = [(policy - reference)[..., others].square().sum(dim=2) / dim for policy, reference in both]
    return (moved[0] + moved[1]) / 2


def weights_of(names: Collection[str], config: DpoConfig, shortfall: Shortfall | None) -> Mapping[str, float]:
    """Of the groups that count, each from 0.

    `equal`: the same, 1 together. `shortfall`: the growth that each wants. `auto`: likewise, but where none wants any,
    groups of which nothing is told weigh as they would if all were equal.

    Args:
        shortfall: as the manifest of the pairs has it.

    Raises:
        UsageError: shortfall is wanted and the pairs do not tell it, or there is nothing that they could teach.
    """
    equal = dict.fromkeys(names, 1 / len(names))
    if config.group_weights == "equal":
        return equal
    told = {name: share for name, share in (shortfall or {}).items() if name in equal and share is not None}
    weights = {name: growth(told.get(name, 0.0)) for name in names}
    if config.group_weights == "auto" and not any(weights.values()):
        weights = {name: 0.0 if name in told else weight for name, weight in equal.items()}
    if any(weights.values()):
        return weights
    if not told:
        raise UsageError(
            "dpo.group_weights=shortfall: the pairs do not say where the model falls short; make them with"
            " chosen=ground_truth and shortfall_share above 0, of more windows and of several conversations, and leave"
            " dpo.group_by=part"
        )
    raise UsageError(
        f"these pairs have nothing to teach: {_why_not(told)}; say dpo.group_weights=equal to push all alike"
    )


def growth(shortfall: float) -> float:
    """By which share of itself a reaction must grow to be what was recorded, s / (1 − s).

    0 where it is that or beyond; and above `MOST_SHORT`: a reaction that the model hardly has comes at any time when it
    is pushed, not in answer.
    """
    return round(shortfall / (1 - shortfall), 4) if 0 < shortfall <= MOST_SHORT else 0.0


def _why_not(shortfall: Mapping[str, float]) -> str:
    absent = [name for name, share in shortfall.items() if share > MOST_SHORT]
    right = [name for name in shortfall if name not in absent]
    told = [f"the model's reactions are as large as the recorded ones in {', '.join(right)}"] if right else []
    if absent:
        told.append(f"it hardly reacts yet in {', '.join(absent)}, so train it longer first")
    return ", and ".join(told)


def weights_line(manifest: Manifest, config: DpoConfig) -> str:
    """How groups of these pairs weigh, in words; nothing with another objective.

    Raises:
        UsageError: as `weights_of`, `groups_of`.
    """
    if config.objective != "groups":
        return ""
    found = groups_of(manifest.motion, manifest.columns, config)
    weights = weights_of(found, config, manifest.pairs.shortfall if manifest.pairs else None)
    told = [f"{name} ({weight:.2f})" for name, weight in weights.items() if weight]
    others = "; the others are kept as they are" if len(told) < len(weights) else ""
    return f"preferences are about {', '.join(told)}{others}"


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
