"""Pickled files → safetensors: checkpoints of format 2, and weights of encoders and separators.

The old file is unpickled by `training.unpickle`, in a process of its own. What that leaves is read as anybody's file
would be, and takes its name only when it was found whole. The same file gives the same bytes, so weights that are
converted again, or elsewhere, have the digest that a converted checkpoint names.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from visavis.schemas.errors import UsageError
from visavis.schemas.manifest import MotionSpec
from visavis.schemas.plain import read_strict
from visavis.schemas.storage.faults import about
from visavis.schemas.storage.user_files import GB, check_file, check_size
from visavis.schemas.train import TrainConfig
from visavis.schemas.untrusted import parsing
from visavis.schemas.uris import printable
from visavis.training import unpickle
from visavis.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from visavis.training.tensors import looks_pickled, read_head, read_tensors, write_tensors

OLD_FORMAT = 2
_MOST_BYTES = 64 * GB
_SECONDS = 3600.0
_PASSED_ON = ("LD_LIBRARY_PATH", "SYSTEMROOT")  # without which Python or torch may not start
_NEW_NAMES = {"pytorch_model.bin": "model.safetensors"}  # as transformers call them


def convert(file: Path, to: Path | None = None, encoder: Path | None = None) -> list[Path]:
    """Convert a checkpoint or weights.

    Args:
        to: the new file; else beside the old one, as `new_name` says.
        encoder: for a checkpoint with an encoder: the file of its weights, converted or not.

    Returns: the new files; the old ones stay.

    Raises:
        UsageError: not a file of torch.save, one that holds more than tensors, neither a checkpoint nor a state dict,
            or there is such a file already. One line, and nothing is written.
    """
    to = to or new_name(file)
    if to.exists():
        raise UsageError(f"{_named(to)} exists; remove it, or name another with --to")
    content = unpickled(file)
    if isinstance(content, dict) and "format" in content:
        return _convert_checkpoint(file, content, to, encoder)
    if encoder is not None:
        raise UsageError(f"{_named(file)} is no checkpoint; --encoder goes with one")
    _write_weights(_weights(file, content), to)
    return [to]


def new_name(file: Path) -> Path:
    """Where the converted file goes, unless somebody says otherwise."""
    return file.with_name(_NEW_NAMES.get(file.name, f"{file.stem}.safetensors"))


def unpickled(file: Path) -> Any:
    """What torch.save wrote, plain containers of plain values and tensors, read by a process of its own.

    Raises:
        UsageError: see `convert`.
    """
    size = _size_of(file)
    with tempfile.TemporaryDirectory(prefix="visavis-") as folder:
        target = Path(folder) / "tensors"
        _run(file, target, Path(folder), 4 * size + GB)
        with (
            target.open("rb") as found,
            parsing(lambda why: UsageError(f"{_named(file)} cannot be converted: {why}")),
        ):
            head = read_head(found)
            return _grown(read_strict(head.note["tree"]), read_tensors(found, head, head.tensors))


def _size_of(file: Path) -> int:
    try:
        check_file(str(file))
        size = file.stat().st_size
        check_size(size, _MOST_BYTES)
        with file.open("rb") as opened:
            pickled = looks_pickled(opened)
    except OSError as error:
        raise UsageError(f"cannot read {_named(file)}: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"{_named(file)} {error}") from error
    if not pickled:
        raise UsageError(f"{_named(file)} is no file of torch.save: there is nothing to convert")
    return size


def _run(file: Path, target: Path, folder: Path, memory: int) -> None:
    """Unpickle, without anything of the user's environment."""
    words = [sys.executable, "-P", str(Path(unpickle.__file__)), str(file.absolute()), str(target), str(memory)]
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment |= {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }
    said = folder / "said"
    with said.open("wb") as stderr:
        done = subprocess.Popen(  # noqa: S603 - no shell, and no word of the file's
            words, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr
        )
        try:
            code = done.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            done.kill()
            done.wait()
    if code or not target.is_file():
        with said.open("rb") as stderr_:
            lines = stderr_.read(100_000).decode(errors="replace").strip().splitlines()
        why = lines[-1][:300] if lines and code == 3 else "reading it took more memory or time than its size explains"
        raise UsageError(f"{_named(file)} cannot be converted: it {printable(why)}")


def _grown(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `training.unpickle`'s tree."""
    ((kind, value),) = tree.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {key: _grown(each, tensors) for key, each in value}
    return [_grown(each, tensors) for each in value] if kind == "list" else value


def _weights(file: Path, content: Any) -> dict[str, Tensor]:
    if not isinstance(content, dict) or not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise UsageError(f"{_named(file)} is neither a checkpoint nor a state dict: its values are not all tensors")
    return {str(name): value for name, value in content.items()}


def _write_weights(tensors: Mapping[str, Tensor], to: Path) -> None:
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=".visavis-") as folder, about(to):
        made = Path(folder) / to.name
        with made.open("wb") as file:
            write_tensors(file, tensors)
            file.flush()
            os.fsync(file.fileno())
        made.replace(to)


def _convert_checkpoint(file: Path, content: dict[str, Any], to: Path, encoder: Path | None) -> list[Path]:
    with parsing(lambda why: UsageError(f"{_named(file)} is no checkpoint of format {OLD_FORMAT}: {why}")):
        if content["format"] != OLD_FORMAT:
            raise ValueError(f"its format is {content['format']}")
        checkpoint = _old_checkpoint(content)
    made: list[Path] = []
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=".visavis-") as folder, about(to):
        checkpoint, weights = _with_encoder(file, checkpoint, encoder, Path(folder))
        whole = Path(folder) / to.name
        save_checkpoint(checkpoint, whole)
        load_checkpoint(whole)
        if weights is not None and encoder is not None and not (there := new_name(encoder)).exists():
            weights.replace(there)
            made.append(there)
        whole.replace(to)
    return [*made, to]


def _old_checkpoint(content: Mapping[str, Any]) -> Checkpoint:
    header = read_strict(content["header"])
    header.pop("audio", None)
    return Checkpoint(
        config=TrainConfig.model_validate(header.pop("config")),
        motion=MotionSpec.model_validate(header.pop("motion")),
        model=content["model"],
        ema=content["ema"],
        optimizer=content["optimizer"],
        **header,
    )


def _with_encoder(
    file: Path, checkpoint: Checkpoint, encoder: Path | None, folder: Path
) -> tuple[Checkpoint, Path | None]:
    """The checkpoint that names the converted weights of its encoder, and these, if they had to be converted."""
    features = checkpoint.config.features
    if features.kind != "wav2vec2":
        return checkpoint, None
    named = f"sha256 {str(features.weights_sha256)[:12]}…"
    if encoder is None:
        lay = f"; they lay at {printable(features.weights)}" if features.weights else ""
        raise UsageError(
            f"{_named(file)} was trained on an encoder: give its weights, too, with --encoder FILE ({named}{lay})"
        )
    old, pickled = _looked_at(encoder)
    if old != features.weights_sha256:
        raise UsageError(f"--encoder: {_named(encoder)} has sha256 {old[:12]}…, the checkpoint's encoder {named}")
    if not pickled:
        return checkpoint, None
    weights = folder / "encoder"
    _write_weights(_weights(encoder, unpickled(encoder)), weights)
    new = {"weights": str(new_name(encoder)), "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    config = checkpoint.config.model_copy(update={"features": features.model_copy(update=new)})
    return replace(checkpoint, config=config), weights


def _looked_at(encoder: Path) -> tuple[str, bool]:
    """Its sha256, and whether it is pickled."""
    try:
        check_file(str(encoder))
        with encoder.open("rb") as file:
            pickled = looks_pickled(file)
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest(), pickled
    except (OSError, ValueError) as error:
        raise UsageError(f"--encoder: cannot read {_named(encoder)}: {error}") from error


def _named(path: Path) -> str:
    return printable(str(path))
