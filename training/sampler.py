"""Streaming generation, block by block, with a bounded cache and no limit on length.

A block of B frames is integrated from noise (t = 0) to motion (t = 1) by Euler steps; its past is seen through a
cache of keys and values that one extra pass at t = 1 writes before the next block (Avatar Forcing, alg. 1–2). Every one
of `steps` evaluations moves the state: none is a no-op. Conditions are encoded once, as they arrive; guidance branches
share one batch and have separate rows in the caches; noise levels are embedded once in the life of a stream. There is
no priming block, positions have no end, and caches have their full size from the start (zeros that no mask shows), so
every block costs the same time and memory: after `context` frames the oldest are forgotten, exactly as the training
mask forgets them.

Latency: block + look-ahead frames of waiting (12 · 40 ms by default) before compute; features that hear ahead add
theirs (`training.features.audio_spec` tells the sum).

Noise is a function of (seed, key, number of the block) alone, so a result does not depend on what else was in the
batch, on whether it was streamed or rolled out, nor on where a session was saved and restored.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from visavis.schemas import FPS, SAMPLES_PER_FRAME
from visavis.schemas.errors import UsageError
from visavis.schemas.train import Drop, SamplerConfig
from visavis.training.layers import Attention, KeysValues, Layout, extend, tail
from visavis.training.masks import ahead
from visavis.training.model import Codes, Conditions, Keep, Listener
from visavis.training.shapes import BD, BN, BTD, SBD, SD, SN, STD

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


def noise(seed: int, keys: Sequence[str], block: int, frames: int, dim: int) -> STD:
    """Standard normal noise of one block of each session, [S, T, D] float32 on the CPU."""
    drawn = []
    for key in keys:
        digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
        source = np.random.Philox(key=int.from_bytes(digest[:16], "little"), counter=[0, 0, 0, block])
        drawn.append(np.random.Generator(source).standard_normal((frames, dim), dtype=np.float32))
    return torch.from_numpy(np.stack(drawn))


def anchored(x_STD: STD, mean_SD: SD, reference_SD: SD, config: SamplerConfig) -> tuple[STD, SD]:
    """Take off a share of what has separated the motion from its reference for long; all normalised.

    x'(n) = x(n) − anchor · (m(n) − reference), m the mean of x, weighted by exp(−age / anchor_seconds). A lasting
    offset shrinks to (1 − anchor) of itself; what is quick against `anchor_seconds` passes. The result is what the
    model sees as its past, so an offset that each block adds to the one before stays below offset / anchor.

    Returns: x', and m of the last frame.
    """
    share = -math.expm1(-1 / (config.anchor_seconds * FPS))
    frames = []
    for x_SD in x_STD.unbind(1):
        mean_SD = torch.lerp(mean_SD, x_SD, share)
        frames.append(x_SD - config.anchor * (mean_SD - reference_SD))
    return torch.stack(frames, dim=1), mean_SD


@dataclass
class Counts:
    """What a stream has cost so far, in passes of the denoiser over the whole batch."""

    evaluations: int = 0  # that moved a block towards motion
    cache_writes: int = 0


@dataclass
class StreamState:
    """All that changes while a stream runs; rows of caches are guidance branches · sessions."""

    avatar_audio: Tensor  # [S, 640 · frames] given, as far back as features hear
    user_audio: Tensor  # [S, 640 · frames]
    user_motion: Tensor  # [S, frames, D]
    mean: Tensor  # [S, D] slow mean of the motion, for the anchor
    encoder: tuple[KeysValues, ...]  # of the `context + look-ahead` frames before `encoded`
    codes: Codes  # of the frames that cross-attention reaches from here, up to `encoded`
    past: tuple[KeysValues, ...]  # of `context` frames up to the last that was written
    start: int = 0  # the first frame that `user_motion` holds
    encoded: int = 0  # frames whose conditions were encoded
    done: int = 0  # frames that were generated

    @property
    def given(self) -> int:
        return self.start + self.user_motion.shape[1]


class Stream:
    """Generation for a batch of S sessions in lockstep.

        stream = Stream(model, reference_SD, SamplerConfig(), keys=["a", "b"])
        while talking:
            motion_SBD = stream.step(avatar_audio, user_audio, user_motion)  # `stream.needs` new frames of each

    The first step needs block + look-ahead frames (the conditions' and the features'), every later one a block; each
    returns one block of motion in the codec's units. The last step of a session takes whatever frames are left.
    `training.session` saves a stream and restores it.
    """

    def __init__(
        self,
        model: Listener,
        reference_SD: SD,
        config: SamplerConfig,
        keys: Sequence[str],
        drop: Drop = "full",
        *,
        compile: bool = False,
    ) -> None:
        """compile: the denoiser by torch.compile, which takes a minute and a compiler. The model must not change then.

        Raises:
            UsageError: a model with mask `full`, which cannot stream, or a reference that is not finite.
        """
        if model.config.mask == "full":
            raise UsageError("a model with mask `full` sees the whole future and cannot stream")
        if not torch.isfinite(reference_SD).all():
            raise UsageError("the reference motion of a session is not finite; take another frame of the person")
        self.model, self.config, self.keys, self.drop = model, config, tuple(keys), drop
        self.reference = reference_SD
        self.counts = Counts()
        self._weights = guidance_weights(config, drop)
        self._reference = model.normalise(reference_SD)
        self._keep = _keep(self._weights, len(keys), reference_SD.device)
        self._levels = _levels(config)
        with torch.no_grad():
            t_LT = torch.tensor(self._levels, device=reference_SD.device)[:, None]
            self._modulations = model.modulations(t_LT)[:, None].unbind(0)  # of each level, [1, 1, 8H]
        self._denoise = compiled(model) if compile else model.denoise
        self._unwritten: tuple[Tensor, Layout] | None = None
        self.state = self._fresh_state()

    def _fresh_state(self) -> StreamState:
        config, sessions = self.model.config, len(self.keys)
        rows, zeros = len(self._weights) * sessions, self.reference.new_zeros

        def empty(attention: Attention, frames: int) -> KeysValues:
            shape = rows, attention.heads, frames, attention.head_size
            return zeros(shape), zeros(shape)

        encoder, blocks = self.model.encoder, self.model.attentions()
        return StreamState(
            avatar_audio=zeros(sessions, 0),
            user_audio=zeros(sessions, 0),
            user_motion=zeros(sessions, 0, self.model.motion.dim),
            mean=self._reference.clone(),
            encoder=tuple(empty(a, config.context + ahead(config)) for a in (encoder.hear_user, encoder.join_avatar)),
            codes=tuple(empty(cross, config.cross_window) for _, cross in blocks),
            past=tuple(empty(own, config.context) for own, _ in blocks),
        )

    @property
    def needs(self) -> int:
        """Frames of new conditions that the next step takes."""
        block_end = self.state.done + self.model.config.block
        return block_end + ahead(self.model.config) + self.model.features.look_ahead - self.state.given

    @torch.no_grad()
    def step(self, avatar_audio_SN: SN, user_audio_SN: SN, user_motion_STD: STD, *, last: bool = False) -> SBD:
        """One block of motion, [S, B, D] in codec units; fewer frames at the very end.

        Args:
            avatar_audio_SN, user_audio_SN: new samples, 640 per frame.
            user_motion_STD: new frames, codec units.
            last: nothing follows, so a block may be short or lack its look-ahead.

        Raises:
            ValueError: not `needs` frames (with `last`: more than that), a number that is not finite (it would stay in
                the caches), or nothing left to generate. The stream is as it was, and the step may be tried again.
        """
        state, frames = self.state, user_motion_STD.shape[1]
        if frames != self.needs and not (last and frames < self.needs):
            raise ValueError(f"this step needs {self.needs} new frames, got {frames}")
        check_finite(avatar_audio_SN, user_audio_SN, user_motion_STD, self.keys, state.given)
        self.remember()
        state.avatar_audio = torch.cat([state.avatar_audio, avatar_audio_SN], dim=1)
        state.user_audio = torch.cat([state.user_audio, user_audio_SN], dim=1)
        state.user_motion = torch.cat([state.user_motion, user_motion_STD], dim=1)
        if self.model.features.ready(state.given, last=last) > state.encoded:
            self._encode(last=last)
        size = min(self.model.config.block, state.encoded - state.done)
        if size <= 0:
            raise ValueError("every frame that was given has been generated")
        return self.model.denormalise(self._generate(size))

    def _encode(self, *, last: bool) -> None:
        """Codes of all frames that are ready; what no later frame will need is forgotten."""
        state, config = self.state, self.model.config
        given = state.avatar_audio, state.user_audio, state.user_motion
        one = self.model.conditions(*given, state.start, state.encoded, last=last)
        conditions = Conditions(*(self._branches(part) for part in (one.avatar_audio, one.user_audio, one.user_motion)))
        code, encoder = self.model.encoder(conditions, self._keep, state.encoded, state.encoder)
        fresh = self.model.codes(code, state.encoded)
        state.encoded += code.shape[1]
        reach = state.encoded - (state.done - config.cross_window)
        state.codes = tuple(tail(extend(o, f), reach) for o, f in zip(state.codes, fresh, strict=True))
        state.encoder = tuple(tail(layer, config.context + ahead(config)) for layer in encoder)

        drop = max(0, state.encoded - self.model.features.history - state.start)
        samples = drop * SAMPLES_PER_FRAME
        state.avatar_audio = state.avatar_audio[:, samples:].clone()
        state.user_audio = state.user_audio[:, samples:].clone()
        state.user_motion = state.user_motion[:, drop:].clone()
        state.start += drop

    def _generate(self, size: int) -> Tensor:
        """The next block, normalised [S, T, D]."""
        state, config = self.state, self.model.config
        x = noise(self.config.seed, self.keys, state.done // config.block, size, self.model.motion.dim)
        x = x.to(self._reference.device)
        layout = self.model.layout(
            frames=range(state.done, state.done + size),
            keys=range(state.done - config.context, state.done + size),
            codes=range(state.encoded - state.codes[0][0].shape[2], state.encoded),
        )
        for level, (t, following) in enumerate(pairwise(self._levels)):
            x = x + (following - t) * guided(self._weights, self._velocity(x, level, layout)[0])
            self.counts.evaluations += 1
        if self.config.anchor:
            x, state.mean = anchored(x, state.mean, self._reference, self.config)
        self._unwritten = x, layout
        state.done += size
        return x

    @torch.no_grad()
    def remember(self) -> None:
        """Write the last block into the cache, if that is not done yet: one pass at t = 1.

        `step` does it when it needs it; done while one waits for the next conditions, it costs no latency.
        """
        if self._unwritten is None:
            return
        x, layout = self._unwritten
        _, fresh = self._velocity(x, -1, layout)
        past = zip(self.state.past, fresh, strict=True)
        self.state.past = tuple(tail(extend(p, f), self.model.config.context) for p, f in past)
        self.counts.cache_writes += 1
        self._unwritten = None

    def _velocity(self, x_STD: STD, level: int, layout: Layout) -> tuple[Tensor, tuple[KeysValues, ...]]:
        denoise = self._denoise if x_STD.shape[1] == self.model.config.block else self.model.denoise  # one shape only
        x, reference = self._branches(x_STD), self._branches(self._reference)
        return denoise(x, reference, self._modulations[level], self.state.codes, layout, self.state.past)

    def _branches(self, x: Tensor) -> Tensor:
        return x.repeat(len(self._weights), *(1 for _ in x.shape[1:]))


def check_finite(
    avatar_audio_SN: SN, user_audio_SN: SN, user_motion_STD: STD, keys: Sequence[str], first: int = 0
) -> None:
    """See that every number of some conditions is finite; `first` is the number of their first frame.

    Raises:
        ValueError: one is not. It says what of which session, and in which frame.
    """
    given = {"avatar's audio": avatar_audio_SN, "user's audio": user_audio_SN, "user's motion": user_motion_STD}
    if torch.stack([torch.isfinite(part).all() for part in given.values()]).all():
        return
    for name, part in given.items():
        for key, each in zip(keys, part, strict=True):
            at = (~torch.isfinite(each)).nonzero()
            if len(at):
                frame = first + int(at[0, 0]) // (1 if each.ndim == 2 else SAMPLES_PER_FRAME)
                raise ValueError(f"session {key}: the {name} is not finite in frame {frame}; give it again, or zeros")


@torch.no_grad()
def rollout(
    model: Listener,
    avatar_audio_BN: BN,
    user_audio_BN: BN,
    user_motion_BTD: BTD,
    reference_BD: BD,
    config: SamplerConfig,
    keys: Sequence[str],
    drop: Drop = "full",
    *,
    cached: bool = True,
) -> BTD:
    """Motion of whole windows, [B, T, D] in codec units, as a stream would have made it.

    cached=False recomputes everything from scratch for every block and noise level: the plain form of the same
    algorithm, equal up to rounding, and the only one for mask `full` (which is then chosen by itself).

    Raises ValueError for conditions that are not finite.
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
    avatar_audio_BN: BN,
    user_audio_BN: BN,
    user_motion_BTD: BTD,
    reference_BD: BD,
    config: SamplerConfig,
    keys: Sequence[str],
    drop: Drop,
) -> Tensor:
    check_finite(avatar_audio_BN, user_audio_BN, user_motion_BTD, keys)
    batch, frames, dim = user_motion_BTD.shape
    block = frames if model.config.mask == "full" else model.config.block
    weights = guidance_weights(config, drop)
    n = len(weights)
    one = model.conditions(avatar_audio_BN, user_audio_BN, user_motion_BTD)
    conditions = Conditions(
        one.avatar_audio.repeat(n, 1, 1), one.user_audio.repeat(n, 1, 1), one.user_motion.repeat(n, 1, 1)
    )
    reference_BD, keep = model.normalise(reference_BD), _keep(weights, batch, user_motion_BTD.device)
    mean = reference_BD
    done: list[Tensor] = []
    for number, start in enumerate(range(0, frames, block)):
        size = min(block, frames - start)
        x = noise(config.seed, keys, number, size, dim).to(reference_BD.device)
        past = torch.cat([*done, x.new_zeros(batch, frames - start, dim)], dim=1)
        for t, following in pairwise(_levels(config)):
            past[:, start : start + size] = x
            level_1T = torch.ones(1, frames, device=x.device)
            level_1T[:, start:] = t
            v = model(past.repeat(n, 1, 1), level_1T, reference_BD.repeat(n, 1), conditions, keep)
            x = x + (following - t) * guided(weights, v[:, start : start + size])
        if config.anchor:
            x, mean = anchored(x, mean, reference_BD, config)
        done.append(x)
    return model.denormalise(torch.cat(done, dim=1))


def compiled(model: Listener) -> Callable[..., tuple[Tensor, tuple[KeysValues, ...]]]:
    """`model.denoise` by torch.compile, for one shape of inputs. On the CPU weights are packed for its products."""
    packed: dict[str, Any] = {"freezing": model.mean.device.type == "cpu"}
    return torch.compile(model.denoise, dynamic=False, fullgraph=True, options=packed)


def guided(weights: dict[Branch, float], velocity: Float[Tensor, "_ T D"]) -> Float[Tensor, "_ T D"]:
    """Weighted sum over branches stacked in the batch: [branches · S, T, D] → [S, T, D]."""
    parts = velocity.chunk(len(weights))
    return sum((w * v for w, v in zip(weights.values(), parts, strict=True)), torch.zeros_like(parts[0]))


def _keep(weights: dict[Branch, float], sessions: int, device: torch.device) -> Keep:
    avatar, user = zip(*weights, strict=True)
    return Keep(
        torch.tensor(avatar, device=device).repeat_interleave(sessions),
        torch.tensor(user, device=device).repeat_interleave(sessions),
    )


def _levels(config: SamplerConfig) -> list[float]:
    """Noise levels from noise to motion; the steps of Euler's method lie between them."""
    return torch.linspace(0, 1, config.steps + 1).tolist()
