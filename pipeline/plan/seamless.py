"""The Seamless Interaction corpus (arXiv 2506.22554) as it lies on disk once its archives are unpacked.

    improvised|naturalistic/train|dev|test/BATCH/ARCHIVE/V00_S0809_I00000582_P0947.{mp4,wav,json,npz}

One file per participant; those of one vendor, session and interaction are a conversation, and may lie in different
archives. Participants keep their number from session to session, so a person is named by vendor and number: that is
what the split by identity goes by.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import NamedTuple

from fsspec import AbstractFileSystem

from visavis.pipeline.plan.stamps import remote_stamp, stamp_of
from visavis.schemas.errors import UsageError
from visavis.schemas.uris import printable
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


class Siblings:
    """Finds sidecars by listing the folder that a video is in. The last folder's list is kept: videos come sorted."""

    def __init__(self) -> None:
        self._folder: tuple[int, str] | None = None
        self._files: dict[str, str] = {}

    def of(self, fs: AbstractFileSystem | None, path: str) -> dict[str, str]:
        """Path → stamp of each sidecar of the video at `path`, in the order of `SUFFIXES`. fs: None is a local disk.

        Raises:
            UsageError: the folder may not be listed, or its store does not answer.
        """
        folder = (id(fs), path.rpartition("/")[0])
        if folder != self._folder:
            self._folder, self._files = folder, {}  # asked once, whatever it answers
            try:
                with suppress(FileNotFoundError, NotADirectoryError):
                    self._files = _sidecars(fs, folder[1])
            except PermissionError as error:
                where = printable(folder[1])
                raise UsageError(f"{where}: cannot list this folder, where sound and annotations lie") from error
        stem = path.rpartition(".")[0]
        names = (stem + suffix for suffix in SUFFIXES)
        return {name: self._files[name] for name in names if name in self._files}


def _sidecars(fs: AbstractFileSystem | None, folder: str) -> dict[str, str]:
    if fs is None:
        with os.scandir(folder or "/") as entries:
            return {entry.path: stamp_of(entry.path) for entry in entries if is_sidecar(entry.name)}
    listed = ((str(info["name"]), info) for info in fs.ls(folder, detail=True))
    return {name: remote_stamp(info) for name, info in listed if is_sidecar(name)}
