"""Faces are looked for in a process of their own, which leaves this one's interpreter to the model.

In one process the two would take turns at the interpreter's lock, op by op: a block of 60 ms then took 500. And what
a picture might do to a decoder or a face model ends the session that it is from, never the server.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from visavis.pipeline.live.perception import Eyes, Seen
from visavis.pipeline.view.portrait import Portrait
from visavis.pipeline.view.portrait_sources import read_portrait
from visavis.schemas.config import FacesConfig
from visavis.schemas.dyads import Codec
from visavis.stages.faces import FaceTracker, tracker_of


class Looker(Protocol):
    """What a session asks for motion: `begin` for each session, then `look` with its pictures in their order."""

    async def begin(self) -> None: ...

    async def look(self, jpeg: bytes) -> Seen | None: ...


class LookingProcess:
    """One process that looks; a new one where the last one died.

    Args:
        mean_D, std_D: see `Eyes`.
    """

    def __init__(self, codec: Codec, faces: FacesConfig, mean_D: np.ndarray, std_D: np.ndarray) -> None:
        self._given = codec, faces, mean_D, std_D
        self._pool: ProcessPoolExecutor | None = None

    async def begin(self) -> None:
        """A person whom it does not know."""
        try:
            await self._run(_begin)
        except BrokenProcessPool:
            self._pool = None
            await self._run(_begin)

    async def look(self, jpeg: bytes) -> Seen | None:
        """See `Eyes.look`."""
        return await self._run(_look, jpeg)

    async def portrait(self, path: Path) -> Portrait:
        """See `read_portrait`."""
        return await self._run(_portrait, path)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    async def _run(self, do: Callable[..., Any], *given: Any) -> Any:
        if self._pool is None:
            spawn = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, spawn, _load, self._given)
        return await asyncio.get_running_loop().run_in_executor(self._pool, do, *given)


# Of the process that looks.
_given: tuple[Codec, np.ndarray, np.ndarray]
_tracker: FaceTracker
_eyes: Eyes


def _load(codec: Codec, faces: FacesConfig, mean_D: np.ndarray, std_D: np.ndarray) -> None:
    global _given, _tracker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to answer
    os.nice(10)  # what it sees while a block is made is for the next one
    cv2.setNumThreads(1)
    _given, _tracker = (codec, mean_D, std_D), tracker_of(faces)


def _begin() -> None:
    global _eyes
    codec, mean_D, std_D = _given
    _eyes = Eyes(codec, _tracker, mean_D, std_D)


def _look(jpeg: bytes) -> Seen | None:
    return _eyes.look(jpeg)


def _portrait(path: Path) -> Portrait:
    return read_portrait(path, _tracker)
