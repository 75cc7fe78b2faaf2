"""Tiny wav2vec 2.0 networks with random weights, written as torchaudio and as transformers write theirs."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from torchaudio.models import wav2vec2_model

from visavis.schemas.train import EncoderArchitecture, FeatureConfig
from visavis.training.encoder import Encoder, load_encoder

BASE_LIKE = EncoderArchitecture(
    channels=8, width=16, depth=2, heads=2, hidden=24, position_kernel=16, position_groups=4
)
LARGE_LIKE = BASE_LIKE.model_copy(update={"norm": "layer", "conv_bias": True, "pre_norm": True, "depth": 3})
KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)


def write_torchaudio(path: Path, architecture: EncoderArchitecture = BASE_LIKE, seed: int = 0) -> Path:
    """A state dict as torchaudio publishes them, with the head of a recogniser. Every weight matters."""
    a = architecture
    network = wav2vec2_model(
        f"{a.norm}_norm",
        [(a.channels, k, s) for k, s in zip(KERNELS, STRIDES, strict=True)],
        a.conv_bias,
        a.width,
        0.1,
        a.position_kernel,
        a.position_groups,
        a.depth,
        a.heads,
        0.1,
        a.hidden,
        0.1,
        0.1,
        a.pre_norm,
        0.1,
        aux_num_out=5,
    )
    fill(network, seed)
    save_file(network.state_dict(), path)
    return path


def fill(network: torch.nn.Module, seed: int) -> None:
    """Weights that keep the scale of what goes through, whatever the seed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            inputs = math.prod(weight.shape[1:])
            around = 1.0 if weight.ndim == 1 else 0.0
            weight.copy_(around + torch.randn(weight.shape, generator=generator) / math.sqrt(max(4, inputs)))


def transformers_config(architecture: EncoderArchitecture) -> dict[str, object]:
    """The arguments of transformers' Wav2Vec2Config for it."""
    a = architecture
    return {
        "conv_dim": [a.channels] * 7,
        "feat_extract_norm": a.norm,
        "conv_bias": a.conv_bias,
        "hidden_size": a.width,
        "num_hidden_layers": a.depth,
        "num_attention_heads": a.heads,
        "intermediate_size": a.hidden,
        "do_stable_layer_norm": a.pre_norm,
        "num_conv_pos_embeddings": a.position_kernel,
        "num_conv_pos_embedding_groups": a.position_groups,
    }


def loaded(path: Path, architecture: EncoderArchitecture = BASE_LIKE) -> Encoder:
    config = FeatureConfig(kind="wav2vec2", weights=str(path), architecture=architecture, layers=(1, 2))
    encoder = load_encoder(config)[1]
    assert encoder is not None
    return encoder
