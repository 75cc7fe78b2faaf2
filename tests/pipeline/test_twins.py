"""Listed conversations of the same content: which is built does not depend on which was faster."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from visavis.pipeline.engine.executor import Executor, InFlight
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.engine.worker import Stages, outcome_of
from visavis.pipeline.plan.build import Bound, Build
from visavis.pipeline.plan.run_folder import opened
from visavis.pipeline.state.ledger import Ledger, Outcome
from visavis.pipeline.state.spool import Spool
from visavis.pipeline.state.tasks import Task
from visavis.schemas.config import BuildConfig, RunConfig
from visavis.schemas.face_rows import CastFacts
from visavis.schemas.rows import DiarizationFacts, Outline, Source
from visavis.schemas.storage.store import Store
from visavis.schemas.voice_rows import VoicesFacts

SEEN = (1.0, 180.5, 612.3, 121.4, 0.931, 14.2, 11.8, 0.412)
GOOD = CastFacts(crowd=0.0, cuts=1.0, together=36.0, uncut=36.0, fresh=(1.0, 1.0), members=(SEEN, SEEN))
HEARD = VoicesFacts(
    level_db=(-20, -21), clipped=(0, 0), bandwidth_hz=(8000, 8000), snr_db=(30, None), residual_db=(-60, None)
)
CONTENT = {"a": "one", "b": "two", "c": "one", "d": "one", "e": "two", "f": "three"}  # of each file


class InAnyOrder:
    """Carries out tasks in an order that is drawn. What comes out depends on the task's inputs, as of any stage."""

    def __init__(self, root: str, draw: Any) -> None:
        self._root, self._draw, self._queue = Path(root), draw, list[Task]()

    def submit(self, task: Task) -> None:
        assert (task.stage, task.key) not in {(t.stage, t.key) for t in self._queue}, "twice at once"
        self._queue.append(task)

    def has_capacity(self) -> bool:
        return len(self._queue) < 4

    def wait(self, seconds: float = 1.0) -> list[Outcome]:
        task = self._queue.pop(self._draw(st.integers(0, 3)) % len(self._queue))
        output = hashlib.sha256(f"{task.stage} {task.digest()}".encode()).hexdigest()[:16]
        path = self._root / task.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(output)
        facts = self._facts(task)
        return [outcome_of(task, "ok", "", "", output=output, facts=facts, seconds=0.1, peak_mb=1.0, attempt=1)]

    def _facts(self, task: Task) -> str:
        if task.stage == "ingest":
            content = hashlib.sha256(CONTENT[Path(task.inline["uris"][0]).stem].encode()).hexdigest()[:16]
            # Who takes part is what the list says: twins may differ in it.
            return Outline(
                id=content,
                identity=hashlib.sha256(str(task.inline["participants"]).encode()).hexdigest()[:16],
                frames=900,
                keyframes=((0,),),
                early_keyframes=((),),
            ).model_dump_json()
        facts: Mapping[str, str] = {
            "diarize": DiarizationFacts(speakers=2).model_dump_json(),
            "cast": GOOD.model_dump_json(),
            "separate": HEARD.model_dump_json(),
        }
        return facts.get(task.stage, "")

    def in_flight(self) -> list[InFlight]:
        return []

    def waiting(self) -> str:
        return ""


def built(root: Path, sources: list[Source], draw: Any) -> tuple[dict[str, Bound], dict[str, str]]:
    """What is bound, by id, and what the ledger says of each listed file."""

    @contextmanager
    def engine(stages: Stages, where: str) -> Iterator[Executor]:
        yield InAnyOrder(where, draw)

    build = Build(BuildConfig(), str(root), engine, Reporter(Console(file=io.StringIO())))
    with opened(str(root), engine, {}, RunConfig(), {"config": {}}, build._reporter) as run, Spool(Bound) as bound:
        build._bind_all(run, sources, bound)
        found = list(bound)
    assert len({b.id for b in found}) == len(found)
    said = {o.item: f"{o.status} {o.detail}" for o in Ledger(Store(str(root))).latest().values() if o.stage == "ingest"}
    return {b.id: b for b in found}, said


@pytest.mark.slow
@given(st.data())
@settings(max_examples=20)
def test_the_first_listed_of_twins_is_built_whatever_came_first(data: st.DataObject) -> None:
    names = data.draw(st.permutations(sorted(CONTENT)))
    who = {name: data.draw(st.sampled_from(["", "anna"])) for name in names}
    sources = [Source(uris=(f"/corpus/{name}.mp4",), participants=(who[name], "")) for name in names]
    with TemporaryDirectory() as one, TemporaryDirectory() as other:
        first_come = built(Path(one), sources, lambda _: 0)
        by_chance = built(Path(other), sources, data.draw)
        again = built(Path(other), sources, lambda _: 0)
    assert by_chance[0] == first_come[0] == again[0]
    for content in set(CONTENT.values()):
        winner, *losers = (name for name in names if CONTENT[name] == content)
        for _, said in (first_come, by_chance, again):
            assert said[f"{winner}.mp4"] == "ok "
            assert all(said[f"{name}.mp4"].startswith("rejected same content as") for name in losers)
