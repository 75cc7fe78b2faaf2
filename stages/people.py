"""The voiceprints of some conversations, gathered: 800 bytes each, so that the driver opens a file for hundreds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from visavis.schemas.rows import Crowd, Row, Voiceprints
from visavis.stages.base import Stage


class PeopleInput(Row):
    """Part of the corpus."""

    voiceprints: tuple[Voiceprints, ...]


class PeopleStage(Stage[PeopleInput, Crowd]):
    """Some conversations' voiceprints as one."""

    name = "people"
    version = 1

    def process(self, item: PeopleInput) -> Iterator[Crowd]:
        """One row."""
        yield Crowd(
            conversations=tuple(each.conversation for each in item.voiceprints),
            prints=np.stack([each.prints for each in item.voiceprints]),
            seconds=np.array([each.seconds for each in item.voiceprints], np.float32),
        )
