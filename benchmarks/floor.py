"""What a device can do at best, measured on it, and what follows for the work of this project.

    floor = max(bytes that must be read / bandwidth, arithmetic / peak)

Launching kernels, and everything that is not a product with weights or attention, is not in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.clocks import timed
from visavis.schemas.train import SamplerConfig
from visavis.training.guidance import guidance_weights
from visavis.training.masks import ahead
from visavis.training.model import Listener

TRAINED_FRAMES = 50


@dataclass(frozen=True)
class Peaks:
    """Bytes a second that are read, and FLOP a second of a large product, in bfloat16 on a GPU, else float32."""

    bandwidth: float
    flops: float


def peaks(device: torch.device) -> Peaks:
    return Peaks(bandwidth(device), matmul_peak(device))


def bandwidth(device: torch.device) -> float:
    """Bytes a second: a copy of much more than caches hold reads and writes each once."""
    size = 1 << (30 if device.type == "cuda" else 26)
    source, into = (torch.ones(size, dtype=torch.uint8, device=device) for _ in range(2))
    return 2.0 * size / min(timed(lambda: into.copy_(source), device) for _ in range(6))


def matmul_peak(device: torch.device) -> float:
    size = 8192 if device.type == "cuda" else 1536
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2.0 * size**3 / min(timed(lambda: a @ b, device) for _ in range(6))


def block_floor(model: Listener, sessions: int, config: SamplerConfig, best: Peaks) -> dict[str, float]:
    """Seconds of one block of so many sessions: all evaluations, and the pass that writes the cache."""
    sizes, rows, passes = model.config, sessions * len(guidance_weights(config)), config.steps + 1
    weights = [layer.weight for layer in model.blocks.modules() if isinstance(layer, nn.Linear)]
    fixed = [cross.key_value for _, cross in model.attentions()]  # once for a block, when codes are made
    keys = sizes.context + sizes.block + sizes.cross_window + sizes.block + ahead(sizes)
    cached = 2 * rows * keys * sizes.width * sizes.depth * weights[0].element_size()
    read = sum(w.nbytes for w in weights) - sum(layer.weight.nbytes for layer in fixed)
    products = sum(w.numel() for w in weights) - sum(layer.weight.numel() for layer in fixed)
    arithmetic = 2.0 * rows * sizes.block * (products + 2 * keys * sizes.width * sizes.depth)
    by_bytes, by_flops = passes * (read + cached) / best.bandwidth, passes * arithmetic / best.flops
    return {"weights_s": passes * read / best.bandwidth, "bytes_s": by_bytes, "arithmetic_s": by_flops} | {
        "floor_s": max(by_bytes, by_flops)
    }


def step_flops(model: Listener, size: int) -> float:
    """FLOP of forward and backward of a batch of windows of 50 frames."""
    config = model.config
    weights = sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, nn.Linear))
    keys = TRAINED_FRAMES  # keys × queries, and × values
    scores = 2 * keys * (2 * config.depth * config.width + 2 * config.encoder_width)
    return 3.0 * 2 * (weights + scores) * size * TRAINED_FRAMES


def step_floor(model: Listener, size: int, best: Peaks) -> float:
    """Seconds of a training step: the arithmetic, and then Adam, which reads and writes 28 bytes a weight."""
    weights = sum(p.numel() for p in model.parameters())
    return step_flops(model, size) / best.flops + 28 * weights / best.bandwidth
