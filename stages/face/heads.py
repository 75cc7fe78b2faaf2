"""Heads: where a head is in each frame, and its face without that.

landmarks ── fit of a canonical face ──► rotation, scale, place
                    └─► the face in canonical space, cm
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from safetensors.numpy import load as load_tensors
from scipy.spatial.transform import Rotation

from visavis.schemas.face_rows import LANDMARKS

POSE_DIMS = 6
"""Pitch, yaw, roll (rad) and translation (face widths; the third is the log of the apparent size)."""

_RIGID = np.array(
    # Forehead, temples, nose bridge and eye corners: what the skull carries, whatever lips, jaw and brows do.
    [10, 338, 297, 332, 284, 251, 389, 127, 162, 21, 54, 103, 67, 109, 151, 9, 8, 168, 6, 197, 195, 33, 133, 362, 263,
     193, 417, 122, 351, 196, 419]
)  # fmt: skip

_DEPTH_WEIGHT = 0.25  # of a point's depth in the fit of the pose, beside 1 for its place in the picture
_POSE_STEPS = 5  # Gauss-Newton; more change nothing above 1e-5 rad
_POSE_CHUNK = 500  # frames at a time: 15 MB of derivatives, several times


@cache
def canonical_face() -> np.ndarray:
    """[468, 3] float64, cm, x right, y up, z towards the viewer: MediaPipe's canonical face model (Apache-2.0)."""
    data = resources.files("visavis.stages").joinpath("data", "canonical_face.safetensors").read_bytes()
    return load_tensors(data)["vertices"].astype(np.float64)


@cache
def flat_face() -> tuple[np.ndarray, complex]:
    """The canonical face as seen from the front, in complex numbers x + i y, y down: its points around their middle
    [468] and that middle, cm."""
    points_L = canonical_face()[:, :2] @ (1.0, -1.0j)
    middle = complex(points_L.mean())
    return points_L - middle, middle


def flat_fit(seen_L: np.ndarray) -> tuple[complex, complex]:
    """The similarity that puts the flat face on points of a picture, least squares.

    Args:
        seen_L: complex, x + i y in pixels; landmarks beyond the canonical face's do not count.

    Returns:
        turn, place: what lies p cm from the face's middle is seen at place + turn · p.
    """
    arms_L, _ = flat_face()
    seen_L = seen_L[: len(arms_L)]
    return complex(np.vdot(arms_L, seen_L) / np.vdot(arms_L, arms_L)), complex(seen_L.mean())


@dataclass(frozen=True)
class Heads:
    """Where heads are, frame by frame: what puts the canonical face there. float64.

    rotation_V33: matrices. scale_V: pixels per cm. origin_V3: pixels, x right, y up, z near.
    """

    rotation_V33: np.ndarray
    scale_V: np.ndarray
    origin_V3: np.ndarray

    @classmethod
    def of(cls, landmarks_VL3: np.ndarray) -> Heads:
        """Fit the canonical face to landmarks (pixels as in `Track`).

        Procrustes on the skull's points gives a first rotation (Umeyama 1991); a scaled orthographic projection of the
        canonical face is then fitted to all points by Gauss-Newton, their depth with a quarter of the weight: the
        tracker's depth is a guess. Median error on six rendered heads that turn by 25° and more, and correlation with
        the true pitch on eight that talk, for a weight of 0: 2.4-3.2°, .973-.988; 1/4: 1.8-2.3°, .957-.979; 1:
        1.7-2.4°, .929-.965. All points, because four hundred outvote the lips.
        """
        parts = np.array_split(landmarks_VL3, max(1, -(-len(landmarks_VL3) // _POSE_CHUNK)))
        return cls.joined([cls(*_fit_pose(_upright(part))) for part in parts])

    @classmethod
    def joined(cls, parts: Sequence[Heads]) -> Heads:
        """Of more frames."""
        return cls(
            np.concatenate([p.rotation_V33 for p in parts]),
            np.concatenate([p.scale_V for p in parts]),
            np.concatenate([p.origin_V3 for p in parts]),
        )

    def faces(self, landmarks_VL3: np.ndarray) -> np.ndarray:
        """The landmarks in canonical space: float64 [V, 478, 3], cm, without the head's pose."""
        points = _upright(landmarks_VL3) - self.origin_V3[:, None]
        faces: np.ndarray = np.einsum("tji,tlj->tli", self.rotation_V33, points) / self.scale_V[:, None, None]
        return faces

    def angles(self) -> np.ndarray:
        """float64 [V, 3]: pitch, yaw, roll in rad (see `head_rotation`)."""
        return Rotation.from_matrix(self.rotation_V33).as_euler("YXZ")[:, [1, 0, 2]]

    def steadied(self, camera_V2: np.ndarray) -> Heads:
        """The same as a camera sees them that stands still.

        Args:
            camera_V2: complex (turn, shift): what such a camera sees at z = x + i y (pixels, y down) is at
                turn · z + shift in the picture.
        """
        turn_V, shift_V = camera_V2.T
        place_V = np.conj((np.conj(self.origin_V3[:, :2] @ (1.0, 1.0j)) - shift_V) / turn_V)
        zoom_V = np.abs(turn_V)
        upright = Rotation.from_rotvec(np.stack([0 * zoom_V, 0 * zoom_V, np.angle(turn_V)], axis=1)).as_matrix()
        origin_V3 = np.stack([place_V.real, place_V.imag, self.origin_V3[:, 2] / zoom_V], axis=1)
        return Heads(upright @ self.rotation_V33, self.scale_V / zoom_V, origin_V3)

    def pose(self, shot_V: np.ndarray | None = None) -> np.ndarray:
        """Args:
            shot_V: the shot of each frame, any numbers; none: they are of one.

        Returns:
            float64 [V, 6]: pitch, yaw, roll in rad (see `head_rotation`); translation in face widths relative to the
            median place in the shot, third the log of the size relative to the median in the shot.
        """
        return np.concatenate([self.angles(), self._moves(shot_V)], axis=1)

    def steps(self) -> np.ndarray:
        """How far each head is from the one before: face widths, or the logarithm of the size, the larger; [V − 1]."""
        width_V = np.ptp(canonical_face()[:, 0]) * self.scale_V[:-1]
        moved_V = np.linalg.norm(np.diff(self.origin_V3[:, :2], axis=0), axis=1) / width_V
        return np.asarray(np.maximum(moved_V, np.abs(np.diff(np.log(self.scale_V)))))

    def _moves(self, shot_V: np.ndarray | None) -> np.ndarray:
        """Place and size against their medians in the shot: float64 [V, 3].

        A shot has a camera of its own, and where that makes a head lie says nothing of the head. In a second of one,
        too, its own median is the best there is: what the head does within a shot (0.1 face widths) is little beside
        what another camera makes of it (a face width and more).
        """
        shots_V = np.zeros(len(self.scale_V), np.int64) if shot_V is None else shot_V
        moves_V3 = np.empty((len(self.scale_V), 3))
        for shot in np.unique(shots_V):
            mine = shots_V == shot
            scale, origin_2 = np.median(self.scale_V[mine]), np.median(self.origin_V3[mine, :2], axis=0)
            width = np.ptp(canonical_face()[:, 0]) * scale  # of the person's median face, in pixels
            moves_V3[mine, :2] = (self.origin_V3[mine, :2] - origin_2) / width
            moves_V3[mine, 2] = np.log(self.scale_V[mine] / scale)
        return moves_V3


def align(landmarks_TL3: np.ndarray, valid_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Separate head pose from face shape, frame by frame: see `Heads`.

    Args:
        landmarks_TL3: float32, pixels, y down, z in pixels and away from the viewer.
        valid_T: bool.

    Returns:
        pose_T6 and face_TL3, float64. NaN where invalid.
    """
    pose_T6, face_TL3 = np.full((len(valid_T), POSE_DIMS), np.nan), np.full((len(valid_T), LANDMARKS, 3), np.nan)
    heads = Heads.of(landmarks_TL3[valid_T])
    pose_T6[valid_T], face_TL3[valid_T] = heads.pose(), heads.faces(landmarks_TL3[valid_T])
    return pose_T6, face_TL3


def head_rotation(pitch_yaw_roll_T3: np.ndarray) -> np.ndarray:
    """Matrices [T, 3, 3] that turn a head by roll, then pitch (positive looks down), then yaw (positive looks right
    in the picture); rad, right-handed about x right, y up, z towards the viewer."""
    angles = pitch_yaw_roll_T3.astype(np.float64)[:, [1, 0, 2]]
    return Rotation.from_euler("YXZ", angles).as_matrix()


def _upright(landmarks_VL3: np.ndarray) -> np.ndarray:
    """float64, x right, y up, z near."""
    return landmarks_VL3.astype(np.float64) * np.array([1.0, -1.0, -1.0])


def _fit_pose(points_TL3: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rotation [T, 3, 3], scale [T] and origin [T, 3] that put the canonical face where the points are."""
    rotation = _procrustes(points_TL3[:, _RIGID], canonical_face()[_RIGID])
    model = canonical_face()
    centre = model.mean(0)
    arms = model - centre
    seen = points_TL3[:, : len(model)]
    seen_centre = seen.mean(1)
    # The residuals and their derivatives are linear in these sums over the points, so the steps need no points.
    spread = arms.T @ arms
    matched = np.einsum("li,tlj->tij", arms, seen - seen_centre[:, None], optimize=True)
    weight = np.array([1.0, 1.0, _DEPTH_WEIGHT])
    scale = np.ones(len(points_TL3))
    for _ in range(_POSE_STEPS):
        moments = rotation @ spread @ rotation.transpose(0, 2, 1)
        seen_moments = rotation @ matched
        scale = np.einsum("tii,i->t", seen_moments, weight) / np.einsum("tii,i->t", moments, weight)
        turned = scale[:, None, None] ** 2 * moments
        missing = (scale[:, None, None] * seen_moments - turned) * weight
        # How a point moves with a small rotation about each axis, and with the scale: (0, −z, y), (z, 0, −x),
        # (−y, x, 0), (x, y, z).
        xx, yy, zz = (turned[:, i, i] for i in range(3))
        xy, zx, zy = turned[:, 0, 1], turned[:, 2, 0], turned[:, 2, 1]
        none, d = np.zeros_like(zz), _DEPTH_WEIGHT
        rows = [
            [zz + d * yy, -d * xy, -zx, (d - 1) * zy],
            [-d * xy, zz + d * xx, -zy, (1 - d) * zx],
            [-zx, -zy, xx + yy, none],
            [(d - 1) * zy, (1 - d) * zx, none, xx + yy + d * zz],
        ]
        normal = np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
        gradient = np.stack(
            [
                missing[:, 1, 2] - missing[:, 2, 1],
                missing[:, 2, 0] - missing[:, 0, 2],
                missing[:, 0, 1] - missing[:, 1, 0],
                np.trace(missing, axis1=1, axis2=2),
            ],
            axis=-1,
        )
        step = np.linalg.solve(normal, gradient[..., None])[..., 0]
        rotation = Rotation.from_rotvec(step[:, :3]).as_matrix() @ rotation
    return rotation, scale, seen_centre - scale[:, None] * np.einsum("tij,j->ti", rotation, centre)


def _procrustes(points_TR3: np.ndarray, target_R3: np.ndarray) -> np.ndarray:
    """Least squares rotation [T, 3, 3] of the target onto each frame's points, whatever the scale (Umeyama 1991)."""
    centred = points_TR3 - points_TR3.mean(1, keepdims=True)
    u, _, vt = np.linalg.svd(np.einsum("ri,trj->tij", target_R3 - target_R3.mean(0), centred))
    sign = np.ones((len(points_TR3), 3))
    sign[:, 2] = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    return np.einsum("tji,tj,tkj->tik", vt, sign, u)
