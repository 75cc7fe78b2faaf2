"""Rollouts of many windows by one model: always in the same precision, so many at a time, and on a GPU as graphs.

    rollouts = Rollouts(model, sampling)
    motion_BTD = rollouts(avatar_audio, user_audio, user_motion, reference, config, keys, drop)     # any number

A `Stream` captures its blocks for itself; of windows each would be captured for five blocks. So the captured blocks
stay here, and the next batch begins in them. A batch that is not full is filled up, so that few sizes are captured.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence

import torch

from visavis.schemas import SAMPLES_PER_FRAME
from visavis.schemas.sampling import Sampling
from visavis.schemas.train import Drop, SamplerConfig
from visavis.training.block import BlockSampler
from visavis.training.guidance import guidance_weights
from visavis.training.model import Listener
from visavis.training.precision import measured_need, products
from visavis.training.sampler import rollout
from visavis.training.shapes import BD, BN, BTD

_KEPT = 8
"""Captured batches: sizes, drops, settings. The one that was not used for longest goes."""
_Kind = tuple[int, Drop, SamplerConfig]


class Rollouts:
    """See the module's text. Not for several threads at once."""

    def __init__(self, model: Listener, sampling: Sampling) -> None:
        """The model's weights become bfloat16, where that is the precision, and must keep their places from then on."""
        self.model = model.use_bfloat16() if sampling.precision == "bfloat16" else model
        self.sampling = sampling
        self._graphs = sampling.graphs and model.config.mask != "full"  # which has no blocks
        self._kept: OrderedDict[_Kind, BlockSampler] = OrderedDict()

    def __call__(
        self,
        avatar_audio_BN: BN,
        user_audio_BN: BN,
        user_motion_BTD: BTD,
        reference_BD: BD,
        config: SamplerConfig,
        keys: Sequence[str],
        drop: Drop = "full",
    ) -> BTD:
        """As `rollout`, of any number of windows."""
        given, size = (avatar_audio_BN, user_audio_BN, user_motion_BTD, reference_BD), self.sampling.batch
        made = []
        with products(self.sampling.precision, self.model.mean.device):
            for first in range(0, len(keys), size):
                some = slice(first, first + size)
                avatar, user, motion, reference = (part[some] for part in given)
                made.append(self._batch((avatar, user, motion, reference), config, list(keys[some]), drop))
        return made[0] if len(made) == 1 else torch.cat(made)

    def _batch(self, given: tuple[BN, BN, BTD, BD], config: SamplerConfig, keys: list[str], drop: Drop) -> BTD:
        if not self._graphs:
            return rollout(self.model, *given, config, keys, drop)
        count = len(keys)
        size = min(self.sampling.batch, 1 << (count - 1).bit_length())
        rows = torch.arange(size, device=given[3].device) % count  # the first ones again
        avatar, user, motion, reference = (part if size == count else part[rows] for part in given)
        filled = [keys[i % count] for i in range(size)]
        blocks = self._blocks(size, config, drop)
        return rollout(self.model, avatar, user, motion, reference, config, filled, drop, blocks=blocks)[:count]

    def _blocks(self, size: int, config: SamplerConfig, drop: Drop) -> BlockSampler:
        """Blocks of so many windows, captured before if there were such; noise is not theirs."""
        kind = size, drop, config.model_copy(update={"seed": 0})
        blocks = self._kept.pop(kind, None)
        if blocks is None:
            neutral = self.model.mean.new_zeros(size, self.model.motion.dim)
            blocks = BlockSampler(self.model, neutral, config, guidance_weights(config, drop), graph=True, pack=False)
        self._kept[kind] = blocks
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return blocks


def need_of(
    wanted: Sequence[tuple[Listener, Collection[Drop]]], trial: Sampling, frames: int, config: SamplerConfig
) -> float:
    """Bytes of a GPU's memory that a window of so many frames takes, in all of the ways in which it is sampled.

    Measured with silence that nobody moves to: what is heard and seen costs nothing.
    """
    device, dim, count = wanted[0][0].mean.device, wanted[0][0].motion.dim, trial.batch
    sound, motion = (torch.zeros(count, size, device=device) for size in (frames * SAMPLES_PER_FRAME, frames * dim))
    reference, keys = torch.zeros(count, dim, device=device), [str(i) for i in range(count)]

    def work() -> None:
        tried = [(Rollouts(model, trial), drops) for model, drops in wanted]
        for rollouts, drops in tried:
            for drop in sorted(drops):
                rollouts(sound, sound, motion.view(count, frames, dim), reference, config, keys, drop)

    return measured_need(work, count, device)
