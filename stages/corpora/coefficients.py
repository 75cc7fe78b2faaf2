"""A person's motion as a corpus has it, by group of coefficients; and what all layouts ask of it.

Shape suffixes: T frames, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from visavis.schemas.coefficients import RADIANS, groups_of
from visavis.schemas.errors import Reason, Rejected

LARGEST_ARRAY = 512 << 20
"""Bytes of an unpacked array: ten hours of 112 columns."""
_HEAD_RADIUS = 8.0  # as of landmarks (`stages.windows`): turns the head's rotation into the movement of a point


class Taken(NamedTuple):
    """parts: [T, columns] by group, in the order in which they are stored. valid_T: None: all.

    speaks_T: bool, when this person speaks, where the corpus says.

    Raises:
        Rejected: UNREADABLE, by `frames`: they are of different lengths.
    """

    parts: dict[str, np.ndarray]
    valid_T: np.ndarray | None = None
    speaks_T: np.ndarray | None = None

    def frames(self, where: str) -> int:
        lengths = {name: len(part) for name, part in self.parts.items()}
        lengths |= {} if self.valid_T is None else {"valid": len(self.valid_T)}
        if len(set(lengths.values())) > 1:
            said = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise Rejected(Reason.UNREADABLE, f"{where}: frames differ ({said})")
        return next(iter(lengths.values()))


def joined(parts: Mapping[str, np.ndarray], where: str, largest: float) -> np.ndarray:
    """Groups side by side, float32 [T, D].

    Raises:
        Rejected: UNREADABLE, numbers that are not finite, or larger than `largest`.
    """
    for name, part in parts.items():
        bad = int((~np.isfinite(part)).sum())
        if bad:
            raise Rejected(Reason.UNREADABLE, f"{where}: {name} has {bad} of {part.size} numbers that are not finite")
        if part.size and (most := float(np.abs(part).max())) > largest:
            raise Rejected(Reason.UNREADABLE, f"{where}: {name} reaches {most:g}, more than {largest:g}")
    return np.concatenate(list(parts.values()), axis=1).astype(np.float32)


def table_of(array: np.ndarray, name: str, where: str, least: int = 1, most: int | None = None) -> np.ndarray:
    """An array [T, columns] of `least` to `most` columns.

    Raises:
        Rejected: UNREADABLE, another shape, or no fractions.
    """
    if array.ndim == 3 and array.shape[1] == 1:  # some write [T, 1, columns]
        array = array[:, 0]
    wanted = f"{least}" if most == least else f"{least} or more" if most is None else f"{least} to {most}"
    if array.dtype.kind != "f" or array.ndim != 2 or not least <= array.shape[1] <= (most or array.shape[1]):
        raise Rejected(
            Reason.UNREADABLE, f"{where}: {name} is {array.dtype} {array.shape}, expected frames × {wanted} numbers"
        )
    return array


def expression_of(array: np.ndarray, size: int, where: str) -> np.ndarray:
    """The expression [T, size].

    Raises:
        Rejected: UNREADABLE, it has another number of columns: they would be another motion.
    """
    table = table_of(array, "exp", where)
    if table.shape[1] != size:
        raise Rejected(
            Reason.UNREADABLE,
            f"{where}: exp has {table.shape[1]} columns, {size} are taken (recording.exp={table.shape[1]} takes them)",
        )
    return table


def energy(codec: str, motion_TD: np.ndarray) -> float:
    """How much a face and head move in a window: standard deviation over time, of all columns together, of which those
    in radians count for a point at the head's radius (cm). A score of the model's own population counts as it is.

    Its unit is no centimetre: it ranks windows of one corpus, as the balance plan needs it.
    """
    weight_D = np.ones(motion_TD.shape[1])
    for name, span in groups_of(codec).items():
        if name in RADIANS:
            weight_D[span] = _HEAD_RADIUS
    return float(np.sqrt((motion_TD.astype(np.float64).var(0) * weight_D**2).sum()))
