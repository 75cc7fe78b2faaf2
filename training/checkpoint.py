"""Checkpoints: one file with everything that a run needs to go on, and that a sampler needs to start.

Weights, averaged weights, optimizer, step, configuration, motion spec, what the audio features hear, the dataset's
manifest hash, the positions of the loaders of every process. A frozen encoder is not in it; its sha256 is, in the
configuration, and no other is accepted. No random state: all randomness is a function of (seed, step, process), so
there is none to carry. Written to a temporary name and renamed, so a checkpoint is whole or absent. The same run gives
the same bytes, and `checkpoint_id` (sha256) names them in pairs and reports.

The file is one of safetensors: tensors `model.*`, `ema.*` and `optimizer.*`, and the rest as JSON in its header. It may
come from others, so nothing in it is run or followed. What it claims is held against the model that its configuration
describes, built without memory, before a weight is read.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from visavis.schemas.errors import UsageError
from visavis.schemas.manifest import AudioSpec, MotionSpec
from visavis.schemas.plain import read_strict, to_json
from visavis.schemas.storage.faults import about
from visavis.schemas.storage.user_files import GB, check_file, check_size
from visavis.schemas.train import TrainConfig
from visavis.schemas.untrusted import parsing
from visavis.schemas.uris import printable, shown
from visavis.training.encoder import Encoder, load_encoder, named_by, stand_in
from visavis.training.features import audio_spec
from visavis.training.model import Listener, build_model
from visavis.training.tensors import Entry, Head, fit, looks_pickled, read_head, read_tensors, write_tensors

FORMAT = 3
CHECKPOINT_NAME = "checkpoint.safetensors"
OLD_NAME = "checkpoint.pt"
"""Up to format 2, which was pickled."""

_NOTE = "visavis"  # the one text beside the tensors: other readers write several in any order
_MOST_BYTES = 64 * GB
_MOST_STEPS = 1 << 53

_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_NoDigest = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
_Count = Annotated[int, Field(ge=0, le=_MOST_STEPS)]
_Number = int | float  # as it was: 0 stays 0, or the bytes would change
_LoaderState = dict[str, dict[str, str] | Annotated[list[_Count], Field(max_length=3)]]
"""As `training.loader.Loader.state`."""


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
    reference: str = ""  # preference tuning: id of the frozen checkpoint; of a student: of its teacher
    pairs: str = ""  # preference tuning: hash of the pairs' manifest

    @property
    def audio(self) -> AudioSpec:
        return audio_spec(self.config.features, self.config.model)

    @property
    def processes(self) -> int:
        """How many the run has."""
        return len(self.loaders.get("windows", ()))


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _Group(_Plain):
    """Settings of torch's Adam for a group of parameters, as its `state_dict` has them."""

    params: list[_Count]
    lr: _Number
    betas: tuple[_Number, _Number]
    eps: _Number
    weight_decay: _Number
    amsgrad: bool
    maximize: bool
    foreach: bool | None = None
    capturable: bool
    differentiable: bool
    fused: bool | None = None
    decoupled_weight_decay: bool = False


class _Header(_Plain):
    """What the JSON in a checkpoint holds."""

    format: Literal[3]
    config: TrainConfig
    motion: MotionSpec
    audio: AudioSpec  # follows from the config; written for those who read headers
    manifest: _Digest
    step: _Count
    loaders: dict[Literal["windows", "pairs"], list[_LoaderState]]
    reference: _NoDigest
    pairs: _NoDigest
    groups: list[_Group]


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write atomically: the old file stays until the new one is complete on disk."""
    moments, groups = _optimizer_as_tensors(checkpoint.optimizer)
    header = {
        "format": FORMAT,
        "config": _without_keys(checkpoint.config).model_dump(mode="json"),
        "motion": checkpoint.motion.model_dump(mode="json"),
        "audio": checkpoint.audio.model_dump(mode="json"),
        "manifest": checkpoint.manifest,
        "step": checkpoint.step,
        "loaders": checkpoint.loaders,
        "reference": checkpoint.reference,
        "pairs": checkpoint.pairs,
        "groups": groups,
    }
    tensors = _prefixed("model", checkpoint.model) | _prefixed("ema", checkpoint.ema) | moments
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(path) as temporary, temporary.open("wb") as file:
        write_tensors(file, tensors, {_NOTE: to_json(header)})
        file.flush()
        os.fsync(file.fileno())


def between(before: Checkpoint, after: Checkpoint, share: float) -> Checkpoint:
    """A model part of the way from one checkpoint to another that began from it: `before + share · (after − before)`.

    The averaged weights are those that are mixed; what training goes on from is not kept.
    """
    mixed = {
        name: torch.lerp(before.ema[name], weight, share) if weight.is_floating_point() else weight
        for name, weight in after.ema.items()
    }
    return replace(after, model=mixed, ema=mixed, optimizer={}, loaders={})


def _without_keys(config: TrainConfig) -> TrainConfig:
    """Where the encoder lay is kept for people; not the password or signature of a URL."""
    if config.features.weights is None:
        return config
    features = config.features.model_copy(update={"weights": shown(config.features.weights)})
    return config.model_copy(update={"features": features})


def _prefixed(group: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{group}.{name}": tensor for name, tensor in tensors.items()}


def _optimizer_as_tensors(optimizer: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """An optimizer's state as tensors by name, `optimizer.PARAMETER.MOMENT`, and the settings of its groups."""
    moments = {
        f"optimizer.{index}.{name}": torch.as_tensor(value)
        for index, state in optimizer.get("state", {}).items()
        for name, value in state.items()
    }
    return moments, [dict(group) for group in optimizer.get("param_groups", ())]


def _optimizer_of(tensors: Mapping[str, Tensor], groups: Sequence[_Group]) -> dict[str, Any]:
    """The inverse: what an optimizer's `load_state_dict` takes; empty where none was saved."""
    if not groups:
        return {}
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, moment = name.partition(".")
        state.setdefault(int(index), {})[moment] = tensor
    plain = [group.model_dump(exclude_unset=True) for group in groups]
    return {"state": dict(sorted(state.items())), "param_groups": plain}


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
    """Keep `checkpoint.safetensors` as `checkpoint-0000500.safetensors` too, and the `newest` such up to this step.

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


def load_checkpoint(path: Path, *, whole: bool = True) -> Checkpoint:
    """Read a checkpoint onto the CPU.

    Args:
        whole: with the weights and the optimizer that training goes on from, three quarters of the file; else the
            averaged weights alone, and both are empty.

    Raises:
        UsageError: no such file, not a checkpoint, one of another format, one whose tensors are not those of the model
            that it describes, or weights that are not finite. One line.
    """
    with _opened(path) as file, parsing(lambda why: UsageError(f"{_named(path)} is not a whole checkpoint: {why}")):
        check_size(os.fstat(file.fileno()).st_size, _MOST_BYTES)
        _refuse_pickles(path, file)
        head = read_head(file)
        header = _header(path, head)
        groups = _grouped(head)
        _check_model(header, groups)
        wanted = groups if whole else {"ema": groups["ema"]}
        read = {name: _read_group(file, head, name, wanted.get(name, ())) for name in groups}
    _check_finite(path, {f"{of}.{name}": value for of in ("model", "ema") for name, value in read[of].items()})
    return Checkpoint(
        config=header.config,
        motion=header.motion,
        manifest=header.manifest,
        step=header.step,
        model=read["model"],
        ema=read["ema"],
        optimizer=_optimizer_of(read["optimizer"], header.groups if whole else ()),
        loaders={name: list(states) for name, states in header.loaders.items()},
        reference=header.reference,
        pairs=header.pairs,
    )


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        check_file(str(path))
        with path.open("rb") as file:
            yield file
    except ValueError as error:
        raise UsageError(f"{_named(path)} {error}") from error
    except OSError as error:
        raise UsageError(f"cannot read checkpoint {_named(path)}: {error.strerror or error}") from error


def _named(path: Path) -> str:
    return printable(str(path))


def _refuse_pickles(path: Path, file: IO[bytes]) -> None:
    if looks_pickled(file):
        raise UsageError(
            f"{_named(path)} is pickled, as checkpoints were up to format 2; `visavis convert` makes a"
            f" {CHECKPOINT_NAME} of it"
        )


def _header(path: Path, head: Head) -> _Header:
    raw = read_strict(head.note.get(_NOTE, "null"))
    if not isinstance(raw, dict) or "format" not in raw:
        raise UsageError(f"{_named(path)} holds tensors and no checkpoint of `visavis train`")
    if raw["format"] != FORMAT:
        raise UsageError(f"{_named(path)} is not a checkpoint of format {FORMAT}; train again")
    with parsing(lambda why: UsageError(f"{_named(path)} is a checkpoint of another version: {why}; train again")):
        dpo = raw["config"].get("dpo") if isinstance(raw.get("config"), dict) else None
        if isinstance(dpo, dict):
            dpo.setdefault("objective", "dpo")  # until 0.2.0 there was no other, and none was named
        return _Header.model_validate(raw)


def _grouped(head: Head) -> dict[str, dict[str, Entry]]:
    """The file's tensors as `model`, `ema` and `optimizer`."""
    groups: dict[str, dict[str, Entry]] = {"model": {}, "ema": {}, "optimizer": {}}
    for name, entry in head.tensors.items():
        group = name.partition(".")[0]
        if group not in groups:
            raise ValueError(f"has a tensor of no use: {name[:80]}")
        groups[group][name] = entry
    return groups


def _read_group(file: IO[bytes], head: Head, group: str, names: Iterable[str]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{group}."): tensor for name, tensor in read_tensors(file, head, names).items()}


def _check_model(header: _Header, groups: Mapping[str, Mapping[str, Entry]]) -> None:
    """Hold the tensors of a file against the model that it describes, without memory for either.

    Raises:
        ValueError: they differ.
    """
    config = header.config
    if config.model.depth > len(groups["ema"]):  # a billion of blocks takes memory on the meta device, too
        raise ValueError(f"describes {config.model.depth} blocks and has {len(groups['ema'])} tensors")
    with torch.device("meta"):
        model = build_model(config.model, config.features, header.motion, config.seed, stand_in(config.features))
    for group in ("model", "ema"):
        fit(_prefixed(group, model.state_dict()), groups[group])
    fit(_moments(model, groups["optimizer"]), groups["optimizer"])


def _moments(model: nn.Module, found: Mapping[str, Entry]) -> dict[str, Tensor]:
    """What an optimizer may keep of parameters, under the names that a file has: each is as its parameter is."""
    parameters = dict(enumerate(model.parameters()))
    kinds: dict[str, Tensor] = {}
    for name in found:
        _, index, moment = (*name.split(".", 2), "", "")[:3]
        if moment not in ("step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq") or not index.isdecimal():
            raise ValueError(f"{name[:80]} is nothing that Adam keeps")
        parameter = parameters.get(int(index[:9]))
        if parameter is None or str(int(index[:9])) != index:
            raise ValueError(f"{name[:80]} is of no parameter")
        kinds[name] = torch.empty((), device="meta") if moment == "step" else parameter
    return kinds


def _check_finite(path: Path, weights: Mapping[str, Tensor]) -> None:
    broken = [name for name, value in weights.items() if not torch.isfinite(value).all()]
    if broken:
        raise UsageError(
            f"{_named(path)}: {len(broken)} of {len(weights)} weights hold numbers that are not finite, first"
            f" {broken[0]}; use an earlier checkpoint, or train again with a lower learning rate"
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
        weights: where the encoder's weights lie. Where they lay in training is not followed: a checkpoint may come
            from others.

    Raises:
        UsageError: as `load_encoder`, above all where the weights are not named, or are other ones than in training.
    """
    config = checkpoint.config
    if encoder is None:
        _, encoder = load_encoder(named_by(config.features, weights), device)
    model = build_model(config.model, config.features, checkpoint.motion, config.seed, encoder)
    model.load_state_dict(checkpoint.ema)
    model.evaluations = config.distill.evaluations
    return model.to(device).eval().requires_grad_(False)
