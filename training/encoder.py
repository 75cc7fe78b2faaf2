"""A pretrained wav2vec 2.0 encoder: found, checked, read, frozen.

Weights come as torchaudio's state dict (.pt, .pth) or in transformers' names (.safetensors, .bin, or the folder that
holds them with config.json). Their sha256 is that of the file, as `sha256sum` tells it; it is compared before anything
is read, and a checkpoint keeps it. Nothing is unpickled but tensors and plain containers.

transformers itself is not needed: its three parts bear other names and are otherwise torchaudio's.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor
from torchaudio.models import Wav2Vec2Model, wav2vec2_model

from schemas.errors import RunFailed, UsageError
from schemas.faults import Blame, blame_of, retried
from schemas.files import is_there, locate, read_whole
from schemas.train import EncoderArchitecture, FeatureConfig

_KERNELS = (10, 3, 3, 3, 3, 2, 2)
_STRIDES = (5, 2, 2, 2, 2, 2, 2)
_IN_FOLDER = ("model.safetensors", "pytorch_model.bin")
_NAMES = {  # transformers' → torchaudio's
    "feature_extractor.": "feature_extractor.",
    "feature_projection.": "encoder.feature_projection.",
    "encoder.": "encoder.transformer.",
}
_UNREADABLE = (RuntimeError, ValueError, KeyError, EOFError, AttributeError, pickle.UnpicklingError, SafetensorError)


@dataclass(frozen=True)
class Encoder:
    """A frozen network on its device; `sha256` is that of its weights' file."""

    network: Wav2Vec2Model
    architecture: EncoderArchitecture
    sha256: str

    @property
    def width(self) -> int:
        return self.architecture.width

    def layers(self, clips_CN: Tensor, wanted: tuple[int, ...]) -> list[Tensor]:
        """Outputs of the wanted layers (the first is 1), each [C, J, `width`], J = ⌊(N − 400) / 320⌋ + 1.

        Networks with layer norm in their convolutions were trained on sound of mean 0 and deviation 1, and get it: over
        each clip, so a clip depends on itself alone. The others do not see scale.
        """
        if self.architecture.norm == "layer":
            clips_CN = torch.nn.functional.layer_norm(clips_CN, clips_CN.shape[1:])
        outputs, _ = self.network.extract_features(clips_CN, num_layers=max(wanted))
        return [outputs[layer - 1] for layer in wanted]


def load_encoder(
    config: FeatureConfig, device: torch.device | str = "cpu", weights: str | None = None
) -> tuple[FeatureConfig, Encoder | None]:
    """The encoder that the features need, if they need one.

    Args:
        weights: where they lie, if not where `config` says.

    Returns: `config` with what was left open (sha256, architecture) filled in, and the encoder.

    Raises:
        UsageError: no weights, other ones than `weights_sha256`, or of another architecture. One line.
        RunFailed: their store cannot be reached now.
    """
    if config.kind != "wav2vec2":
        return config, None
    where = weights or config.weights
    if where is None:
        raise UsageError(
            "features.kind=wav2vec2 needs features.weights, a file or URL of wav2vec 2.0 weights;"
            " `visavis assets` says where they come from"
        )
    data, name, described = _read(where)
    digest = hashlib.sha256(data).hexdigest()
    if config.weights_sha256 not in (None, digest):
        raise UsageError(
            f"features.weights: {name} has sha256 {digest[:12]}…, not {str(config.weights_sha256)[:12]}…;"
            " give the weights that were named at first, or start anew without features.weights_sha256"
        )
    architecture = config.architecture or described or EncoderArchitecture()
    if described not in (None, architecture):
        raise UsageError(f"features.architecture is not that of config.json in {where}; leave it out")
    if max(config.layers) > architecture.depth:
        raise UsageError(f"features.layers: {max(config.layers)} of an encoder of {architecture.depth} layers")
    network = _network(_tensors(data, name), architecture, max(config.layers), name).to(device)
    filled = config.model_copy(update={"weights": where, "weights_sha256": digest, "architecture": architecture})
    return filled, Encoder(network, architecture, digest)


def _read(where: str) -> tuple[bytes, str, EncoderArchitecture | None]:
    """Bytes of the weights, their file's name, and the architecture if a config.json lies beside them."""
    try:
        files, path = locate(where)
    except UsageError as error:
        raise UsageError(f"features.weights: cannot read {error}") from error
    try:
        if not retried(lambda: files.isdir(path), where):
            return read_whole(files, path, where), where, None
        names = [name for name in _IN_FOLDER if is_there(files, f"{path}/{name}", where)]
        if not names:
            raise UsageError(f"features.weights: {where} holds neither {' nor '.join(_IN_FOLDER)}")
        described = _described(read_whole(files, f"{path}/config.json", where), f"{where}/config.json")
        return read_whole(files, f"{path}/{names[0]}", where), f"{where}/{names[0]}", described
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if isinstance(error, OSError) and not isinstance(error, PermissionError) and blame_of(error) is Blame.MACHINE:
            raise RunFailed(f"features.weights: {where} cannot be read now ({reason})") from error
        raise UsageError(
            f"features.weights: cannot read {where} ({reason}); `visavis assets` says where weights come from"
        ) from error


def _described(data: bytes, name: str) -> EncoderArchitecture:
    """The architecture that transformers' config.json tells; what it leaves out is `base` there, too."""
    raw: Any = json.loads(data)
    try:
        channels = raw.get("conv_dim", [512] * len(_STRIDES))
        strides, kernels = raw.get("conv_stride", _STRIDES), raw.get("conv_kernel", _KERNELS)
        if raw.get("model_type") != "wav2vec2" or (tuple(strides), tuple(kernels)) != (_STRIDES, _KERNELS):
            raise UsageError(f"{name} does not describe a wav2vec 2.0 encoder with two outputs a frame")
        if len(set(channels)) != 1 or raw.get("hidden_act", "gelu") != "gelu" or raw.get("add_adapter"):
            raise UsageError(f"{name} describes a variant that torchaudio does not have")
        told = {
            "norm": raw.get("feat_extract_norm"),
            "channels": channels[0],
            "conv_bias": raw.get("conv_bias"),
            "width": raw.get("hidden_size"),
            "depth": raw.get("num_hidden_layers"),
            "heads": raw.get("num_attention_heads"),
            "hidden": raw.get("intermediate_size"),
            "pre_norm": raw.get("do_stable_layer_norm"),
            "position_kernel": raw.get("num_conv_pos_embeddings"),
            "position_groups": raw.get("num_conv_pos_embedding_groups"),
        }
        return EncoderArchitecture.model_validate({name: value for name, value in told.items() if value is not None})
    except (AttributeError, TypeError, IndexError, ValidationError) as error:
        raise UsageError(f"{name} does not describe a wav2vec 2.0 encoder: {str(error).splitlines()[0]}") from error


def _tensors(data: bytes, name: str) -> dict[str, Tensor]:
    """A state dict in torchaudio's names."""
    try:
        if name.endswith(".safetensors"):
            state = load_safetensors(data)
        else:
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise UsageError(f"features.weights: {name} is not a whole file of tensors; fetch it again") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(f"features.weights: {name} is not a state dict of torchaudio or transformers")
    state = {key.removeprefix("wav2vec2."): value for key, value in state.items()}
    if any(key.startswith("encoder.transformer.") for key in state):
        return state
    renamed: dict[str, Tensor] = {}
    for theirs, ours in _NAMES.items():
        renamed |= {ours + key.removeprefix(theirs): value for key, value in state.items() if key.startswith(theirs)}
    return renamed


def _network(state: dict[str, Tensor], architecture: EncoderArchitecture, depth: int, name: str) -> Wav2Vec2Model:
    """The network up to layer `depth`, with these weights. What belongs to later layers or other heads is left out."""
    a = architecture
    with torch.random.fork_rng(devices=[]):  # the random state is the trainer's
        network = wav2vec2_model(
            extractor_mode=f"{a.norm}_norm",
            extractor_conv_layer_config=[(a.channels, k, s) for k, s in zip(_KERNELS, _STRIDES, strict=True)],
            extractor_conv_bias=a.conv_bias,
            encoder_embed_dim=a.width,
            encoder_projection_dropout=0.0,
            encoder_pos_conv_kernel=a.position_kernel,
            encoder_pos_conv_groups=a.position_groups,
            encoder_num_layers=depth,
            encoder_num_heads=a.heads,
            encoder_attention_dropout=0.0,
            encoder_ff_interm_features=a.hidden,
            encoder_ff_interm_dropout=0.0,
            encoder_dropout=0.0,
            encoder_layer_norm_first=a.pre_norm,
            encoder_layer_drop=0.0,
            aux_num_out=None,
        )
    wanted = network.state_dict()
    if not wanted.keys() & state.keys():
        raise UsageError(f"features.weights: {name} holds no wav2vec 2.0 encoder of torchaudio or transformers")
    try:
        missing = network.load_state_dict(state, strict=False).missing_keys
    except RuntimeError as error:  # a shape; torch tells one a line
        told = str(error).splitlines()
        raise UsageError(f"features.weights: {name} does not fit features.architecture: {told[-1].strip()}") from error
    if missing:
        raise UsageError(f"features.weights: {name} lacks {missing[0]}, which features.architecture has")
    return network.eval().requires_grad_(False)
