"""Rows of the second half of the pipeline: motion, and the windows that a conversation offers for training.

As in `schemas.rows`: T frames of the 25 fps grid, L landmarks, D motion dimensions. G numbers of a given code, K of the
landmark features, E of the expression code.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from visavis.schemas.face_rows import LANDMARKS, Figures
from visavis.schemas.labels import EventKind
from visavis.schemas.names import CodecId, ItemId, Text
from visavis.schemas.rows import Array, Head, Layout, Row

NO_EVENTS = np.zeros((0, 4), np.int32)
_Windows = Annotated[int, Field(ge=0, lt=2**32)]


def _check(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    """Artifacts and datasets may come from others: what decodes motion is multiplied without another look."""
    if array.dtype != np.float32 or array.shape != shape:
        raise ValueError(f"{name} is {array.dtype} {array.shape}, expected float32 {shape}")


CodecKind = Literal["landmark-pca", "blendshapes", "network"]


class FaceCodes(Row):
    """What a network makes of one participant in a piece: code_VG float32, at frames where_V int64 of the grid."""

    where: Array
    code: Array


class Encoded(Row):
    """What a network makes of both participants in one piece of video."""

    conversation: str
    people: tuple[FaceCodes, FaceCodes]


class CodecStatistics(Row):
    """Sufficient statistics of a codec over a chunk of participants, exact: integers, so order cannot matter.

    Of vectors of G + K numbers, the given code and the landmark features, both quantised: sum_N int64 and outer_NN
    int64 (sums of products), over `frames` frames.
    """

    given: int
    frames: int
    sum: Array
    outer: Array


class Codec(Row):
    """A motion codec: rigid pose (6), and a code of the expression with features = code · basis + mean.

    The first `given` numbers of the code come from the face model or a network, without the person's own neutral; the
    others are principal components of what those leave over. mean_K: float32; basis_EK: float32, the rows behind
    `given` orthonormal. network: digest of the encoder. `id` names its content.
    """

    id: CodecId
    kind: CodecKind
    given: int = Field(ge=0)
    network: str
    mean: Array
    basis: Array
    explained: float  # share of the landmarks' variance that the code keeps

    @model_validator(mode="after")
    def _fits(self) -> Self:
        size = LANDMARKS * 3
        _check("mean", self.mean, (size,))
        _check("basis", self.basis, (len(self.basis) if self.basis.ndim else 0, size))
        if self.given > len(self.basis) or not (np.isfinite(self.mean).all() and np.isfinite(self.basis).all()):
            raise ValueError("no linear map of finite numbers")
        return self


class Motion(Row):
    """One participant's motion latents.

    motion_TD: float32, columns: pitch, yaw, roll (rad), translation (3, face widths, against the median in the shot),
    expression code. cuts: frames at which a new shot of the participant's video begins.
    valid_T: bool. reference_D: float32, the person's most neutral valid frame. neutral_L3: float32, the
    person's own neutral face in canonical space; with it a decoded motion can be drawn. neutral_G: float32, the
    person's own median of the codec's given code: added to the first G numbers of the expression code, it gives
    blendshape scores, or what the network said.
    """

    conversation: str
    participant: int
    codec: str
    motion: Array
    valid: Array
    reference: Array
    neutral: Array
    neutral_code: Array
    cuts: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _check("neutral", self.neutral, (LANDMARKS, 3))
        _check("motion", self.motion, (len(self.valid) if self.valid.ndim else 0, self.reference.size))
        return self


class WindowClass(StrEnum):
    """What a window mostly shows, seen from the avatar."""

    SPEAKING = "speaking"
    LISTENING = "listening"
    OVERLAP = "overlap"
    SILENCE = "silence"


class Window(Row):
    """A fixed-length training sample: frames [first, first + length) with participant `avatar` (0 or 1) generated."""

    key: str
    avatar: int
    first: int
    length: int
    label: WindowClass
    expressiveness: float  # how much the avatar's face and head move, in units of the corpus codec


class Dyad(Row):
    """A conversation ready to be cut: both people's motion, and the windows worth training on. See `Voices` for sound.

    state_T: uint8, bit i = participant i has a turn, bit 2 + i = participant i makes a back-channel.
    figures: None, neutral and neutral_code: empty, where motion was given as coefficients and nobody saw a face.
    moments: per participant, over its valid frames: count, then sums (D) and sums of squares (D) of the motion.
    They are plain values, as the windows are, so that a `DyadHead` has them.
    events_E4: int32, what happens (`training.labels.Happened`): kind, person, first frame, first frame after it. told:
    kinds that could be told; empty where nobody looked. blinks_min: blinks a minute, of each participant.
    """

    conversation: str
    participants: tuple[str, str]
    layout: Layout
    codec: str
    scores: tuple[float, float]
    figures: tuple[Figures | None, Figures | None]
    motion: tuple[Array, Array]
    valid: tuple[Array, Array]
    reference: tuple[Array, Array]
    neutral: tuple[Array, Array]
    neutral_code: tuple[Array, Array]
    state: Array
    windows: tuple[Window, ...]
    moments: tuple[tuple[float, ...], tuple[float, ...]]
    events: Array = NO_EVENTS
    told: tuple[EventKind, ...] = ()
    blinks_min: tuple[float | None, float | None] = (None, None)


class NeutralFaces(Row):
    """What decodes a conversation's motion, beside the codec: each participant's `neutral` and `neutral_code`, as in
    `Motion`. Lies beside the shards that have windows of the conversation."""

    conversation: ItemId
    participants: tuple[Text, Text]
    neutral: tuple[Array, Array]
    neutral_code: tuple[Array, Array]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for each in self.neutral:
            _check("neutral", each, (LANDMARKS, 3))
        return self


class DyadHead(Head):
    """What the corpus' plan needs to know of a dyad."""

    whole = Dyad

    windows: tuple[Window, ...]
    moments: tuple[tuple[float, ...], tuple[float, ...]]


class DyadFacts(Row):
    """What the ledger keeps of a dyad. windows: how many there are, in the order of `WindowClass`."""

    participants: tuple[Text, Text]
    windows: tuple[_Windows, _Windows, _Windows, _Windows]


class Census(Row):
    """What there is in (a part of) the training split.

    counts_CB: int64, windows by class (in the order of `WindowClass`) and expressiveness (`stages.balance.histogram`).
    moments: float64 (1 + 2 D,), frames and the sums and sums of squares of their motion.
    """

    counts: Array
    moments: Array
