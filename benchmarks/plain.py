"""The listener as one would write it from the paper, to hold ours against: same weights, same output, nothing clever.

What it shares with ours is the algorithm of Avatar Forcing (alg. 1–2), caches of keys and values included. What it
does not have: guidance branches in one batch (each is a pass of its own), codes of the conditions that are kept for
all noise levels (the encoder and every key and value of a condition are computed in each pass), adaLN computed once
for all frames of a level, masks and angles made once in a block, and torch.compile. Masks are dense.

It imports nothing from `training` but log-mel features, so it is also a second opinion on the model: the tests hold
velocities, streams and gradients of the two against each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visavis.schemas.manifest import MotionSpec
from visavis.schemas.train import FeatureConfig, ModelConfig
from visavis.training.features import LogMel

Cache = dict[str, tuple[Tensor, Tensor]]
"""Keys and values of past frames of each attention, by its name, each [B, N, K, E]."""
LONGEST = 20_000  # frames, of the table of rotary angles


class PlainAttention(nn.Module):
    """Multi-head attention with rotary positions and a cache."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Tensor, source: Tensor, starts: tuple[int, int], mask: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x [B, Q, H] from frame starts[0] on, source [B, K, H] from starts[1] on, mask [Q, past + K]."""
        key, value = self.key_value(source).chunk(2, dim=-1)
        query = self._rotate(self._split(self.query(x)), starts[0])
        key, value = self._rotate(self._split(key), starts[1]), self._split(value)
        if past is not None:
            key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        heads = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        out: Tensor = self.out(heads.transpose(1, 2).flatten(2))
        return out, (key, value)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, self.size).transpose(1, 2)

    def _rotate(self, x: Tensor, start: int) -> Tensor:
        cos, sin = (table[start : start + x.shape[2]] for table in _angles(self.size, x.device, x.dtype))
        half = self.size // 2
        return x * cos + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * sin


_TABLES: dict[tuple[int, torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}


def _angles(size: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    if (size, device, dtype) not in _TABLES:
        frequency = 10_000.0 ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
        angle = (torch.arange(LONGEST, dtype=torch.float64)[:, None] * frequency).repeat(1, 2)
        _TABLES[size, device, dtype] = angle.cos().to(device, dtype), angle.sin().to(device, dtype)
    return _TABLES[size, device, dtype]


class PlainEncoder(nn.Module):
    def __init__(self, config: ModelConfig, features: int, dim: int) -> None:
        super().__init__()
        width = config.encoder_width
        self.avatar_audio = nn.Linear(features, width)
        self.user_audio = nn.Linear(features, width)
        self.user_motion = nn.Linear(dim, width)
        self.no_avatar_audio = nn.Parameter(torch.zeros(width))
        self.no_user_audio = nn.Parameter(torch.zeros(width))
        self.no_user_motion = nn.Parameter(torch.zeros(width))
        self.hear_user = PlainAttention(width, config.encoder_heads)
        self.norm_user = nn.LayerNorm(width)
        self.join_avatar = PlainAttention(width, config.encoder_heads)
        self.norm_joint = nn.LayerNorm(width)
        self.out = nn.Linear(width, config.width)


class PlainBlock(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, hidden = config.width, int(config.width * config.mlp_ratio)
        self.norm_self = nn.LayerNorm(width, elementwise_affine=False)
        self.self_attention = PlainAttention(width, config.heads)
        self.norm_cross = nn.LayerNorm(width)
        self.cross_attention = PlainAttention(width, config.heads)
        self.norm_mlp = nn.LayerNorm(width, elementwise_affine=False)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width))


class PlainNoiseLevel(nn.Module):
    def __init__(self, width: int, frequencies: int = 128) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.mlp = nn.Sequential(nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, t: Tensor) -> Tensor:
        steps = torch.arange(self.frequencies, device=t.device, dtype=t.dtype)
        angles = 1000 * t[..., None] * torch.exp(-math.log(10_000) * steps / self.frequencies)
        level: Tensor = self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1))
        return level


class PlainListener(nn.Module):
    """Takes the state dict of `training.model.Listener`. Masks `block`, `frame` and `full`."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig, features: FeatureConfig, motion: MotionSpec) -> None:
        super().__init__()
        self.config, self.motion = config, motion
        self.features = LogMel(features)
        self.register_buffer("mean", torch.zeros(motion.dim))
        self.register_buffer("std", torch.ones(motion.dim))
        self.encoder = PlainEncoder(config, self.features.size, motion.dim)
        self.embed = nn.Linear(2 * motion.dim, config.width)
        self.noise_level = PlainNoiseLevel(config.width)
        self.modulation = nn.Linear(config.width, 8 * config.width)
        self.blocks = nn.ModuleList(PlainBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, elementwise_affine=False)
        self.velocity = nn.Linear(config.width, motion.dim)

    def mask(self, q: range, k: range, kind: str, look_ahead: int, context: int | None, window: int | None) -> Tensor:
        """bool [Q, K], written out from the definition."""
        block, device = self.config.block, self.mean.device
        query, key = torch.arange(q.start, q.stop, device=device), torch.arange(k.start, k.stop, device=device)
        seen = torch.ones(len(q), len(k), dtype=torch.bool, device=device)
        start = query // block * block
        if kind != "full":
            last = start + block - 1 if kind == "block" else query
            seen &= key[None, :] <= (last + look_ahead)[:, None]
            if context is not None:
                seen &= key[None, :] >= (start - context)[:, None]
        if window is not None:
            seen &= (key[None, :] - query[:, None]).abs() <= window
        return seen

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        reference: Tensor,
        avatar_audio: Tensor,
        user_audio: Tensor,
        user_motion: Tensor,
        keep: tuple[bool, bool],
        start: int = 0,
        cache: Cache | None = None,
    ) -> tuple[Tensor, Cache]:
        """Velocity [B, T, D] of frames start …, and the cache with these frames and conditions in it.

        Args:
            x [B, T, D], t [B, T], reference [B, D]: noisy motion, noise levels, reference, normalised.
            avatar_audio, user_audio [B, C, F], user_motion [B, C, D]: conditions from frame `start` on; C ≥ T.
            keep: are the avatar's audio and the user seen?
        """
        config, cache, grown = self.config, cache or {}, {}
        frames, known = range(start, start + x.shape[1]), range(start, start + user_motion.shape[1])

        def attend(
            attention: PlainAttention, name: str, x: Tensor, source: Tensor, q: range, k: range, *mask: int | str | None
        ) -> Tensor:
            past = cache.get(name)
            keys = range(k.start - (0 if past is None else past[0].shape[2]), k.stop)
            kind, look_ahead, context, window = mask
            seen = self.mask(q, keys, kind, look_ahead, context, window)  # type: ignore[arg-type]
            made, grown[name] = attention(x, source, (q.start, k.start), seen, past)
            out: Tensor = made
            return out

        encoder, bidirectional = self.encoder, config.mask == "full"
        causal = ("full" if bidirectional else "frame", 0, config.context, None)
        avatar = (
            encoder.avatar_audio(avatar_audio)
            if keep[0]
            else encoder.no_avatar_audio.expand(*avatar_audio.shape[:2], -1)
        )
        user = encoder.user_audio(user_audio) if keep[1] else encoder.no_user_audio.expand(*user_audio.shape[:2], -1)
        seen = (
            encoder.user_motion(user_motion) if keep[1] else encoder.no_user_motion.expand(*user_motion.shape[:2], -1)
        )
        heard = attend(encoder.hear_user, "hear_user", seen, user, known, known, *causal)
        seen = F.silu(encoder.norm_user(seen + heard))
        joined = attend(encoder.join_avatar, "join_avatar", avatar, seen, known, known, *causal)
        code = encoder.out(F.silu(encoder.norm_joint(avatar + joined)))

        modulation = self.modulation(self.noise_level(t)).chunk(8, dim=-1)
        shift_s, scale_s, gate_s, shift_m, scale_m, gate_m, shift, scale = modulation
        x = self.embed(torch.cat([x, reference[:, None].expand(-1, x.shape[1], -1)], dim=-1))
        own = (config.mask, 0, config.context, None)
        ahead = (config.mask, config.look_ahead, None, config.cross_window)
        for i, block in enumerate(self.blocks):
            assert isinstance(block, PlainBlock)
            h = block.norm_self(x) * (1 + scale_s) + shift_s
            x = x + gate_s * attend(block.self_attention, f"self{i}", h, h, frames, frames, *own)
            x = x + attend(block.cross_attention, f"cross{i}", block.norm_cross(x), code, frames, known, *ahead)
            x = x + gate_m * block.mlp(block.norm_mlp(x) * (1 + scale_m) + shift_m)
        velocity: Tensor = self.velocity(self.norm(x) * (1 + scale) + shift)
        return velocity, grown


@dataclass
class PlainStream:
    """One session under the paper's guidance (eq. 14), one pass for each branch. Conditions come as features."""

    model: PlainListener
    reference: Tensor  # [1, D] normalised
    steps: int = 10
    w_a: float = 2.0
    w_u: float = 1.0
    caches: dict[tuple[bool, bool], Cache] = field(default_factory=dict)
    done: int = 0

    @torch.no_grad()
    def step(self, x: Tensor, avatar_audio: Tensor, user_audio: Tensor, user_motion: Tensor) -> Tensor:
        """Normalised motion [1, B, D] from noise x, with the conditions of the block and its look-ahead."""
        conditions = avatar_audio, user_audio, user_motion
        frames = x.shape[1]
        levels = torch.linspace(0, 1, self.steps + 1, device=x.device)
        for t, following in pairwise(levels):
            level = t.expand(1, frames)
            v = {}
            for keep in ((False, False), (True, False), (False, True)):
                v[keep], _ = self.model(x, level, self.reference, *conditions, keep, self.done, self.caches.get(keep))
            none = v[False, False]
            guided = none + self.w_a * (v[True, False] - none) + self.w_u * (v[False, True] - none)
            x = x + (following - t) * guided
        for keep in ((False, False), (True, False), (False, True)):
            clean = torch.ones(1, frames, device=x.device)
            _, grown = self.model(x, clean, self.reference, *conditions, keep, self.done, self.caches.get(keep))
            self.caches[keep] = self._trimmed(grown, conditions[0].shape[1] - frames)
        self.done += frames
        return x

    def _trimmed(self, cache: Cache, ahead: int) -> Cache:
        """Caches end where the block ends: what was seen ahead will come again, under the next block's mask."""
        config, kept = self.model.config, {}
        for name, (key, value) in cache.items():
            end = key.shape[2] - (0 if name.startswith("self") else ahead)
            first = max(0, end - (config.cross_window if name.startswith("cross") else config.context))
            kept[name] = key[:, :, first:end], value[:, :, first:end]
        return kept
