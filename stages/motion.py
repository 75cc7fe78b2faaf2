"""Motion latents from landmarks: rigid head pose, and a code of the expression.

The codec is our stand-in for the paper's LIA/FLOAT auto-encoder (§3.1), whose weights cannot be
distributed: z = identity + motion there, and here too, because the person's own neutral face is removed
before the expression is coded.

    landmarks ── fit of a canonical face ──► rotation (3), translation (3)
                        └─► face in canonical space − own neutral ── codec ──► expression code (E)

The codec (`stages.face.codec`) is fitted over every fifth frame of the corpus, in one pass.
Trade-off: a linear code of 478 points sees no gaze detail beyond the irises, no tongue, no skin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from pydantic import SkipValidation

from visavis.schemas.config import MotionConfig
from visavis.schemas.dyads import Codec, CodecKind, CodecStatistics, Encoded, Motion
from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.face_rows import BLENDSHAPES, LANDMARKS, FaceTracks
from visavis.schemas.rows import Binding, Row
from visavis.schemas.section import Section
from visavis.stages.base import Stage
from visavis.stages.bind import seen_by_piece
from visavis.stages.face.camera import Filmed
from visavis.stages.face.codec import encode_linear, merge_statistics, no_statistics, statistics_of
from visavis.stages.face.heads import POSE_DIMS, Heads

_FIT_STEP = 5  # frames
_SOON = 3  # frames; after a longer loss a head may have come back to its place by chance
_SAME_PLACE = 0.03  # face widths, or logarithm of the size: real heads move by up to 0.018 from frame to frame
_NEUTRAL_FRAMES = 3000  # two minutes; 34 MB


class Neutral:
    """A person's own neutral face and code: the median of all frames, or of evenly spaced ones where there are many.

    An hour has 90,000 frames, and those within a second hardly differ. Which are taken follows from their numbers,
    so neither order nor pieces matter.
    """

    def __init__(self) -> None:
        self._step = 1
        self._seen: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def add(self, where_V: np.ndarray, faces_VL3: np.ndarray, codes_VG: np.ndarray) -> None:
        for n, face_L3, code_G in zip(where_V.tolist(), faces_VL3, codes_VG, strict=True):
            if n % self._step == 0:
                self._seen[n] = face_L3.copy(), code_G.copy()
        while len(self._seen) > _NEUTRAL_FRAMES:
            self._step *= 2
            self._seen = {n: seen for n, seen in self._seen.items() if n % self._step == 0}

    def face(self) -> np.ndarray:
        """[478, 3] float64, cm."""
        median: np.ndarray = np.median(np.stack([face_L3 for face_L3, _ in self._seen.values()]), axis=0)
        return median

    def code(self) -> np.ndarray:
        """[G] float64."""
        median: np.ndarray = np.median(np.stack([code_G for _, code_G in self._seen.values()]), axis=0)
        return median


class _Part(NamedTuple):
    """A person in a piece: landmarks in pixels, and what the face model or the network said of them."""

    where_V: np.ndarray
    landmarks_VL3: np.ndarray
    given_VG: np.ndarray
    row: FaceTracks


def _parts(
    kind: CodecKind, binding: Binding, faces: Sequence[FaceTracks], encoded: Sequence[Encoded], participant: int
) -> Iterator[_Part]:
    """A participant piece by piece; nothing is kept."""
    for seen in seen_by_piece(binding, faces, participant):
        given = np.zeros((len(seen.where_V), 0))
        if kind == "blendshapes":
            given = seen.blendshapes().astype(np.float64)
        elif kind == "network":
            person = encoded[seen.piece].people[participant]
            if not np.array_equal(person.where, seen.where_V):
                raise ValueError(f"the network did not see piece {seen.piece} of {binding.conversation}")
            given = person.code.astype(np.float64)
        yield _Part(seen.where_V, seen.landmarks(), given, seen.row)


class FitInput(Row):
    """A chunk of conversations: their bindings, and in the same order the pieces of each by (media, first frame).

    The faces are read piece by piece, twice for each person, and none is kept. encoded: as the faces, for a network.
    """

    bindings: tuple[Binding, ...]
    faces: SkipValidation[Sequence[FaceTracks]]
    encoded: SkipValidation[Sequence[Encoded]] = ()


class FitStage(Stage[FitInput, CodecStatistics]):
    """Exact sufficient statistics of the expression over a chunk of conversations."""

    name = "fit"
    version = 4
    config: MotionConfig

    def process(self, item: FitInput) -> Iterator[CodecStatistics]:
        total = no_statistics(BLENDSHAPES if self.config.kind == "blendshapes" else 0)
        for binding, faces, encoded in _by_conversation(item):
            for participant in (0, 1):
                for given, features in self._expressions(binding, faces, encoded, participant):
                    total = merge_statistics([total, statistics_of(given, features)])
        yield total

    def _expressions(
        self, binding: Binding, faces: Sequence[FaceTracks], encoded: Sequence[Encoded], participant: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """A participant's given code [V, G] and features [V, K] without their neutral, piece by piece."""
        heads, neutral = [], Neutral()
        for part in self._sparse(binding, faces, encoded, participant):
            heads.append(Heads.of(part.landmarks_VL3))
            neutral.add(part.where_V, heads[-1].faces(part.landmarks_VL3), part.given_VG)
        if not heads:
            return
        face, code = neutral.face(), neutral.code()
        for part, head in zip(self._sparse(binding, faces, encoded, participant), heads, strict=True):
            yield part.given_VG - code, (head.faces(part.landmarks_VL3) - face).reshape(len(part.where_V), -1)

    def _sparse(
        self, binding: Binding, faces: Sequence[FaceTracks], encoded: Sequence[Encoded], participant: int
    ) -> Iterator[_Part]:
        """Every `_FIT_STEP`th frame of the grid: those between hardly differ, and a codec needs few of them."""
        for part in _parts(self.config.kind, binding, faces, encoded, participant):
            taken = part.where_V % _FIT_STEP == 0
            if taken.any():
                yield _Part(part.where_V[taken], part.landmarks_VL3[taken], part.given_VG[taken], part.row)


def _by_conversation(item: FitInput) -> Iterator[tuple[Binding, Sequence[FaceTracks], Sequence[Encoded]]]:
    stop = 0
    for binding in item.bindings:
        start, stop = stop, stop + 1 + max(s.piece for p in binding.participants for s in p.segments)
        while stop < len(item.faces) and item.faces[stop].piece.conversation == binding.conversation:
            stop += 1  # pieces in which neither is seen
        yield binding, item.faces[start:stop], item.encoded[start:stop]


class MotionInput(Row):
    """One participant of a bound conversation, and the codec.

    faces: all pieces by (media, first frame). They are read one at a time, and none is kept. encoded: as the faces,
    for a network.
    """

    codec: Codec
    binding: Binding
    faces: SkipValidation[Sequence[FaceTracks]]
    encoded: SkipValidation[Sequence[Encoded]] = ()
    participant: int


class MotionStage(Stage[MotionInput, Motion]):
    """Landmarks of one participant to motion latents on the conversation's grid.

    What the camera does is not the head's: its motion within a shot is taken away, and place and size are relative to
    the shot.
    """

    name = "motion"
    version = 5

    def __init__(self, config: Section | None = None) -> None:
        super().__init__(config or Section())  # everything that shapes the output is in the codec

    def process(self, item: MotionInput) -> Iterator[Motion]:
        codec, frames = item.codec, item.faces[-1].piece.last
        motion = np.full((frames, POSE_DIMS + len(codec.basis)), np.nan)
        valid = np.zeros(frames, np.bool_)
        heads, neutral, filmed = [], Neutral(), Filmed.of(frames)
        for where, landmarks, given, row in _parts(
            codec.kind, item.binding, item.faces, item.encoded, item.participant
        ):
            filmed.add(row)
            heads.append(Heads.of(landmarks))
            face = heads[-1].faces(landmarks)
            neutral.add(where, face, given)
            motion[where, POSE_DIMS:] = encode_linear(codec, given, face.reshape(len(face), -1) - codec.mean)
            valid[where] = True
        if not heads:
            raise Rejected(Reason.FACE_NOT_VISIBLE, item.binding.participants[item.participant].name)
        where_V = np.flatnonzero(valid)
        steady = Heads.joined(heads).steadied(filmed.path(row.width, row.height)[where_V])
        motion[valid, :POSE_DIMS] = steady.pose(_lasting(filmed.shots(where_V), where_V, steady))
        # The code is linear, so the neutral, which is known only now, can be taken away afterwards.
        own_face, own_code = neutral.face(), neutral.code()
        motion[:, POSE_DIMS:] -= encode_linear(codec, own_code[None], own_face.reshape(1, LANDMARKS * 3))
        motion = _fill_gaps(motion, valid).astype(np.float32)
        yield Motion(
            conversation=item.binding.conversation,
            participant=item.participant,
            codec=codec.id,
            motion=motion,
            valid=valid,
            reference=motion[valid][_most_typical(motion[valid])],
            neutral=own_face.astype(np.float32),
            neutral_code=own_code.astype(np.float32),
            cuts=tuple(sorted({cut for cut in filmed.cuts if 0 < cut < frames})),
        )


def _lasting(shot_V: np.ndarray, where_V: np.ndarray, heads: Heads) -> np.ndarray:
    """The shots, less cuts that leave this head where it was: of the other half of a split screen, or none at all."""
    moved_V = np.ones(len(shot_V), np.bool_)
    near_V = np.diff(where_V) <= _SOON
    moved_V[1:] = (np.diff(shot_V) > 0) & ~(near_V & (heads.steps() < _SAME_PLACE))
    return np.cumsum(moved_V)


def _fill_gaps(motion_TD: np.ndarray, valid_T: np.ndarray) -> np.ndarray:
    """Invalid frames get a straight line between their valid neighbours, so that arrays stay finite."""
    frames, seen = np.arange(len(valid_T)), np.flatnonzero(valid_T)
    return np.stack([np.interp(frames, seen, column[seen]) for column in motion_TD.T], axis=1)


def _most_typical(motion_TD: np.ndarray) -> int:
    """The frame nearest to the person's median pose and expression."""
    spread = motion_TD.std(0) + 1e-6
    return int((((motion_TD - np.median(motion_TD, 0)) / spread) ** 2).sum(1).argmin())
