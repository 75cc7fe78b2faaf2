"""Near-duplicates of a corpus: which conversations hold the sound of another one (`stages.duplicates`)."""

from __future__ import annotations

import sqlite3

from visavis.schemas import SAMPLES_PER_FRAME
from visavis.stages.doctor.excerpt import Excerpt
from visavis.stages.doctor.findings import Findings, Item, certainty
from visavis.stages.doctor.kinds import Kind
from visavis.stages.duplicates.alignment import LEAST_VOTES
from visavis.stages.duplicates.landmarks import FRAMES_PER_SECOND, landmarks
from visavis.stages.duplicates.matches import Matches
from visavis.stages.duplicates.verdict import MIN_OVERLAP, Duplicate, near_duplicates


class Copies:
    """Landmarks of each conversation, on disk, and what it is called."""

    def __init__(self) -> None:
        self._matches = Matches()
        self._base = sqlite3.connect("")
        self._base.execute(
            "CREATE TABLE heard (number INTEGER PRIMARY KEY, id TEXT UNIQUE, name TEXT, split TEXT,"
            " first INTEGER, last INTEGER)"  # frames of landmarks; pieces overlap, so lengths do not add up
        )

    def hear(self, id_: str, name: str, excerpt: Excerpt, split: str = "") -> None:
        """A stretch of a conversation: what both people say together, as a film of it has it."""
        found = landmarks(excerpt.audio_PN.mean(axis=0), excerpt.first * SAMPLES_PER_FRAME)
        if not len(found.frame_M):
            return
        (number,) = self._base.execute(
            "INSERT INTO heard VALUES (NULL, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
            " first = min(first, excluded.first), last = max(last, excluded.last) RETURNING number",
            (id_, name, split, int(found.frame_M.min()), int(found.frame_M.max())),
        ).fetchone()
        self._matches.add(number - 1, found)

    def judge(self, findings: Findings) -> None:
        """Tell of each that is one too many."""
        spans = self._base.execute("SELECT first, last FROM heard ORDER BY number")
        seconds = [(last - first) / FRAMES_PER_SECOND for first, last in spans]
        for duplicate in near_duplicates(self._matches, seconds):
            self._tell(duplicate, findings)
        self._matches.close()
        self._base.close()

    def _tell(self, duplicate: Duplicate, findings: Findings) -> None:
        (id_, name, split), (kept, kept_name, kept_split) = map(self._about, (duplicate.number, duplicate.kept))
        said = duplicate.told(kept_name or kept)
        if split and kept_split and split != kept_split:
            said += f"; one is in {split}, the other in {kept_split}"
        votes = duplicate.alignment.votes
        sure = min(certainty(votes, LEAST_VOTES, 3 * LEAST_VOTES), certainty(duplicate.share, MIN_OVERLAP, 0.8))
        findings.put(Kind.NEAR_DUPLICATE, Item(id=id_, name=name, detail=said, certainty=sure, kept=kept))

    def _about(self, number: int) -> tuple[str, str, str]:
        found = self._base.execute("SELECT id, name, split FROM heard WHERE number = ?", (number + 1,)).fetchone()
        return str(found[0]), str(found[1]), str(found[2])
