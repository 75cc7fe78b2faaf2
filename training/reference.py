"""What the frozen model says of pairs, asked once: sweeps of β, λ or the learning rate ask it the same again.

Noise and levels of a step hang on (seed, step, part) and its batch on the loader's place. So runs on the same pairs
with the same seed and batch put the same questions to the same reference model, and its passes can be read from a file
instead. Every answer lies beside a digest of its question and counts only where that is the same: a file may be cut off
or shared by runs side by side, and is never wrong.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from schemas.errors import UsageError
from training.data import Batch
from training.dpo import Sides
from training.flow import Noise


class ReferenceErrors:
    """A file of errors per frame of both sides, by place in the run: accumulated batches of all steps in order."""

    def __init__(self, folder: Path, asked: dict[str, object], places: int, batch: int, frames: int) -> None:
        """
        Args:
            asked: what tells the questions of a run from those of another; it names the file.

        Raises:
            UsageError: the folder cannot be written.
        """
        name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]
        path = folder / f"{name}.npy"
        kind = np.dtype([("question", "<u8"), ("errors", "<f4", (2, batch, frames))])
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                _create(path, kind, places)
            self._answers = np.lib.format.open_memmap(path, mode="r+")  # makes good what was cut off
        except OSError as error:
            raise UsageError(f"dpo.cache: cannot write {folder} ({error.strerror or error})") from error
        except ValueError as error:
            raise UsageError(f"dpo.cache: {path} is no file of answers; remove it") from error

    def of(self, place: int, pairs: Batch, noise: Noise, compute: Callable[[], Sides]) -> Sides:
        """Errors of both sides, on the noise's device."""
        question = _digest(pairs, noise)
        answer = self._answers[place]
        if answer["question"] == question:
            chosen, rejected = torch.from_numpy(answer["errors"].copy()).to(noise.t.device)
            return chosen, rejected
        sides = compute()
        answer["errors"] = torch.stack(sides).float().cpu().numpy()
        answer["question"] = question  # last: what is cut off before it does not count
        return sides


def _create(path: Path, kind: np.dtype, places: int) -> None:
    """An empty file that takes no room yet. Of several processes that make it at once, the first one wins."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    np.lib.format.open_memmap(scratch, mode="w+", dtype=kind, shape=(places,)).flush()
    try:
        os.link(scratch, path)
    except FileExistsError:
        pass
    finally:
        scratch.unlink()


def _digest(pairs: Batch, noise: Noise) -> np.uint64:
    """Of the keys and the noise levels; never 0, which is an empty place."""
    found = hashlib.sha256("\n".join(pairs.keys).encode())
    found.update(noise.t.cpu().numpy().tobytes())  # the rest of the noise comes from the same generator
    return np.uint64(int.from_bytes(found.digest()[:8], "little") | 1)
