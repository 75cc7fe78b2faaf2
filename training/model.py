"""The causal listener: a velocity field over motion latents, conditioned on both voices and the user's motion.

    avatar audio ─┐                                    x_t, reference ─ Linear ─┐
    user audio  ──┼─ dual motion encoder ─ code per frame ─ cross-attention ─ transformer ─ velocity
    user motion ──┘   (causal)                              (looks ahead)       noise level t ─ adaLN

Architecture from Avatar Forcing (arXiv 2601.00664, §4.1): dual motion encoder (attention from user motion to user
audio, then from avatar audio to its result), RoPE, adaLN shared by all blocks and zero-initialised, cross-attention
within ±2 frames. Ours: the encoder has positions and a mask, and look-ahead is spent once (see `training.masks`).
Features and normalisation are part of the module, so everything public takes audio samples and motion in the codec's
units, and a checkpoint needs nothing beside it but the frozen encoder, if its features have one.

Sizes with a 32-dimensional codec: `paper` 147 M parameters, `tiny` 1.0 M.

Shape suffixes: B batch, T frames, D motion dimensions, F audio features, H hidden, C size of a condition code.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from visavis.schemas.manifest import MotionSpec
from visavis.schemas.train import FeatureConfig, ModelConfig
from visavis.training.encoder import Encoder
from visavis.training.features import build_features
from visavis.training.layers import Attention, Block, KeysValues, Layout, NoiseLevel, extend, modulate, rotation
from visavis.training.masks import cross_mask, encoder_mask, self_mask
from visavis.training.shapes import BD, BN, BTC, BTD, BTF, FramesC, FramesK, FramesT, KeepB, LevelBT, LevelBTM

SMALLEST_STD = 1e-4
"""A latent dimension that varies less is treated as constant, not blown up."""


@dataclass(frozen=True)
class Conditions:
    """What the avatar hears and sees, as the network takes it. All float32."""

    avatar_audio: BTF
    user_audio: BTF
    user_motion: BTD  # normalised

    def repeat(self, times: int) -> Conditions:
        """The batch so many times, one after the other: [times · B, T, …]."""
        return Conditions(
            *(part.repeat(times, 1, 1) for part in (self.avatar_audio, self.user_audio, self.user_motion))
        )


@dataclass(frozen=True)
class Keep:
    """Which conditions each item of the batch sees. bool [B]."""

    avatar: KeepB
    user: KeepB

    @classmethod
    def all(cls, batch: int, device: torch.device | str | None = None) -> Keep:
        everything = torch.ones(batch, dtype=torch.bool, device=device)
        return cls(everything, everything)


Codes = tuple[KeysValues, ...]
"""Encoded conditions as the cross-attention of each block reads them."""
Start = int | Int[Tensor, "#B 1 1"]
"""A number of a frame: one for all, or an int64 tensor [B, 1, 1] where each item of a batch has its own clock."""


def frames_from(start: Start, first: int, end: int, device: torch.device) -> FramesT:
    """The frames start + first … start + end − 1, int64 [T] or [B, 1, T]."""
    return start + torch.arange(first, end, device=device)


class DualMotionEncoder(nn.Module):
    """One code per frame from both voices and the user's motion, causal."""

    def __init__(self, config: ModelConfig, features: int, dim: int) -> None:
        super().__init__()
        self.config = config
        width = config.encoder_width
        self.avatar_audio = nn.Linear(features, width)
        self.user_audio = nn.Linear(features, width)
        self.user_motion = nn.Linear(dim, width)
        self.no_avatar_audio = nn.Parameter(0.02 * torch.randn(width))
        self.no_user_audio = nn.Parameter(0.02 * torch.randn(width))
        self.no_user_motion = nn.Parameter(0.02 * torch.randn(width))
        self.hear_user = Attention(width, width, config.encoder_heads)
        self.norm_user = nn.LayerNorm(width)
        self.join_avatar = Attention(width, width, config.encoder_heads)
        self.norm_joint = nn.LayerNorm(width)
        self.out = nn.Linear(width, config.width)

    def forward(
        self, conditions: Conditions, keep: Keep, start: Start = 0, past: tuple[KeysValues, KeysValues] | None = None
    ) -> tuple[Tensor, tuple[KeysValues, KeysValues]]:
        """Codes of frames start … start + T − 1.

        past: what the call before returned, for frames up to start − 1, possibly without the oldest.

        Returns: codes [B, T, C], and keys and values of past and present frames for the next call.
        """
        avatar, user = keep.avatar[:, None, None], keep.user[:, None, None]
        avatar_BTH = torch.where(avatar, self.avatar_audio(conditions.avatar_audio), self.no_avatar_audio)
        audio_BTH = torch.where(user, self.user_audio(conditions.user_audio), self.no_user_audio)
        motion_BTH = torch.where(user, self.user_motion(conditions.user_motion), self.no_user_motion)

        count, device = avatar_BTH.shape[1], avatar_BTH.device
        known = 0 if past is None else past[0][0].shape[2]
        frames_T = frames_from(start, 0, count, device)
        mask_TK = encoder_mask(self.config, frames_T, frames_from(start, -known, count, device))
        by = rotation(frames_T, self.hear_user.head_size)

        heard = extend(past and past[0], self.hear_user.keys_values(audio_BTH, by))
        user_BTH = F.silu(self.norm_user(motion_BTH + self.hear_user(motion_BTH, heard, mask_TK, by)))
        seen = extend(past and past[1], self.join_avatar.keys_values(user_BTH, by))
        joint_BTH = F.silu(self.norm_joint(avatar_BTH + self.join_avatar(avatar_BTH, seen, mask_TK, by)))
        return self.out(joint_BTH), (heard, seen)


class Listener(nn.Module):
    """The whole model; see the module's text."""

    mean: Tensor
    std: Tensor
    evaluations: int = 0
    """Of a block, where the weights are a student's (`training.distill`): it knows no other number. 0: any."""
    checkpointing: bool = False
    """While gradients are asked for, each block keeps its inputs alone and is computed again (arXiv 1604.06174)."""

    def __init__(
        self, config: ModelConfig, features: FeatureConfig, motion: MotionSpec, encoder: Encoder | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.motion = motion
        self.features = build_features(features, config, encoder)
        self.register_buffer("mean", torch.tensor(motion.mean, dtype=torch.float32))
        std = torch.tensor(motion.std, dtype=torch.float32)
        self.register_buffer("std", torch.where(std > SMALLEST_STD, std, 1.0))
        self.encoder = DualMotionEncoder(config, self.features.size, motion.dim)
        self.embed = nn.Linear(2 * motion.dim, config.width)
        self.noise_level = NoiseLevel(config.width)
        self.modulation = nn.Linear(config.width, 8 * config.width)  # six for all blocks, two for the last norm
        self.blocks = nn.ModuleList(Block(config.width, config.heads, config.mlp_ratio) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, elementwise_affine=False)
        self.velocity = nn.Linear(config.width, motion.dim)
        for layer in (self.modulation, self.velocity):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def normalise(self, motion: Tensor) -> Tensor:
        """Codec units to zero mean and unit deviation. [..., D]"""
        return (motion - self.mean) / self.std

    def denormalise(self, motion: Tensor) -> Tensor:
        """The inverse of `normalise`. [..., D]"""
        return motion * self.std + self.mean

    def conditions(
        self,
        avatar_audio_BN: BN,
        user_audio_BN: BN,
        user_motion_BTD: BTD,
        start: int = 0,
        first: int = 0,
        *,
        last: bool = True,
    ) -> Conditions:
        """Conditions of the frames from `first` on that are ready, from samples and codec units.

        All that is given begins with frame `start` (see `LogMel.forward`); last: nothing follows. Both voices go
        through the same features, together.
        """
        heard = self.features(torch.cat([avatar_audio_BN, user_audio_BN]), start, first, last=last)
        avatar_audio, user_audio = heard.chunk(2)
        seen = user_motion_BTD[:, first - start :][:, : heard.shape[1]]
        return Conditions(avatar_audio, user_audio, self.normalise(seen))

    def codes(self, code_BTC: BTC, first: Start = 0) -> Codes:
        """Keys and values of codes of frames `first` …, computed once for all noise levels."""
        frames_T = frames_from(first, 0, code_BTC.shape[1], code_BTC.device)
        by = rotation(frames_T, self.config.width // self.config.heads)
        with self._precision():
            return tuple(cross.keys_values(code_BTC, by) for _, cross in self.attentions())

    def attentions(self) -> list[tuple[Attention, Attention]]:
        """Self-attention and cross-attention of each block."""
        blocks = (cast(Block, block) for block in self.blocks)
        return [(block.self_attention, block.cross_attention) for block in blocks]

    def use_bfloat16(self) -> Listener:
        """Convert the weights of the transformer's products, for generation; sums and all else stay float32."""
        for layer in self.blocks.modules():
            if isinstance(layer, nn.Linear):
                layer.to(torch.bfloat16)
        return self

    def _precision(self) -> AbstractContextManager[Any]:
        """What `use_bfloat16` asks for; otherwise as the caller has it."""
        converted = cast(Block, self.blocks[0]).mlp[0].weight.dtype == torch.bfloat16
        return torch.autocast(self.mean.device.type, torch.bfloat16) if converted else nullcontext()

    def layout(self, frames: range, keys: range, codes: range) -> Layout:
        """For denoising `frames`, which see motion of the frames `keys` and codes of the frames `codes`."""
        spans = (torch.arange(span.start, span.stop, device=self.mean.device) for span in (frames, keys, codes))
        return self.layout_of(*spans)

    def layout_of(self, frames_T: FramesT, keys_K: FramesK, codes_C: FramesC) -> Layout:
        """As `layout`, of frame numbers in tensors: [T], or [B, 1, T] where each item has its own clock."""
        return Layout(
            rotation(frames_T, self.config.width // self.config.heads),
            self_mask(self.config, frames_T, keys_K),
            cross_mask(self.config, frames_T, codes_C),
        )

    def modulations(self, t_BT: LevelBT) -> Tensor:
        """What adaLN does at noise levels t (0 noise … 1 clean), [B, T, 8H]: for all blocks alike."""
        level_BTM: Float[Tensor, "B T M"] = self.modulation(self.noise_level(t_BT))
        return level_BTM

    def denoise(
        self,
        x_BTD: BTD,
        reference_BD: BD,
        modulation_BTM: LevelBTM,
        codes: Codes,
        layout: Layout,
        past: tuple[KeysValues, ...] | None = None,
    ) -> tuple[Tensor, tuple[KeysValues, ...]]:
        """Velocity of noisy motion.

        Args:
            x_BTD, reference_BD: normalised motion.
            modulation_BTM: from `modulations`, [B, T, 8H] or anything that broadcasts to it.
            past: per block, keys and values of the frames just before these.

        Returns: velocity [B, T, D], and per block the keys and values of these frames.
        """
        *modulation, shift, scale = modulation_BTM.chunk(8, dim=-1)
        reference_BTD = reference_BD[:, None].expand(-1, x_BTD.shape[1], -1)
        x_BTH = self.embed(torch.cat([x_BTD, reference_BTD], dim=2))
        fresh, again = [], self.checkpointing and torch.is_grad_enabled()
        with self._precision():
            for i, block in enumerate(self.blocks):
                given = x_BTH, tuple(modulation), layout, past and past[i], codes[i]
                x_BTH, own = self._recomputed(block, *given) if again else block(*given)
                fresh.append(own)
        return self.velocity(modulate(self.norm(x_BTH), shift, scale)), tuple(fresh)

    @staticmethod
    def _recomputed(block: nn.Module, *given: Any) -> tuple[Tensor, KeysValues]:
        """What a block gives; there is no dropout, so no random state to restore."""
        made: tuple[Tensor, KeysValues] = checkpoint(block, *given, use_reentrant=False, preserve_rng_state=False)
        return made

    def forward(self, x_BTD: BTD, t_BT: LevelBT, reference_BD: BD, conditions: Conditions, keep: Keep) -> BTD:
        """Velocity of a whole window, [B, T, D]: what training uses. t_BT: noise levels, broadcast to [B, T]."""
        code_BTC, _ = self.encoder(conditions, keep)
        return self.denoise_window(x_BTD, t_BT, reference_BD, self.codes(code_BTC))

    def denoise_window(self, x_BTD: BTD, t_BT: LevelBT, reference_BD: BD, codes: Codes) -> BTD:
        """As `forward`, from codes of the same frames."""
        window = range(x_BTD.shape[1])
        return self.denoise(x_BTD, reference_BD, self.modulations(t_BT), codes, self.layout(window, window, window))[0]


def build_model(
    config: ModelConfig, features: FeatureConfig, motion: MotionSpec, seed: int, encoder: Encoder | None = None
) -> Listener:
    """A fresh model; the weights depend on the seed alone. The global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Listener(config, features, motion, encoder)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
