"""A drawn face: motion to pictures, of one person."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from visavis.pipeline.view.timeline import Colour
from visavis.schemas.dyads import Codec
from visavis.stages.face.codec import decode_motion

_CHUNK = 250
_GREY: Colour = (170, 170, 170)


@dataclass(frozen=True)
class Face:
    codec: Codec
    neutral_L3: np.ndarray

    @classmethod
    def of(cls, codec: Codec, neutral_L3: np.ndarray) -> Face:
        return cls(codec, neutral_L3)

    def pictures(self, motion_TD: np.ndarray, valid_T: np.ndarray, size: int, colour: Colour) -> Iterator[np.ndarray]:
        """uint8 [S, S, 3] RGB, one for each frame; grey where the face was not seen."""
        for first in range(0, len(motion_TD), _CHUNK):
            points_TL3 = decode_motion(self.codec, motion_TD[first : first + _CHUNK], self.neutral_L3)
            for face_L3, valid in zip(points_TL3, valid_T[first : first + _CHUNK].tolist(), strict=True):
                picture = np.full((size, size, 3), 255, np.uint8)
                places = face_L3[:, :2] * (1, -1) * size / 2.0 + size / 2
                for x, y in places.astype(int).tolist():
                    cv2.circle(picture, (x, y), 1, colour if valid else _GREY, -1, cv2.LINE_AA)
                yield picture
