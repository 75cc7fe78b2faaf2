"""The prints of some conversations, gathered: some hundred bytes each, so that the driver opens a file for hundreds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from visavis.schemas.print_rows import Crowd, Faceprints, Prints, Voiceprints
from visavis.schemas.rows import Row
from visavis.stages.base import Stage


class PeopleInput(Row):
    """Part of the corpus; of both kinds the same conversations, where there are both."""

    voiceprints: tuple[Voiceprints, ...] = ()
    faceprints: tuple[Faceprints, ...] = ()


class PeopleStage(Stage[PeopleInput, Crowd]):
    """Some conversations' prints as one."""

    name = "people"
    version = 2

    def process(self, item: PeopleInput) -> Iterator[Crowd]:
        """One row."""
        voices, faces = item.voiceprints, item.faceprints
        yield Crowd(
            conversations=tuple(each.conversation for each in voices or faces),
            voices=_gathered([each.prints for each in voices], [each.seconds for each in voices]),
            faces=_gathered(
                [each.prints for each in faces],
                [each.pictures for each in faces],
                np.array([each.agreement for each in faces], np.float32),
            ),
        )


def _gathered(
    prints: list[np.ndarray], weight: list[tuple[float, float]], agreement_N2: np.ndarray | None = None
) -> Prints | None:
    if not prints:
        return None
    return Prints(prints=np.stack(prints), weight=np.array(weight, np.float32), agreement=agreement_N2)
