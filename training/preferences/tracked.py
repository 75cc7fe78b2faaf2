"""DPO with the noise that made the motion: PNAPO (arXiv 2605.09433).

    eq. 12 with  m_t^l = t · x^l + (1 − t) · x0^l        x0^l: the noise from which the sampler made x^l

A flow takes noise to motion along a nearly straight path. Scored with noise of its own, the rejected motion is looked
at where it never was; on its own path the model is asked about the very decisions that led to it. The sampler's noise
depends on (seed, window, block) alone (`training.sampler.noise`), so it is not stored: it is worked out again from the
pair's record. A recorded side has no such noise and keeps what was drawn; a generated chosen side is tracked, too.
Guidance and the anchor of the sampler bend the path, which is then only nearly the one that was taken. PNAPO's schedule
of β is not taken. With drawn noise on both sides it is plain DPO, and that is what a pair of two recorded sides gets.

Only pairs whose rejected side the initial checkpoint made can be tracked: another model may have blocks of another
size.

Watch `rejected_reference`: it lies well below `chosen_reference` from the start, for on its own path the reference is
more nearly right. `margin` then is made of two sides of unlike size, and `chosen_policy` tells more.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from visavis.schemas.errors import UsageError
from visavis.schemas.pairs import PairOrigin, PairRecord
from visavis.schemas.train import ModelConfig
from visavis.training.flow import Noise
from visavis.training.noise import noise
from visavis.training.preferences.pairs import PairNoise


def tracked_noise(records: Sequence[PairRecord], drawn: Noise, model: ModelConfig) -> PairNoise:
    """What both sides are scored with, of what was drawn for the batch. model: that made what was generated."""
    seeds = [(chosen_seed(record), record.sampler.seed) for record in records]
    chosen, rejected = (
        torch.stack(
            [
                drawn_TD if seed is None else sampled(seed, record.window, model, drawn_TD)
                for seed, record, drawn_TD in zip(side, records, drawn.x0, strict=True)
            ]
        )
        for side in zip(*seeds, strict=True)
    )
    return Noise(chosen, drawn.t), Noise(rejected, drawn.t)


def chosen_seed(record: PairRecord) -> int | None:
    """Of the noise that the chosen motion was made from; none where it was recorded."""
    shared = record.sampler.seed if record.chosen == "full" else None  # older records do not say it
    return shared if record.chosen_seed is None else record.chosen_seed


def sampled(seed: int, window: str, model: ModelConfig, like_TD: Tensor) -> Tensor:
    """The sampler's noise of a whole window, [T, D], where and as `like_TD` is."""
    frames, dim = like_TD.shape
    block = frames if model.mask == "full" else model.block
    blocks = [
        noise(seed, [window], number, min(block, frames - start), dim)[0]
        for number, start in enumerate(range(0, frames, block))
    ]
    return torch.cat(blocks).to(like_TD)


def check_tracked(pairs: PairOrigin | None, reference: str) -> None:
    """See that noise can be worked out again.

    Raises:
        UsageError: another model than the initial checkpoint made what was rejected, or it was part of a study.
    """
    if pairs is not None and pairs.rejected == "voted":
        raise UsageError(
            "dpo.objective=tracked: of motion that people voted on, the noise is not known; take another objective"
        )
    if pairs is None or pairs.rejected_generator != reference:
        made = "nobody knows who" if pairs is None else f"checkpoint {pairs.rejected_generator[:12]}"
        raise UsageError(
            f"dpo.objective=tracked needs pairs whose rejected side the initial checkpoint ({reference[:12]}) made, and"
            f" {made} did: make pairs with it (rejected=own or dropped), or take another objective"
        )
