"""What segmentation-3.0 says of who speaks: up to three local voices in each chunk of 10 s, which know no other chunk.

Shape suffixes: F frames, C chunks, K frames of a chunk.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from visavis.stages.voice.activity import HEARD

CHUNK_FRAMES = 589
HOP = 150  # frames between chunks: 2.5 s; with 1 s no figure was better
HALF_SECOND = 30  # frames
_PART = 500  # chunks looked at together: twenty minutes


def local_evidence(local_CK3: np.ndarray, lead_F: np.ndarray) -> np.ndarray:
    """What the segmentation says for side one [F], −1…1, when its local voices follow the lead of their frames."""
    lead_CK = chunked(lead_F, len(local_CK3))
    parts = (slice(first, first + _PART) for first in range(0, len(local_CK3), _PART))
    return spread(np.concatenate([_leading(local_CK3[part], lead_CK[part]) for part in parts]), len(lead_F))


def _leading(local_CK3: np.ndarray, lead_CK: np.ndarray) -> np.ndarray:
    """The evidence of each chunk [C, K]."""
    lead_CK1 = lead_CK[:, :, None]
    active = local_CK3 > HEARD
    alone = active & (active.sum(axis=2, keepdims=True) == 1)
    counted = np.where(alone.any(axis=1, keepdims=True), alone, active)
    vote_C3 = (lead_CK1 * counted).sum(axis=1)
    unanimous_C3 = np.abs(vote_C3) / np.maximum((np.abs(lead_CK1) * counted).sum(axis=1), 1e-9)
    side_C3 = np.sign(vote_C3)
    # Two voices of one chunk are two people: of those that vote alike, the fainter vote changes sides.
    order = np.argsort(-active.sum(axis=1), axis=1, kind="stable")[:, :2]
    rows = np.arange(len(side_C3))[:, None]
    votes_C2, sides_C2 = vote_C3[rows, order], side_C3[rows, order]
    heard_C2 = np.take_along_axis(active.any(axis=1), order, axis=1)
    alike = (sides_C2[:, 0] == sides_C2[:, 1]) & heard_C2[:, 1]
    larger = votes_C2.argmax(axis=1)
    side_C3[rows[alike], order[alike]] = np.where(np.arange(2) == larger[alike, None], 1.0, -1.0)
    heard_CK3 = local_CK3 * unanimous_C3[:, None]
    sides = [(heard_CK3 * (side_C3 == sign)[:, None]).max(axis=2) for sign in (1, -1)]
    leading: np.ndarray = sides[0] - sides[1]
    return leading


def set_apart(local_CK3: np.ndarray, first_F: np.ndarray, part_F: np.ndarray) -> tuple[int, int]:
    """How many frames of a path's smaller side, in chunks that hear both sides, have a local voice of their own, and
    how many there are.
    """
    active = local_CK3 > HEARD
    alone = active & (active.sum(axis=2, keepdims=True) == 1)
    on_first, on_second = (
        (alone * chunked(side_F, len(local_CK3))[:, :, None]).sum(axis=1)
        for side_F in (part_F & first_F, part_F & ~first_F)
    )
    smaller = np.minimum(on_first.sum(axis=1), on_second.sum(axis=1))
    both = smaller >= HALF_SECOND
    merged = np.maximum(on_first.sum(axis=1), on_second.sum(axis=1))  # frames explained by a single voice
    gained = np.maximum(on_first, on_second).sum(axis=1) - merged
    return int(gained[both].sum()), int(smaller[both].sum())


def chunked(values_F: np.ndarray, chunks: int) -> np.ndarray:
    """[F] cut into the chunks of the segmentation [C, K], zeros past the end."""
    padded = np.pad(values_F, (0, max(0, (chunks - 1) * HOP + CHUNK_FRAMES - len(values_F))))
    return sliding_window_view(padded, CHUNK_FRAMES)[::HOP][:chunks]


def spread(values_CK: np.ndarray, frames: int) -> np.ndarray:
    """Mean over the chunks that cover each frame: the inverse of `chunked`, [F]."""
    size = max(frames, (len(values_CK) - 1) * HOP + CHUNK_FRAMES)
    total, count = np.zeros(size), np.zeros(size)
    for i, values in enumerate(values_CK):
        total[i * HOP : i * HOP + CHUNK_FRAMES] += values
        count[i * HOP : i * HOP + CHUNK_FRAMES] += 1
    return (total / np.maximum(count, 1))[:frames]
