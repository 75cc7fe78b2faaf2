"""Rows of an import: conversations of a public corpus, whose motion and voices are there already.

T frames of the 25 fps grid, D motion dimensions.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import model_validator

from visavis.schemas.names import CodecId, ItemId, Text
from visavis.schemas.rows import Array, Row

CorpusLayout = Literal["dualtalk", "unils", "seamless", "solo", "vico"]


class RecordedPerson(Row):
    """One side of a conversation. motion, sound: addresses, empty where there is no such file.

    key: of the record in a database that has both. silent: the corpus recorded no voice of this person, so there is
    silence, and its motion is on the clock of the other one's sound.
    """

    name: Text
    motion: str = ""
    sound: str = ""
    key: str = ""
    silent: bool = False


class Recorded(Row):
    """A conversation as it lies on disk. split: as its corpus says, empty where it does not. stamps: as `Source`'s.

    people: two, or one of a solo clip. amiss: why it cannot be read, where its listing shows that; empty where not.
    """

    id: ItemId
    layout: CorpusLayout
    name: Text
    split: str
    people: tuple[RecordedPerson, ...]
    stamps: tuple[str, ...] = ()
    amiss: Text = ""


class Recording(Row):
    """What was read of it, on one grid. A person of whom there is no motion is valid in no frame.

    motion_TD: float32, finite. valid_T: bool. speech: uint8 [T], bit i: person i speaks, as the corpus says; None where
    it does not. heard: whether each has a voice. differ: seconds by which motion and voices differ in length; the
    grid ends with the shortest motion.
    """

    conversation: ItemId
    participants: tuple[Text, Text]
    codec: CodecId
    motion: tuple[Array, Array]
    valid: tuple[Array, Array]
    heard: tuple[bool, bool]
    differ: float
    speech: Array | None = None

    @model_validator(mode="after")
    def _fits(self) -> Recording:
        frames = len(self.valid[0])
        for motion, valid in zip(self.motion, self.valid, strict=True):
            if valid.shape != (frames,) or valid.dtype != np.bool_ or motion.shape[:1] != (frames,):
                raise ValueError("motion and valid of different lengths")
        return self

    @property
    def frames(self) -> int:
        return len(self.valid[0])


class RecordingFacts(Row):
    """What the plan and the summary need to know of a recording. missing: how many people have no motion."""

    frames: int
    differ: float
    missing: int
