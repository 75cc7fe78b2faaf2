"""A painted face whose landmarks are known, and a codec that opens its mouth, closes its lids and smiles."""

from __future__ import annotations

import cv2
import numpy as np

from visavis.pipeline.view.mesh import (
    IRISES,
    LIDS_BOTTOM,
    LIDS_TOP,
    LIPS_INNER_BOTTOM,
    LIPS_INNER_TOP,
    LIPS_OUTER_BOTTOM,
)
from visavis.pipeline.view.portrait import Portrait
from visavis.schemas.dyads import Codec
from visavis.schemas.face_rows import LANDMARKS
from visavis.stages.face.heads import canonical_face

OPEN, BLINK, SMILE = range(3)  # columns of the expression
SKIN, IRIS = (214, 168, 140), (20, 60, 160)


def neutral_face() -> np.ndarray:
    """float32 [478, 3], cm: the canonical face, whose eyes are open, with irises, and with its lips closed."""
    face_L3 = np.zeros((LANDMARKS, 3), np.float32)
    face_L3[:468] = canonical_face()
    face_L3[list(LIPS_INNER_BOTTOM)] = face_L3[list(LIPS_INNER_TOP)]
    for top, bottom, iris in zip(LIDS_TOP, LIDS_BOTTOM, IRISES, strict=True):
        middle_3 = face_L3[[*top, *bottom]].mean(axis=0)
        rim_43 = 0.55 * np.array([[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]])
        face_L3[list(iris)] = middle_3 + np.concatenate([np.zeros((1, 3)), rim_43])
    return face_L3


def codec() -> Codec:
    basis_EL3 = np.zeros((3, LANDMARKS, 3), np.float32)
    face_L3 = neutral_face()
    jaw = [
        *np.flatnonzero(face_L3[:468, 1] < face_L3[14, 1] - 0.05),
        *LIPS_INNER_BOTTOM[1:-1],
        *LIPS_OUTER_BOTTOM[1:-1],
    ]
    basis_EL3[OPEN, jaw, 1] = -np.exp(-np.square(face_L3[jaw, 0] / 4))  # cm a unit
    basis_EL3[OPEN, [61, 291, *LIPS_INNER_TOP], 1] = 0
    for top, bottom in zip(LIDS_TOP, LIDS_BOTTOM, strict=True):
        basis_EL3[BLINK, list(top)] = face_L3[list(bottom)] - face_L3[list(top)]
    basis_EL3[SMILE, [61, 291], 0] = -0.7, 0.7
    mean = np.zeros(LANDMARKS * 3, np.float32)
    basis = basis_EL3.reshape(3, -1)
    return Codec(id="landmark-pca-test", kind="landmark-pca", given=0, network="", mean=mean, basis=basis, explained=1)


def motion(**values: float) -> np.ndarray:
    """float64 [1, 9]: a face at rest but for these."""
    names = ("pitch", "yaw", "roll", "x", "y", "size", "open", "blink", "smile")
    return np.array([[values.get(name, 0.0) for name in names]])


def portrait(width: int = 640, height: int = 480, scale: float = 14.0) -> Portrait:
    """The face on a chequered wall. scale: pixels per cm."""
    y, x = np.mgrid[:height, :width]
    rgb = np.where(((x // 16 + y // 16) % 2 == 0)[..., None], (70, 110, 150), (96, 140, 176)).astype(np.uint8)
    points_L3 = neutral_face() * (scale, -scale, -scale) + (width / 2, height / 2, 0)
    places_L2 = points_L3[:, :2].astype(np.float32)
    cv2.fillConvexPoly(rgb, cv2.convexHull(places_L2).astype(np.int32), SKIN, cv2.LINE_AA)
    cv2.circle(rgb, places_L2[4].astype(int).tolist(), 4, (120, 40, 40), -1)  # the tip of the nose
    for top, bottom, iris in zip(LIDS_TOP, LIDS_BOTTOM, IRISES, strict=True):
        cv2.fillPoly(rgb, [places_L2[[*top, *bottom[::-1]]].astype(np.int32)], (240, 240, 240))
        cv2.circle(rgb, places_L2[iris[0]].astype(int).tolist(), 5, IRIS, -1)
    return Portrait.of(rgb, points_L3)
