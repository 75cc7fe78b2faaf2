"""What a public protocol says of sequences, row by row: what was generated, the noise floor, what costs nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from visavis.schemas.manifest import Manifest
from visavis.schemas.sample import AVATAR_SPEAKS
from visavis.schemas.train import Drop
from visavis.training.metrics.windows import mean_defined
from visavis.training.protocols.averages import Mean
from visavis.training.protocols.clips import Clip, Parts, baselines, halves, listening_only
from visavis.training.protocols.score import Protocol, means
from visavis.training.protocols.unils import Upper
from visavis.training.sequences import Generated

FEW = ("floor", "shifted", "hold_still")
"""Rows beside what was generated, where not all are asked for."""
Rows = dict[str, dict[str, float | None]]
"""By what was scored, and figure; None where it is not defined."""
LeftOut = dict[str, dict[str, int]]
"""By what was scored, and figure: in how many sequences it is not defined, where it is a mean of fewer than all."""


def part_columns(manifest: Manifest) -> dict[str, np.ndarray]:
    """Columns of the parts that public protocols tell apart, by the manifest's ranges and names.

    exp: the expression, but for what is named jaw…; jaw: that; pose: the head's rotation; place: its translation, which
    no public script scores. Parts without columns are left out.
    """
    names = [column.name.lower() for column in manifest.columns or ()]
    expression = np.arange(*manifest.motion.expression)
    is_jaw = np.array([bool(names) and names[column].startswith("jaw") for column in expression], bool)
    parts = {
        "exp": expression[~is_jaw],
        "jaw": expression[is_jaw],
        "pose": np.arange(*manifest.motion.rotation),
        "place": np.arange(*manifest.motion.translation),
    }
    return {name: columns for name, columns in parts.items() if len(columns)}


def clips_of(made: Sequence[Generated], columns: Mapping[str, np.ndarray], drop: Drop) -> tuple[list[Clip], Parts]:
    """Sequences as a protocol scores them: columns of parts side by side, frames in which both faces are valid.

    The avatar listens in frames in which it has no turn. Sequences of fewer than two valid frames are left out.
    """
    order, ends = np.concatenate(list(columns.values())), np.cumsum([len(part) for part in columns.values()]).tolist()
    parts = {name: slice(end - len(part), end) for (name, part), end in zip(columns.items(), ends, strict=True)}
    clips = []
    for sequence in made:
        recorded, valid = sequence.recorded, sequence.recorded.valid
        if valid.sum() < 2:
            continue
        first, *more = (motion[valid][:, order] for motion in sequence.motions[drop])
        truth, user = (side[valid][:, order] for side in (recorded.truth, recorded.user))
        clips.append(Clip(truth, user, first, recorded.state[valid] & AVATAR_SPEAKS == 0, more=tuple(more)))
    return clips, parts


def protocol_rows(
    protocol: Protocol,
    made: Mapping[str, Sequence[Clip]],
    parts: Parts,
    *,
    whole: bool,
    upper: Upper | None = None,
    scored: Callable[[], None] = lambda: None,
) -> tuple[dict[str, Rows], dict[str, LeftOut]]:
    """Figures over all frames, and over listening frames where somebody says which those are; and what means leave out.

    Args:
        made: clips by who generated them; all of the same truth. Of several motions for one user the figures are means
            over them, but for `react`, which takes them together, and what stands beside them as often.
        whole: every baseline; else FEW of them. The floor is two halves of the truth beside each other, `shifted` the
            truth at the wrong time, `hold_still` its first frame.
        upper: the upper face's vertices of a motion, which `unils` takes.
        scored: called after every row.

    Returns: {"all" and "listening": {what was scored: {figure: value}}}, and the same of sequences that are left out;
        `unils` parts the frames itself, under "all".
    """
    truth = next(iter(made.values()))
    beside = {"floor": halves(truth), **baselines(truth)}
    if protocol == "react":  # which sums over motions for one user: as many everywhere, or rows do not compare
        several = min(len(clip.more) for clip in truth)
        beside = {name: [replace(c, more=(c.generated,) * several) for c in clips] for name, clips in beside.items()}
    rows = dict(made) | {name: clips for name, clips in beside.items() if whole or name in FEW}
    found: dict[str, Rows] = {"all": {}}
    left_out: dict[str, LeftOut] = {}
    for name, clips in rows.items():
        frames = {"all": clips} | ({} if protocol == "unils" else {"listening": listening_only(clips)})
        for of, some in frames.items():
            if some:
                made_of = _each_seed(protocol, some, parts, upper)
                found.setdefault(of, {})[name] = {figure: _plain(mean.value) for figure, mean in made_of.items()}
                if partly := {figure: mean.left_out for figure, mean in made_of.items() if _is_partial(mean)}:
                    left_out.setdefault(of, {})[name] = partly
        scored()
    return found, left_out


def _each_seed(protocol: Protocol, clips: Sequence[Clip], parts: Parts, upper: Upper | None) -> dict[str, Mean]:
    """The mean over the motions for one user; as many as every clip has."""
    several = min((len(clip.more) for clip in clips), default=0)
    if protocol == "react" or not several:
        return means(protocol, clips, parts, upper)
    motions = [[(clip.generated, *clip.more)[i] for clip in clips] for i in range(several + 1)]
    figures = [
        means(protocol, [replace(c, generated=m, more=()) for c, m in zip(clips, each, strict=True)], parts, upper)
        for each in motions
    ]
    return {name: _together([each[name] for each in figures]) for name in figures[0]}


def _together(seeds: Sequence[Mean]) -> Mean:
    return Mean(mean_defined(np.array([each.value for each in seeds])), max(each.left_out for each in seeds))


def _is_partial(mean: Mean) -> bool:
    return mean.left_out > 0 and math.isfinite(mean.value)


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
