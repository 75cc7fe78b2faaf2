"""Attention with rotary positions of unlimited length, and the transformer block.

Positions are absolute frame numbers; their angles are computed in float64 when they are needed, so there is no table
that ends (the released code throws after 1024 frames) and no loss of precision after hours of streaming.

Shape suffixes: B batch, T frames, Q queries, K keys, H hidden, N attention heads, E size of a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visavis.training.shapes import BKH, BNTE, BQH, BT, BTH, FramesT, MaskQK, MaskTC, MaskTK

KeysValues = tuple[Tensor, Tensor]
"""Rotated keys and values, each [B, N, K, E]."""
Rotation = tuple[Tensor, Tensor]
"""Cosines and sines, each [T, E / 2] float32, or [B, 1, T, E / 2] where each item has its own clock."""


@dataclass(frozen=True)
class Layout:
    """Where frames stand to each other: the same for every layer and noise level."""

    by: Rotation  # angles of the frames themselves
    self_TK: MaskTK  # bool: which motion they see
    cross_TC: MaskTC  # bool: which codes they see


def rotation(positions_T: FramesT, size: int, base: float = 10_000.0) -> Rotation:
    """Rotary angles of absolute frame numbers (int64) for heads of `size`."""
    exponents = torch.arange(0, size, 2, dtype=torch.float64, device=positions_T.device) / size
    angles = positions_T.double()[..., None] * base**-exponents
    return angles.cos().float(), angles.sin().float()


def rotate(x_BNTE: BNTE, by: Rotation) -> BNTE:
    """Rotate pairs (i, i + E/2) of each head."""
    cos, sin = (part.to(x_BNTE.dtype) for part in by)
    first, second = x_BNTE.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


def extend(past: KeysValues | None, fresh: KeysValues) -> KeysValues:
    """Past and fresh keys and values, joined along time."""
    if past is None:
        return fresh
    return torch.cat([past[0], fresh[0]], dim=2), torch.cat([past[1], fresh[1]], dim=2)


def tail(kept: KeysValues, frames: int) -> KeysValues:
    """A copy of the last `frames` keys and values; what lies before them can be freed."""
    first = kept[0].shape[2] - frames
    return kept[0][:, :, first:].contiguous(), kept[1][:, :, first:].contiguous()


class Attention(nn.Module):
    """Multi-head attention whose keys and values can be computed apart, and kept."""

    def __init__(self, width: int, source_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_size = width // heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(source_width, 2 * width)
        self.out = nn.Linear(width, width)

    def keys_values(self, source_BKH: BKH, by: Rotation) -> KeysValues:
        key, value = self.key_value(source_BKH).unflatten(2, (2, self.heads, self.head_size)).unbind(2)
        return rotate(key.transpose(1, 2), by), value.transpose(1, 2)

    def forward(self, x_BQH: BQH, source: KeysValues, mask_QK: MaskQK, by: Rotation) -> BQH:
        """Attend from x to source. mask_QK: bool, True where seen; every row sees something."""
        query = rotate(self.query(x_BQH).unflatten(2, (self.heads, self.head_size)).transpose(1, 2), by)
        heads_BNQE = F.scaled_dot_product_attention(query, source[0], source[1], attn_mask=mask_QK)
        out_BQH: BQH = self.out(heads_BNQE.transpose(1, 2).flatten(2))
        return out_BQH


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift


class Block(nn.Module):
    """Self-attention and MLP under adaLN, with ungated cross-attention between them (paper, fig. 3)."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.norm_self = nn.LayerNorm(width, elementwise_affine=False)
        self.self_attention = Attention(width, width, heads)
        self.norm_cross = nn.LayerNorm(width)
        self.cross_attention = Attention(width, width, heads)
        self.norm_mlp = nn.LayerNorm(width, elementwise_affine=False)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))

    def forward(
        self, x_BTH: BTH, modulation: tuple[Tensor, ...], layout: Layout, past: KeysValues | None, codes: KeysValues
    ) -> tuple[Tensor, KeysValues]:
        """Returns the new x and this call's own keys and values of self-attention."""
        shift_s, scale_s, gate_s, shift_m, scale_m, gate_m = modulation
        h = modulate(self.norm_self(x_BTH), shift_s, scale_s)
        fresh = self.self_attention.keys_values(h, layout.by)
        x_BTH = x_BTH + gate_s * self.self_attention(h, extend(past, fresh), layout.self_TK, layout.by)
        x_BTH = x_BTH + self.cross_attention(self.norm_cross(x_BTH), codes, layout.cross_TC, layout.by)
        x_BTH = x_BTH + gate_m * self.mlp(modulate(self.norm_mlp(x_BTH), shift_m, scale_m))
        return x_BTH, fresh


class NoiseLevel(nn.Module):
    """Embedding of the noise level t in 0…1: sinusoids of 1000·t, then an MLP."""

    def __init__(self, width: int, frequencies: int = 128) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.mlp = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, t_BT: BT) -> Tensor:
        steps = torch.arange(self.frequencies, dtype=t_BT.dtype, device=t_BT.device)
        frequency = torch.exp(-math.log(10_000.0) * steps / self.frequencies)
        angles = 1000.0 * t_BT[..., None] * frequency
        level_BTH: BTH = self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1))
        return level_BTH
