"""A run that goes on where another one was left: what is new has workers at once, what is done is settled beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from benchmarks.plan import QUIET, Stopped, StubExecutor, write_list
from visavis.pipeline.plan.build import Build
from visavis.pipeline.plan.sources import find_sources
from visavis.pipeline.state.index import ItemIndex
from visavis.pipeline.state.ledger import Ledger
from visavis.pipeline.state.tasks import Task
from visavis.schemas.config import BuildConfig
from visavis.schemas.storage.store import Store

STAGES = 6


class Executor(StubExecutor):
    """Remembers what it was asked for. room: tasks that it takes before it has enough."""

    def __init__(self, root: str, stop_after: int, room: int = 64) -> None:
        super().__init__(root, stop_after)
        self.asked: list[tuple[str, str]] = []
        self._room = room

    def submit(self, task: Task) -> None:
        if task.stage != "fit":  # what follows the conversations
            self.asked.append((task.stage, task.item))
        super().submit(task)

    def has_capacity(self) -> bool:
        return len(self._queue) < self._room


def run(folder: Path, stop_after: int, **changes: Any) -> Executor:
    executor = Executor(str(folder / "run"), stop_after)
    build = Build(BuildConfig(**changes), str(folder / "run"), lambda *_: nullcontext(executor), QUIET)
    with suppress(Stopped):
        build.run(find_sources([str(folder / "corpus.parquet")]), reconfigure=True)
    return executor


def rows(folder: Path) -> int:
    return sum(table.num_rows for table in Ledger(Store(str(folder / "run"))).tables(["uid"]))


@pytest.mark.slow
def test_what_nothing_is_known_of_is_begun_first_and_nothing_is_done_twice(tmp_path: Path) -> None:
    write_list(tmp_path, 300)
    first = run(tmp_path, 150)
    resumed = run(tmp_path, 10**9)
    assert resumed.asked[0][0] == "ingest"
    assert resumed.asked[0] not in first.asked
    assert rows(tmp_path) == 300 * STAGES
    assert len(set(resumed.asked)) == len(resumed.asked)
    assert run(tmp_path, 10**9).asked == []


def test_a_list_that_was_turned_round_loses_and_doubles_nothing(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    write_list(tmp_path, 200)
    run(tmp_path, 100)
    table = pq.read_table(tmp_path / "corpus.parquet")
    pq.write_table(table.take(list(range(199, -1, -1))), tmp_path / "corpus.parquet")
    resumed = run(tmp_path, 10**9)
    assert rows(tmp_path) == 200 * STAGES
    assert len(set(resumed.asked)) == len(resumed.asked)


@pytest.mark.slow
def test_a_file_that_is_listed_twice_is_the_same_duplicate_in_a_resumed_run(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def outcomes(folder: Path) -> set[tuple[str, str, str]]:
        outcomes = Ledger(Store(str(folder / "run"))).latest().values()
        return {(o.stage, o.key, o.status) for o in outcomes}

    for name, stops in (("once", [10**9]), ("resumed", [20, 10**9]), ("often", [10, 30, 10**9])):
        folder = tmp_path / name
        folder.mkdir()
        write_list(folder, 60)
        table = pq.read_table(folder / "corpus.parquet")
        pq.write_table(pa.concat_tables([table, table.slice(5, 40)]), folder / "corpus.parquet")
        for stop in stops:
            run(folder, stop)
    assert outcomes(tmp_path / "once") == outcomes(tmp_path / "resumed") == outcomes(tmp_path / "often")


@pytest.mark.slow
def test_new_items_do_not_wait_for_the_listing_of_what_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_list(tmp_path, 200)
    run(tmp_path, 20)
    asked: list[bool] = []

    def names(store: Store, folder: str) -> Iterator[str]:
        while folder == "artifacts" and not asked:  # the first task lets the listing go on
            yield ""
        yield from real(store, folder)

    class Waiting(Executor):
        def submit(self, task: Task) -> None:
            asked.append(True)
            super().submit(task)

    real = Store.names
    monkeypatch.setattr(Store, "names", names)

    @contextmanager
    def engine(_: Any, root: str) -> Iterator[Executor]:
        yield Waiting(root, 10**9)

    with suppress(Stopped):
        Build(BuildConfig(), str(tmp_path / "run"), engine, QUIET).run(find_sources([str(tmp_path / "corpus.parquet")]))
    monkeypatch.undo()
    assert rows(tmp_path) == 200 * STAGES


def test_a_listing_that_fails_is_told_where_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_list(tmp_path, 4)
    run(tmp_path, 4)
    store = Store(str(tmp_path / "run"))
    done = next(outcome for outcome in Ledger(store).latest().values() if outcome.stage == "ingest")
    task = Task("ingest", done.key, done.item, "", done.fingerprint)

    def names(store: Store, folder: str) -> Iterator[str]:
        if folder == "artifacts":
            raise PermissionError(13, "Permission denied", "artifacts")
        yield from real(store, folder)

    real = Store.names
    monkeypatch.setattr(Store, "names", names)
    known = ItemIndex(Ledger(store), store)
    assert known.get("ingest", "0" * 16) is None
    with pytest.raises(PermissionError):
        known.settled(task)
