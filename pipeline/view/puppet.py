"""What a drawable face is, as data: what decodes motion to its landmarks, and, if there is one, its portrait.

    points_TL3 = Puppet.of(codec, neutral_L3).points(motion_TD)

One affine map decodes for everybody, here and in the browser (`page/static/avatar.js`):

    points = exp(log size − start) / width · R(pitch, yaw, roll) · turn · (base + code · basis) + place − start

With the neutral face of the person who moves, this is `decode_motion`. With a portrait, `base` is the face in the
picture, without the expression that it shows, and `turn` takes the pose away that it was taken in: another person's
motion moves it relative to that, and the motion that the picture shows gives the picture back.

Letters: T frames, D motion dimensions, E of them of the expression, L landmarks (478), S pixels of a square's side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from visavis.pipeline.view.mesh import (
    BROWS,
    IRISES,
    LIDS_BOTTOM,
    LIDS_TOP,
    LIPS_INNER_BOTTOM,
    LIPS_INNER_TOP,
    LIPS_OUTER_BOTTOM,
    LIPS_OUTER_TOP,
    canonical_mesh,
    ring_of,
)
from visavis.pipeline.view.packed import packed, packed_rows
from visavis.pipeline.view.portrait import Portrait
from visavis.pipeline.view.rig import HOLES, Rig, hole_triangles, ring_triangles
from visavis.schemas.dyads import Codec
from visavis.schemas.face_rows import LANDMARKS
from visavis.stages.face.heads import POSE_DIMS, canonical_face, head_rotation

WIDEST = 4.0
"""Face widths from the middle of the view: what motion says beyond is drawn there."""

STEEPEST = 0.8
"""Rad that a portrait turns, about each axis: a picture does not show more of a head."""


@dataclass(frozen=True)
class Puppet:
    """A face that motion moves.

    basis_EK: float32, [E, 478 · 3]. base_L3: float32, canonical space, cm. turn_33, start_3: see above; start is the
    place (face widths) and log size of the motion at which the picture was taken.
    """

    basis_EK: np.ndarray
    base_L3: np.ndarray
    turn_33: np.ndarray
    start_3: np.ndarray
    portrait: Portrait | None = None

    @classmethod
    def of(cls, codec: Codec, neutral_L3: np.ndarray) -> Puppet:
        """A face without a portrait: the one of the person whose neutral this is."""
        base_L3 = codec.mean.reshape(LANDMARKS, 3) + neutral_L3
        return cls(codec.basis, base_L3.astype(np.float32), np.eye(3), np.zeros(3))

    @classmethod
    def carrying(cls, codec: Codec, portrait: Portrait) -> Puppet:
        """The face of a portrait, moved by the codec's motion, whoever's it is."""
        rest_D = np.zeros(POSE_DIMS + len(codec.basis)) if portrait.motion_D is None else portrait.motion_D
        if rest_D.shape != (POSE_DIMS + len(codec.basis),):
            raise ValueError(f"the portrait's motion has {rest_D.size} numbers, not {POSE_DIMS + len(codec.basis)}")
        shown_L3 = (rest_D[POSE_DIMS:].astype(np.float64) @ codec.basis).reshape(LANDMARKS, 3)
        turn_33 = head_rotation(rest_D[None, :3])[0].T @ portrait.rotation_33
        base_L3 = (portrait.face_L3 - shown_L3).astype(np.float32)
        return cls(codec.basis, base_L3, turn_33, rest_D[3:POSE_DIMS].astype(np.float64), portrait)

    @property
    def dim(self) -> int:
        """Numbers of a frame of motion."""
        return POSE_DIMS + len(self.basis_EK)

    def points(self, motion_TD: np.ndarray) -> np.ndarray:
        """Landmarks [T, 478, 3] float32 in face widths, y up, z near, around the middle of the view.

        Raises:
            ValueError: another size of motion, or numbers that are not finite.
        """
        motion_TD = np.asarray(motion_TD, np.float64)
        if motion_TD.ndim != 2 or motion_TD.shape[1] != self.dim or not np.isfinite(motion_TD).all():
            raise ValueError(f"motion {motion_TD.shape} is not [frames, {self.dim}] of finite numbers")
        motion_TD = np.clip(motion_TD, -1e6, 1e6)
        if self.portrait is not None:
            motion_TD[:, :3] = np.clip(motion_TD[:, :3], -STEEPEST, STEEPEST)
        face_TL3 = (motion_TD[:, POSE_DIMS:] @ self.basis_EK).reshape(-1, LANDMARKS, 3) + self.base_L3
        moves_T3 = motion_TD[:, 3:POSE_DIMS] - self.start_3
        scale_T = np.exp(np.clip(moves_T3[:, 2], -8, 8)) / np.ptp(canonical_face()[:, 0])
        rotation_T33 = head_rotation(motion_TD[:, :3]) @ self.turn_33
        points_TL3 = np.einsum("tij,tlj->tli", rotation_T33 * scale_T[:, None, None], face_TL3, optimize=True)
        points_TL3[:, :, :2] += moves_T3[:, None, :2]
        return np.clip(points_TL3, -WIDEST, WIDEST).astype(np.float32)


def model_json(puppet: Puppet) -> dict[str, Any]:
    """What all faces of a codec share, for a page: the basis (8 bits, a scale for each row), triangles, outlines."""
    eyes, mouth = hole_triangles()
    return {
        "steepest": STEEPEST,
        "width": float(np.ptp(canonical_face()[:, 0])),
        "basis": packed_rows(puppet.basis_EK),
        "skin": packed(canonical_mesh().skin),
        "rings": packed(ring_triangles()),
        "eyes": packed(eyes),
        "mouth": packed(mouth),
        "lips": [ring_of(LIPS_OUTER_TOP, LIPS_OUTER_BOTTOM), ring_of(LIPS_INNER_TOP, LIPS_INNER_BOTTOM)],
        "lids": [ring_of(top, bottom) for top, bottom in zip(LIDS_TOP, LIDS_BOTTOM, strict=True)],
        "holes": [[*edges, iris] for edges, iris in zip(HOLES, (*(iris[0] for iris in IRISES), None), strict=True)],
        "brows": BROWS,
        "irises": IRISES,
    }


def face_json(puppet: Puppet) -> dict[str, Any]:
    """What is one face's own, for a page."""
    return {
        "base": packed_rows(puppet.base_L3.reshape(1, -1), bits=16),
        "turn": puppet.turn_33.round(9).ravel().tolist(),
        "start": puppet.start_3.round(9).tolist(),
        "portrait": puppet.portrait and Rig(puppet.portrait).json(),
    }


def puppet_json(puppet: Puppet) -> dict[str, Any]:
    """One puppet for `visavis.avatar(canvas, PUPPET)`. A page with several faces keeps their model once, and makes
    `{model, face}` of it there."""
    return {"model": model_json(puppet), "face": face_json(puppet)}
