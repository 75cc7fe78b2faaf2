"""Filmprint: how the pictures of a conversation change, in so few numbers that each can be held against all others.

It is made of what was drawn of the pictures when faces were looked for, so nothing is decoded for it. Whether another
conversation shows the same is seen when all are known (`pipeline.plan.copies`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
from pydantic import SkipValidation

from visavis.schemas import FPS
from visavis.schemas.face_rows import FaceTracks
from visavis.schemas.print_rows import Filmprint
from visavis.schemas.rows import Row
from visavis.schemas.section import Section
from visavis.schemas.untrusted import bounded
from visavis.stages.base import Stage
from visavis.stages.duplicates.pictures import picture_landmarks, together
from visavis.stages.media.coarse import STROKES

_LONGEST = 48 * 3600 * FPS  # frames; `ingest.max_hours` is less


class FilmprintInput(Row):
    """Pieces of one conversation, in any order."""

    faces: SkipValidation[Sequence[FaceTracks]]


class FilmprintStage(Stage[FilmprintInput, Filmprint]):
    """What is seen in each of a conversation's films → its landmarks, of all films together; none of pieces that were
    tracked before pictures were drawn."""

    name: ClassVar[str] = "filmprint"
    version: ClassVar[int] = 1

    def __init__(self, config: Section | None = None) -> None:
        super().__init__(config or Section())

    def process(self, item: FilmprintInput) -> Iterator[Filmprint]:
        films = dict[int, list[tuple[int, np.ndarray]]]()
        cuts = dict[int, list[int]]()
        for faces in item.faces:
            piece = faces.piece
            if faces.coarse is not None:
                if faces.coarse.shape != (piece.last - piece.first, STROKES):
                    raise ValueError(f"{faces.coarse.shape} strokes of {piece.last - piece.first} pictures")
                films.setdefault(piece.media, []).append((piece.first, faces.coarse))
                cuts.setdefault(piece.media, []).extend(faces.cuts)
        found = together(picture_landmarks(_whole(pieces), cuts[media]) for media, pieces in sorted(films.items()))
        yield Filmprint(
            conversation=item.faces[0].piece.conversation,
            hashes=found.hash_M,
            frames=found.frame_M,
            pictures=sum(len(coarse_TK) for pieces in films.values() for _, coarse_TK in pieces),
        )


def _whole(pieces: list[tuple[int, np.ndarray]]) -> np.ndarray:
    """Strokes of a film from its first frame on; a stretch that nobody drew stands still."""
    last = max(first + len(coarse_TK) for first, coarse_TK in pieces)
    bounded(last, _LONGEST, "pictures of a film")
    whole_TK = np.zeros((last, STROKES), np.float16)
    for first, coarse_TK in pieces:
        whole_TK[first : first + len(coarse_TK)] = coarse_TK
    return whole_TK
