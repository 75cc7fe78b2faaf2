"""What the frozen model says of pairs, asked once: sweeps of β, λ or the learning rate ask it the same again.

Noise and levels of a step depend on (seed, step, part) and its batch on the loader's place. So runs on the same pairs
with the same seed and batch put the same questions to the same reference model, and its passes can be read from a file
instead. Every answer lies beside a digest of its question and counts only where that is the same: a file may be cut off
or shared by runs side by side, and is never wrong.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
import torch

from visavis.schemas.errors import UsageError
from visavis.schemas.storage.faults import about
from visavis.training.flow import Noise
from visavis.training.loader import Batch
from visavis.training.preferences.pairs import PairErrors, PairOffsets

_LOG = logging.getLogger(__name__)


class ReferenceErrors:
    """A file of errors or offsets of both sides, by place in the run: accumulated batches of all steps in order."""

    def __init__(self, folder: Path, asked: dict[str, object], places: int, *shape: int) -> None:
        """
        Args:
            asked: what tells the questions of a run from those of another; it names the file.
            shape: of an answer on one side, [B, T] or [B, T, D].

        Raises:
            UsageError: the folder cannot be written.
        """
        self._full = False
        name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]
        path = folder / f"{name}.npy"
        kind = np.dtype([("question", "<u8"), ("errors", "<f4", (2, *shape))])
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                _create(path, kind, places)
            self._file = path.open("r+b")
            self._kind, self._begin = _header(self._file)
        except OSError as error:
            raise UsageError(f"dpo.cache: cannot write {folder} ({error.strerror or error})") from error
        except ValueError as error:
            raise UsageError(f"dpo.cache: {path} is no file of answers; remove it") from error
        if self._kind != kind:
            raise UsageError(f"dpo.cache: {path} is no file of answers; remove it")

    def of(
        self, place: int, pairs: Batch, noise: Noise, compute: Callable[[], PairErrors | PairOffsets]
    ) -> PairErrors | PairOffsets:
        """What is said of both sides, on the noise's device."""
        question, at = _digest(pairs, noise), self._begin + place * self._kind.itemsize
        known = os.pread(self._file.fileno(), self._kind.itemsize, at)
        answers = np.frombuffer(known, self._kind, len(known) // self._kind.itemsize)  # none where it is cut off
        if len(answers) and answers[0]["question"] == question:
            chosen, rejected = torch.from_numpy(answers[0]["errors"].copy()).to(noise.t.device)
            return chosen, rejected
        sides = compute()
        self._keep(at, question, torch.stack(sides).float().cpu().numpy())
        return sides

    def _keep(self, at: int, question: np.uint64, errors: np.ndarray) -> None:
        """Into the file, by writing and not through memory: there a full disk would kill the process (SIGBUS)."""
        if self._full:
            return
        try:
            with about(self._file.name):
                size = question.dtype.itemsize
                _write(self._file, errors.tobytes(), at + size)
                _write(self._file, question.tobytes(), at)  # last: what is cut off before it does not count
        except OSError as error:
            self._full = True
            _LOG.warning("dpo.cache: %s: %s; training goes on without it", error.filename, error.strerror)


def _header(file: IO[bytes]) -> tuple[np.dtype, int]:
    """What a record is, and where the first one begins."""
    np.lib.format.read_magic(file)
    _, _, kind = np.lib.format.read_array_header_1_0(file)
    return kind, file.tell()


def _write(file: IO[bytes], data: bytes, at: int) -> None:
    while data:
        done = os.pwrite(file.fileno(), data, at)
        data, at = data[done:], at + done


def _create(path: Path, kind: np.dtype, places: int) -> None:
    """An empty file that takes no room yet. Of several processes that make it at once, the first one wins."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    np.lib.format.open_memmap(scratch, mode="w+", dtype=kind, shape=(places,)).flush()
    try:
        os.link(scratch, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links; who opened another's file before writes answers that are lost
        if not path.exists():
            scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _digest(pairs: Batch, noise: Noise) -> np.uint64:
    """Of the keys and the noise levels; never 0, which is an empty place."""
    found = hashlib.sha256("\n".join(pairs.keys).encode())
    found.update(noise.t.cpu().numpy().tobytes())  # the rest of the noise comes from the same generator
    return np.uint64(int.from_bytes(found.digest()[:8], "little") | 1)
