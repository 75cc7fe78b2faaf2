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
from visavis.training.protocols.clips import Clip, Parts, baselines, halves, listening_only
from visavis.training.protocols.dualtalk import OTHERS
from visavis.training.protocols.figures import clusters_of, rpcc
from visavis.training.protocols.react import SYNCHRONY_LAG
from visavis.training.protocols.score import Protocol, score
from visavis.training.protocols.unils import Upper
from visavis.training.sequences import Generated

FEW = ("floor", "shifted", "hold_still")
"""Rows beside what was generated, where not all are asked for."""
Rows = dict[str, dict[str, float | None]]
"""By what was scored, and figure; None where it is not defined."""


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
) -> dict[str, Rows]:
    """Figures over all frames, and over listening frames where somebody says which those are.

    Args:
        made: clips by who generated them; all of the same truth. Of several motions for one user the figures are means
            over them, but for `react`, which takes them together, and what stands beside them as often.
        whole: every baseline; else FEW of them. The floor is two halves of the truth beside each other, `shifted` the
            truth at the wrong time, `hold_still` its first frame.
        upper: the upper face's vertices of a motion, which `unils` takes.
        scored: called after every row.

    Returns: {"all" and "listening": {what was scored: {figure: value}}}; `unils` parts the frames itself, under "all".
    """
    truth = next(iter(made.values()))
    beside = {"floor": halves(truth), **baselines(truth)}
    if protocol == "react":  # which sums over motions for one user: as many everywhere, or rows do not compare
        several = min(len(clip.more) for clip in truth)
        beside = {name: [replace(c, more=(c.generated,) * several) for c in clips] for name, clips in beside.items()}
    rows = dict(made) | {name: clips for name, clips in beside.items() if whole or name in FEW}
    found: dict[str, Rows] = {"all": {}}
    for name, clips in rows.items():
        found["all"][name] = _plain(_each_seed(protocol, clips, parts, upper))
        if protocol != "unils" and (listening := listening_only(clips)):
            found.setdefault("listening", {})[name] = _plain(_each_seed(protocol, listening, parts))
        scored()
    return found


def partial_means(protocol: Protocol, clips: Sequence[Clip], parts: Parts) -> dict[str, int]:
    """In how many sequences a figure of what was generated is not defined, by its name, where its mean leaves some
    out: too few frames for the clusters of SID or the lags of FRSyn, a correlation of what does not move."""
    found: dict[str, int] = {}
    if protocol == "react":
        found["FRSyn"] = sum(len(clip.truth) < SYNCHRONY_LAG + 2 for clip in clips)
    for name, part in parts.items() if protocol == "dualtalk" else ():
        found[f"SID_{name}"] = sum(len(clip.truth) < clusters_of(name, OTHERS) for clip in clips)
        found[f"rPCC_{name}"] = sum(math.isnan(rpcc(clip.part(part).double())) for clip in clips)
    return {figure: count for figure, count in found.items() if 0 < count < len(clips)}


def _each_seed(protocol: Protocol, clips: Sequence[Clip], parts: Parts, upper: Upper | None = None) -> dict[str, float]:
    """The mean over the motions for one user; as many as every clip has."""
    several = min((len(clip.more) for clip in clips), default=0)
    if protocol == "react" or not several:
        return score(protocol, clips, parts, upper)
    motions = [[(clip.generated, *clip.more)[i] for clip in clips] for i in range(several + 1)]
    figures = [
        score(protocol, [replace(c, generated=m, more=()) for c, m in zip(clips, each, strict=True)], parts, upper)
        for each in motions
    ]
    return {name: mean_defined(np.array([each[name] for each in figures])) for name in figures[0]}


def _plain(figures: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}
