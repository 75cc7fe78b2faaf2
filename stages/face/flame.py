"""FLAME: coefficients of expression and rotations of joints to the vertices of a head.

Li, Bolkart, Black, Li, Romero: Learning a model of facial shape and expression from 4D scans, ACM Trans. Graphics
36(6), SIGGRAPH Asia 2017. The model itself is the user's own (`stages.face.flame_files`); its licence is between the
user and its makers. Written from the paper's equations:

    M = W(T_P, J, θ, 𝒲)            Eq. 1: linear blend skinning of
    T_P = T + B_S + B_P + B_E       Eq. 2: the template with blend shapes of shape, pose and expression
    B_P = Σ (R(θ) − R(0)) P         Eq. 4: P `posedirs`, R the elements of the joints' rotations but the root's
    B_E = Σ ψ E                     Eq. 5: E the columns of `shapedirs` behind the 300 of shape

Shape is that of the template: motion has no coefficients of it. Joints are regressed from the vertices with their
expression, as public implementations have it; in the paper they depend on shape alone, and E moves them little.

Axes: x to the person's left, which is right in the picture, y up, z out of the face; metres. Angles: axis-angle, rad.

Letters: T frames, V vertices, F triangles, E coefficients of expression, J joints (5), P elements of rotations (36).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from visavis.schemas.errors import UsageError

ROOT, NECK, JAW, LEFT_EYE, RIGHT_EYE = range(5)
PARENTS = (-1, ROOT, NECK, NECK, NECK)
"""The joint that carries each joint: FLAME's only tree."""
_JOINTS_OF = {"pose": (ROOT,), "neck": (NECK,), "jaw": (JAW,), "eyes": (LEFT_EYE, RIGHT_EYE)}
CHUNK = 64
"""Frames at a time: 8 MB of float64 for FLAME's 5,023 vertices, a few times over."""


@dataclass(frozen=True)
class Flame:
    """A model, or some of its vertices (`only`). float64.

    template_V3, joints_J3: m. expression_V3E, joint_expression_J3E: m per unit. correctives_V3P: m per element of
    R − 1. weights_VJ: of skinning, rows sum to 1. faces_F3: int64; none where some vertices were taken.
    """

    template_V3: np.ndarray
    expression_V3E: np.ndarray
    correctives_V3P: np.ndarray
    weights_VJ: np.ndarray
    joints_J3: np.ndarray
    joint_expression_J3E: np.ndarray
    faces_F3: np.ndarray

    def only(self, chosen: np.ndarray) -> Flame:
        """Some vertices, by their numbers; they move as in the whole model."""
        return replace(
            self,
            template_V3=self.template_V3[chosen],
            expression_V3E=self.expression_V3E[chosen],
            correctives_V3P=self.correctives_V3P[chosen],
            weights_VJ=self.weights_VJ[chosen],
            faces_F3=np.zeros((0, 3), np.int64),
        )

    def vertices(self, frames: Frames) -> np.ndarray:
        """float64 [T, V, 3], m: all of it at once, 24 bytes a coordinate triple; call it for `CHUNK` frames or so."""
        return self.posed(frames)[0]

    def posed(self, frames: Frames) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Vertices [T, V, 3], and where the joint of the neck carries what hangs on it alone: x ↦ turn x + place, turn
        [T, 3, 3] and place [T, 3]. float64.

        Raises:
            UsageError: more coefficients of expression than the model has.
        """
        count = frames.expression_TE.shape[1]
        if count > (known := self.expression_V3E.shape[2]):
            raise UsageError(f"the motion has {count} coefficients of expression, the FLAME model {known}")
        turns_TJ33 = Rotation.from_rotvec(frames.angles_TJ3.reshape(-1, 3)).as_matrix().reshape(-1, 5, 3, 3)
        correct_TP = (turns_TJ33[:, 1:] - np.eye(3)).reshape(len(turns_TJ33), -1)
        rest_TV3 = self.template_V3 + _blend(self.expression_V3E[..., :count], frames.expression_TE)  # Eq. 2, 5
        rest_TV3 += _blend(self.correctives_V3P, correct_TP)  # Eq. 4
        joints_TJ3 = self.joints_J3 + _blend(self.joint_expression_J3E[..., :count], frames.expression_TE)
        turn_TJ33, place_TJ3 = _chain(turns_TJ33, joints_TJ3)
        out_TV3 = np.zeros_like(rest_TV3)
        for joint, weight_V in enumerate(self.weights_VJ.T):
            hangs = slice(None) if weight_V.all() else np.flatnonzero(weight_V)  # most vertices hang on one joint
            carried = rest_TV3[:, hangs] @ turn_TJ33[:, joint].transpose(0, 2, 1) + place_TJ3[:, joint, None]
            out_TV3[:, hangs] += weight_V[hangs, None] * carried
        return out_TV3, turn_TJ33[:, NECK], place_TJ3[:, NECK]


@dataclass(frozen=True)
class Frames:
    """What FLAME is given: expression_TE, and angles_TJ3 of the joints in its order. float64."""

    expression_TE: np.ndarray
    angles_TJ3: np.ndarray

    @classmethod
    def of(cls, motion_TD: np.ndarray, groups: Mapping[str, slice]) -> Frames:
        """Of motion whose columns are these groups (`schemas.coefficients.groups_of`).

        `pose` turns the root: in the fits that DualTalk's files hold (DECA's parameters: `cam`, `tex` and `light` lie
        beside it) and in UniLSTalk it is the rotation of the whole head. DualTalk's own renderer hands it to the neck:
        of a face that is the same turn about another point.

        Raises:
            UsageError: groups that FLAME does not have, or of another size.
        """
        motion_TD = np.asarray(motion_TD, np.float64)
        angles_TJ3 = np.zeros((len(motion_TD), 5, 3))
        for name, columns in groups.items():
            if name == "exp":
                continue
            joints, part = _JOINTS_OF.get(name, ()), motion_TD[:, columns]
            if part.shape[1] != 3 * len(joints):
                raise UsageError(
                    f"FLAME takes exp, pose, neck and jaw of 3 angles, eyes of 6; not {name}{part.shape[1]}"
                )
            angles_TJ3[:, list(joints)] = part.reshape(len(part), len(joints), 3)
        return cls(motion_TD[:, groups.get("exp", slice(0, 0))], angles_TJ3)

    def __len__(self) -> int:
        return len(self.expression_TE)

    def chunks(self) -> list[Frames]:
        """The same, `CHUNK` frames at a time."""
        starts = range(0, len(self), CHUNK)
        return [Frames(self.expression_TE[i : i + CHUNK], self.angles_TJ3[i : i + CHUNK]) for i in starts]


def _blend(shapes_V3N: np.ndarray, by_TN: np.ndarray) -> np.ndarray:
    """Blend shapes by their coefficients: [T, V, 3]."""
    return (by_TN @ shapes_V3N.reshape(-1, shapes_V3N.shape[2]).T).reshape(len(by_TN), -1, 3)


def _chain(turns_TJ33: np.ndarray, joints_TJ3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each joint's map of the rest pose, x ↦ turn x + place, about itself and all that carry it: Eq. 1's G."""
    turn_TJ33, place_TJ3 = turns_TJ33.copy(), np.empty_like(joints_TJ3)
    for joint, parent in enumerate(PARENTS):
        if parent >= 0:
            turn_TJ33[:, joint] = turn_TJ33[:, parent] @ turns_TJ33[:, joint]
        centre_T3 = joints_TJ3[:, joint]
        carried_T3 = centre_T3 if parent < 0 else _map(turn_TJ33[:, parent], centre_T3) + place_TJ3[:, parent]
        place_TJ3[:, joint] = carried_T3 - _map(turn_TJ33[:, joint], centre_T3)
    return turn_TJ33, place_TJ3


def _map(turn_T33: np.ndarray, point_T3: np.ndarray) -> np.ndarray:
    return np.einsum("tij,tj->ti", turn_T33, point_T3)
