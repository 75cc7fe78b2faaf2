"""A FLAME model that commands are given: what draws its motion, and the vertices that a protocol takes."""

from __future__ import annotations

from pathlib import Path

from visavis.schemas.errors import UsageError
from visavis.stages.face.flame_landmarks import FlameFace


def flame_face(model: Path | None, landmarks: Path | None) -> FlameFace | None:
    """What draws FLAME's coefficients; none where no model is named.

    Raises:
        UsageError: landmarks without a model, or files that are neither.
    """
    if model is None:
        if landmarks is not None:
            raise UsageError("--flame-landmarks goes with --flame MODEL.npz")
        return None
    return FlameFace.read(model, landmarks)
