"""A FLAME model that commands are given: what draws its motion, and the vertices that a protocol takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from visavis.schemas.errors import UsageError
from visavis.schemas.untrusted import parsing
from visavis.stages.face.flame import Flame
from visavis.stages.face.flame_files import EMBEDDING, read_embedding, read_flame, read_upper_face
from visavis.stages.face.flame_landmarks import FlameFace
from visavis.stages.face.flame_upper import UpperFace, upper_vertices


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


@dataclass(frozen=True)
class FlameFiles:
    """What `visavis evaluate` and `visavis metrics` were given. upper_face: an .npy of vertices' numbers."""

    model: Path | None
    landmarks: Path | None
    upper_face: Path | None

    def check(self, protocol: str | None) -> None:
        """Raises UsageError where a model would be ignored, or goes without what it belongs to."""
        given = [("--flame", self.model), ("--flame-landmarks", self.landmarks), ("--upper-face", self.upper_face)]
        named = [option for option, path in given if path is not None]
        if named and protocol != "unils":
            raise UsageError(f"{named[0]} goes with --protocol unils, whose FDD is of vertices")
        if named and self.model is None:
            raise UsageError(f"{named[0]} goes with --flame MODEL.npz")
        if self.landmarks is not None and self.upper_face is not None:
            raise UsageError(
                "--flame-landmarks finds the upper face where --upper-face does not name it: give one of them"
            )

    def upper(self, columns: Mapping[str, slice]) -> tuple[UpperFace, str] | None:
        """The upper face of motion of these columns, and in words whose vertices it is; none without a model.

        Raises:
            UsageError: no model, no such vertices, or motion that has no `exp`.
        """
        if self.model is None:
            return None
        if "upper" in columns:
            raise UsageError("--flame makes the vertices of the upper face: leave the part upper out of --columns")
        if "exp" not in columns:
            raise UsageError(f"--flame is of motion with a part exp, not of {', '.join(columns)}; see --columns")
        model, vertices_U = read_flame(self.model)
        said = f"upper_face of {self.model.name}"
        if self.upper_face is not None:
            vertices_U, said = read_upper_face(self.upper_face, len(model.template_V3)), self.upper_face.name
        if vertices_U is None:
            said = "those near landmarks of eyes, brows and forehead, as nobody named others"
            vertices_U = self._near(model)
        upper = UpperFace(model, vertices_U, columns)
        upper(np.zeros((1, max(span.stop for span in columns.values()))))  # refuses what does not fit, before any work
        return upper, f"FDD of {len(vertices_U)} vertices, {said}"

    def _near(self, model: Flame) -> np.ndarray:
        assert self.model is not None
        embedding = read_embedding(self.landmarks or self.model.with_name(EMBEDDING), model)
        with parsing(lambda why: UsageError(f"--flame: {self.model}: no upper face is found on it: {why}")):
            return upper_vertices(model, embedding)
