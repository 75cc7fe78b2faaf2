"""UniLS's script."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter

import numpy as np

from visavis.schemas.errors import UsageError
from visavis.training.protocols.averages import Mean
from visavis.training.protocols.clips import TD, Clip, Parts

Upper = Callable[[np.ndarray], np.ndarray]
"""Motion float64 [T, D] to the upper face's vertices: [T, 3 U], x, y, z of each, metres."""
_UPPER, _FIRST = "upper", "jaw-first"
_NAMES = {_UPPER: "FDD", "exp": "FDD-exp", "pose": "PDD", "jaw": "JDD", _FIRST: "JDD-first"}
_MILLIMETRES, _FRAMES = 1000.0, 1024  # of a metre; whose vertices are held at a time


def unils(clips: Sequence[Clip], parts: Parts, upper: Upper | None = None) -> dict[str, Mean]:
    """FDD, PDD, JDD: 100 × mean over dimensions and sequences of |deviation over time of what was generated − of the
    truth|, over all frames, over listening and over speaking ones. Deviations divide by T − 1, as torch's do.

    Formula: as above; exp is FDD-exp, pose PDD, jaw JDD. FDD is of vertices of the upper face, each x, y, z in metres,
        that `upper` makes of the motion or a part `upper` holds; what deviates is x + y + z of a vertex in millimetres,
        as in the script.
    Source: UniLS (arXiv 2512.09327; `core/trainer/inferencer.py` and `core/models/modules/metrics.py` of its code),
        which prints listening and speaking frames, FDD of a head that does not turn, and JDD of one column, the jaw's
        first: JDD-first here, JDD is of all of `jaw`. FDD-exp, of coefficients, stands beside no published figure.
    Space: raw; each part.
    Floor: halves, all frames: FDD-exp 8.2, JDD .71, PDD 2.8; noise of the truth's own deviation 1.1, .027, .13.
    Edges: one frame NaN; a constant dimension counts with its truth's deviation; no listening frame NaN.
    """
    takes: dict[str, Upper] = {part: itemgetter((slice(None), columns)) for part, columns in parts.items()}
    if (jaw := parts.get("jaw")) is not None:
        takes[_FIRST] = itemgetter((slice(None), slice(jaw.start, jaw.start + 1)))
    if upper is not None:
        takes = {_UPPER: upper} | takes
    found: dict[str, Mean] = {}
    for part, take in takes.items():
        gaps: defaultdict[str, list[float]] = defaultdict(list)
        for clip in clips:  # one after the other: a part may be a thousand vertices
            sides = (side.astype(np.float64) for side in (clip.truth, clip.generated))
            truth, made = (_sums(take, side) if part == _UPPER else take(side) for side in sides)
            for frames, chosen_T in _frames(clip):
                gaps[frames].append(_deviation_gap(truth[chosen_T], made[chosen_T]))
        for frames in ("", "_listening", "_speaking"):
            found[_NAMES.get(part, f"DD_{part}") + frames] = Mean.of(gaps[frames])
    return found


def _frames(clip: Clip) -> Iterator[tuple[str, np.ndarray]]:
    """Which frames are taken, by the end of a figure's name."""
    yield "", np.ones(len(clip.truth), bool)
    if clip.listening is not None:
        yield "_listening", clip.listening
        yield "_speaking", ~clip.listening


def _sums(upper: Upper, motion_TD: TD) -> np.ndarray:
    """x + y + z of each vertex, metres to millimetres, of some frames after the other: vertices are many.

    Raises:
        UsageError: no vertices of three numbers each.
    """
    made = []
    for first in range(0, max(1, len(motion_TD)), _FRAMES):
        vertices_TD = upper(motion_TD[first : first + _FRAMES])
        frames, dims = vertices_TD.shape
        if dims % 3:
            raise UsageError(f"upper has {dims} columns; x, y, z of each vertex of the upper face are expected")
        made.append(_MILLIMETRES * vertices_TD.reshape(frames, dims // 3, 3).sum(axis=2))
    return np.concatenate(made)


def _deviation_gap(truth_TD: TD, made_TD: TD) -> float:
    if len(truth_TD) < 2:
        return math.nan
    return 100 * float(np.abs(made_TD.std(axis=0, ddof=1) - truth_TD.std(axis=0, ddof=1)).mean())
