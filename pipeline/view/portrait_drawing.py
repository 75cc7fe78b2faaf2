"""A portrait that moves: the rig's triangles, painted in the drawn size."""

from __future__ import annotations

import cv2
import numpy as np

from visavis.pipeline.view.mesh import canonical_mesh
from visavis.pipeline.view.mouth import MOUTH_HIGH, MOUTH_WIDE
from visavis.pipeline.view.painting import paint
from visavis.pipeline.view.rig import Rig, hole_triangles, ring_triangles
from visavis.pipeline.view.wireframe import facing

_RINGS, (_EYES, _MOUTH), _SKIN = ring_triangles(), hole_triangles(), canonical_mesh().skin


class PortraitDrawing:
    """Draws a rig in one size. Texture: the picture in that size and, below it, the painted mouth."""

    def __init__(self, rig: Rig, size: int) -> None:
        self._rig, self.size = rig, size
        picture = rig.portrait.picture_SS3
        how = cv2.INTER_AREA if size < len(picture) else cv2.INTER_CUBIC
        self._picture = cv2.resize(picture, (size, size), interpolation=how)
        right = max(0, MOUTH_WIDE - size)
        upper = cv2.copyMakeBorder(self._picture, 0, 1, 0, right, cv2.BORDER_REPLICATE)
        lower = cv2.copyMakeBorder(rig.mouth, 1, 0, 0, max(0, size - MOUTH_WIDE), cv2.BORDER_REPLICATE)
        self._texture = np.concatenate([upper, lower])

    def draw(self, points_L3: np.ndarray) -> np.ndarray:
        """uint8 [size, size, 3] RGB."""
        places_V2, shown_V2 = self._rig.placed(points_L3)
        places_V2 = places_V2 * self.size - 0.5
        mouth = shown_V2[_MOUTH.min() :]
        shown_V2 = shown_V2 * self.size - 0.5
        if not self._rig.is_open:
            shown_V2[_MOUTH.min() :] = mouth * (MOUTH_WIDE - 1, MOUTH_HIGH - 1) + (0, self.size + 2)
        skin = _SKIN[facing(places_V2, _SKIN)]
        skin = skin[np.argsort(points_L3[skin, 2].sum(axis=1), kind="stable")]
        triangles_M3 = np.concatenate([_RINGS, _MOUTH, _EYES, skin])
        return paint(self._picture, self._texture, places_V2[triangles_M3], shown_V2[triangles_M3])
