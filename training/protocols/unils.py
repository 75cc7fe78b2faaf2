"""UniLS's script."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from visavis.schemas.errors import UsageError
from visavis.training.metrics.windows import mean_defined
from visavis.training.protocols.clips import TD, Clip, Parts, listening_only

_MILLIMETRES = 1000.0  # of a metre


def unils(clips: Sequence[Clip], parts: Parts) -> dict[str, float]:
    """FDD, PDD, JDD: 100 × mean over dimensions and sequences of |deviation over time of what was generated − of the
    truth|, over all frames, over listening and over speaking ones. Deviations divide by T − 1, as torch's do.

    Formula: as above; exp is FDD-exp, pose PDD, jaw JDD. A part `upper` is FDD: vertices of the upper face, each as
        x, y, z in metres; what deviates is x + y + z of a vertex in millimetres, as in the script.
    Source: UniLS (arXiv 2512.09327; `core/trainer/inferencer.py` and `core/models/modules/metrics.py` of its code),
        which prints listening and speaking frames, FDD of a head that does not turn, and JDD of one column, the jaw's
        first (`jaw=50:51` of DualTalk's). FDD-exp, of coefficients, stands beside no published figure.
    Space: raw; each part.
    Floor: halves, all frames: FDD-exp 8.2, JDD .71, PDD 2.8; noise of the truth's own deviation 1.1, .027, .13.
    Edges: one frame NaN; a constant dimension counts with its truth's deviation; no listening frame NaN.
    """
    found: dict[str, float] = {}
    for part, columns in parts.items():
        name = {"upper": "FDD", "exp": "FDD-exp", "pose": "PDD", "jaw": "JDD"}.get(part, f"DD_{part}")
        some = [clip.part(columns).double() for clip in clips]
        if part == "upper":
            some = [clip.each(_summed) for clip in some]
        known = [clip for clip in some if clip.listening is not None]
        speaking = [clip.frames(~clip.listening) for clip in known if clip.listening is not None]
        for frames, chosen in {"": some, "_listening": listening_only(some), "_speaking": speaking}.items():
            found[name + frames] = mean_defined(np.array([_deviation_gap(clip) for clip in chosen]))
    return found


def _summed(vertices_TD: TD) -> TD:
    """x + y + z of each vertex, metres to millimetres.

    Raises:
        UsageError: no vertices of three numbers each.
    """
    frames, dims = vertices_TD.shape
    if dims % 3:
        raise UsageError(f"upper has {dims} columns; x, y, z of each vertex of the upper face are expected")
    return _MILLIMETRES * np.asarray(vertices_TD.reshape(frames, -1, 3).sum(axis=2))


def _deviation_gap(clip: Clip) -> float:
    if len(clip.truth) < 2:
        return math.nan
    return 100 * float(np.abs(clip.generated.std(axis=0, ddof=1) - clip.truth.std(axis=0, ddof=1)).mean())
