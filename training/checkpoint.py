"""Checkpoints: one file with everything that a run needs to go on, and that a sampler needs to start.

Weights, averaged weights, optimizer, step, configuration, motion spec, what the audio features hear, the dataset's
manifest hash, the positions of the loaders of every process. A frozen encoder is not in it; its sha256 is, in the
configuration, and no other is accepted. No random state: all randomness is a function of (seed, step, process), so
there is none to carry. Written to a temporary name and renamed, so a checkpoint is whole or absent; read with
`weights_only=True`, so it cannot run code. The same run gives the same bytes, and `checkpoint_id` (sha256) names them
in pairs and reports.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import pickle
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from schemas.errors import UsageError
from schemas.faults import about
from schemas.manifest import AudioSpec, MotionSpec
from schemas.train import TrainConfig
from training.encoder import Encoder, load_encoder
from training.features import audio_spec
from training.model import Listener, build_model

FORMAT = 2
CHECKPOINT_NAME = "checkpoint.pt"


@dataclass(frozen=True)
class Checkpoint:
    config: TrainConfig
    motion: MotionSpec
    manifest: str  # hash of the training dataset's manifest
    step: int
    model: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Any]
    loaders: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # "windows" and "pairs": by process
    reference: str = ""  # preference tuning: id of the frozen checkpoint
    pairs: str = ""  # preference tuning: hash of the pairs' manifest

    @property
    def audio(self) -> AudioSpec:
        return audio_spec(self.config.features, self.config.model)

    @property
    def processes(self) -> int:
        """How many the run has."""
        return len(self.loaders.get("windows", ()))


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write atomically: the old file stays until the new one is complete on disk."""
    buffer = io.BytesIO()
    torch.save(
        {
            "format": FORMAT,
            "header": json.dumps(
                {
                    "config": checkpoint.config.model_dump(mode="json"),
                    "motion": checkpoint.motion.model_dump(mode="json"),
                    "audio": checkpoint.audio.model_dump(mode="json"),
                    "manifest": checkpoint.manifest,
                    "step": checkpoint.step,
                    "loaders": checkpoint.loaders,
                    "reference": checkpoint.reference,
                    "pairs": checkpoint.pairs,
                },
                sort_keys=True,
            ),
            "model": checkpoint.model,
            "ema": checkpoint.ema,
            "optimizer": checkpoint.optimizer,
        },
        buffer,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(path) as temporary, temporary.open("wb") as file:
        file.write(buffer.getbuffer())
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside a file, whose place it takes at the end of the block. OSErrors name the file."""
    temporary = path.with_name(f".{path.name[-200:]}.{os.getpid()}")
    try:
        with about(path):
            yield temporary
            temporary.replace(path)
    finally:
        with suppress(OSError):  # gone; or the disk turned read-only, and that is told already
            temporary.unlink()


def keep_copy(path: Path, step: int, newest: int, every: int) -> None:
    """Keep `checkpoint.pt` as `checkpoint-0000500.pt` too, and the `newest` such up to this step.

    Those of steps that `every` divides stay for good; those of later steps belong to a run that was turned back, and
    are left alone. A second name costs no space until the first one's file is replaced.
    """
    if newest or step % every == 0:
        copy = _numbered(path, step)
        with _replacing(copy) as temporary:
            try:
                os.link(path, temporary)
            except OSError:  # a file system without links
                with path.open("rb") as source, temporary.open("wb") as target:
                    shutil.copyfileobj(source, target)
    pattern = re.compile(rf"{re.escape(path.stem)}-(\d{{7,}}){re.escape(path.suffix)}")
    found = (pattern.fullmatch(file.name) for file in path.parent.iterdir())
    old = sorted(s for s in (int(match[1]) for match in found if match) if s <= step and s % every)
    for s in old[: max(0, len(old) - newest)]:
        _numbered(path, s).unlink(missing_ok=True)


def _numbered(path: Path, step: int) -> Path:
    return path.with_name(f"{path.stem}-{step:07d}{path.suffix}")


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU.

    Raises:
        UsageError: no such file, not a checkpoint, one of another format, or weights that are not finite.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise UsageError(f"cannot read checkpoint {path}: {error.strerror or error}") from error
    with file:
        try:
            raw = torch.load(file, map_location="cpu", weights_only=True)
        except OSError as error:
            if error.errno != errno.EINVAL:  # torch looks for a part that lies before the beginning of a cut file
                raise UsageError(f"cannot read checkpoint {path}: {error.strerror or error}") from error
            raise UsageError(f"{path} is not a whole checkpoint; train again or use another") from error
        except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
            raise UsageError(f"{path} is not a whole checkpoint; train again or use another") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise UsageError(f"{path} is not a checkpoint of format {FORMAT}; train again")
    try:
        _check_finite(path, {f"{of}.{name}": value for of in ("model", "ema") for name, value in raw[of].items()})
        header = json.loads(raw["header"])
        header.pop("audio", None)  # follows from the config; written for those who read headers
        return Checkpoint(
            config=TrainConfig.model_validate(header.pop("config")),
            motion=MotionSpec.model_validate(header.pop("motion")),
            model=raw["model"],
            ema=raw["ema"],
            optimizer=raw["optimizer"],
            **header,
        )
    except (KeyError, TypeError, ValueError, ValidationError) as error:
        raise UsageError(f"{path} is a checkpoint of another version; train again") from error


def _check_finite(path: Path, weights: dict[str, torch.Tensor]) -> None:
    broken = [name for name, value in weights.items() if not torch.isfinite(value).all()]
    if broken:
        raise UsageError(
            f"{path}: {len(broken)} of {len(weights)} weights hold numbers that are not finite, first {broken[0]}; "
            "use an earlier checkpoint, or train again with a lower learning rate"
        )


def checkpoint_id(path: Path) -> str:
    """sha256 of the file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_model(
    checkpoint: Checkpoint,
    device: torch.device | str = "cpu",
    *,
    encoder: Encoder | None = None,
    weights: str | None = None,
) -> Listener:
    """The averaged model, ready to generate.

    Args:
        encoder: the frozen encoder of its features, if it is loaded already.
        weights: where the encoder's weights lie, if not where they lay in training.

    Raises:
        UsageError: as `load_encoder`, above all where the weights are other ones than in training.
    """
    config = checkpoint.config
    if encoder is None:
        _, encoder = load_encoder(config.features, device, weights)
    model = build_model(config.model, config.features, checkpoint.motion, config.seed, encoder)
    model.load_state_dict(checkpoint.ema)
    return model.to(device).eval().requires_grad_(False)
