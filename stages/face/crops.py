"""What a face looks like, apart from where it is: an upright crop of it, and a few numbers about its picture.

A similarity transform (least squares over all landmarks) puts every face at the same place, size and angle. From that
crop come sharpness (variance of the Laplacian, Pech-Pacheco et al. 2000), luminance and colour; and a thumbnail, whose
correlation with the mean thumbnail of the track says frame by frame whether the landmarks still lie on that face: a
hand before it, a profile or a landmark model that slid off no longer look like it.

The trade-off: 0.1 ms a face and no network. The mean thumbnail says nothing about who it is: it changes more with the
turn of a head than from one person to another (`stages.face.identity` does that).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from visavis.stages.face.heads import flat_face, flat_fit
from visavis.stages.face.texture import Unwrapped, unwrap

CROP = 96  # pixels
THUMB = 32
_PER_CM = 5.0  # pixels of the crop for each cm of the canonical face, which is 15 cm wide and 18 high
_FACE = (0.72, 0.9)  # radii in halves of the crop
_MIDDLE = (0.0, -0.5)  # cm; of the canonical face


@dataclass(frozen=True)
class FaceCrop:
    """A face in one picture.

    thumb_SS3: uint8 RGB. sharpness: variance of the crop's Laplacian, grey levels². inside: share of the landmarks
    that lie within the picture. flat: the face's texture, of some frames.
    """

    thumb_SS3: np.ndarray
    sharpness: float
    inside: float
    flat: Unwrapped | None = None


def crop_face(rgb_HW3: np.ndarray, points_L2: np.ndarray, *, flat: bool = False) -> FaceCrop:
    """FaceCrop at the face that has these landmarks (pixels of this picture); flat: unwrap it, too."""
    import cv2

    height, width = rgb_HW3.shape[:2]
    crop = cv2.warpAffine(
        rgb_HW3,
        _upright(points_L2),
        (CROP, CROP),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    _, deviation = cv2.meanStdDev(cv2.Laplacian(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.CV_16S))
    within_L = ((points_L2 >= 0) & (points_L2 < (width, height))).all(axis=1)
    return FaceCrop(
        thumb_SS3=cv2.resize(crop, (THUMB, THUMB), interpolation=cv2.INTER_AREA),
        sharpness=float(deviation[0, 0] ** 2),
        inside=float(within_L.mean()),
        flat=unwrap(rgb_HW3, points_L2) if flat else None,
    )


def _upright(points_L2: np.ndarray) -> np.ndarray:
    """The affine map [2, 3] from the crop to the picture."""
    turn, place = flat_fit(points_L2.astype(np.float64) @ (1.0, 1.0j))
    turn /= _PER_CM
    start = place + turn * _corner()
    return np.array([[turn.real, -turn.imag, start.real], [turn.imag, turn.real, start.imag]])


@cache
def _corner() -> complex:
    """The crop's upper left corner as seen from the face's middle, in the crop's pixels."""
    _, middle = flat_face()
    return (complex(_MIDDLE[0], -_MIDDLE[1]) - middle) * _PER_CM - CROP / 2 * (1 + 1j)


def luminance(thumbs_VSS3: np.ndarray) -> np.ndarray:
    """Mean luma (Rec. 601) of each face, 0…255, float32 [V]."""
    grey_VSS = thumbs_VSS3.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    mean: np.ndarray = grey_VSS[:, _oval(*_FACE)].mean(axis=1)
    return mean


def colour(portrait_SS3: np.ndarray) -> float:
    """A face's mean distance from grey in CIELAB."""
    import cv2

    lab = cv2.cvtColor(portrait_SS3.astype(np.uint8), cv2.COLOR_RGB2LAB).astype(np.float32) - 128.0
    return float(np.hypot(lab[..., 1], lab[..., 2])[_oval(*_FACE)].mean())


def likeness(thumbs_VSS3: np.ndarray, portrait_SS3: np.ndarray) -> np.ndarray:
    """How much a face looks as it does in the portrait: correlation over the face's oval, −1…1, float32 [V]."""
    portrait_K = _standardised(portrait_SS3[None], _oval(*_FACE))[0]
    return _standardised(thumbs_VSS3, _oval(*_FACE)) @ portrait_K


def _standardised(thumbs_VSS3: np.ndarray, mask_SS: np.ndarray) -> np.ndarray:
    flat_VK = thumbs_VSS3[:, mask_SS].reshape(len(thumbs_VSS3), -1).astype(np.float32)
    flat_VK = flat_VK - flat_VK.mean(axis=1, keepdims=True)
    unit_VK: np.ndarray = flat_VK / np.maximum(np.linalg.norm(flat_VK, axis=1, keepdims=True), 1e-6)
    return unit_VK


@cache
def _oval(width: float, height: float) -> np.ndarray:
    """Pixels of a thumbnail within an ellipse, radii in halves of the crop: bool [S, S]."""
    y, x = (np.indices((THUMB, THUMB)) + 0.5) / THUMB * 2 - 1
    inside: np.ndarray = (x / width) ** 2 + (y / height) ** 2 < 1
    return inside
