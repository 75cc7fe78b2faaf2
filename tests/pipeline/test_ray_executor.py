"""How many workers there are and who does what, on a cluster that a test plays. On Ray: test_run, test_cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest

from tests.pipeline.toy import STAGES
from visavis.pipeline.engine.cluster import Machine, selects
from visavis.pipeline.engine.ray_executor import RayExecutor
from visavis.pipeline.engine.ray_workers import Answer, code_digests
from visavis.pipeline.engine.stopwatch import Stopwatch
from visavis.pipeline.engine.worker import Stages, outcome_of
from visavis.pipeline.state.ledger import Outcome, Status
from visavis.pipeline.state.tasks import Task
from visavis.schemas.config import RunConfig, StageResources
from visavis.schemas.errors import RunFailed, UsageError

ON_GPU = StageResources(cpus=0, gpus=0.5)
LARGE = StageResources(cpus=4, memory_gb=8)
NVME = StageResources(labels={"disk": "nvme"})


@pytest.mark.parametrize(
    ("wanted", "value", "suits"),
    [
        ("H100", "H100", True),
        ("H100", "", False),
        ("!H100", "A100", True),
        ("!H100", "H100", False),
        ("in(H100, A100)", "A100", True),
        ("in(H100,A100)", "T4", False),
        ("!in(H100,A100)", "T4", True),
        ("!in(H100,A100)", "H100", False),
    ],
)
def test_labels_select_as_ray_has_it(wanted: str, value: str, suits: bool) -> None:
    assert selects(wanted, value) is suits


GB = 1e9
FOUR = [
    Machine("a", {"CPU": 6.0, "memory": 60 * GB}, {"disk": "nvme"}),
    Machine("b", {"CPU": 6.0, "memory": 12 * GB}, {}),
    Machine("c", {"CPU": 1.0, "GPU": 1.0, "memory": 60 * GB}, {}),
]


class ByHand:
    """A cluster on which everything happens when a test says so. Workers are numbers, in the order they were asked."""

    def __init__(self, machines: Sequence[Machine]) -> None:
        self.here, self.began, self.stopped = list(machines), list[StageResources](), set[int]()
        self.calls: dict[tuple[int, str], tuple[Any, tuple[Any, ...]]] = {}
        self._answers: list[Answer] = []

    def machines(self) -> list[Machine]:
        return self.here

    def start(self, needs: StageResources) -> int:
        self.began.append(needs)
        return len(self.began) - 1

    def call(self, worker: int, what: str, *arguments: Any, tag: Any) -> None:
        self.calls[worker, what] = tag, arguments

    def answers(self, seconds: float) -> list[Answer]:
        answers, self._answers = self._answers, []
        return answers

    def stop(self, worker: int) -> None:
        self.stopped.add(worker)

    def place(self, *workers: int, on: str = "a") -> None:
        for worker in workers:
            self.answer(worker, "hello", (f"host-{on}", on, code_digests()))

    def answer(self, worker: int, what: str, value: Any, error: Exception | None = None) -> None:
        tag, _ = self.calls.pop((worker, what))
        self._answers.append(Answer(tag, value, error))

    def at_work(self) -> dict[int, Task]:
        return {worker: arguments[0] for (worker, what), (_, arguments) in self.calls.items() if what == "run"}


def executor_on(cluster: ByHand, needs: StageResources, *others: StageResources, **more: Any) -> RayExecutor:
    names = ("letters", "add")[: 1 + len(others)]
    stages: Stages = {name: STAGES[name] for name in names}
    resources = dict(zip(names, (needs, *others), strict=True))
    return RayExecutor(RunConfig(resources=resources, **more), stages, cluster)


def filled(cluster: ByHand, tasks: Iterable[Task], *needs: StageResources) -> RayExecutor:
    """All workers that fit on FOUR are placed and at work on tasks of the first stage."""
    executor = executor_on(cluster, *needs)
    for each in tasks:
        executor.submit(each)
    executor.wait()
    cluster.place(*range(13))
    executor.wait()
    executor.wait()
    return executor


def task(number: int, stage: str = "letters") -> Task:
    return Task(stage, f"k{number}", f"item {number}", "", "f")


def ended(task: Task, status: Status = "ok") -> Outcome:
    return outcome_of(task, status, "", "", seconds=1.0, peak_mb=1.0, attempt=1)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    """Lets time pass, for all that look at it."""
    passed = 0.0
    real = time.monotonic

    def let_pass(seconds: float) -> None:
        nonlocal passed
        for _ in range(int(seconds)):  # in steps, or it would look as if this process had been suspended
            passed += 1.0
            Stopwatch.now()

    monkeypatch.setattr(time, "monotonic", lambda: real() + passed)
    yield let_pass
    monkeypatch.setattr(Stopwatch, "_looked", real())


@pytest.mark.parametrize(
    ("needs", "most"),
    [
        (StageResources(), 13),
        (LARGE, 2),  # one each on a and b: their last two CPUs together hold no third
        (StageResources(memory_gb=10), 6 + 1 + 1),  # CPUs bound a and c, memory b
        (NVME, 6),
        (ON_GPU, 2),
        (StageResources(max_workers=40), 40),  # the cluster may grow
    ],
)
def test_a_pool_asks_for_as_many_as_the_machines_have_places(needs: StageResources, most: int) -> None:
    cluster = ByHand(FOUR)
    executor = executor_on(cluster, needs)
    for number in range(100):
        executor.submit(task(number))
    executor.wait()
    assert len(cluster.began) == most
    assert not executor.has_capacity()


def test_a_pool_asks_for_no_more_than_it_has_work_for() -> None:
    cluster = ByHand(FOUR)
    executor = executor_on(cluster, StageResources())
    for number in range(3):
        executor.submit(task(number))
    executor.wait()
    executor.wait()
    assert len(cluster.began) == 3
    assert executor.has_capacity()


class TestARetry:
    def failed(self, workers: int) -> tuple[ByHand, RayExecutor]:
        """Item 0 failed on the worker that had it, which is worker 1 now; all others are idle."""
        cluster = ByHand(FOUR)
        executor = executor_on(cluster, StageResources(min_workers=workers))
        executor.submit(task(0))
        executor.wait()
        cluster.place(*range(workers))
        executor.wait()
        executor.wait()
        (who,) = cluster.at_work()
        cluster.answer(who, "run", ended(task(0), "failed"))
        assert executor.wait() == []
        self.first = who
        return cluster, executor

    @pytest.mark.parametrize("workers", [2, 3, 10])
    def test_that_must_avoid_an_idle_worker_is_taken_by_another_at_once(self, workers: int) -> None:
        cluster, executor = self.failed(workers)
        executor.wait()
        (who,) = cluster.at_work()
        assert who != self.first

    def test_is_taken_by_the_same_where_there_is_no_other(self) -> None:
        cluster, executor = self.failed(1)
        executor.wait()
        assert set(cluster.at_work()) == {self.first}

    def test_waits_for_another_that_is_at_work_but_not_forever(self, clock: Callable[[float], None]) -> None:
        cluster, executor = self.failed(2)
        executor.wait()
        (other,) = cluster.at_work()
        executor.submit(task(1))
        executor.wait()  # to the first
        cluster.answer(other, "run", ended(task(0), "ok"))
        executor.submit(task(2))
        executor.wait()
        executor.wait()
        cluster.answer(other, "run", ended(task(2), "failed"))
        executor.wait()
        executor.wait()
        assert {t.key for t in cluster.at_work().values()} == {"k1"}
        clock(31.0)
        executor.wait()
        assert {t.key for t in cluster.at_work().values()} == {"k1", "k2"}

    def test_goes_before_what_was_not_tried_yet(self) -> None:
        cluster, executor = self.failed(1)
        executor.submit(task(1))
        executor.wait()
        assert [t.key for t in cluster.at_work().values()] == ["k0"]


def test_an_item_outlives_five_machines_and_not_a_sixth() -> None:
    cluster = ByHand(FOUR)
    executor = executor_on(cluster, StageResources(max_workers=1), attempts=1)
    executor.submit(task(0))
    for worker in range(6):
        executor.wait()
        cluster.place(worker)
        assert executor.wait() == []
        executor.wait()
        cluster.answer(worker, "run", None, RuntimeError("node died"))
        outcomes = executor.wait()
    assert [(o.status, o.reason) for o in outcomes] == [("failed", "NodeLost")]
    assert "6 machines were lost" in outcomes[0].detail


def test_a_supervisor_that_is_silent_loses_its_work_to_another(clock: Callable[[float], None]) -> None:
    cluster = ByHand(FOUR)
    executor = executor_on(cluster, StageResources(max_workers=2))
    executor.submit(task(0))
    executor.wait()
    cluster.place(0)
    executor.wait()
    executor.wait()
    for _ in range(4):
        assert not cluster.stopped
        clock(16.0)
        executor.wait()
    assert cluster.stopped == {0}
    executor.wait()
    cluster.place(1)
    executor.wait()
    executor.wait()
    assert list(cluster.at_work()) == [0, 1]  # what a stopped one would say is not heard any more
    cluster.answer(0, "run", ended(task(0)))
    assert executor.wait() == []
    cluster.answer(1, "run", ended(task(0)))
    assert [o.key for o in executor.wait()] == ["k0"]


def test_pools_that_want_the_same_machines_share_them(clock: Callable[[float], None]) -> None:
    cluster = ByHand(FOUR)
    executor = filled(cluster, map(task, range(50)), StageResources(), StageResources(memory_gb=1))
    for number in range(50):
        executor.submit(task(number, "add"))
    for _ in range(40):
        clock(3.0)
        executor.wait()
        for worker, job in cluster.at_work().items():
            if worker not in cluster.stopped:
                cluster.answer(worker, "run", ended(job))
        for worker in range(len(cluster.began)):
            if (worker, "hello") in cluster.calls:
                cluster.place(worker)
        executor.wait()
        assert len(cluster.began) - len(cluster.stopped) <= 13
    assert len({needs.memory_gb for needs in cluster.began}) == 2


def test_who_is_soon_done_changes_pools_not_who_is_at_hours_of_video(clock: Callable[[float], None]) -> None:
    cluster = ByHand(FOUR)
    long = (task(number)._replace(seconds=30.0 if number == 9 else 7200.0) for number in range(13))
    executor = filled(cluster, long, StageResources(), StageResources(memory_gb=1))
    for number in range(50):
        executor.submit(task(number, "add"))
    clock(3.0)
    executor.wait()
    jobs = cluster.at_work()
    for worker, job in jobs.items():
        cluster.answer(worker, "run", ended(job))
    executor.wait()
    (changed,) = cluster.stopped
    assert cluster.began[changed].memory_gb is None
    assert changed == next(worker for worker, job in jobs.items() if job.seconds == 30.0)


def test_a_worker_that_runs_other_code_is_refused() -> None:
    cluster = ByHand(FOUR)
    executor = executor_on(cluster, StageResources(), address="10.0.0.1:6379")
    executor.submit(task(0))
    executor.wait()
    cluster.answer(0, "hello", ("far", "a", {**code_digests(), "stages": "0" * 16}))
    with pytest.raises(UsageError, match="the worker on far runs another version of stages than this process"):
        executor.wait()


def test_a_worker_that_cannot_begin_stops_the_run() -> None:
    cluster = ByHand(FOUR)
    executor = executor_on(cluster, StageResources())
    executor.submit(task(0))
    executor.wait()
    why = "The actor died because of an error raised in its creation task, ray::init()\nImportError: no such module"
    cluster.answer(0, "hello", None, RuntimeError(why))
    with pytest.raises(RunFailed, match="workers cannot start on the cluster: ImportError: no such module"):
        executor.wait()
