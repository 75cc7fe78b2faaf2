"""The face's mesh: which landmarks make triangles, and which make lids, lips, brows and the border of a face.

Landmarks are numbered as in MediaPipe's FaceMesh: 468 of the skin, whose triangles are those of its canonical face, and
five of each iris. The canonical triangles close eyes and mouth; here these holes have triangles of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from safetensors.numpy import load

Indices = tuple[int, ...]

LIPS_OUTER_TOP: Indices = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291)
LIPS_OUTER_BOTTOM: Indices = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)
LIPS_INNER_TOP: Indices = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
LIPS_INNER_BOTTOM: Indices = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
LIDS_TOP: tuple[Indices, Indices] = (
    (33, 246, 161, 160, 159, 158, 157, 173, 133),
    (263, 466, 388, 387, 386, 385, 384, 398, 362),
)
LIDS_BOTTOM: tuple[Indices, Indices] = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133),
    (263, 249, 390, 373, 374, 380, 381, 382, 362),
)
BROWS: tuple[Indices, Indices] = (
    (70, 63, 105, 66, 107, 55, 65, 52, 53, 46),
    (300, 293, 334, 296, 336, 285, 295, 282, 283, 276),
)
IRISES: tuple[Indices, Indices] = ((468, 469, 470, 471, 472), (473, 474, 475, 476, 477))
"""Centre and four places of the rim, of the eye that is seen on the left and of the other one."""
OVAL: Indices = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
"""The closed border of the face, clockwise in the picture from the top."""

SKIN = 468
"""Landmarks of the skin; those behind them are of the irises."""


@dataclass(frozen=True)
class Mesh:
    """Triangles int32 [M, 3] of the skin, of both eyes and of the mouth, counter-clockwise seen from outside, y up."""

    skin: np.ndarray
    eyes: np.ndarray
    mouth: np.ndarray


@cache
def canonical_mesh() -> Mesh:
    """The canonical face's triangles (Apache-2.0), sorted by what they cover."""
    data = load(files("visavis.stages").joinpath("data", "canonical_face.safetensors").read_bytes())
    triangles_M3 = data["triangles"].astype(np.int32)
    eyes_M = np.zeros(len(triangles_M3), bool)
    for top, bottom in zip(LIDS_TOP, LIDS_BOTTOM, strict=True):
        eyes_M |= np.isin(triangles_M3, (*top, *bottom)).all(axis=1)
    mouth_M = np.isin(triangles_M3, (*LIPS_INNER_TOP, *LIPS_INNER_BOTTOM)).all(axis=1)
    return Mesh(triangles_M3[~(eyes_M | mouth_M)], triangles_M3[eyes_M], triangles_M3[mouth_M])


def ring_of(top: Indices, bottom: Indices) -> Indices:
    """The closed outline of an eye or of the mouth from its two edges, which share their ends."""
    return (*top, *bottom[-2:0:-1])
