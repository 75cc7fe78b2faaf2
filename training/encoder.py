"""A pretrained wav2vec 2.0 encoder: found, checked, read, frozen.

Weights are a file of safetensors, in torchaudio's names or in transformers', or the folder that holds model.safetensors
with config.json. `visavis convert` makes one of what torch.save wrote (.pt, .pth, .bin). Their sha256 is that of the
file, as `sha256sum` tells it; it is compared before anything is read, and a checkpoint keeps it.

transformers itself is not needed: its three parts bear other names and are otherwise torchaudio's.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import IO, Any, cast

import torch
from torch import Tensor
from torchaudio.models import Wav2Vec2Model, wav2vec2_model

from visavis.schemas.errors import RunFailed, UsageError
from visavis.schemas.plain import read_strict
from visavis.schemas.storage.faults import Blame, blame_of, retried
from visavis.schemas.storage.files import is_there, locate
from visavis.schemas.storage.user_files import GB, read_given
from visavis.schemas.train import EncoderArchitecture, FeatureConfig
from visavis.schemas.untrusted import parsing
from visavis.schemas.uris import shown
from visavis.training.tensors import Entry, looks_pickled, read_head, read_tensors

_KERNELS = (10, 3, 3, 3, 3, 2, 2)
_STRIDES = (5, 2, 2, 2, 2, 2, 2)
_IN_FOLDER, _PICKLED, _DESCRIPTION = "model.safetensors", "pytorch_model.bin", "config.json"
_MOST_BYTES = 16 * GB  # the largest published, of 2 billion parameters, has 9 GB
_MOST_DESCRIPTION = 1 << 20
_NAMES = {  # transformers' → torchaudio's
    "feature_extractor.": "feature_extractor.",
    "feature_projection.": "encoder.feature_projection.",
    "encoder.": "encoder.transformer.",
}
_OLD_NORM = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


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
        config: the user's own; of a checkpoint's, `named_by` takes out what is not to be followed.
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
            "features.kind=wav2vec2 needs features.weights, a file of wav2vec 2.0 weights;"
            " `visavis assets` says where they come from"
        )
    name, described = _found(where, config.weights_sha256)
    data = read_given(
        "features.weights",
        name,
        config.weights_sha256,
        "`visavis assets` says where weights come from",
        most=_MOST_BYTES,
        look=lambda file: _look(name, file),
    )
    digest = hashlib.sha256(data).hexdigest()
    architecture = config.architecture or described or EncoderArchitecture()
    if described not in (None, architecture):
        raise UsageError(f"features.architecture is not that of {_DESCRIPTION} in {shown(where)}; leave it out")
    if max(config.layers) > architecture.depth:
        raise UsageError(f"features.layers: {max(config.layers)} of an encoder of {architecture.depth} layers")
    network = _network(data, architecture, max(config.layers), shown(name)).to(device)
    filled = config.model_copy(update={"weights": where, "weights_sha256": digest, "architecture": architecture})
    return filled, Encoder(network, architecture, digest)


def named_by(config: FeatureConfig, weights: str | None) -> FeatureConfig:
    """A checkpoint's features with the place of the encoder's weights that the user names.

    What the checkpoint itself says of the place is a hint for people. It is not followed: it may come from others.

    Raises:
        UsageError: they need weights, and none are named.
    """
    if config.kind == "wav2vec2" and weights is None:
        lay = f" (they lay at {shown(config.weights)})" if config.weights else ""
        raise UsageError(
            f"the checkpoint was trained on an encoder of sha256 {str(config.weights_sha256)[:12]}…{lay}; name the file"
            " of its weights: --encoder FILE, or features.weights in a recipe of `visavis train`"
        )
    return config.model_copy(update={"weights": weights}) if weights else config


def stand_in(config: FeatureConfig) -> Encoder | None:
    """What tells the sizes of a model with these features, without the network.

    Raises:
        ValueError: it is not known which.
    """
    if config.kind != "wav2vec2":
        return None
    if config.architecture is None or config.weights_sha256 is None:
        raise ValueError("does not say which encoder its features are of")
    return Encoder(cast(Wav2Vec2Model, None), config.architecture, config.weights_sha256)


def _found(where: str, sha256: str | None) -> tuple[str, EncoderArchitecture | None]:
    """The weights' file, and the architecture if it lies in a folder with config.json."""
    if "://" in where and not sha256:
        return where, None  # which `read_given` refuses, before anything is asked of a network
    try:
        files, path = locate(where)
        if not retried(lambda: files.isdir(path), shown(where)):
            return where, None
        folder = where.rstrip("/")
        if not is_there(files, f"{path}/{_IN_FOLDER}", shown(where)):
            if is_there(files, f"{path}/{_PICKLED}", shown(where)):
                raise _pickled(f"{folder}/{_PICKLED}")
            raise UsageError(f"features.weights: {shown(where)} holds no {_IN_FOLDER}")
    except UsageError as error:
        message = str(error)
        raise (
            error if message.startswith("features") else UsageError(f"features.weights: cannot read {message}")
        ) from error
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        if not isinstance(error, PermissionError) and blame_of(error) is Blame.MACHINE:
            raise RunFailed(f"features.weights: {shown(where)} cannot be read now ({reason})") from error
        raise UsageError(f"features.weights: cannot read {shown(where)} ({reason})") from error
    return f"{folder}/{_IN_FOLDER}", _described(f"{folder}/{_DESCRIPTION}")


def _look(name: str, file: IO[bytes]) -> None:
    """Refuse what is no file of tensors while only its beginning was read."""
    if looks_pickled(file):
        raise _pickled(name)
    with parsing(lambda why: UsageError(f"features.weights: {shown(name)} is not a whole file of tensors: {why}")):
        read_head(file)


def _pickled(name: str) -> UsageError:
    return UsageError(
        f"features.weights: {shown(name)} is pickled, and only safetensors are read; `visavis convert FILE` makes one"
        " of it"
    )


def _described(uri: str) -> EncoderArchitecture:
    """The architecture that transformers' config.json tells; what it leaves out is `base` there, too."""
    name = shown(uri)
    data = read_given("features.weights", uri, most=_MOST_DESCRIPTION)
    with parsing(lambda why: UsageError(f"{name} does not describe a wav2vec 2.0 encoder: {why}")):
        raw: Any = read_strict(data)
        channels = raw.get("conv_dim", [512] * len(_STRIDES))
        strides, kernels = raw.get("conv_stride", _STRIDES), raw.get("conv_kernel", _KERNELS)
        if raw.get("model_type") != "wav2vec2" or (tuple(strides), tuple(kernels)) != (_STRIDES, _KERNELS):
            raise UsageError(f"{name} does not describe a wav2vec 2.0 encoder with two outputs a frame")
        if len(set(channels)) != 1 or raw.get("hidden_act", "gelu") != "gelu" or raw.get("add_adapter"):
            raise UsageError(f"{name} describes a variant that torchaudio does not have")
        settings = {
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
        return EncoderArchitecture.model_validate(
            {name: value for name, value in settings.items() if value is not None}
        )


def _ours(theirs: str) -> str | None:
    """A tensor's name as torchaudio has it, or None for what belongs to other parts."""
    name = theirs.removeprefix("wav2vec2.")
    for begin, ours in _NAMES.items():
        if name.startswith(begin):
            return ours + name.removeprefix(begin)
    return None


def _names(found: dict[str, Entry]) -> dict[str, str]:
    """The file's names by torchaudio's."""
    plain = {name.removeprefix("wav2vec2."): name for name in found}
    if any(name.startswith("encoder.transformer.") for name in plain):
        return plain
    return {ours: name for name in found if (ours := _ours(name)) is not None}


def _network(data: bytes, architecture: EncoderArchitecture, depth: int, name: str) -> Wav2Vec2Model:
    """The network up to layer `depth`, with these weights. What belongs to later layers or other heads is left out.

    Sizes are compared before there is memory for any.
    """
    file = io.BytesIO(data)
    head = read_head(file)
    names = _names(head.tensors)
    with torch.device("meta"):
        network = _built(architecture, depth)
    expected = network.state_dict()
    wanted = {key: names[old] for key in expected if (old := _older(key, names)) in names}
    if not wanted:
        raise UsageError(f"features.weights: {name} holds no wav2vec 2.0 encoder of torchaudio or transformers")
    if missing := sorted(expected.keys() - wanted.keys()):
        raise UsageError(f"features.weights: {name} lacks {missing[0]}, which features.architecture has")
    for key, stored in wanted.items():
        entry, shape = head.tensors[stored], tuple(expected[key].shape)
        if entry.shape != shape or entry.dtype not in _FLOATS:
            raise UsageError(
                f"features.weights: {name} does not fit features.architecture: {stored} is {list(entry.shape)} of"
                f" {str(entry.dtype).removeprefix('torch.')}, expected {list(shape)}"
            )
    read = read_tensors(file, head, wanted.values())
    if broken := [stored for stored, value in read.items() if not torch.isfinite(value).all()]:
        raise UsageError(f"features.weights: {name} holds numbers that are not finite, first in {broken[0]}")
    network.load_state_dict({key: read[stored].float() for key, stored in wanted.items()}, assign=True)
    return network.eval().requires_grad_(False)


def _older(key: str, names: dict[str, str]) -> str:
    """What a weight is called in a file: torch's parametrized norm had other names once."""
    for new, old in _OLD_NORM.items():
        if key.endswith(new) and key not in names:
            return key.removesuffix(new) + old
    return key


def _built(architecture: EncoderArchitecture, depth: int) -> Wav2Vec2Model:
    a = architecture
    return wav2vec2_model(
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
