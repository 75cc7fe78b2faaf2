"""Which of a run's processes this one is, as the environment says; without torch, so that any failure can be signed.

torchrun and Ray Train set WORLD_SIZE and RANK. Job schedulers and shells leave one of them behind now and then: a RANK
alone means nothing, and a WORLD_SIZE alone is a launch that went wrong.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from visavis.schemas.errors import UsageError


class Ranks(NamedTuple):
    rank: int
    size: int


def ranks() -> Ranks:
    """This process' number and how many there are; (0, 1) for a process alone.

    Raises:
        UsageError: the variables contradict each other.
    """
    size = _number("WORLD_SIZE", 1)
    if size == 1:
        return Ranks(0, 1)
    if "RANK" not in os.environ:
        raise UsageError(f"WORLD_SIZE is {size} and RANK is not set: start with torchrun, or unset WORLD_SIZE")
    rank = _number("RANK", 0)
    if not 0 <= rank < size:
        raise UsageError(f"RANK is {rank} and WORLD_SIZE {size}: start with torchrun, or unset both")
    return Ranks(rank, size)


def signature() -> str:
    """`rank 3 of 8: ` before what one of several processes says; empty for a process alone."""
    try:
        rank, size = ranks()
    except UsageError:
        return ""
    return f"rank {rank} of {size}: " if size > 1 else ""


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "").strip() or str(default)
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0 or (name == "WORLD_SIZE" and number == 0):
        raise UsageError(f"{name} is {text!r}, not a number of processes: start with torchrun, or unset it")
    return number
