"""DualTalk's script, and TIMAR's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from visavis.training.protocols.averages import Mean, by_part, each_then_mean, exact
from visavis.training.protocols.clips import Clip, Parts
from visavis.training.protocols.figures import DISTANCES, clusters_of, entropy_over_clusters, rpcc, sts

_OTHERS = 10
"""Clusters of SID, of parts that are no expression."""


def dualtalk(clips: Sequence[Clip], parts: Parts) -> dict[str, Mean]:
    """Everything per sequence, then the mean over those in which it is defined.

    Formula: as `dim`, but SID: DualTalk clusters the *prediction* and takes the entropy of the *truth* over them, 40
        clusters of the expression, 10 of jaw and pose; SID-truth is the other direction; Var the mean over dimensions
        of the variance over time (n).
    Source: DualTalk (arXiv 2505.18096), TIMAR. What TIMAR calls `sid` is SID-truth, and its `reverse_sid` SID.
    Space: raw; each part.
    Floor: halves: FD, P-FD and MSE as `dim`; SID 3.8, 2.6, 2.5 (the truth 5.0, 3.0, 3.0); SID-truth 4.1, 3.0, 1.9; rPCC
        .033, .037, .22. Noise: SID 3.8, 2.9, 3.1; rPCC .027, .062, .014.
    Edges: as `dim`; Var of one frame 0; SID of fewer frames than clusters NaN.
    """

    def of_part(name: str, columns: slice) -> Iterator[tuple[str, Mean]]:
        k = clusters_of(name, _OTHERS)
        clusters: dict[str, Callable[[Clip], float]] = {
            "SID": lambda c: entropy_over_clusters(c.generated, c.truth, k),
            "SID-truth": lambda c: entropy_over_clusters(c.truth, c.generated, k),
        }
        figures = DISTANCES | {
            "Var": lambda c: float(c.generated.var(axis=0).mean()) if c.generated.size else math.nan,
            "rPCC": rpcc,
            "STS": lambda c: sts(c.truth, c.generated),
        }
        some = [clip.part(columns) for clip in clips]
        yield from each_then_mean(some, clusters)
        yield from each_then_mean(some, exact(figures))

    return by_part(parts, of_part)
