"""Near-duplicates of a corpus: which conversations hold the sound of another one (`stages.duplicates`)."""

from __future__ import annotations

import sqlite3

from visavis.schemas import SAMPLES_PER_FRAME
from visavis.stages.doctor.excerpt import Excerpt
from visavis.stages.doctor.findings import Findings, Item, certainty
from visavis.stages.doctor.kinds import Kind
from visavis.stages.doctor.scratch import Scratch
from visavis.stages.duplicates.alignment import LEAST_VOTES
from visavis.stages.duplicates.landmarks import FRAMES_PER_SECOND, landmarks
from visavis.stages.duplicates.matches import Matches
from visavis.stages.duplicates.verdict import MIN_OVERLAP, Duplicate, Prints, near_duplicates


class Copies:
    """Landmarks of each conversation, on disk."""

    def __init__(self) -> None:
        self._matches = Matches()
        self._base = sqlite3.connect("")
        self._base.execute(
            "CREATE TABLE heard (number INTEGER PRIMARY KEY, id TEXT UNIQUE,"
            " first INTEGER, last INTEGER)"  # frames of landmarks; pieces overlap, so lengths do not add up
        )

    def hear(self, id_: str, excerpt: Excerpt) -> None:
        """A stretch of a conversation: what both people say together, as a film of it has it."""
        found = landmarks(excerpt.audio_PN.mean(axis=0), excerpt.first * SAMPLES_PER_FRAME)
        if not len(found.frame_M):
            return
        (number,) = self._base.execute(
            "INSERT INTO heard VALUES (NULL, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
            " first = min(first, excluded.first), last = max(last, excluded.last) RETURNING number",
            (id_, int(found.frame_M.min()), int(found.frame_M.max())),
        ).fetchone()
        self._matches.add(number - 1, found)

    def judge(self, scratch: Scratch, findings: Findings) -> None:
        """Tell of each that is one too many. scratch: what they are called, and in which split; who is not there, could
        not be read."""
        spans = self._base.execute("SELECT first, last FROM heard ORDER BY number")
        seconds = [(last - first) / FRAMES_PER_SECOND for first, last in spans]
        for duplicate in near_duplicates([Prints("the sound", self._matches, seconds)]):
            self._tell(duplicate, scratch, findings)
        self._matches.close()
        self._base.close()

    def _tell(self, duplicate: Duplicate, scratch: Scratch, findings: Findings) -> None:
        id_, kept = self._id(duplicate.number), self._id(duplicate.kept)
        one, other = scratch.about(id_), scratch.about(kept)
        if not one or not other:
            return
        said = duplicate.told(other.name or kept)
        if one.split and other.split and one.split != other.split:
            said += f"; one is in {one.split}, the other in {other.split}"
        votes = duplicate.alignment.votes
        sure = min(certainty(votes, LEAST_VOTES, 3 * LEAST_VOTES), certainty(duplicate.share, MIN_OVERLAP, 0.8))
        findings.put(Kind.NEAR_DUPLICATE, Item(id=id_, name=one.name, detail=said, certainty=sure, kept=kept))

    def _id(self, number: int) -> str:
        return str(self._base.execute("SELECT id FROM heard WHERE number = ?", (number + 1,)).fetchone()[0])
