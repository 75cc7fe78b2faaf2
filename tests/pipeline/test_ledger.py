"""The ledger keeps every row that counts, whatever it merges, and whenever it is killed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from visavis.pipeline.engine.worker import outcome_of
from visavis.pipeline.state import ledger as module
from visavis.pipeline.state.index import ItemIndex
from visavis.pipeline.state.ledger import FOLDER, Ledger, Outcome
from visavis.pipeline.state.tasks import Task, artifact_path
from visavis.schemas.storage.store import Store

_FOLDERS = itertools.count()


def outcome(key: str, status: str, output: str = "", facts: str = "") -> Outcome:
    return outcome_of(
        task(key), status, "" if status == "ok" else "why", "", output=output, facts=facts, seconds=1.0, peak_mb=1.0,
        attempt=1,
    )  # type: ignore[arg-type]  # fmt: skip


def task(key: str) -> Task:
    return Task("letters", key, key, artifact_path("letters", 1, "f", key), "f", inline={"text": key})


def written(folder: Path, runs: Iterable[Iterable[tuple[str, str]]]) -> Store:
    """Runs that append rows; each is closed by a flush."""
    store = Store(str(folder))
    for run in runs:
        ledger = Ledger(store)
        for key, status in run:
            ledger.append(outcome(key, status, "ab" * 8, f"facts of {key}" if status == "ok" else ""))
        ledger.flush()
    return store


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of two rows, merged in threes, so that a few dozen rows go through all that millions do."""
    monkeypatch.setattr(module, "_FLUSH_ROWS", 2)
    monkeypatch.setattr(module, "_FAN", 3)
    monkeypatch.setattr(module, "_LARGEST", 30)


rows_of_runs = st.lists(
    st.lists(st.tuples(st.sampled_from("abcdefghij"), st.sampled_from(["ok", "failed", "rejected"])), max_size=40),
    max_size=4,
)


@pytest.mark.slow
@pytest.mark.usefixtures("small_parts")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows_of_runs)
def test_the_latest_row_of_each_item_counts(tmp_path: Path, runs: list[list[tuple[str, str]]]) -> None:
    store = written(tmp_path / str(next(_FOLDERS)), runs)
    expected = {key: status for run in runs for key, status in run}
    assert {key: row.status for (_, key), row in Ledger(store).latest().items()} == expected
    known = ItemIndex(Ledger(store), store)
    outcomes = {key: known.get("letters", key) for key in "abcdefghij"}
    assert {key: v.status for key, v in outcomes.items() if v} == expected
    for key, outcome in outcomes.items():
        if outcome:
            assert outcome.output == "ab" * 8
            assert outcome.facts == (f"facts of {key}" if outcome.status == "ok" else "")
            assert outcome.inputs == task(key).digest()


@pytest.mark.slow
@pytest.mark.usefixtures("small_parts")
def test_many_rows_make_few_parts(tmp_path: Path) -> None:
    store = written(tmp_path, [[(f"k{n}", "ok") for n in range(200)]])
    assert len(store.list(FOLDER)) < 20  # of a hundred that were appended
    assert len(Ledger(store).latest()) == 200


@pytest.mark.usefixtures("small_parts")
def test_a_merge_that_was_cut_off_doubles_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Store, "delete", lambda store, path: None)  # killed before the merged parts are gone
        store = written(tmp_path, [[(f"k{n}", "ok") for n in range(12)]])
    assert len(store.list(FOLDER)) > len(list(Ledger(store).tables()))

    def keys() -> list[str]:
        return sorted(key for t in Ledger(store).tables() for key in t["key"].to_pylist())

    assert keys() == sorted(f"k{n}" for n in range(12))
    Ledger(store).tidy()
    assert len(store.list(FOLDER)) == len(list(Ledger(store).tables()))
    assert keys() == sorted(f"k{n}" for n in range(12))


@pytest.mark.usefixtures("small_parts")
def test_a_reader_beside_a_run_that_merges_misses_nothing(tmp_path: Path) -> None:
    store = written(tmp_path, [[(f"k{n}", "ok") for n in range(4)]])
    reading = Ledger(store).tables()
    tables = [next(reading)]
    written(tmp_path, [[(f"l{n}", "ok") for n in range(40)]])
    tables += list(reading)
    keys = {key for key in pa.concat_tables(tables)["key"].to_pylist() if key.startswith("k")}
    assert keys == {"k0", "k1", "k2", "k3"}


def statuses(store: Store) -> dict[str, str]:
    return {key: row.status for (_, key), row in Ledger(store).latest().items()}


writes = st.lists(
    st.tuples(
        st.integers(0, 2), st.sampled_from("abcdef"), st.sampled_from(["ok", "failed", "rejected"]), st.booleans()
    ),
    max_size=150,
)


@pytest.mark.slow
@pytest.mark.usefixtures("small_parts")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(writes)
def test_drivers_side_by_side_lose_no_row(tmp_path: Path, history: list[tuple[int, str, str, bool]]) -> None:
    """Three drivers append and merge in one folder at once; now and then one of them is killed and begins again."""
    store = Store(str(tmp_path / str(next(_FOLDERS))))
    drivers: dict[int, Ledger] = {}
    wrote: dict[str, set[str]] = {}
    for who, letter, status, killed in history:
        if who not in drivers or killed:
            drivers[who] = Ledger(store)
            drivers[who].tidy()
        key = f"{who}{letter}"
        drivers[who].append(outcome(key, status))
        drivers[who].flush()
        wrote.setdefault(key, set()).add(status)
    found = statuses(store)
    assert found.keys() == wrote.keys()
    assert all(status in wrote[key] for key, status in found.items())


@pytest.mark.usefixtures("small_parts")
def test_who_merges_what_another_driver_has_merged_already_loses_nothing(tmp_path: Path) -> None:
    store = written(tmp_path, [[("old", "ok")], [("older", "ok")]])
    one, other = Ledger(store), Ledger(store)
    for number in range(3):  # three of a size are merged: the two that both know, and an own one
        for who, ledger in (("one", one), ("other", other)):
            ledger.append(outcome(f"{who}{number}", "ok"))
            ledger.flush()
    assert statuses(store).keys() == {"old", "older", *(f"{who}{n}" for who in ("one", "other") for n in range(3))}
    after = Ledger(store)
    after.append(outcome("old", "failed"))
    after.flush()
    assert statuses(store)["old"] == "failed"


@pytest.mark.usefixtures("small_parts")
def test_parts_that_were_named_without_a_writer_are_read_and_merged(tmp_path: Path) -> None:
    store = written(tmp_path, [[("a", "ok"), ("b", "ok")], [("a", "failed")]])
    for path in (tmp_path / FOLDER).iterdir():
        path.rename(path.with_name(f"{path.stem.rpartition('_')[0]}.parquet"))
    assert sorted(store.list(FOLDER)) == [f"00000{n}-000000_00000{n}-000000.parquet" for n in (1, 2)]
    assert statuses(store) == {"a": "failed", "b": "ok"}
    written(tmp_path, [[("a", "rejected")]])
    assert len(store.list(FOLDER)) == 1
    assert statuses(store) == {"a": "rejected", "b": "ok"}
    assert Ledger(store).run == 4


def test_outcomes_of_this_run_and_of_earlier_ones_are_known_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("visavis.pipeline.state.index._FRESH", 3)
    store = written(tmp_path, [[(key, "ok") for key in "aceg"]])
    known = ItemIndex(Ledger(store), store)
    for key, status in [("b", "ok"), ("a", "rejected"), ("d", "ok"), ("e", "failed"), ("f", "ok")]:
        known.put(outcome(key, status, "cd" * 8, f"new {key}"))
    found = {key: known.get("letters", key) for key in "abcdefgh"}
    assert {key: v.status for key, v in found.items() if v} == {
        "a": "rejected", "b": "ok", "c": "ok", "d": "ok", "e": "failed", "f": "ok", "g": "ok",
    }  # fmt: skip
    assert {key: v.facts for key, v in found.items() if v} == {
        "a": "new a", "b": "new b", "c": "facts of c", "d": "new d", "e": "new e", "f": "new f", "g": "facts of g",
    }  # fmt: skip


def test_an_artifact_that_is_gone_is_noticed_without_asking_for_each(tmp_path: Path) -> None:
    store = written(tmp_path, [[(key, "ok") for key in "abc"]])
    for key in "ac":
        store.write(task(key).path, b"x")
    store.write(artifact_path("letters", 1, "other", "b"), b"made with other settings")
    known = ItemIndex(Ledger(store), store)
    assert [bool(known.settled(task(key))) for key in "abcd"] == [True, False, True, False]
