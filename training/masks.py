"""Who may see whom: the three named masks, and the look-ahead that the whole stack keeps.

The masks (paper, fig. 4; q and k are frames, B the block, l the look-ahead):

    block   k < (⌊q/B⌋ + 1)·B + l    bidirectional inside a block, all the past, l frames of the next block
    frame   k ≤ q + l                what the released code equals
    full    everything               not streamable; for comparison

Used in every layer, a mask with l > 0 leaks: frame q sees l frames of the next block, which in the layer
below saw l frames of the one after, so depth × l frames in all. Here the look-ahead is spent exactly once:

    encoder          k ≤ q            a condition code holds nothing later than its own frame
    self-attention   mask with l = 0  noisy motion of later blocks is never seen
    cross-attention  mask with l      and |k − q| ≤ window; the only place that looks ahead

Codes are not updated by the transformer, so stacking cannot widen anything: the output of frame n depends on
conditions up to `last_condition(n)` and on noisy motion up to `last_motion(n)`, however deep the model. The price
against the paper is that the l frames ahead are seen as conditions only, not as motion being denoised; the gain is
that a block needs no duplicated tokens, and that a condition is encoded once in the life of a stream.
"""

from __future__ import annotations

import torch

from visavis.schemas.train import Mask, ModelConfig
from visavis.training.shapes import FramesK, FramesQ, MaskQK


def visible(
    kind: Mask, q_Q: FramesQ, k_K: FramesK, *, block: int, look_ahead: int, context: int | None = None
) -> MaskQK:
    """May query frame q see key frame k?

    Args:
        q_Q, k_K: int64, frame numbers; axes before the last broadcast.
        context: if given, nothing is seen that lies more than so many frames before the start of the query's block
            (ignored by `full`). This is the length of the streaming cache.

    Returns: bool [..., Q, K]. There is nothing to see before frame 0: caches that are not full yet hold zeros there.
    """
    q_Q1, k_1K = q_Q[..., :, None], k_K[..., None, :]
    if kind == "full":
        return torch.ones((q_Q1 + k_1K).shape, dtype=torch.bool, device=q_Q.device)
    start_Q1 = torch.div(q_Q1, block, rounding_mode="floor") * block
    last_Q1 = (start_Q1 + block - 1 if kind == "block" else q_Q1) + look_ahead
    seen_QK = (k_1K >= 0) & (k_1K <= last_Q1)
    return seen_QK if context is None else seen_QK & (k_1K >= start_Q1 - context)


def encoder_mask(config: ModelConfig, q_Q: FramesQ, k_K: FramesK) -> MaskQK:
    """Mask of both attentions of the dual motion encoder: causal, bounded past."""
    kind: Mask = "full" if config.mask == "full" else "frame"
    return visible(kind, q_Q, k_K, block=config.block, look_ahead=0, context=config.context)


def self_mask(config: ModelConfig, q_Q: FramesQ, k_K: FramesK) -> MaskQK:
    """Mask of self-attention over motion: the named mask without look-ahead, bounded past."""
    return visible(config.mask, q_Q, k_K, block=config.block, look_ahead=0, context=config.context)


def cross_mask(config: ModelConfig, q_Q: FramesQ, k_K: FramesK) -> MaskQK:
    """Mask of cross-attention to condition codes: within the window, and the named mask with look-ahead."""
    near_QK = (k_K[..., None, :] - q_Q[..., :, None]).abs() <= config.cross_window
    return near_QK & visible(config.mask, q_Q, k_K, block=config.block, look_ahead=config.look_ahead)


def ahead(config: ModelConfig) -> int:
    """Frames of the conditions that a block really needs beyond its end."""
    return min(config.look_ahead, config.cross_window)


def last_condition(config: ModelConfig, n: int) -> int | None:
    """The last frame whose conditions may change the output of frame n; None: there is no such bound."""
    last = last_motion(config, n)
    return None if last is None else last + ahead(config)


def last_motion(config: ModelConfig, n: int) -> int | None:
    """The last frame whose noisy motion may change the output of frame n; None: there is no such bound."""
    if config.mask == "full":
        return None
    return n if config.mask == "frame" else (n // config.block + 1) * config.block - 1
