"""A face as face recognition networks are trained on it: five points of it on five places of a square.

The places are those that ArcFace (Deng et al. 2019, arXiv 1801.07698) and all after it take: in a square of 112 pixels
the middles of both eyes, the tip of the nose and the corners of the mouth. A similarity transform (least squares) puts
the face there. Middles of eyes are taken between their corners: these stay where pupils wander and lids close.
"""

from __future__ import annotations

import numpy as np

_SIDE = 112.0
_PLACES = np.array(  # eyes, nose, mouth, from left to right as seen in the picture
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
) @ (1.0, 1.0j)
_POINTS = ((33, 133), (362, 263), (4, 4), (61, 61), (291, 291))  # FaceMesh's, each the middle of two


def five_points(landmarks_L3: np.ndarray) -> np.ndarray:
    """Eyes, nose and mouth corners: complex [..., 5], x + i y in pixels. Leading axes are kept."""
    points_L = landmarks_L3[..., :2].astype(np.float64) @ (1.0, 1.0j)
    return np.stack([(points_L[..., a] + points_L[..., b]) / 2 for a, b in _POINTS], axis=-1)


def to_template(points_5: np.ndarray, side: int) -> tuple[complex, complex]:
    """The similarity from picture to square: what is seen at z (pixels) comes to place + turn · z.

    Args:
        points_5: as `five_points`. side: of the square.
    """
    places_5 = _PLACES * (side / _SIDE)
    arms_5 = points_5 - points_5.mean()
    turn = complex(np.vdot(arms_5, places_5) / max(float(np.vdot(arms_5, arms_5).real), 1e-9))
    return turn, complex(places_5.mean() - turn * points_5.mean())


def aligned(rgb_HW3: np.ndarray, points_5: np.ndarray, side: int) -> np.ndarray:
    """The face in its square, uint8 [S, S, 3]; what lies beyond the picture is black, as networks are trained."""
    import cv2

    turn, place = to_template(points_5, side)
    matrix = np.array([[turn.real, -turn.imag, place.real], [turn.imag, turn.real, place.imag]])
    face: np.ndarray = cv2.warpAffine(rgb_HW3, matrix, (side, side), flags=cv2.INTER_LINEAR)
    return face
