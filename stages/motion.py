"""Motion latents from landmarks: rigid head pose, and a linear code of the expression.

The codec is our stand-in for the paper's LIA/FLOAT auto-encoder (§3.1), whose weights cannot be
distributed: z = identity + motion there, and here too, because the person's own neutral face is removed
before the expression is coded.

    landmarks ── fit of a canonical face ──► rotation (3), translation (3)
                        └─► face in canonical space − own neutral ── PCA ──► expression code (E)

The PCA is fitted over every fifth frame of the corpus in one pass and exactly: features are rounded to 1/4096 cm, so
sums and products are integers, and no order of addition, number of workers or BLAS changes a bit of the result.
Trade-off: a linear code of 478 points sees no gaze detail beyond the irises, no tongue, no skin.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from pydantic import SkipValidation
from safetensors.numpy import load as load_tensors
from scipy.spatial.transform import Rotation
from threadpoolctl import threadpool_limits

from schemas.config import MotionConfig, Section
from schemas.errors import Reason, Rejected
from schemas.manifest import MotionSpec
from schemas.rows import LANDMARKS, Binding, Codec, CodecStatistics, FaceTracks, Motion, Row
from stages.base import Stage
from stages.bind import landmarks_by_piece

POSE_DIMS = 6
"""Pitch, yaw, roll (rad) and translation (face widths; the third is the log of the apparent size)."""

_QUANTUM = 4096.0  # steps per cm of the exact statistics
_LIMIT = 2**14 - 1  # steps; float64 sums of products over a piece (< 2^25 frames) stay below 2^53: exact

_RIGID = np.array(
    # Forehead, temples, nose bridge and eye corners: what the skull carries, whatever lips, jaw and brows do.
    [10, 338, 297, 332, 284, 251, 389, 127, 162, 21, 54, 103, 67, 109, 151, 9, 8, 168, 6, 197, 195, 33, 133, 362, 263,
     193, 417, 122, 351, 196, 419]
)  # fmt: skip


_FIT_STEP = 5  # frames
_DEPTH_WEIGHT = 0.25  # of a point's depth in the fit of the pose, beside 1 for its place in the picture
_POSE_STEPS = 5  # Gauss-Newton; more change nothing above 1e-5 rad
_POSE_CHUNK = 500  # frames at a time: 15 MB of derivatives, several times
_NEUTRAL_FRAMES = 3000  # two minutes; 34 MB


@cache
def canonical_face() -> np.ndarray:
    """[468, 3] float64, cm, x right, y up, z towards the viewer: MediaPipe's canonical face model (Apache-2.0)."""
    data = resources.files("stages").joinpath("data", "canonical_face.safetensors").read_bytes()
    return load_tensors(data)["vertices"].astype(np.float64)


def motion_columns(dim: int) -> dict[str, tuple[int, int]]:
    """Column ranges of a motion of `dim` dimensions, as the manifest names them."""
    return {"rotation": (0, 3), "translation": (3, 6), "expression": (POSE_DIMS, dim)}


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

    def pose(self) -> np.ndarray:
        """float64 [V, 6]: pitch, yaw, roll in rad (see `head_rotation`); translation in face widths relative to the
        median place of all these frames, third the log of the size relative to the median."""
        width = np.ptp(canonical_face()[:, 0]) * np.median(self.scale_V)  # of the person's median face, in pixels
        yaw, pitch, roll = Rotation.from_matrix(self.rotation_V33).as_euler("YXZ").T
        x, y, _ = (self.origin_V3 - np.median(self.origin_V3, 0)).T / width
        return np.stack([pitch, yaw, roll, x, y, np.log(self.scale_V / np.median(self.scale_V))], axis=1)


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


class Neutral:
    """A person's own neutral face: the median of all frames, or of evenly spaced ones where there are many.

    An hour has 90,000 frames, and those within a second hardly differ. Which are taken follows from their numbers,
    so neither order nor pieces matter.
    """

    def __init__(self) -> None:
        self._step = 1
        self._faces: dict[int, np.ndarray] = {}

    def add(self, where_V: np.ndarray, faces_VL3: np.ndarray) -> None:
        for n, face_L3 in zip(where_V.tolist(), faces_VL3, strict=True):
            if n % self._step == 0:
                self._faces[n] = face_L3.copy()
        while len(self._faces) > _NEUTRAL_FRAMES:
            self._step *= 2
            self._faces = {n: face_L3 for n, face_L3 in self._faces.items() if n % self._step == 0}

    def face(self) -> np.ndarray:
        """[478, 3] float64, cm."""
        median: np.ndarray = np.median(np.stack(list(self._faces.values())), axis=0)
        return median


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


def _features(face_TL3: np.ndarray, neutral_L3: np.ndarray) -> np.ndarray:
    return (face_TL3 - neutral_L3).reshape(len(face_TL3), -1)


class FitInput(Row):
    """A chunk of conversations: their bindings, and in the same order the pieces of each by (media, first frame).

    The faces are read piece by piece, twice for each person, and none is kept.
    """

    bindings: tuple[Binding, ...]
    faces: SkipValidation[Sequence[FaceTracks]]


class FitStage(Stage[FitInput, CodecStatistics]):
    """Exact sufficient statistics of the expression over a chunk of conversations."""

    name = "fit"
    version = 3

    def process(self, item: FitInput) -> Iterator[CodecStatistics]:
        size = LANDMARKS * 3
        total, outer, frames = np.zeros(size, np.int64), np.zeros((size, size), np.int64), 0
        for binding, faces in _by_conversation(item):
            for features in _expressions(binding, faces, 0), _expressions(binding, faces, 1):
                for part in features:
                    steps = np.clip(np.rint(part * _QUANTUM), -_LIMIT, _LIMIT)
                    outer += (steps.T @ steps).astype(np.int64)
                    total += steps.sum(0).astype(np.int64)
                    frames += len(steps)
        yield CodecStatistics(frames=frames, sum=total, outer=outer)


def _by_conversation(item: FitInput) -> Iterator[tuple[Binding, Sequence[FaceTracks]]]:
    stop = 0
    for binding in item.bindings:
        start, stop = stop, stop + 1 + max(s.piece for p in binding.participants for s in p.segments)
        while stop < len(item.faces) and item.faces[stop].piece.conversation == binding.conversation:
            stop += 1  # pieces in which neither is seen
        yield binding, item.faces[start:stop]


def _expressions(binding: Binding, faces: Sequence[FaceTracks], participant: int) -> Iterator[np.ndarray]:
    """A participant's expression features [V, K], piece by piece."""
    heads, neutral = [], Neutral()
    for where, landmarks in _sparse(binding, faces, participant):
        heads.append(Heads.of(landmarks))
        neutral.add(where, heads[-1].faces(landmarks))
    if not heads:
        return
    face = neutral.face()
    for (_, landmarks), head in zip(_sparse(binding, faces, participant), heads, strict=True):
        yield _features(head.faces(landmarks), face)


def _sparse(binding: Binding, faces: Sequence[FaceTracks], participant: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every `_FIT_STEP`th frame of the grid: those between hardly differ, and a codec needs few of them."""
    for where, landmarks in landmarks_by_piece(binding, faces, participant):
        taken = where % _FIT_STEP == 0
        if taken.any():
            yield where[taken], landmarks[taken]


def merge_statistics(parts: Sequence[CodecStatistics]) -> CodecStatistics:
    """Sum of statistics; exact, so any grouping gives the same."""
    return CodecStatistics(
        frames=sum(p.frames for p in parts),
        sum=np.sum([p.sum for p in parts], axis=0, dtype=np.int64),
        outer=np.sum([p.outer for p in parts], axis=0, dtype=np.int64),
    )


def fit_codec(statistics: CodecStatistics, config: MotionConfig) -> Codec:
    """The PCA behind corpus statistics.

    Raises:
        Rejected(NO_FACE): fewer frames than code dimensions.
    """
    if statistics.frames <= config.expression_dims:
        raise Rejected(Reason.NO_FACE, f"{statistics.frames} frames cannot carry {config.expression_dims} dimensions")
    mean = statistics.sum / statistics.frames
    covariance = statistics.outer / statistics.frames - np.outer(mean, mean)
    with threadpool_limits(1):  # LAPACK's last bits depend on its threads
        values, vectors = np.linalg.eigh(covariance)
    basis = vectors[:, ::-1][:, : config.expression_dims].T
    heaviest = np.abs(basis).argmax(1)
    basis *= np.sign(basis[np.arange(len(basis)), heaviest])[:, None]
    kept = np.clip(values, 0, None)
    explained = float(kept[::-1][: config.expression_dims].sum() / max(kept.sum(), 1e-12))
    mean, basis = (mean / _QUANTUM).astype(np.float32), np.ascontiguousarray(basis, np.float32)
    digest = hashlib.sha256(mean.tobytes() + basis.tobytes()).hexdigest()[:12]
    return Codec(id=f"{config.kind}-{digest}", kind=config.kind, mean=mean, basis=basis, explained=round(explained, 6))


class MotionInput(Row):
    """One participant of a bound conversation, and the codec.

    faces: all pieces by (media, first frame). They are read one at a time, and none is kept.
    """

    codec: Codec
    binding: Binding
    faces: SkipValidation[Sequence[FaceTracks]]
    participant: int


class MotionStage(Stage[MotionInput, Motion]):
    """Landmarks of one participant to motion latents on the conversation's grid."""

    name = "motion"
    version = 3

    def __init__(self, config: Section | None = None) -> None:
        super().__init__(config or Section())  # everything that shapes the output is in the codec

    def process(self, item: MotionInput) -> Iterator[Motion]:
        frames = item.faces[-1].piece.last
        motion = np.full((frames, POSE_DIMS + len(item.codec.basis)), np.nan)
        valid = np.zeros(frames, np.bool_)
        heads, neutral = [], Neutral()
        for where, landmarks in landmarks_by_piece(item.binding, item.faces, item.participant):
            heads.append(Heads.of(landmarks))
            face = heads[-1].faces(landmarks)
            neutral.add(where, face)
            motion[where, POSE_DIMS:] = encode_expression(item.codec, face, np.zeros_like(face[0]))
            valid[where] = True
        if not heads:
            raise Rejected(Reason.FACE_NOT_VISIBLE, item.binding.participants[item.participant].name)
        motion[valid, :POSE_DIMS] = Heads.joined(heads).pose()
        # The code is linear, so the neutral face, which is known only now, can be taken away afterwards.
        motion[:, POSE_DIMS:] -= neutral.face().reshape(-1) @ item.codec.basis.T.astype(np.float64)
        motion = _fill_gaps(motion, valid).astype(np.float32)
        yield Motion(
            conversation=item.binding.conversation,
            participant=item.participant,
            codec=item.codec.id,
            motion=motion,
            valid=valid,
            reference=motion[valid][_most_typical(motion[valid])],
            neutral=neutral.face().astype(np.float32),
        )


def encode_expression(codec: Codec, face_TL3: np.ndarray, neutral_L3: np.ndarray) -> np.ndarray:
    """Faces in canonical space to expression codes [T, E] float64, in cm along the basis."""
    return (_features(face_TL3, neutral_L3) - codec.mean) @ codec.basis.T.astype(np.float64)


def decode_motion(codec: Codec, motion_TD: np.ndarray, neutral_L3: np.ndarray) -> np.ndarray:
    """Motion back to landmarks [T, 478, 3] float32 in face widths, y up, around the person's median place."""
    code = motion_TD[:, POSE_DIMS:].astype(np.float64)
    face = (code @ codec.basis + codec.mean).reshape(len(code), LANDMARKS, 3) + neutral_L3
    rotation = head_rotation(motion_TD[:, :3])
    scale = np.exp(motion_TD[:, 5]).astype(np.float64) / np.ptp(canonical_face()[:, 0])
    points = np.einsum("tij,tlj->tli", rotation, face) * scale[:, None, None]
    points[:, :, :2] += motion_TD[:, None, 3:5]
    return points.astype(np.float32)


def motion_spec(codec: str, dim: int, mean: np.ndarray, std: np.ndarray) -> MotionSpec:
    """What the manifest says about the motion columns."""
    columns = motion_columns(dim)
    return MotionSpec(
        codec=codec,
        dim=dim,
        rotation=columns["rotation"],
        translation=columns["translation"],
        expression=columns["expression"],
        mean=tuple(float(v) for v in mean),
        std=tuple(float(v) for v in std),
    )


def _fill_gaps(motion_TD: np.ndarray, valid_T: np.ndarray) -> np.ndarray:
    """Invalid frames get a straight line between their valid neighbours, so that arrays stay finite."""
    frames, seen = np.arange(len(valid_T)), np.flatnonzero(valid_T)
    return np.stack([np.interp(frames, seen, column[seen]) for column in motion_TD.T], axis=1)


def _most_typical(motion_TD: np.ndarray) -> int:
    """The frame nearest to the person's median pose and expression."""
    spread = motion_TD.std(0) + 1e-6
    return int((((motion_TD - np.median(motion_TD, 0)) / spread) ** 2).sum(1).argmin())
