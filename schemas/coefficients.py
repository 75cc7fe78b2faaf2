"""Motion that is given as coefficients of a face model (FLAME, another 3DMM): what its columns are.

Such motion needs no codec of ours, so there is no file of one: the codec's id says all there is to know. The columns of
`flame-exp50-jaw3-pose3` are 50 of expression, then 3 of the jaw, then 3 of the head, named exp_0 … pose_2. Two datasets
of one id are of one kind, so what was trained on the one goes on with the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import numpy as np

from visavis.schemas.manifest import MotionColumn, MotionSpec

CoefficientKind = Literal["flame", "3dmm", "seamless"]
"""flame: FLAME's (Li 2017). 3dmm: of another linear face model. seamless: `movement` of Seamless Interaction."""

_ID = re.compile(r"(flame|3dmm|seamless)((?:-[a-z]+[0-9]+)+)")
_GROUP = re.compile(r"-([a-z]+)([0-9]+)")
RADIANS = {"jaw", "pose", "neck", "eyes", "gaze"}
ROTATION, TRANSLATION = "pose", "place"
"""Groups of which the manifest knows that they turn and move the head."""


def codec_name(kind: CoefficientKind, sizes: Mapping[str, int]) -> str:
    """The id of a codec of these groups, by their columns, in their order."""
    return "-".join([kind, *(f"{group}{size}" for group, size in sizes.items() if size)])


def kind_of(codec: str) -> str | None:
    """What face model a codec's coefficients are of; None where it is of landmarks."""
    found = _ID.fullmatch(codec)
    return found[1] if found else None


def is_coefficients(codec: str) -> bool:
    """Whether a codec's motion is coefficients, which nothing here turns into a face."""
    return kind_of(codec) is not None


def groups_of(codec: str) -> dict[str, slice]:
    """A face model's groups by name, in their order; none of a codec of landmarks."""
    found, groups, first = _ID.fullmatch(codec), dict[str, slice](), 0
    for name, size in _GROUP.findall(found[2]) if found else ():
        groups[name] = slice(first, first + int(size))
        first += int(size)
    return groups


def dims_of(codec: str) -> int:
    """Columns of a codec of coefficients."""
    return max((span.stop for span in groups_of(codec).values()), default=0)


def column_groups(motion: MotionSpec) -> dict[str, slice]:
    """Columns that belong together, by name and in their order: a face model's groups, or expression and pose.

    Of landmarks' codecs: `rotation`, `translation`, `expression`, as the manifest has them.
    """
    if groups := groups_of(motion.codec):
        return groups
    ranges = {name: getattr(motion, name) for name in ("rotation", "translation", "expression")}
    return {name: slice(first, last) for name, (first, last) in ranges.items() if first < last}


def coefficient_columns(motion: MotionSpec) -> tuple[MotionColumn, ...]:
    """Names and units. Expression has none: its scores are deviations of the model's own population."""
    return tuple(
        MotionColumn(name=f"{group}_{n}", unit="rad" if group in RADIANS else "")
        for group, span in column_groups(motion).items()
        for n in range(span.stop - span.start)
    )


def coefficient_spec(codec: str, mean_D: np.ndarray, std_D: np.ndarray) -> MotionSpec:
    """What the manifest says of such motion. What comes before the head's pose counts as expression."""
    dim = len(mean_D)
    groups, nothing = groups_of(codec), slice(dim, dim)
    pose, place = groups.get(ROTATION, nothing), groups.get(TRANSLATION, nothing)
    return MotionSpec(
        codec=codec,
        dim=dim,
        rotation=(pose.start, pose.stop),
        translation=(place.start, place.stop),
        expression=(0, min(pose.start, place.start)),
        mean=tuple(map(float, mean_D)),
        std=tuple(map(float, std_D)),
    )


def scale_by_group(std_D: np.ndarray, groups: Mapping[str, slice]) -> np.ndarray:
    """One deviation for each group, the root mean square of its columns': float64 [D].

    Scores of a face model fall off from the first to the last, which is what they are worth. By column each would count
    the same, and those that hardly move, such as a jaw's turn about its axis, would be amplified noise.
    """
    scaled = np.array(std_D, np.float64)
    for span in groups.values():
        scaled[span] = np.sqrt(np.mean(np.square(scaled[span])))
    return scaled
