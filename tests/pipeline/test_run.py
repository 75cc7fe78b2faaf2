"""Commits, ledger and resume, on both engines, with a toy stage in place of the heavy ones."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.engine import Engine, local_engine, ray_engine
from pipeline.ledger import Ledger
from pipeline.progress import Reporter
from pipeline.run import Run, locked, remember_settings
from pipeline.task import Task, artifact_path
from schemas.artifact import load_rows
from schemas.config import RunConfig
from schemas.errors import Reason, RunFailed, UsageError
from stages.store import TEMPORARY, Store
from tests.pipeline.toy import Add, CountLetters, Letters, Total

TOLERANT = RunConfig(max_failure_share=1.0)


def quiet() -> Reporter:
    return Reporter(Console(file=io.StringIO()))


def new_run(root: Path, engine: Engine = local_engine, limits: RunConfig = TOLERANT) -> Run:
    return Run(str(root), engine, limits, quiet())


def tasks(*texts: str) -> list[Task]:
    return [
        Task(key=f"k{i}", item=t, path=artifact_path("letters", 1, "f", f"k{i}"), fingerprint="f", inline={"text": t})
        for i, t in enumerate(texts)
    ]


def total(parts: dict[str, object]) -> list[Task]:
    path = artifact_path("add", 1, "f", "sum")
    return [Task(key="sum", item="sum", path=path, fingerprint="f", inputs={"parts": tuple(parts.values())})]  # type: ignore[arg-type]


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.slow)])
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param == "local":
        return local_engine
    request.getfixturevalue("ray_cluster")
    return ray_engine(RunConfig())


def test_every_item_ends_in_the_ledger(tmp_path: Path, engine: Engine) -> None:
    run = new_run(tmp_path, engine)
    artifacts = run.execute(CountLetters(), tasks("hello", "bad", "bug", "worlds"))

    assert list(artifacts) == ["k0", "k3"]
    rows = {o.key: o for o in Ledger(Store(str(tmp_path))).latest().values()}
    assert Counter(o.status for o in rows.values()) == {"ok": 2, "rejected": 1, "failed": 1}
    assert (rows["k1"].reason, rows["k1"].detail) == ("too_short", "three letters")
    assert rows["k2"].reason == "ZeroDivisionError"
    assert "a bug" in rows["k2"].detail
    assert "toy.py" in rows["k2"].detail  # a traceback that says where
    assert rows["k0"].seconds >= 0
    assert rows["k0"].peak_mb > 1
    assert load_rows((tmp_path / artifacts["k3"].path).read_bytes(), Letters)[0].count == 6


def test_a_second_run_processes_nothing_but_retries_failures(tmp_path: Path) -> None:
    new_run(tmp_path).execute(CountLetters(), tasks("hello", "bad", "bug"))
    again = new_run(tmp_path)
    assert list(again.execute(CountLetters(), tasks("hello", "bad", "bug"))) == ["k0"]
    assert again.processed == 1  # the failed one


def test_deleting_one_artifact_redoes_it_alone_when_it_comes_out_the_same(tmp_path: Path) -> None:
    first = new_run(tmp_path)
    parts = first.execute(CountLetters(), tasks("a", "bb", "ccc"))
    first.execute(Add(), total(parts))
    (tmp_path / parts["k1"].path).unlink()

    again = new_run(tmp_path)
    same = again.execute(CountLetters(), tasks("a", "bb", "ccc"))
    again.execute(Add(), total(same))
    assert again.processed == 1
    assert same == parts


def test_a_changed_input_redoes_what_depends_on_it(tmp_path: Path) -> None:
    first = new_run(tmp_path)
    first.execute(Add(), total(first.execute(CountLetters(), tasks("a", "bb"))))
    again = new_run(tmp_path)
    done = again.execute(Add(), total(again.execute(CountLetters(), tasks("a", "changed"))))
    assert again.processed == 2
    assert load_rows((tmp_path / done["sum"].path).read_bytes(), Total)[0].count == 8


def test_an_artifact_whose_ledger_row_was_lost_is_found_not_remade(tmp_path: Path) -> None:
    first = new_run(tmp_path)
    (artifact,) = first.execute(CountLetters(), tasks("hello")).values()
    before = (tmp_path / artifact.path).stat().st_mtime_ns
    for part in (tmp_path / "ledger").iterdir():
        part.unlink()

    again = new_run(tmp_path)
    assert again.execute(CountLetters(), tasks("hello"))["k0"] == artifact
    assert (tmp_path / artifact.path).stat().st_mtime_ns == before


def test_a_damaged_artifact_without_a_row_is_made_again(tmp_path: Path) -> None:
    (artifact,) = new_run(tmp_path).execute(CountLetters(), tasks("hello")).values()
    (tmp_path / artifact.path).write_bytes(b"cut off")
    for part in (tmp_path / "ledger").iterdir():
        part.unlink()
    assert new_run(tmp_path).execute(CountLetters(), tasks("hello"))["k0"] == artifact


def test_too_many_failures_stop_the_run_and_name_one(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"2 of 3 items failed, for example bug.: ZeroDivisionError: a bug"):
        new_run(tmp_path, limits=RunConfig()).execute(CountLetters(), tasks("hello", "bug1", "bug2"))
    with pytest.raises(RunFailed, match="2 failures in a row"):
        new_run(tmp_path, limits=RunConfig(max_failures_in_row=2)).execute(CountLetters(), tasks("bug1", "bug2", "x"))
    assert len(Ledger(Store(str(tmp_path))).latest()) == 3  # what happened before the stop is kept


def test_an_item_that_the_corpus_rejects_is_recorded_once(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    run.execute(CountLetters(), tasks("same"))
    run.reject("letters", tasks("same")[0], Reason.DUPLICATE_CONTENT, "same content as x")
    run.ledger.flush()
    again = new_run(tmp_path)
    assert list(again.execute(CountLetters(), tasks("same"))) == ["k0"]  # its artifact stands; the corpus decides
    again.reject("letters", tasks("same")[0], Reason.DUPLICATE_CONTENT, "same content as x")
    assert again.processed == 0


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_killed_worker_loses_nothing(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", ray_engine(RunConfig()))
    done = run.execute(CountLetters(), tasks("a", f"kill:{tmp_path / 'mark'}", "c"))
    assert list(done) == ["k0", "k1", "k2"]
    assert (tmp_path / "mark").exists()
    assert not list((tmp_path / "run").rglob(f"{TEMPORARY}*"))


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    with (
        locked(str(tmp_path)),
        pytest.raises(UsageError, match="in use by process"),
        locked(str(tmp_path)),
    ):
        pass
    with locked(str(tmp_path)):  # free again
        pass


def test_a_folder_of_other_settings_is_refused_and_names_the_difference(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    remember_settings(store, {"config": {"windows": {"length": 50}}}, replace_old=False)
    remember_settings(store, {"config": {"windows": {"length": 50}}}, replace_old=False)
    with pytest.raises(UsageError, match=r"windows\.length=50 and now has 100"):
        remember_settings(store, {"config": {"windows": {"length": 100}}}, replace_old=False)
    remember_settings(store, {"config": {"windows": {"length": 100}}}, replace_old=True)
