"""Rows by which conversations or people are known again: hashes of sound and pictures, embeddings of voices and faces.

Shape suffixes: N conversations, E embedding.
"""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from visavis.schemas.names import ItemId
from visavis.schemas.row import Array, Row


class Soundprint(Row):
    """Hashes of groups of spectral peaks and the frames of 20 ms in which they begin: uint32 and int32 [M], by time."""

    conversation: ItemId
    hashes: Array
    frames: Array


class Filmprint(Row):
    """Hashes of groups of changes of the pictures, and when they begin: as `Soundprint`. pictures: of how many."""

    conversation: ItemId
    hashes: Array
    frames: Array
    pictures: int


def _check_prints(prints: np.ndarray, ndim: int) -> None:
    """Unit vectors or zeros: float16 [2, E], or [N, 2, E]."""
    if prints.dtype != np.float16 or prints.ndim != ndim or prints.shape[-2] != 2:
        raise ValueError(f"prints is {prints.dtype} {prints.shape}, expected float16 of two people")
    if not np.isfinite(prints).all() or (np.abs(prints) > 1).any():
        raise ValueError("prints are no unit vectors")


class Voiceprints(Row):
    """What both participants sound like. Biometric data: it stays in a run's folder.

    prints_PE: float16, unit embeddings of a speaker encoder, zeros of who is hardly heard. seconds: of speech heard.
    """

    conversation: str
    prints: Array
    seconds: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _check_prints(self.prints, 2)
        return self


_Cosine = Annotated[float, Field(ge=-1.001, le=1.001)]


class Faceprints(Row):
    """What both participants look like. Biometric data: it stays in a run's folder.

    prints_PE: float16, unit embeddings of a face recognition network, zeros of who is hardly seen well. pictures: of
    which each is the mean. agreement: cosine of what their first and second half give; None where there are too few.
    """

    conversation: str
    prints: Array
    pictures: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]
    agreement: tuple[_Cosine | None, _Cosine | None]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _check_prints(self.prints, 2)
        return self


class Prints(Row):
    """Of one kind, of some conversations. prints: float16 [N, 2, E]. weight: float32 [N, 2], seconds or pictures.

    agreement: float32 [N, 2], as `Faceprints`, NaN where there is none; None of voices.
    """

    prints: Array
    weight: Array
    agreement: Array | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _check_prints(self.prints, 3)
        return self


class Crowd(Row):
    """The prints of some conversations [N], of whichever kinds there are."""

    conversations: tuple[ItemId, ...]
    voices: Prints | None = None
    faces: Prints | None = None
