"""UniLS's script."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter

import numpy as np

from visavis.training.metrics.windows import mean_defined
from visavis.training.protocols.clips import TD, Clip, Parts

Upper = Callable[[np.ndarray], np.ndarray]
"""Motion float64 [T, D] to the upper face's vertices [T, U], of each the sum of its coordinates in mm."""
_UPPER = "upper"
_NAMES = {_UPPER: "FDD", "exp": "FDD-exp", "pose": "PDD", "jaw": "JDD"}


def unils(clips: Sequence[Clip], parts: Parts, upper: Upper | None = None) -> dict[str, float]:
    """FDD, PDD, JDD: 100 × mean over dimensions and sequences of |deviation over time of what was generated − of the
    truth|, over all frames, over listening and over speaking ones. Deviations divide by T, those of FDD by T − 1.

    Formula: as above; exp is FDD-exp, pose PDD, jaw JDD; FDD is what `upper` makes of the motion, or of such a part.
    Source: UniLS (arXiv 2512.09327). FDD is its script's: of each vertex of the upper face the sum of its three
        coordinates, mm, so it needs a FLAME model. FDD-exp, of coefficients, stands beside no published figure.
    Space: raw; each part.
    Floor: halves, all frames: FDD-exp 8.2, JDD .71, PDD 2.8; noise of the truth's own deviation 1.1, .027, .13.
    Edges: one frame NaN; a constant dimension counts with its truth's deviation; no listening frame NaN.
    """
    found: dict[str, float] = {}
    takes: dict[str, Upper] = {_UPPER: upper} if upper else {}
    takes |= {part: itemgetter((slice(None), columns)) for part, columns in parts.items()}
    for part, take in takes.items():
        gaps: defaultdict[str, list[float]] = defaultdict(list)
        for clip in clips:  # one after the other: a part may be a thousand vertices
            truth, made = (take(side.astype(np.float64)) for side in (clip.truth, clip.generated))
            for frames, chosen_T in _frames(clip):
                gaps[frames].append(_deviation_gap(truth[chosen_T], made[chosen_T], ddof=part == _UPPER))
        for frames in ("", "_listening", "_speaking"):
            found[_NAMES.get(part, f"DD_{part}") + frames] = mean_defined(np.array(gaps[frames]))
    return found


def _frames(clip: Clip) -> Iterator[tuple[str, np.ndarray]]:
    """Which frames are taken, by the end of a figure's name."""
    yield "", np.ones(len(clip.truth), bool)
    if clip.listening is not None:
        yield "_listening", clip.listening
        yield "_speaking", ~clip.listening


def _deviation_gap(truth_TD: TD, made_TD: TD, *, ddof: int) -> float:
    if len(truth_TD) < 2:
        return math.nan
    return 100 * float(np.abs(made_TD.std(axis=0, ddof=ddof) - truth_TD.std(axis=0, ddof=ddof)).mean())
