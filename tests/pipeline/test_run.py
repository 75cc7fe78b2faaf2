"""Commits, ledger and resume, on both engines, with a toy stage in place of the heavy ones."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from tests.pipeline.toy import STAGES, Letters, Total
from visavis.pipeline.engine import ray_executor
from visavis.pipeline.engine import run as run_module
from visavis.pipeline.engine.executor import Engine, Executor, InFlight, local_engine
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.engine.ray_executor import ray_engine
from visavis.pipeline.engine.run import Run, Workflow
from visavis.pipeline.engine.worker import Stages
from visavis.pipeline.plan.graph import Graph
from visavis.pipeline.plan.run_folder import opened
from visavis.pipeline.plan.sources import source_seconds
from visavis.pipeline.state.ledger import Ledger, Outcome
from visavis.pipeline.state.lock import locked
from visavis.pipeline.state.tasks import Artifact, Task, artifact_path
from visavis.schemas.artifact import load_rows
from visavis.schemas.config import BuildConfig, IngestConfig, RunConfig, StageResources
from visavis.schemas.errors import Reason, RunFailed, UsageError
from visavis.schemas.rows import Source
from visavis.schemas.storage.store import TEMPORARY, Store

TOLERANT = RunConfig(max_failure_share=1.0)


def quiet() -> Reporter:
    return Reporter(Console(file=io.StringIO()))


@contextmanager
def new_run(root: Path, engine: Engine = local_engine, limits: RunConfig = TOLERANT) -> Iterator[Run]:
    with locked(str(root)) as hold, engine(STAGES, str(root)) as executor:
        run = Run(str(root), executor, limits, quiet(), hold)
        try:
            yield run
        finally:
            run.close()


def execute(run: Run, name: str, wanted: Sequence[Task]) -> dict[str, Artifact]:
    """Carry out tasks; the artifacts of those that ended ok."""
    done = run.execute(name, wanted, len(wanted))
    return {key: Artifact(made.path, made.digest) for key, made in sorted(done.items()) if made}


def letters(
    root: Path, *texts: str, engine: Engine = local_engine, limits: RunConfig = TOLERANT
) -> dict[str, Artifact]:
    """A whole run that counts the letters of texts."""
    with new_run(root, engine, limits) as run:
        return execute(run, "letters", tasks(*texts))


def rows(root: Path) -> dict[str, Outcome]:
    """The ledger's rows by key."""
    return {o.key: o for o in Ledger(Store(str(root))).latest().values()}


def tasks(*texts: str, stage: str = "letters") -> list[Task]:
    return [
        Task(stage, f"k{i}", text, artifact_path(stage, 1, "f", f"k{i}"), "f", inline={"text": text})
        for i, text in enumerate(texts)
    ]


def total(parts: dict[str, Artifact]) -> list[Task]:
    path = artifact_path("add", 1, "f", "sum")
    return [Task("add", "sum", "sum", path, "f", inputs={"parts": tuple(parts.values())})]


def started() -> list[psutil.Process]:
    """Processes of this test session, and nobody else's."""
    return psutil.Process().children(recursive=True)


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.slow)])
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param == "local":
        return local_engine
    request.getfixturevalue("ray_cluster")
    return ray_engine(RunConfig(attempts=1))


def test_every_item_ends_in_the_ledger(tmp_path: Path, engine: Engine) -> None:
    artifacts = letters(tmp_path, "hello", "bad", "bug", "worlds", engine=engine)
    assert list(artifacts) == ["k0", "k3"]
    found = rows(tmp_path)
    assert Counter(o.status for o in found.values()) == {"ok": 2, "rejected": 1, "failed": 1}
    assert (found["k1"].reason, found["k1"].detail) == ("too_short", "three letters")
    assert found["k2"].reason == "ZeroDivisionError"
    assert "a bug" in found["k2"].detail
    assert "toy.py" in found["k2"].detail  # a traceback that says where
    assert found["k0"].facts == "5"
    assert found["k0"].seconds >= 0
    assert found["k0"].peak_mb > 1
    assert load_rows((tmp_path / artifacts["k3"].path).read_bytes(), Letters)[0].count == 6
    assert not (tmp_path / "progress.json").exists()


def test_a_second_run_processes_nothing_but_retries_failures(tmp_path: Path) -> None:
    letters(tmp_path, "hello", "bad", "bug")
    with new_run(tmp_path) as again:
        assert list(execute(again, "letters", tasks("hello", "bad", "bug"))) == ["k0"]
        assert again.processed == 1  # the failed one


def test_deleting_one_artifact_redoes_it_alone_when_it_comes_out_the_same(tmp_path: Path) -> None:
    with new_run(tmp_path) as first:
        parts = execute(first, "letters", tasks("a", "bb", "ccc"))
        execute(first, "add", total(parts))
    (tmp_path / parts["k1"].path).unlink()
    with new_run(tmp_path) as again:
        same = execute(again, "letters", tasks("a", "bb", "ccc"))
        execute(again, "add", total(same))
        assert again.processed == 1
    assert same == parts


def test_a_changed_input_redoes_what_depends_on_it(tmp_path: Path) -> None:
    with new_run(tmp_path) as first:
        execute(first, "add", total(execute(first, "letters", tasks("a", "bb"))))
    with new_run(tmp_path) as again:
        done = execute(again, "add", total(execute(again, "letters", tasks("a", "changed"))))
        assert again.processed == 2
    assert load_rows((tmp_path / done["sum"].path).read_bytes(), Total)[0].count == 8


def test_an_artifact_whose_ledger_row_was_lost_is_found_not_remade(tmp_path: Path) -> None:
    (artifact,) = letters(tmp_path, "hello").values()
    before = (tmp_path / artifact.path).stat().st_mtime_ns
    for part in (tmp_path / "ledger").iterdir():
        part.unlink()
    assert letters(tmp_path, "hello")["k0"] == artifact
    assert (tmp_path / artifact.path).stat().st_mtime_ns == before
    assert rows(tmp_path)["k0"].facts == "5"


def test_a_damaged_artifact_without_a_row_is_made_again(tmp_path: Path) -> None:
    (artifact,) = letters(tmp_path, "hello").values()
    (tmp_path / artifact.path).write_bytes(b"cut off")
    for part in (tmp_path / "ledger").iterdir():
        part.unlink()
    assert letters(tmp_path, "hello")["k0"] == artifact


def test_too_many_failures_stop_the_run_and_name_the_likely_cause(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"2 of 3 items failed, all with ZeroDivisionError, for example bug2: a bug"):
        letters(tmp_path, "hello", "bug1", "bug2", limits=RunConfig())
    with pytest.raises(RunFailed, match="2 failures in a row, all with ZeroDivisionError"):
        letters(tmp_path, "bug1", "bug2", "x", limits=RunConfig(max_failures_in_row=2))
    assert len(rows(tmp_path)) == 3  # what happened before the stop is kept


def test_a_hopeless_share_of_failures_does_not_go_on_to_the_end(tmp_path: Path) -> None:
    texts = [text for n in range(200) for text in (f"bug{n}", f"fine{n}")]
    with pytest.raises(RunFailed, match="items failed"):
        letters(tmp_path, *texts, limits=RunConfig(max_failure_share=0.1, max_failures_in_row=5))
    assert 70 < len(rows(tmp_path)) < 100  # 40 failures are a tenth of 400


def test_an_item_that_the_corpus_rejects_is_recorded_once(tmp_path: Path) -> None:
    (task,) = tasks("same")
    with new_run(tmp_path) as run:
        execute(run, "letters", [task])
        run.reject(task, Reason.DUPLICATE_CONTENT, "same content as x")
    with new_run(tmp_path) as again:
        assert list(execute(again, "letters", [task])) == ["k0"]  # its artifact stands; the corpus decides
        again.reject(task, Reason.DUPLICATE_CONTENT, "same content as x")
        assert again.processed == 0


class Backwards:
    """Carries out what was submitted last first."""

    def __init__(self, executor: Executor) -> None:
        self._executor, self._queue = executor, list[Task]()

    def submit(self, task: Task) -> None:
        self._queue.append(task)

    def has_capacity(self) -> bool:
        return len(self._queue) < 10

    def wait(self, seconds: float = 1.0) -> list[Outcome]:
        self._executor.submit(self._queue.pop())
        return self._executor.wait(seconds)

    def in_flight(self) -> list[InFlight]:
        return []

    def waiting(self) -> str:
        return ""


@contextmanager
def backwards(stages: Stages, root: str) -> Iterator[Executor]:
    with local_engine(stages, root) as executor:
        yield Backwards(executor)


def test_no_workflow_waits_for_those_before_it(tmp_path: Path) -> None:
    def workflow(number: int, task: Task) -> Workflow[int]:
        yield [task]
        return number

    with new_run(tmp_path, backwards) as run:
        ended = list(run.follow("letters", (workflow(n, t) for n, t in enumerate(tasks(*"abcde"))), 5))
    assert ended == [4, 3, 2, 1, 0]


def test_two_workflows_that_want_the_same_have_it_done_once_and_from_other_inputs_again(tmp_path: Path) -> None:
    (same,) = tasks("same")
    other = same._replace(inline={"text": "others"})
    made: dict[str, Artifact] = {}

    def workflow(name: str, task: Task) -> Workflow[str]:
        (done,) = yield [task]
        assert done
        made[name] = done
        return name

    with new_run(tmp_path) as run:
        workflows = [workflow("one", same), workflow("two", same), workflow("three", other)]
        assert sorted(run.follow("letters", workflows, 3)) == ["one", "three", "two"]
        assert run.processed == 2
    assert made["one"] == made["two"] != made["three"]


def test_the_lease_and_the_heartbeat_are_kept_while_many_are_begun_that_need_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million conversations that are done take the driver a minute."""
    letters(tmp_path, "a")
    monkeypatch.setattr(run_module, "_PROGRESS_SECONDS", 0.1)
    monkeypatch.setattr(run_module, "_TURN_SECONDS", 0.05)
    (done,) = tasks("a")
    checked: list[int] = []

    def workflows() -> Iterator[Workflow[None]]:
        for number in range(60):
            time.sleep(0.01)
            yield workflow(number)

    def workflow(number: int) -> Workflow[None]:
        begun.append(number)
        yield [done]

    begun: list[int] = []
    with new_run(tmp_path) as run:
        monkeypatch.setattr(run._hold, "check", lambda: checked.append(len(begun)))
        assert len(list(run.follow("letters", workflows(), 60))) == 60
        assert run.processed == 0
    assert len(set(checked) & set(range(60))) >= 2


def test_what_reads_a_file_may_take_as_long_as_a_slow_store_and_no_longer() -> None:
    config = RunConfig(limit_seconds=300, limit_factor=20)
    gigabyte = Source(uris=("s3://b/a.mp4",), stamps=("1000000000:0",))
    assert config.limit_of("ingest", source_seconds(gigabyte), reading=True) == 300 + 4 * 200
    assert config.limit_of("faces", 60.0) == 300 + 20 * 60
    mine = RunConfig(resources={"ingest": StageResources(limit_factor=1, limit_seconds=10)})
    assert mine.limit_of("ingest", 200, reading=True) == 210


def test_a_stage_that_cannot_start_stops_the_run_and_blames_no_item(tmp_path: Path, engine: Engine) -> None:
    cause = "broken cannot start: FileNotFoundError: no weights here"
    with pytest.raises(RunFailed, match=cause), new_run(tmp_path, engine) as run:
        execute(run, "broken", tasks("a", "b", stage="broken"))
    assert rows(tmp_path) == {}


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
class TestWorkersThatDie:
    def test_each_gets_another_try_and_loses_nothing(self, tmp_path: Path) -> None:
        texts = ["a", *(f"{how}:{tmp_path / how}" for how in ("kill", "segv", "hang")), "e"]
        limits = RunConfig(limit_seconds=3)
        done = letters(tmp_path / "run", *texts, engine=ray_engine(limits), limits=limits)
        assert list(done) == ["k0", "k1", "k2", "k3", "k4"]
        assert {key: row.attempt for key, row in rows(tmp_path / "run").items()} == dict.fromkeys(done, 2) | {
            "k0": 1,
            "k4": 1,
        }
        assert not list((tmp_path / "run").rglob(f"{TEMPORARY}*"))

    def test_the_ledger_says_what_they_died_of(self, tmp_path: Path) -> None:
        limits = RunConfig(limit_seconds=4, max_failure_share=1.0, resources={"letters": StageResources(memory_gb=0.5)})
        letters(tmp_path, "kill", "segv", "hang", "eat", "fine", engine=ray_engine(limits), limits=limits)
        found = rows(tmp_path)
        assert {row.item: row.reason for row in found.values()} == {
            "kill": "WorkerKilled", "segv": "WorkerCrashed", "hang": "TimeLimit", "eat": "OutOfMemory", "fine": "",
        }  # fmt: skip
        assert "SIGSEGV" in found["k1"].detail
        assert "longer than 4 s" in found["k2"].detail
        assert found["k3"].peak_mb > 500
        assert {row.attempt for row in found.values() if row.status == "failed"} == {2}

    @pytest.mark.nightly("workers that somebody suspends, for whom it waits 25 s; those that die are here")
    def test_who_is_suspended_is_named_and_somebody_else_does_the_work(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A job scheduler, a debugger or a terminal may do that; nobody would ever hear of these workers again."""
        monkeypatch.setattr(ray_executor, "_CALL_SECONDS", 1.0)
        monkeypatch.setattr(ray_executor, "_SILENT_SECONDS", 8.0)
        texts = ["a", *(f"{how}:{tmp_path / how}" for how in ("stop", "stop supervisor")), "e"]
        done = letters(tmp_path / "run", *texts, engine=ray_engine(RunConfig()))
        assert list(done) == ["k0", "k1", "k2", "k3"]
        attempts = {key: row.attempt for key, row in rows(tmp_path / "run").items()}
        assert attempts == {"k0": 1, "k1": 2, "k2": 1, "k3": 1}  # a supervisor is as good as a machine: not a try
        assert f"letters {texts[1]}: WorkerStopped" in caplog.text
        assert "has not answered for 8 s" in caplog.text
        assert f"another one does letters {texts[2]}" in caplog.text

    def test_a_worker_killed_from_outside_with_its_supervisor_is_replaced(self, tmp_path: Path) -> None:
        killed = []

        def kill_supervisors() -> None:
            while not killed:
                time.sleep(0.2)
                if (tmp_path / "artifacts/letters/v1-f/k0.safetensors").exists():
                    killed.extend(p.pid for p in started() if "_RayWorker" in " ".join(p.cmdline()))
                    for pid in killed:
                        os.kill(pid, signal.SIGKILL)

        thread = threading.Thread(target=kill_supervisors)
        thread.start()
        done = letters(tmp_path, "first", *["slow:0.5"] * 6, engine=ray_engine(RunConfig()))
        thread.join()
        assert len(done) == 7
        assert killed

    def test_a_worker_is_replaced_after_its_share_of_items(self, tmp_path: Path) -> None:
        config = RunConfig(recycle_items=2, resources={"letters": StageResources(max_workers=1)})
        pids = []
        with new_run(tmp_path, ray_engine(config)) as run:
            for n in range(5):
                execute(run, "letters", tasks(*"abcde")[n : n + 1])
                pids += [p.pid for p in started() if "spawn_main" in " ".join(p.cmdline())]
        assert len(set(pids)) >= 3


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
    def open_with(length: int, *, reconfigure: bool = False) -> None:
        settings = {"config": {"windows": {"length": length}}}
        with opened(str(tmp_path), local_engine, STAGES, TOLERANT, settings, quiet(), reconfigure=reconfigure):
            pass

    open_with(50)
    open_with(50)
    with pytest.raises(UsageError, match=r"windows\.length=50 and now has 100"):
        open_with(100)
    open_with(100, reconfigure=True)
    open_with(100)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_worker_that_fits_nowhere_is_wrong_use(tmp_path: Path) -> None:
    config = RunConfig(resources={"letters": StageResources(gpus=64)})
    with pytest.raises(UsageError, match=r"no worker for letters fits: each takes 1 CPU, 64 GPU"):
        letters(tmp_path, "a", engine=ray_engine(config))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_pools_of_different_needs_share_a_small_machine(tmp_path: Path) -> None:
    """Neither starves, and the one that comes later gets workers of the one that has them all."""
    config = RunConfig(resources={"add": StageResources(memory_gb=0.4)})

    def workflow(task: Task) -> Workflow[bool]:
        (made,) = yield [task]
        assert made
        path = artifact_path("add", 1, "f", task.key)
        (summed,) = yield [Task("add", task.key, task.item, path, "f", inputs={"parts": (made,)})]
        return summed is not None

    with new_run(tmp_path, ray_engine(config)) as run:
        assert list(run.follow("add", (workflow(task) for task in tasks(*["slow:0.2"] * 12)), 12)) == [True] * 12


def test_other_limits_of_ingest_redo_ingest_and_shards_and_nothing_in_between() -> None:
    before, after = (Graph(BuildConfig(ingest=IngestConfig(max_hours=hours))).fingerprints for hours in (6, 7))
    assert {stage for stage in before if before[stage] != after[stage]} == {"ingest", "shard"}
