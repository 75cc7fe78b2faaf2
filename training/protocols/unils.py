"""UniLS's script."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from visavis.training.metrics.windows import mean_defined
from visavis.training.protocols.clips import Clip, Parts, listening_only


def unils(clips: Sequence[Clip], parts: Parts) -> dict[str, float]:
    """FDD, PDD, JDD: 100 × mean over dimensions and sequences of |deviation over time of what was generated − of the
    truth|, over all frames, over listening and over speaking ones. Deviations divide by T.

    Formula: as above; a part `upper` is FDD, exp FDD-exp, pose PDD, jaw JDD.
    Source: UniLS (arXiv 2512.09327), which takes FDD of the upper face's vertices, for which one needs the FLAME model.
        FDD-exp, of coefficients, stands beside no published figure.
    Space: raw; each part.
    Floor: halves, all frames: FDD-exp 8.2, JDD .71, PDD 2.8; noise of the truth's own deviation 1.1, .027, .13.
    Edges: one frame NaN; a constant dimension counts with its truth's deviation; no listening frame NaN.
    """
    found: dict[str, float] = {}
    for part, columns in parts.items():
        name = {"upper": "FDD", "exp": "FDD-exp", "pose": "PDD", "jaw": "JDD"}.get(part, f"DD_{part}")
        some = [clip.part(columns).double() for clip in clips]
        known = [clip for clip in some if clip.listening is not None]
        speaking = [clip.frames(~clip.listening) for clip in known if clip.listening is not None]
        for frames, chosen in {"": some, "_listening": listening_only(some), "_speaking": speaking}.items():
            found[name + frames] = mean_defined(np.array([_deviation_gap(clip) for clip in chosen]))
    return found


def _deviation_gap(clip: Clip) -> float:
    if len(clip.truth) < 2:
        return math.nan
    return 100 * float(np.abs(clip.generated.std(axis=0) - clip.truth.std(axis=0)).mean())
