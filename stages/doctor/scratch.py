"""Sums by conversation and by person, in a temporary database: what is held does not grow with the corpus."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from visavis.schemas.face_rows import Figures
from visavis.stages.doctor.excerpt import Sums, added

_CACHE_KIB = 65_536
SAMPLE = 20_000
"""Conversations by which is told what is usual."""


class About(BaseModel):
    """What is known of a conversation beside its sums. people: empty where nobody names them."""

    model_config = ConfigDict(frozen=True)

    name: str
    people: tuple[str, str]
    split: str = ""
    figures: tuple[Figures | None, Figures | None] = (None, None)


class Person(NamedTuple):
    name: str
    frames: int
    conversations: int
    splits: str


class Scratch:
    """A database without a name lies in a file that is gone when it is closed, and is cached up to 64 MB."""

    def __init__(self) -> None:
        self._base = sqlite3.connect("")
        self._base.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._base.execute("CREATE TABLE talks (id TEXT PRIMARY KEY, about TEXT, sums BLOB)")
        self._base.execute("CREATE TABLE people (name TEXT PRIMARY KEY, frames INTEGER, talks INTEGER, splits TEXT)")
        self._base.execute("CREATE TABLE ends (id TEXT PRIMARY KEY, frames INTEGER)")
        self._base.execute("CREATE TABLE splits (id TEXT PRIMARY KEY, split TEXT)")
        self._base.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY)")
        self._shapes: dict[str, tuple[int, ...]] = {}

    def reaches(self, id_: str, frames: int) -> None:
        """A conversation has so many frames, or more."""
        self._base.execute(
            "INSERT INTO ends VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET frames = max(frames, excluded.frames)",
            (id_, frames),
        )

    def length(self, id_: str) -> int:
        found = self._base.execute("SELECT frames FROM ends WHERE id = ?", (id_,)).fetchone()
        return int(found[0]) if found else 0

    def put_split(self, id_: str, split: str) -> None:
        """A conversation is in a split; it may be in two."""
        self._base.execute(
            "INSERT INTO splits VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET split = CASE WHEN"
            " instr(split, excluded.split) THEN split ELSE split || ' ' || excluded.split END",
            (id_, split),
        )

    def split(self, id_: str) -> str:
        found = self._base.execute("SELECT split FROM splits WHERE id = ?", (id_,)).fetchone()
        return str(found[0]) if found else ""

    def add(self, id_: str, about: About, sums: Sums) -> None:
        """Sums of a stretch of a conversation, and who takes part."""
        self._shapes = self._shapes or {name: np.shape(value) for name, value in sums.items()}
        before = self._base.execute("SELECT sums FROM talks WHERE id = ?", (id_,)).fetchone()
        whole = added(self._unpacked(before[0]), sums) if before else sums
        self._base.execute(
            "INSERT OR REPLACE INTO talks VALUES (?, ?, ?)", (id_, about.model_dump_json(), _packed(whole))
        )
        frames = int(sums["sound.frames"])
        for name in filter(None, about.people):
            self._base.execute(
                "INSERT INTO people VALUES (?, ?, 1, ?) ON CONFLICT (name) DO UPDATE SET"
                " frames = frames + excluded.frames, talks = talks + ?,"
                " splits = CASE WHEN instr(splits, excluded.splits) THEN splits"
                " ELSE splits || ' ' || excluded.splits END",
                (name, frames, about.split, 0 if before else 1),
            )

    def about(self, id_: str) -> About | None:
        """What is known of a conversation that was measured."""
        found = self._base.execute("SELECT about FROM talks WHERE id = ?", (id_,)).fetchone()
        return About.model_validate_json(found[0]) if found else None

    def forget(self, id_: str) -> None:
        """A conversation that could not be read to its end; what its people did until then stays counted."""
        self._base.execute("DELETE FROM talks WHERE id = ?", (id_,))

    def is_new(self, digest: bytes) -> bool:
        """Whether this is asked for the first time."""
        return self._base.execute("INSERT OR IGNORE INTO seen VALUES (?)", (digest,)).rowcount > 0

    def __len__(self) -> int:
        return int(self._base.execute("SELECT count(*) FROM talks").fetchone()[0])

    def talks(self, most: int = -1) -> Iterator[tuple[str, About, Sums]]:
        """In the order of their ids, which are hashes."""
        for id_, about, sums in self._base.execute("SELECT * FROM talks ORDER BY id LIMIT ?", (most,)):
            yield id_, About.model_validate_json(about), self._unpacked(sums)

    def totals(self) -> tuple[int, int]:
        """How many people there are, and their frames together."""
        count, frames = self._base.execute("SELECT count(*), coalesce(sum(frames), 0) FROM people").fetchone()
        return int(count), int(frames)

    def people(self) -> Iterator[Person]:
        """Those with most frames first."""
        for row in self._base.execute("SELECT * FROM people ORDER BY frames DESC, name"):
            yield Person(*row)

    def close(self) -> None:
        self._base.close()

    def _unpacked(self, data: bytes) -> Sums:
        flat, found, at = np.frombuffer(data, np.float64), {}, 0
        for name, shape in self._shapes.items():
            size = int(np.prod(shape))
            found[name] = flat[at : at + size].reshape(shape)
            at += size
        return found


def _packed(sums: Sums) -> bytes:
    return np.concatenate([np.ravel(value) for value in sums.values()]).astype(np.float64).tobytes()
