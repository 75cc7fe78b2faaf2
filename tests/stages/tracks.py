"""Face tracks made up for tests, with all that the face stage measures."""

from __future__ import annotations

import cv2
import numpy as np

from visavis.schemas.face_rows import Figures, Track
from visavis.stages.face.texture import TEXELS, TURNS
from visavis.stages.faces import box_of

FIGURES = Figures(
    visible=1.0, face_size=80.0, sharpness=1.0, luminance=1.0, confidence=1.0, yaw=0.0, pitch=0.0, jitter=0.0
)


def track_of(landmarks_TL3: np.ndarray, *, first: int = 0, looks: int = 0) -> Track:
    """A track without gaps. looks: people of other numbers look different."""
    ones = np.ones(len(landmarks_TL3), np.float32)
    portrait = np.random.default_rng(looks).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    texture = np.zeros((len(TURNS), TEXELS, TEXELS, 4), np.uint8)
    spots = np.random.default_rng([looks, 1]).normal(0, 60, (TEXELS, TEXELS, 3))
    texture[2, ..., :3] = np.clip(128 + cv2.GaussianBlur(spots, (0, 0), 1), 0, 255)
    texture[2, ..., 3] = 255  # seen from the front
    return Track(
        first=first,
        landmarks=landmarks_TL3,
        box=box_of(landmarks_TL3),
        valid=np.ones(len(landmarks_TL3), bool),
        confidence=ones,
        sharpness=500 * ones,
        luminance=120 * ones,
        portrait=portrait,
        texture=texture,
    )
