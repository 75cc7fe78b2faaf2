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

import numpy as np
from pydantic import SkipValidation
from threadpoolctl import threadpool_limits

from schemas.config import MotionConfig, Section
from schemas.errors import Reason, Rejected
from schemas.manifest import MotionSpec
from schemas.rows import LANDMARKS, Binding, Codec, CodecStatistics, FaceTracks, Motion, Row
from stages.base import Stage
from stages.bind import landmarks_by_piece
from stages.heads import POSE_DIMS, Heads, canonical_face, head_rotation

_QUANTUM = 4096.0  # steps per cm of the exact statistics
_LIMIT = 2**14 - 1  # steps; float64 sums of products over a piece (< 2^25 frames) stay below 2^53: exact


_FIT_STEP = 5  # frames
_NEUTRAL_FRAMES = 3000  # two minutes; 34 MB


def motion_columns(dim: int) -> dict[str, tuple[int, int]]:
    """Column ranges of a motion of `dim` dimensions, as the manifest names them."""
    return {"rotation": (0, 3), "translation": (3, 6), "expression": (POSE_DIMS, dim)}


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
