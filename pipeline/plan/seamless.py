"""The Seamless Interaction corpus (arXiv 2506.22554) as it lies on disk once its archives are unpacked.

    improvised|naturalistic/train|dev|test/BATCH/ARCHIVE/V00_S0809_I00000582_P0947.{mp4,wav,json,npz}

One file per participant; those of one vendor, session and interaction are a conversation, and may lie in different
archives. Participants keep their number from session to session, so a person is named by vendor and number: that is
what the split by identity goes by.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from visavis.stages.media.sidecars import SUFFIXES

_NAME = re.compile(r"((V\d+)_S\d+_I\d+)_(P\d+[A-Z]?)(\.\w+)", re.ASCII)  # a few numbers end in a letter


class Named(NamedTuple):
    """What a file's name says."""

    conversation: str
    participant: str
    suffix: str


def named(path: str) -> Named | None:
    """What the name of a file of this corpus says; None for any other file."""
    found = _NAME.fullmatch(path.rpartition("/")[2])
    return Named(found[1], f"{found[2]}_{found[3]}", found[4].lower()) if found else None


def is_sidecar(path: str) -> bool:
    """True for a file of this corpus that is no video, but lies beside one."""
    found = named(path)
    return found is not None and found.suffix in SUFFIXES
