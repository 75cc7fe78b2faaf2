"""What lies beside a video under its name: sidecars of a corpus, turns and boxes of anybody's.

Turns are `NAME.rttm` or `NAME.turns.json`, boxes `NAME.boxes.npz` or `NAME.boxes.json`, beside any `NAME.mp4`; where
both are there, the first counts. Other endings are read beside files of the Seamless Interaction corpus only: a plain
`NAME.json` may be anything.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import NamedTuple

from fsspec import AbstractFileSystem

from visavis.pipeline.plan import seamless
from visavis.pipeline.plan.stamps import remote_stamp, stamp_of
from visavis.schemas.errors import UsageError
from visavis.schemas.uris import printable
from visavis.stages.media.sidecars import SUFFIXES

TURNS, BOXES = (".rttm", ".turns.json"), (".boxes.npz", ".boxes.json")

_LOG = logging.getLogger(__name__)
_MOST_FOLDERS = 64  # whose lists are kept: lists of files hardly ever go back and forth between more


class Beside(NamedTuple):
    """Path → stamp of a corpus' sidecars, in the order of `SUFFIXES`; and path and stamp of what is given, if it is."""

    sidecars: dict[str, str]
    turns: tuple[str, str] | None
    boxes: tuple[str, str] | None


def is_sidecar(path: str) -> bool:
    """True for what may lie beside a video under its name, and is none."""
    return path.endswith((*TURNS, *BOXES)) or seamless.is_sidecar(path)


class Siblings:
    """Finds what lies beside videos by listing their folders. The lists of the last folders are kept."""

    def __init__(self) -> None:
        self._folders: dict[tuple[int, str], dict[str, str]] = {}

    def of(self, fs: AbstractFileSystem | None, path: str) -> Beside:
        """What lies beside the video at `path`. fs: None is a local disk.

        Raises:
            UsageError: beside a file of a corpus, the folder may not be listed. Beside others, a warning is logged.
        """
        folder, _, name = path.rpartition("/")
        files = self._files(fs, folder, needed=seamless.named(path) is not None)
        stem = f"{folder}/{name.rpartition('.')[0] or name}" if "/" in path else name.rpartition(".")[0] or name
        corpus = [stem + suffix for suffix in SUFFIXES] if seamless.named(path) else []
        return Beside(
            {name: files[name] for name in corpus if name in files},
            *(next(((stem + end, files[stem + end]) for end in ends if stem + end in files), None)
              for ends in (TURNS, BOXES)),
        )  # fmt: skip

    def _files(self, fs: AbstractFileSystem | None, folder: str, *, needed: bool) -> dict[str, str]:
        key = (id(fs), folder)
        if key not in self._folders:
            if len(self._folders) >= _MOST_FOLDERS:
                del self._folders[next(iter(self._folders))]
            self._folders[key] = {}  # asked once, whatever it answers
            try:
                with suppress(FileNotFoundError, NotADirectoryError):
                    self._folders[key] = _listed(fs, folder)
            except PermissionError as error:
                where = f"{printable(folder)}: cannot list this folder, where sound and annotations lie"
                if needed:
                    raise UsageError(where) from error
                _LOG.warning(where)
        return self._folders[key]


def _listed(fs: AbstractFileSystem | None, folder: str) -> dict[str, str]:
    if fs is None:
        with os.scandir(folder or "/") as entries:
            return {entry.path: stamp_of(entry.path) for entry in entries if is_sidecar(entry.name)}
    listed = ((str(info["name"]), info) for info in fs.ls(folder, detail=True))
    return {name: remote_stamp(info) for name, info in listed if is_sidecar(name)}
