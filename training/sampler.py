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

Noise is a function of (seed, key, number of the block) alone (`training.noise`), so a result does not depend on what
else was in the batch, on whether it was streamed or rolled out, nor on where a session was saved and restored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from visavis.schemas import SAMPLES_PER_FRAME
from visavis.schemas.errors import UsageError
from visavis.schemas.train import Drop, SamplerConfig
from visavis.training.block import BlockInputs, BlockSampler, anchored, empty_cache, noise_levels
from visavis.training.guidance import check_student, guidance_weights, guided, kept_by
from visavis.training.layers import KeysValues, extend, tail
from visavis.training.masks import ahead
from visavis.training.model import Codes, Listener
from visavis.training.noise import NoiseSource, noise
from visavis.training.shapes import BD, BN, BTD, SBD, SD, SN, STD


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
        graph: bool | None = None,
        pack: bool | None = None,
        blocks: BlockSampler | None = None,
    ) -> None:
        """
        Args:
            compile: the denoiser by torch.compile, which takes a minute and a compiler. The model must not change then.
            graph: capture blocks as CUDA graphs (`training.graphs`), in the precision of the first one; None: on a GPU.
                The model must keep its place then, and short blocks at the end are computed as they come.
            pack: weights for products on a CPU (`training.packed`), which takes as much memory again as those of the
                transformer; streams of one model share it. None: on a CPU, unless compiled.
            blocks: made for as many sessions with the same model, settings and drop, and captured perhaps; whatever
                was in them ends. compile, graph and pack are theirs then.

        Raises:
            UsageError: a model with mask `full`, which cannot stream, a student that is asked for other evaluations
                than it was distilled for, or a reference that is not finite.
        """
        if not torch.isfinite(reference_SD).all():
            raise UsageError("the reference motion of a session is not finite; take another frame of the person")
        self.model, self.config, self.keys, self.drop = model, config, tuple(keys), drop
        self.reference = reference_SD
        self.counts = Counts()
        weights = guidance_weights(config, drop)
        self._branches = len(weights)
        self._keep = kept_by(weights, len(keys), reference_SD.device)
        reference = model.normalise(reference_SD)
        how: dict[str, Any] = {"compile": compile, "graph": graph, "pack": pack}
        self._blocks = blocks or BlockSampler(model, reference, config, weights, **how)
        if blocks is not None:
            blocks.begin(reference)
        self._noise = NoiseSource(config.seed)
        self._noise_keys = [self._noise.key_of(key) for key in self.keys]
        self._drawn: tuple[int, Tensor] | None = None
        self.state = self._fresh_state()

    def _fresh_state(self) -> StreamState:
        config, sessions = self.model.config, len(self.keys)
        rows, zeros = self._branches * sessions, self.reference.new_zeros
        encoder = self.model.encoder
        return StreamState(
            avatar_audio=zeros(sessions, 0),
            user_audio=zeros(sessions, 0),
            user_motion=zeros(sessions, 0, self.model.motion.dim),
            mean=self._blocks.mean_SD,
            encoder=tuple(
                empty_cache(a, rows, config.context + ahead(config)) for a in (encoder.hear_user, encoder.join_avatar)
            ),
            codes=tuple(empty_cache(cross, rows, config.cross_window) for _, cross in self.model.attentions()),
            past=self._blocks.past,
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
        check_finite(avatar_audio_SN, user_audio_SN, user_motion_STD, self.keys, [state.given] * len(self.keys))
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
        encoder, fresh = self._blocks.encode(one.repeat(self._branches), self._keep, state.encoded, state.encoder)
        state.encoded += fresh[0][0].shape[2]
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
        state = self.state
        done, encoded = torch.tensor([[[[state.done]]], [[[state.encoded]]]], device=self.reference.device)
        x = self._blocks.generate(BlockInputs(self._next_noise()[:, :size], done, encoded, state.codes))
        self.counts.evaluations += self._blocks.steps
        state.done += size
        return x

    def remember(self) -> None:
        """Write the last block into the cache, if that is not done yet: one pass at t = 1. And draw the next noise.

        `step` does it when it needs it; done while one waits for the next conditions, it costs no latency.
        """
        if self._blocks.write():
            self.counts.cache_writes += 1
            self._next_noise()

    def _next_noise(self) -> STD:
        """That of the next block, drawn once; a shorter block takes the beginning."""
        block = self.state.done // self.model.config.block
        if self._drawn is None or self._drawn[0] != block:
            size, dim = self.model.config.block, self.model.motion.dim
            x = self._noise.draw(self._noise_keys, [block] * len(self.keys), size, dim)
            self._drawn = block, x.to(self.reference.device)
        return self._drawn[1]


def check_finite(
    avatar_audio_SN: SN, user_audio_SN: SN, user_motion_STD: STD, keys: Sequence[str], first: Sequence[int]
) -> None:
    """See that every number of some conditions is finite; `first` has the number of each session's first frame.

    Raises:
        ValueError: one is not. It says what of which session, and in which frame.
    """
    given = {"avatar's audio": avatar_audio_SN, "user's audio": user_audio_SN, "user's motion": user_motion_STD}
    if torch.stack([torch.isfinite(part).all() for part in given.values()]).all():
        return
    for name, part in given.items():
        for key, begins, each in zip(keys, first, part, strict=True):
            at = (~torch.isfinite(each)).nonzero()
            if len(at):
                frame = begins + int(at[0, 0]) // (1 if each.ndim == 2 else SAMPLES_PER_FRAME)
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
    blocks: BlockSampler | None = None,
) -> BTD:
    """Motion of whole windows, [B, T, D] in codec units, as a stream would have made it.

    cached=False recomputes everything from scratch for every block and noise level: the plain form of the same
    algorithm, equal up to rounding, and the only one for mask `full` (which is then chosen by itself).
    blocks: as for `Stream`; without them nothing is captured, for a window has a few blocks only.

    Raises ValueError for conditions that are not finite.
    """
    arguments = (model, avatar_audio_BN, user_audio_BN, user_motion_BTD, reference_BD, config, keys, drop)
    if not cached or model.config.mask == "full":
        return _rollout_plain(*arguments)
    # Packing is of no use for a few blocks.
    stream = Stream(model, reference_BD, config, keys, drop, graph=False, pack=False, blocks=blocks)
    frames = user_motion_BTD.shape[1]
    made, given = [], 0
    for _ in range(-(-frames // model.config.block)):
        end = min(frames, given + stream.needs)
        samples = slice(given * SAMPLES_PER_FRAME, end * SAMPLES_PER_FRAME)
        voices = avatar_audio_BN[:, samples], user_audio_BN[:, samples]
        made.append(stream.step(*voices, user_motion_BTD[:, given:end], last=end == frames))
        given = end
    return torch.cat(made, dim=1)


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
    check_student(model.evaluations, config)
    check_finite(avatar_audio_BN, user_audio_BN, user_motion_BTD, keys, [0] * len(keys))
    batch, frames, dim = user_motion_BTD.shape
    block = frames if model.config.mask == "full" else model.config.block
    weights = guidance_weights(config, drop)
    n = len(weights)
    conditions = model.conditions(avatar_audio_BN, user_audio_BN, user_motion_BTD).repeat(n)
    reference_BD, keep = model.normalise(reference_BD), kept_by(weights, batch, user_motion_BTD.device)
    mean = reference_BD
    done: list[Tensor] = []
    for number, start in enumerate(range(0, frames, block)):
        size = min(block, frames - start)
        x = noise(config.seed, keys, number, size, dim).to(reference_BD.device)
        past = torch.cat([*done, x.new_zeros(batch, frames - start, dim)], dim=1)
        for t, following in pairwise(noise_levels(config)):
            past[:, start : start + size] = x
            level_1T = torch.ones(1, frames, device=x.device)
            level_1T[:, start:] = t
            v = model(past.repeat(n, 1, 1), level_1T, reference_BD.repeat(n, 1), conditions, keep)
            x = x + (following - t) * guided(weights, v[:, start : start + size])
        if config.anchor:
            x, mean = anchored(x, mean, reference_BD, config)
        done.append(x)
    return model.denormalise(torch.cat(done, dim=1))
