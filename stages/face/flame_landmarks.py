"""FLAME's head as our landmarks: 478 in MediaPipe's numbering, so that everything that draws faces draws it, too.

MediaPipe's embedding says where a hundred of them lie on the model: brows, eyes, nose and lips. The canonical face is
brought onto these by a similarity (Umeyama 1991) and by splines, and each other landmark goes to the nearest point of
the model's skin. Irises are drawn on the eyeballs. That is done once for a model: from then on a landmark is a point of
a triangle and moves with it.

Motion of coefficients becomes motion as a codec of landmarks has it: head pose, then what every landmark has moved from
the template, cm. Nothing is lost by that, as it would be by components.

Letters: T frames, D columns, L landmarks (478), N of the embedding, V vertices, F triangles, C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.interpolate import RBFInterpolator
from scipy.spatial import cKDTree

from visavis.schemas.coefficients import groups_of
from visavis.schemas.dyads import Codec
from visavis.schemas.errors import UsageError
from visavis.schemas.face_rows import LANDMARKS
from visavis.schemas.untrusted import parsing
from visavis.stages.face.codec import decode_motion
from visavis.stages.face.flame import LEFT_EYE, NECK, RIGHT_EYE, Flame, Frames
from visavis.stages.face.flame_files import EMBEDDING, Embedding, read_embedding, read_flame
from visavis.stages.face.heads import POSE_DIMS, Heads, canonical_face

_CM = 100.0  # in a metre
_IRIS = 0.00585  # m, half of 11.7 mm across
_SMOOTHING = 1e-3
"""Of the splines, with places in metres. Without it a millimetre of error in the known landmarks becomes up to a
centimetre and a half at the face's border."""
_NEAR = 40  # triangles among which the nearest is looked for
_BALL = 0.5  # of skinning: above it a vertex is of an eyeball


@dataclass(frozen=True)
class FlameFace:
    """A model that is drawn. codec, neutral_L3: what draws its motion, as of any dataset of landmarks (cm).

    model: the vertices that carry landmarks; corners_L3 are numbers of them. origin_3: of canonical space, m.
    """

    model: Flame
    corners_L3: np.ndarray
    share_L3: np.ndarray
    origin_3: np.ndarray
    codec: Codec
    neutral_L3: np.ndarray

    @classmethod
    def read(cls, model: Path, embedding: Path | None = None) -> FlameFace:
        """Of files. embedding: none: it lies beside the model, by the name that it has on FLAME's site.

        Raises:
            UsageError: see `stages.face.flame_files`; or a head on which landmarks find no place.
        """
        whole, _ = read_flame(model)
        found = read_embedding(embedding or model.with_name(EMBEDDING), whole)
        with parsing(lambda why: UsageError(f"--flame: {model}: MediaPipe's landmarks find no place on it: {why}")):
            return cls.of(whole, found)

    @classmethod
    def of(cls, whole: Flame, embedding: Embedding) -> FlameFace:
        """Raises ValueError: no eyeballs, or landmarks that lie in one plane."""
        corners_L3, share_L3 = placed(whole, embedding)
        used, inverse = np.unique(corners_L3, return_inverse=True)
        rest_L3 = _points(whole.template_V3[None], corners_L3, share_L3)[0]
        skin = len(canonical_face())
        origin_3 = rest_L3[:skin].mean(axis=0) - canonical_face().mean(axis=0) / _CM
        size = LANDMARKS * 3
        codec = Codec(
            id="flame-landmarks", kind="landmark-pca", given=0, network="", explained=1.0,
            mean=np.zeros(size, np.float32), basis=np.eye(size, dtype=np.float32),
        )  # fmt: skip
        neutral_L3 = ((rest_L3 - origin_3) * _CM).astype(np.float32)
        return cls(whole.only(used), inverse.reshape(-1, 3), share_L3, origin_3, codec, neutral_L3)

    def motion(self, motion_TD: np.ndarray, codec: str) -> np.ndarray:
        """The same motion for `codec` and `neutral_L3` of this face: float32 [T, 6 + 3 · 478].

        Args:
            motion_TD: coefficients. codec: the id that says its columns (`schemas.coefficients`).

        Raises:
            UsageError: coefficients that this model does not have.
        """
        made = [self._moved(part) for part in Frames.of(motion_TD, groups_of(codec)).chunks()]
        return np.concatenate(made) if made else np.zeros((0, POSE_DIMS + LANDMARKS * 3), np.float32)

    def points(self, motion_TD: np.ndarray, codec: str) -> np.ndarray:
        """Landmarks [T, 478, 3] float32 in face widths, y up, around the face at rest. Arguments as of `motion`."""
        return decode_motion(self.codec, self.motion(motion_TD, codec), self.neutral_L3)

    def _moved(self, frames: Frames) -> np.ndarray:
        """The head's turn and place, and the face without them.

        Coefficients do not say where a head is, so it turns about its neck, as heads do; FLAME's root is further down.
        """
        vertices_TV3, turn_T33, place_T3 = self.model.posed(frames)
        points_TL3 = _points(vertices_TV3, self.corners_L3, self.share_L3) - place_T3[:, None]
        face_TL3 = (points_TL3 @ turn_T33 - self.origin_3) * _CM  # the transpose of each turn, from the left
        arm_3 = self.origin_3 - self.model.joints_J3[NECK]
        moved_T3 = (turn_T33 @ arm_3 - arm_3) * _CM
        width = np.ptp(canonical_face()[:, 0])
        angles_T3 = Heads(turn_T33, np.ones(len(frames)), moved_T3).angles()
        code_TK = (face_TL3 - self.neutral_L3).reshape(len(frames), -1)
        size_T1 = np.zeros((len(frames), 1))
        return np.concatenate([angles_T3, moved_T3[:, :2] / width, size_T1, code_TK], axis=1).astype(np.float32)


def placed(model: Flame, embedding: Embedding) -> tuple[np.ndarray, np.ndarray]:
    """Where each of the 478 landmarks lies: corners_L3, vertices of a triangle, and their shares [L, 3].

    Raises:
        ValueError: no eyeballs, or landmarks of the embedding that lie in one plane.
    """
    skin_L3 = _fitted(_points(model.template_V3[None], embedding.corners_N3, embedding.share_N3)[0], embedding.number_N)
    balls_V = model.weights_VJ[:, [LEFT_EYE, RIGHT_EYE]] > _BALL
    is_ball_F2 = balls_V[model.faces_F3].all(axis=1)
    corners, share = nearest(model.template_V3, model.faces_F3[~is_ball_F2.any(axis=1)], skin_L3)
    corners[embedding.number_N], share[embedding.number_N] = embedding.corners_N3, embedding.share_N3
    eyes = sorted((0, 1), key=lambda eye: float(model.joints_J3[LEFT_EYE + eye, 0]))  # first the one seen on the left
    parts = [(corners, share)]
    for eye in eyes:
        faces = model.faces_F3[is_ball_F2[:, eye]]
        if not len(faces):
            raise ValueError("an eye has no eyeball: no triangle hangs on its joint")
        centre_3 = model.joints_J3[LEFT_EYE + eye]
        radius = float(np.linalg.norm(model.template_V3[np.unique(faces)] - centre_3, axis=1).mean())
        parts.append(nearest(model.template_V3, faces, centre_3 + _iris(radius)))
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _iris(radius: float) -> np.ndarray:
    """Centre and four places of the rim on an eyeball that looks ahead, from its middle: [5, 3] m."""
    side = min(_IRIS, 0.9 * radius)
    rim = [(side, 0.0), (0.0, side), (-side, 0.0), (0.0, -side)]
    return np.array([(0, 0, radius), *((x, y, np.sqrt(radius**2 - side**2)) for x, y in rim)])


def _fitted(seen_N3: np.ndarray, number_N: np.ndarray) -> np.ndarray:
    """The canonical face as it lies on a head of which some landmarks are known: [468, 3] m.

    Raises:
        ValueError: these lie in one plane.
    """
    known_N3 = canonical_face()[number_N]
    scale, turn_33, place_3 = _similarity(known_N3, seen_N3)
    alike_L3 = scale * canonical_face() @ turn_33.T + place_3
    moved_N3 = seen_N3 - alike_L3[number_N]
    bend = RBFInterpolator(alike_L3[number_N], moved_N3, kernel="thin_plate_spline", smoothing=_SMOOTHING)
    return np.asarray(alike_L3 + bend(alike_L3))


def _similarity(known_N3: np.ndarray, seen_N3: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale, turn and place that bring points onto others, least squares (Umeyama 1991)."""
    known_3, seen_3 = known_N3.mean(axis=0), seen_N3.mean(axis=0)
    u, s, vt = np.linalg.svd((seen_N3 - seen_3).T @ (known_N3 - known_3))
    if s[2] < 1e-6 * s[0]:
        raise ValueError("landmarks lie in one plane")
    sign_3 = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    turn_33 = (u * sign_3) @ vt
    scale = float((s * sign_3).sum() / ((known_N3 - known_3) ** 2).sum())
    return scale, turn_33, seen_3 - scale * turn_33 @ known_3


def _points(vertices_TV3: np.ndarray, corners_L3: np.ndarray, share_L3: np.ndarray) -> np.ndarray:
    """Points of triangles: [T, L, 3]."""
    return np.asarray(np.einsum("tlkc,lk->tlc", vertices_TV3[:, corners_L3], share_L3, optimize=True))


def nearest(vertices_V3: np.ndarray, faces_F3: np.ndarray, points_L3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest points of a surface: corners int64 [L, 3], and shares float64 [L, 3] of them, none negative.

    Of each point, the `_NEAR` triangles whose middles are nearest are tried.
    """
    middles_F3 = vertices_V3[faces_F3].mean(axis=1)
    _, tried_LC = cKDTree(middles_F3).query(points_L3, k=min(_NEAR, len(faces_F3)))
    tried_LC = np.reshape(tried_LC, (len(points_L3), -1))
    share_LC3 = _shares(points_L3[:, None], vertices_V3[faces_F3[tried_LC]])
    found_LC3 = np.einsum("lckx,lck->lcx", vertices_V3[faces_F3[tried_LC]], share_LC3)
    best_L = np.linalg.norm(found_LC3 - points_L3[:, None], axis=2).argmin(axis=1)
    rows_L = np.arange(len(points_L3))
    return faces_F3[tried_LC[rows_L, best_L]], share_LC3[rows_L, best_L]


def _shares(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """The point of a triangle nearest to another one, as shares of its corners: the best of its inside and its edges.

    Args:
        points: [..., 3]. triangles: [..., corner, 3].
    """
    best, distance = None, None
    for share in (_inside(points, triangles), *(_on_edge(points, triangles, i) for i in range(3))):
        away = np.linalg.norm(np.einsum("...kx,...k->...x", triangles, share) - points, axis=-1)
        away = np.where((share >= 0).all(axis=-1), away, np.inf)
        best = share if best is None else np.where((away < distance)[..., None], share, best)
        distance = away if distance is None else np.minimum(away, distance)
    assert best is not None
    return best


def _inside(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Barycentric coordinates of the foot of the perpendicular; some negative where it is outside."""
    a, b, c = np.moveaxis(triangles, -2, 0)
    one, two, to = b - a, c - a, points - a
    d11, d12, d22 = (one * one).sum(-1), (one * two).sum(-1), (two * two).sum(-1)
    p1, p2 = (to * one).sum(-1), (to * two).sum(-1)
    area = d11 * d22 - d12 * d12
    area = np.where(area > 0, area, np.inf)  # a triangle without area has edges alone
    v, w = (d22 * p1 - d12 * p2) / area, (d11 * p2 - d12 * p1) / area
    return np.stack([1 - v - w, v, w], axis=-1)


def _on_edge(points: np.ndarray, triangles: np.ndarray, first: int) -> np.ndarray:
    """The nearest point of the edge from a corner to the next one."""
    second = (first + 1) % 3
    a, b = triangles[..., first, :], triangles[..., second, :]
    length = ((b - a) ** 2).sum(-1)
    along = ((points - a) * (b - a)).sum(-1) / np.where(length > 0, length, 1.0)
    along = np.clip(along, 0, 1)
    share = np.zeros((*along.shape, 3))
    share[..., first], share[..., second] = 1 - along, along
    return share
