"""DIM's script, whose figures Avatar Forcing's table has, too."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from visavis.training.protocols.averages import Mean, by_part, each_then_mean, exact
from visavis.training.protocols.clips import Clip, Parts
from visavis.training.protocols.figures import DISTANCES, clusters_of, entropy_over_clusters, rpcc, sts

_OTHERS = 20
"""Clusters of SID, of parts that are no expression."""
BOTH = "jaw+pose"


def dim(clips: Sequence[Clip], parts: Parts) -> dict[str, Mean]:
    """FD, P-FD, MSE and L2 per sequence, then the mean; SID, Var, rPCC and STS of all frames as one sequence.

    What DIM calls pose is six columns, the head's and the jaw's: where the parts jaw and pose lie side by side,
    jaw+pose is scored, too, and stands beside its figures.

    Formula: FD `frechet_distance`; P-FD the same of [user, avatar]; MSE the mean square; L2 the mean of ‖·‖;
        SID `entropy_over_clusters` of the truth, 40 of the expression and 20 of anything else; Var of all numbers;
        rPCC |corr(truth, user) − corr(generated, user)|, all numbers as one vector; STS `sts`.
    Source: DIM's script, which prints the best of ten samples by FD and gives its model the user one frame earlier; L2
        of Learning to Listen, which takes it of all columns together, after the first 32 frames, over all frames.
    Space: raw; each part.
    Floor: halves: FD 4.3, 5e-4, .010; P-FD 11, .0011, .020; MSE .55, .0024, .0094; L2 4.9, .065, .13; SID 4.4, 3.9, 2.9
        (the truth 5.0, 4.0, 3.6); rPCC .024, .11, .24; STS 146, 2.7, 2.0. Noise: FD 12, 5e-5, 5e-4; rPCC .027, .024,
        .006; STS 560, 8.6, 18; MSE as halves.
    Edges: one frame has MSE, L2, Var and, of several columns, rPCC, the others NaN; a constant dimension as any, and
        rPCC NaN where a side is all constant; no frames NaN (`listening_only` leaves such clips out).
    """

    def of_part(name: str, columns: slice) -> Iterator[tuple[str, Mean]]:
        some = [clip.part(columns) for clip in clips]
        yield from each_then_mean(some, exact(DISTANCES | {"L2": _l2}))
        whole = _joined(some)
        yield "SID", Mean(entropy_over_clusters(whole.truth, whole.generated, clusters_of(name, _OTHERS)))
        whole = whole.double()
        yield "Var", Mean(float(whole.generated.var()) if whole.generated.size else math.nan)
        yield "rPCC", Mean(rpcc(whole))
        yield "STS", Mean(sts(whole.truth, whole.generated))

    return by_part(_with_both(parts), of_part)


def _with_both(parts: Parts) -> Parts:
    jaw, pose = parts.get("jaw"), parts.get("pose")
    if jaw is None or pose is None or (jaw.stop != pose.start and pose.stop != jaw.start):
        return parts
    return {**parts, BOTH: slice(min(jaw.start, pose.start), max(jaw.stop, pose.stop))}


def _l2(clip: Clip) -> float:
    """Mean over frames of the Euclidean distance (Learning2Listen)."""
    return float(np.linalg.norm(clip.truth - clip.generated, axis=1).mean()) if clip.truth.size else math.nan


def _joined(clips: Sequence[Clip]) -> Clip:
    sides = zip(*((c.truth, c.user, c.generated, c.partner) for c in clips), strict=True)
    truth, user, generated, beside = (np.concatenate(side) for side in sides)
    return Clip(truth, user, generated, beside=beside)
