"""The upper face's vertices, of which UniLS's FDD is (arXiv 2512.09327; `training.protocols.unils`).

As its script takes them: the template's shape, a head that holds still, of the jaw the first angle and of each eye the
first two.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.spatial import cKDTree

from visavis.stages.face.flame import JAW, LEFT_EYE, RIGHT_EYE, Flame, Frames
from visavis.stages.face.flame_files import Embedding
from visavis.stages.face.flame_landmarks import placed
from visavis.stages.face.heads import canonical_face

_LOWER_LIDS = (145, 374)  # MediaPipe's landmarks, the lowest of each lower lid
_REACH = 0.01  # m


class UpperFace:
    """Vertices of the upper face of motion whose columns are known."""

    def __init__(self, model: Flame, vertices_U: np.ndarray, columns: Mapping[str, slice]) -> None:
        """columns: of `exp`, `jaw` (its first one is taken) and `eyes`, those that there are; others do not count."""
        self._model, self._jaw = model.only(vertices_U), columns.get("jaw")
        self._columns = {name: columns[name] for name in ("exp", "eyes") if name in columns}

    def __call__(self, motion_TD: np.ndarray) -> np.ndarray:
        """float64 [T, 3 U]: x, y, z of each vertex, m.

        Raises:
            UsageError: more coefficients than the model has, or angles of eyes that are not 6.
        """
        frames = Frames.of(motion_TD, self._columns)
        if self._jaw is not None:
            frames.angles_TJ3[:, JAW, 0] = motion_TD[:, self._jaw.start]
        frames.angles_TJ3[:, [LEFT_EYE, RIGHT_EYE], 2] = 0
        made = [self._model.vertices(part).reshape(len(part), -1) for part in frames.chunks()]
        return np.concatenate([np.zeros((0, self._model.template_V3.size)), *made])


def upper_vertices(model: Flame, embedding: Embedding) -> np.ndarray:
    """Where nobody names them: vertices within a centimetre of a landmark of the skin that is no lower than the lower
    lids, but for eyeballs; int64 [U]. They are not the published ones.

    Raises:
        ValueError: see `stages.face.flame_landmarks.placed`.
    """
    corners_L3, share_L3 = placed(model, embedding)
    height_L = canonical_face()[:, 1]
    upper_L = np.flatnonzero(height_L >= height_L[list(_LOWER_LIDS)].min())
    points_L3 = np.einsum("lkx,lk->lx", model.template_V3[corners_L3[upper_L]], share_L3[upper_L])
    away_V, _ = cKDTree(points_L3).query(model.template_V3)
    ball_V = model.weights_VJ[:, [LEFT_EYE, RIGHT_EYE]].max(axis=1) > 0.5
    return np.flatnonzero((away_V <= _REACH) & ~ball_V)
