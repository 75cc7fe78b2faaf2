"""Near-duplicates of a build: the same are left out whichever was faster, and a run that goes on asks again."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from tests.pipeline.test_twins import InAnyOrder
from tests.stages.test_duplicates import made, part
from visavis.pipeline.engine.executor import Executor
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.engine.worker import Stages
from visavis.pipeline.plan.build import Bound, Build
from visavis.pipeline.plan.run_folder import opened
from visavis.pipeline.state.ledger import Ledger
from visavis.pipeline.state.spool import Spool
from visavis.pipeline.state.tasks import Task
from visavis.schemas.artifact import dump_rows
from visavis.schemas.config import BuildConfig, RunConfig
from visavis.schemas.print_rows import Filmprint, Soundprint
from visavis.schemas.rows import Outline, Source
from visavis.schemas.storage.store import Store

WHOLE = made(0)
SOUNDS = {
    "a": WHOLE,
    "b": made(1),
    "c": part(WHOLE, 0, 58, speed=1.01),
    "d": part(WHOLE, 10, 40),
    "e": made(2),
    "f": made(5),
}
FILMS = {"a": made(3), "c": part(made(3), 0, 58, speed=1.01), "e": made(4), "f": part(made(4), 5, 60)}


class WithSound(InAnyOrder):
    """Each file is a conversation of its own, and its prints those of its name."""

    def _facts(self, task: Task) -> str:
        if task.stage == "ingest":
            digest = hashlib.sha256(task.inline["uris"][0].encode()).hexdigest()[:16]
            outline = Outline(id=digest, identity=digest, frames=900, keyframes=((0,),), early_keyframes=((),))
            return outline.model_dump_json()
        if task.stage == "soundprint":
            sound = SOUNDS[task.item.removesuffix(".mp4")]
            row = Soundprint(conversation=task.key, hashes=sound.hash_M, frames=sound.frame_M)
            (self._root / task.path).write_bytes(dump_rows([row]))
        if task.stage == "filmprint":
            film = FILMS.get(task.item.removesuffix(".mp4"), part(WHOLE, 0, 0))
            shown = Filmprint(conversation=task.key, hashes=film.hash_M, frames=film.frame_M, pictures=900)
            (self._root / task.path).write_bytes(dump_rows([shown]))
        return super()._facts(task)


def left(root: Path, names: str, draw: Any, *, min_overlap: float = 0.5) -> tuple[set[str], dict[str, str]]:
    """What goes on, and what the ledger says of each soundprint that was left out."""

    @contextmanager
    def engine(stages: Stages, where: str) -> Iterator[Executor]:
        yield WithSound(where, draw)

    config = BuildConfig.model_validate({"duplicates": {"enabled": True, "min_overlap": min_overlap}})
    build = Build(config, str(root), engine, Reporter(Console(file=io.StringIO())))
    sources = [Source(uris=(f"/corpus/{name}.mp4",), participants=(name, "")) for name in names]
    with opened(str(root), engine, {}, RunConfig(), {"config": {}}, build._reporter) as run, Spool(Bound) as bound:
        build._bind_all(run, sources, bound)
        build._leave_out_copies(run, bound)
        kept = {b.item.removesuffix(".mp4") for b in bound}
    rows = Ledger(Store(str(root))).latest().values()
    return kept, {o.item: f"{o.reason}: {o.detail}" for o in rows if o.stage == "soundprint" and o.status != "ok"}


@pytest.mark.slow
@given(st.data())
@settings(max_examples=4, deadline=None)
def test_the_same_are_left_out_whatever_came_first(data: st.DataObject) -> None:
    with TemporaryDirectory() as one, TemporaryDirectory() as other:
        first_come = left(Path(one), "abcde", lambda _: 0)
        by_chance = left(Path(other), "abcde", data.draw)
        again = left(Path(other), "abcde", lambda _: 0)
    assert by_chance == first_come == again
    assert first_come[0] == {"a", "b", "e"}
    assert first_come[1]["c.mp4"].startswith("near_duplicate: 5")
    assert "are the sound and the pictures of a.mp4, from 0.0 s on, at 1.01" in first_come[1]["c.mp4"]
    assert "from 10.0 s on, at 1.000" in first_come[1]["d.mp4"]


@pytest.mark.slow
def test_the_list_decides_which_of_two_stays_and_who_is_alone_comes_back(tmp_path: Path) -> None:
    assert left(tmp_path, "cab", lambda _: 0)[0] == {"c", "b"}
    assert left(tmp_path, "ac", lambda _: 0)[0] == {"a"}
    assert left(tmp_path, "c", lambda _: 0) == ({"c"}, {})
    assert left(tmp_path, "cdb", lambda _: 0, min_overlap=1.0)[0] == {"c", "d", "b"}


@pytest.mark.slow
def test_a_copy_with_other_sound_is_told_by_its_pictures(tmp_path: Path) -> None:
    kept, told = left(tmp_path, "bef", lambda _: 0)
    assert kept == {"b", "e"}
    assert "s are the pictures of e.mp4, from 5.0 s on" in told["f.mp4"]
