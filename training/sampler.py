"""Streaming generation, block by block, with a bounded cache and no limit on length.

A block of B frames is integrated from noise (t = 0) to motion (t = 1) by Euler steps; its past is seen through a
cache of keys and values that one extra pass at t = 1 writes when the block is done (Avatar Forcing, alg. 1–2). Every
one of `steps` evaluations moves the state: none is a no-op. Conditions are encoded once, as they arrive; guidance
branches share one batch and have separate rows in the caches. There is no priming block, positions have no end, and
memory does not grow: after `context` frames the oldest are forgotten, exactly as the training mask forgets them.

Latency: block + look-ahead frames of waiting (12 · 40 ms by default) before compute; features that hear ahead add
theirs (`training.features.audio_spec` tells the sum).

Noise is drawn per session from (seed, key) alone, so a result does not depend on what else was in the batch, nor on
whether it was streamed or rolled out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from schemas import SAMPLES_PER_FRAME
from schemas.errors import UsageError
from schemas.train import Drop, SamplerConfig
from training.layers import KeysValues, extend, tail
from training.masks import ahead
from training.model import Codes, Conditions, Keep, Listener

Branch = tuple[bool, bool]
"""Does a guidance branch see the avatar's audio, and the user?"""

_KEPT: dict[Drop, Branch] = {
    "full": (True, True),
    "no_user": (True, False),
    "no_avatar": (False, True),
    "none": (False, False),
}


def guidance_weights(config: SamplerConfig, drop: Drop = "full") -> dict[Branch, float]:
    """The guided velocity as a weighted sum over branches; weights sum to 1, and no branch is evaluated in vain.

    paper (eq. 14): v(∅,∅) + w_a·[v(a,∅) − v(∅,∅)] + w_u·[v(∅,u) − v(∅,∅)]
    full: v(a,u) + (w_a − 1)·[v(a,u) − v(∅,u)] + (w_u − 1)·[v(a,u) − v(a,∅)]

    Dropped conditions are dropped from every branch.
    """
    w_a, w_u = config.w_a, config.w_u
    weights: dict[Branch, float]
    if config.guidance == "paper":
        weights = {(False, False): 1 - w_a - w_u, (True, False): w_a, (False, True): w_u}
    elif config.guidance == "full":
        weights = {(True, True): w_a + w_u - 1, (False, True): 1 - w_a, (True, False): 1 - w_u}
    else:
        weights = {(True, True): 1.0}
    avatar, user = _KEPT[drop]
    merged: dict[Branch, float] = {}
    for (sees_avatar, sees_user), weight in weights.items():
        branch = (sees_avatar and avatar, sees_user and user)
        merged[branch] = merged.get(branch, 0.0) + weight
    return {branch: weight for branch, weight in merged.items() if weight != 0}


def noise_source(seed: int, key: str) -> np.random.Generator:
    """The stream of noise of one session: a function of (seed, key) and nothing else."""
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


@dataclass
class Counts:
    """What a stream has cost so far, in passes of the denoiser over the whole batch."""

    evaluations: int = 0  # that moved a block towards motion
    cache_writes: int = 0


class Stream:
    """Generation for a batch of S sessions in lockstep.

        stream = Stream(model, reference_SD, SamplerConfig(), keys=["a", "b"])
        while talking:
            motion_SBD = stream.step(avatar_audio, user_audio, user_motion)  # `stream.needs` new frames of each

    The first step needs block + look-ahead frames (the conditions' and the features'), every later one a block; each
    returns one block of motion in the codec's units. The last step of a session takes whatever frames are left.
    """

    def __init__(
        self, model: Listener, reference_SD: Tensor, config: SamplerConfig, keys: Sequence[str], drop: Drop = "full"
    ) -> None:
        """Raises UsageError for a model with mask `full`, which cannot stream."""
        if model.config.mask == "full":
            raise UsageError("a model with mask `full` sees the whole future and cannot stream")
        self.model, self.config = model, config
        self.counts = Counts()
        self._sessions = len(keys)
        self._weights = guidance_weights(config, drop)
        self._reference = self._branches(model.normalise(reference_SD))
        self._keep = _keep(self._weights, self._sessions, reference_SD.device)
        self._noise = [noise_source(config.seed, key) for key in keys]
        self._given: tuple[Tensor, Tensor, Tensor] | None = (
            None  # both voices and the user's motion, as far back as features hear
        )
        self._start = 0  # the first frame of these
        self._end = 0  # the frame after the last of these
        self._encoded = 0  # frames whose conditions were encoded
        self._done = 0  # frames that were generated
        self._encoder_past: tuple[KeysValues, KeysValues] | None = None
        self._codes: Codes | None = None
        self._past: tuple[KeysValues, ...] | None = None

    @property
    def needs(self) -> int:
        """Frames of new conditions that the next step takes."""
        block_end = self._done + self.model.config.block
        return block_end + ahead(self.model.config) + self.model.features.look_ahead - self._end

    @torch.no_grad()
    def step(
        self, avatar_audio_SN: Tensor, user_audio_SN: Tensor, user_motion_STD: Tensor, *, last: bool = False
    ) -> Tensor:
        """One block of motion, [S, B, D] in codec units; fewer frames at the very end.

        Args:
            avatar_audio_SN, user_audio_SN: new samples, 640 per frame.
            user_motion_STD: new frames, codec units.
            last: nothing follows, so a block may be short or lack its look-ahead.

        Raises:
            ValueError: not `needs` frames (with `last`: more than that), or nothing left to generate.
        """
        frames = user_motion_STD.shape[1]
        if frames != self.needs and not (last and frames < self.needs):
            raise ValueError(f"this step needs {self.needs} new frames, got {frames}")
        self._take(avatar_audio_SN, user_audio_SN, user_motion_STD)
        if self.model.features.ready(self._end, last=last) > self._encoded:
            self._encode(last=last)
        size = min(self.model.config.block, self._encoded - self._done)
        if size <= 0:
            raise ValueError("every frame that was given has been generated")
        block_SBD = self._integrate(size)
        self._remember(block_SBD)
        self._done += size
        return self.model.denormalise(block_SBD)

    def _take(self, *fresh: Tensor) -> None:
        old = self._given or tuple(part[:, :0] for part in fresh)
        avatar, user, motion = (torch.cat(both, dim=1) for both in zip(old, fresh, strict=True))
        self._given = avatar, user, motion
        self._end = self._start + motion.shape[1]

    def _encode(self, *, last: bool) -> None:
        config = self.model.config
        assert self._given is not None
        one = self.model.conditions(*self._given, self._start, self._encoded, last=last)
        conditions = Conditions(
            self._branches(one.avatar_audio), self._branches(one.user_audio), self._branches(one.user_motion)
        )
        code, past = self.model.encoder(conditions, self._keep, self._encoded, self._encoder_past)
        fresh = self.model.codes(code, self._encoded)
        self._encoded += code.shape[1]
        self._forget(max(0, self._encoded - self.model.features.history))
        reach = config.context + self._encoded % config.block
        self._encoder_past = (tail(past[0], reach), tail(past[1], reach))
        if self._codes is None:
            self._codes = fresh
            return
        first = max(self._codes.first, self._done - config.cross_window)
        old = tuple(tail(layer, fresh.first - first) for layer in self._codes.layers)
        self._codes = Codes(first, tuple(extend(o, f) for o, f in zip(old, fresh.layers, strict=True)))

    def _forget(self, frame: int) -> None:
        """Drop what was given for frames before this one."""
        assert self._given is not None
        drop = max(0, frame - self._start)
        avatar, user, motion = self._given
        samples = drop * SAMPLES_PER_FRAME
        self._given = avatar[:, samples:], user[:, samples:], motion[:, drop:]
        self._start += drop

    def _integrate(self, size: int) -> Tensor:
        x = torch.stack([_draw(source, size, self.model.motion.dim) for source in self._noise])
        x = x.to(self._reference.device)
        levels = torch.linspace(0, 1, self.config.steps + 1).tolist()
        for t, following in pairwise(levels):
            x = x + (following - t) * guided(self._weights, self._denoise(x, t)[0])
            self.counts.evaluations += 1
        return x

    def _remember(self, block_SBD: Tensor) -> None:
        _, fresh = self._denoise(block_SBD, 1.0)
        self.counts.cache_writes += 1
        past = self._past or (None,) * len(fresh)
        self._past = tuple(tail(extend(p, f), self.model.config.context) for p, f in zip(past, fresh, strict=True))

    def _denoise(self, x_SBD: Tensor, t: float) -> tuple[Tensor, tuple[KeysValues, ...]]:
        assert self._codes is not None
        level = torch.full((1, 1), t, device=x_SBD.device)
        return self.model.denoise(self._branches(x_SBD), level, self._reference, self._codes, self._done, self._past)

    def _branches(self, x: Tensor) -> Tensor:
        return x.repeat(len(self._weights), *(1 for _ in x.shape[1:]))


@torch.no_grad()
def rollout(
    model: Listener,
    avatar_audio_BN: Tensor,
    user_audio_BN: Tensor,
    user_motion_BTD: Tensor,
    reference_BD: Tensor,
    config: SamplerConfig,
    keys: Sequence[str],
    drop: Drop = "full",
    *,
    cached: bool = True,
) -> Tensor:
    """Motion of whole windows, [B, T, D] in codec units, as a stream would have made it.

    cached=False recomputes everything from scratch for every block and noise level: the plain form of the same
    algorithm, equal up to rounding, and the only one for mask `full` (which is then chosen by itself).
    """
    arguments = (model, avatar_audio_BN, user_audio_BN, user_motion_BTD, reference_BD, config, keys, drop)
    if not cached or model.config.mask == "full":
        return _rollout_plain(*arguments)
    stream = Stream(model, reference_BD, config, keys, drop)
    frames = user_motion_BTD.shape[1]
    blocks, given = [], 0
    for _ in range(-(-frames // model.config.block)):
        end = min(frames, given + stream.needs)
        samples = slice(given * SAMPLES_PER_FRAME, end * SAMPLES_PER_FRAME)
        voices = avatar_audio_BN[:, samples], user_audio_BN[:, samples]
        blocks.append(stream.step(*voices, user_motion_BTD[:, given:end], last=end == frames))
        given = end
    return torch.cat(blocks, dim=1)


def _rollout_plain(
    model: Listener,
    avatar_audio_BN: Tensor,
    user_audio_BN: Tensor,
    user_motion_BTD: Tensor,
    reference_BD: Tensor,
    config: SamplerConfig,
    keys: Sequence[str],
    drop: Drop,
) -> Tensor:
    batch, frames, dim = user_motion_BTD.shape
    block = frames if model.config.mask == "full" else model.config.block
    weights = guidance_weights(config, drop)
    n = len(weights)
    one = model.conditions(avatar_audio_BN, user_audio_BN, user_motion_BTD)
    conditions = Conditions(
        one.avatar_audio.repeat(n, 1, 1), one.user_audio.repeat(n, 1, 1), one.user_motion.repeat(n, 1, 1)
    )
    keep = _keep(weights, batch, user_motion_BTD.device)
    reference = model.normalise(reference_BD).repeat(n, 1)
    x = torch.stack([_draw(noise_source(config.seed, key), frames, dim) for key in keys]).to(reference.device)
    levels = torch.linspace(0, 1, config.steps + 1).tolist()
    for start in range(0, frames, block):
        for t, following in pairwise(levels):
            level = torch.ones(1, frames, device=x.device)
            level[:, start:] = t
            v = guided(weights, model(x.repeat(n, 1, 1), level, reference, conditions, keep))
            x[:, start : start + block] += (following - t) * v[:, start : start + block]
    return model.denormalise(x)


def guided(weights: dict[Branch, float], velocity: Tensor) -> Tensor:
    """Weighted sum over branches stacked in the batch: [branches · S, T, D] → [S, T, D]."""
    parts = velocity.chunk(len(weights))
    return sum((w * v for w, v in zip(weights.values(), parts, strict=True)), torch.zeros_like(parts[0]))


def _keep(weights: dict[Branch, float], sessions: int, device: torch.device) -> Keep:
    avatar, user = zip(*weights, strict=True)
    return Keep(
        torch.tensor(avatar, device=device).repeat_interleave(sessions),
        torch.tensor(user, device=device).repeat_interleave(sessions),
    )


def _draw(source: np.random.Generator, frames: int, dim: int) -> Tensor:
    return torch.from_numpy(source.standard_normal((frames, dim), dtype=np.float32))
