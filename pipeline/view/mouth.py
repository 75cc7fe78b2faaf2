"""The inside of a mouth, for portraits whose lips are closed: a shadow, upper teeth, a tongue."""

from __future__ import annotations

import cv2
import numpy as np

MOUTH_WIDE, MOUTH_HIGH = 160, 96
_SHADOW, _TEETH, _TONGUE = (48, 18, 20), (208, 192, 178), (150, 74, 76)
_BRIGHT = 190.0  # grey level of skin at which these colours hold
_CHEEKS = (50, 280, 117, 346, 151)


def mouth_texture(picture_SS3: np.ndarray, points_L3: np.ndarray) -> np.ndarray:
    """uint8 [96, 160, 3] RGB, from the upper lip (row 0) down, from the corner on the left to that on the right."""
    x, y = np.meshgrid(np.linspace(-1, 1, MOUTH_WIDE), np.linspace(0, 1, MOUTH_HIGH))
    picture = np.broadcast_to(np.array(_SHADOW, np.float64), (MOUTH_HIGH, MOUTH_WIDE, 3)).copy()
    teeth = (np.abs(x) < 0.66) & (y < 0.27 - 0.2 * x**2)
    picture[teeth] += (np.array(_TEETH) - _SHADOW) * (1 - 1.5 * x[teeth, None] ** 2)
    picture[teeth & (np.abs((x * 6) % 1 - 0.5) > 0.45)] *= 0.85
    tongue = (x / 0.7) ** 2 + ((y - 1.05) / 0.42) ** 2 < 1
    picture[tongue] = _TONGUE
    picture = cv2.GaussianBlur(picture, (0, 0), 2.0)
    picture *= np.clip(0.35 + y / 0.2, 0, 1)[..., None]  # the upper lip's shadow
    return np.rint(np.clip(picture * _light(picture_SS3, points_L3), 0, 255)).astype(np.uint8)


def _light(picture_SS3: np.ndarray, points_L3: np.ndarray) -> np.ndarray:
    """How light the face is, and in which colour: a factor for each of R, G, B."""
    places = np.clip(np.rint(points_L3[list(_CHEEKS), :2]).astype(int), 0, len(picture_SS3) - 1)
    grey = float(picture_SS3[places[:, 1], places[:, 0]].mean())
    return np.full(3, np.clip(grey / _BRIGHT, 0.35, 1.1))
