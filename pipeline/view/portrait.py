"""A portrait: a picture with a face in it, cut square about the face, and where its landmarks are."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from visavis.stages.face.heads import Heads, canonical_face

SIDE = 512
_ROOM = 2.4  # sides of the square that is cut out, in heights of the face
_ABOVE = 0.46  # share of it that lies above the face's middle


@dataclass(frozen=True)
class Portrait:
    """picture_SS3: uint8 RGB. points_L3: pixels of it, y down, z away. face_L3: the same in canonical space, cm.
    rotation_33, origin_2 (pixels), unit (pixels of a face width): of the head. motion_D: what the codec says of this
    picture; None: a face at rest.
    """

    picture_SS3: np.ndarray
    points_L3: np.ndarray
    face_L3: np.ndarray
    rotation_33: np.ndarray
    origin_2: np.ndarray
    unit: float
    motion_D: np.ndarray | None = None

    @classmethod
    def of(cls, rgb_HW3: np.ndarray, landmarks_L3: np.ndarray, motion_D: np.ndarray | None = None) -> Portrait:
        """rgb_HW3: uint8. landmarks_L3: pixels of it, as in `Track`; all finite."""
        left, top, wide = _square(rgb_HW3.shape[:2], landmarks_L3)
        scale = SIDE / wide
        shrinks = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        place_23 = np.array([[scale, 0, (0.5 - left) * scale - 0.5], [0, scale, (0.5 - top) * scale - 0.5]])
        picture = rgb_HW3[max(top, 0) : top + wide, max(left, 0) : left + wide]
        below, right = top + wide - rgb_HW3.shape[0], left + wide - rgb_HW3.shape[1]
        edges = (max(-top, 0), max(below, 0), max(-left, 0), max(right, 0))
        picture = cv2.copyMakeBorder(picture, *edges, cv2.BORDER_REPLICATE)
        picture = cv2.resize(picture, (SIDE, SIDE), interpolation=shrinks)
        points_L3 = landmarks_L3.astype(np.float64) * scale
        points_L3[:, :2] += place_23[:, 2]
        head = Heads.of(points_L3[None])
        unit = float(head.scale_V[0] * np.ptp(canonical_face()[:, 0]))
        origin_2 = head.origin_V3[0, :2] * (1, -1)
        face_L3 = head.faces(points_L3[None])[0]
        return cls(picture, points_L3, face_L3, head.rotation_V33[0], origin_2, unit, motion_D)


def _square(size: tuple[int, int], landmarks_L3: np.ndarray) -> tuple[int, int, int]:
    """Left, top and side of the square about a face; within the picture as far as that leaves room about the face."""
    low_2, high_2 = landmarks_L3[:, :2].min(axis=0), landmarks_L3[:, :2].max(axis=0)
    tall = float((high_2 - low_2).max())
    wide = max(round(min(_ROOM * tall, min(size))), round(1.3 * tall), 2)
    middle_2 = (low_2 + high_2) / 2
    starts = []
    for middle, share, room in zip(middle_2, (0.5, _ABOVE), size[::-1], strict=True):
        start = round(float(middle) - share * wide)
        starts.append(min(max(start, 0), room - wide) if room >= wide else round((room - wide) / 2))
    return starts[0], starts[1], wide
