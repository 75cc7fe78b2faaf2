"""No file takes the machine with it: what a worker may hold and claim where nobody said."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.memory import peak_from_now
from tests.pipeline.toy import STAGES
from visavis.pipeline.engine import memory, ray_workers
from visavis.pipeline.engine.executor import local_engine
from visavis.pipeline.engine.memory import default_limit, machine_gb, peak_mb
from visavis.pipeline.engine.ray_workers import limit_gb
from visavis.pipeline.engine.supervise import Supervisor
from visavis.pipeline.state.tasks import Task, artifact_path
from visavis.schemas.config import RunConfig, StageResources
from visavis.schemas.recipes import parse_config


def test_what_a_process_held_is_its_own() -> None:
    """The kernel counts what its parent held when it was started for the child's, too."""
    before = peak_from_now()
    held = bytearray(b"x") * (400 << 20)
    assert peak_mb() > before + 390
    code = "from visavis.pipeline.engine.memory import peak_mb; print(peak_mb())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(child.stdout) < 300
    del held


@pytest.mark.parametrize(
    ("total", "cpus", "taken", "allowed"),
    [
        (64, 4, 1, 12.8),  # four workers share four fifths
        (64, 64, 1, 8.0),  # more workers than there is memory for: enough for any good file all the same
        (64, 64, 32, 25.6),  # who takes half of the CPUs has half
        (64, 4, 0, 12.8),  # one on a GPU
        (4, 4, 1, 3.2),  # a small machine is not used up
    ],
)
def test_workers_share_the_machine(
    monkeypatch: pytest.MonkeyPatch, total: float, cpus: int, taken: float, allowed: float
) -> None:
    monkeypatch.setattr(memory, "machine_gb", lambda: total)
    monkeypatch.setattr(memory.os, "cpu_count", lambda: cpus)
    assert default_limit(taken) == pytest.approx(allowed)


@pytest.mark.parametrize("own", ["0::/jobs/mine", "4:memory:/jobs/mine", "3:cpu:/jobs/mine"])
def test_the_memory_of_a_job_or_container_is_its_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own: str
) -> None:
    for folder, name in (("", "memory.max"), ("memory", "memory.limit_in_bytes")):
        inner = tmp_path / folder / "jobs" / "mine"
        inner.mkdir(parents=True)
        (inner / name).write_text("max\n")
        (inner.parent / name).write_text("2000000000\n")
    (tmp_path / "cgroup").write_text(f"12:pids:/\n{own}\n")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "_OWN_CGROUPS", tmp_path / "cgroup")
    whole = psutil.virtual_memory().total / 1e9
    assert machine_gb() == pytest.approx(whole if "cpu" in own else min(2.0, whole))


def test_zero_switches_the_limit_off_and_nothing_asks_for_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_workers, "default_limit", lambda cpus: 5.0 * cpus)

    def limit(address: str | None, needs: StageResources) -> float:
        return limit_gb(RunConfig(address=address), needs)

    assert limit(None, StageResources(cpus=2)) == 10.0
    assert limit("auto", StageResources(cpus=2)) == 0.0  # a cluster of others: its recipe says
    for needs in (StageResources(memory_gb=0), parse_config("memory_gb: 0", StageResources)):
        assert limit(None, needs) == 0.0
    assert limit(None, StageResources(memory_gb=3)) == 3.0
    assert limit("auto", StageResources(memory_gb=3)) == 3.0


def supervised(tmp_path: Path, what: str, memory_gb: float) -> Any:
    supervisor = Supervisor(STAGES, str(tmp_path), memory_gb=memory_gb, recycle=0, setup_seconds=60)
    try:
        task = Task("letters", "k", what, artifact_path("letters", 1, "f", "k"), "f", inline={"text": what})
        return supervisor.run(task, 1, 60.0)
    finally:
        supervisor.close()


def test_a_worker_cannot_claim_what_its_machine_does_not_have(tmp_path: Path) -> None:
    """At once, before anybody could look."""
    outcome = supervised(tmp_path, "claim", 0.5)
    assert (outcome.status, outcome.reason) == ("failed", "MemoryError")
    assert outcome.peak_mb < 500


def test_a_worker_that_grows_slowly_is_stopped_by_who_watches_it(tmp_path: Path) -> None:
    outcome = supervised(tmp_path, "eat", 0.4)
    assert (outcome.status, outcome.reason) == ("failed", "OutOfMemory")
    assert "allowed are 0.4 (memory_gb)" in outcome.detail


def test_a_process_that_does_everything_itself_is_bounded_meanwhile(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with local_engine(STAGES, str(tmp_path)):
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        assert 0.8e9 * machine_gb() <= soft < 0.8e9 * machine_gb() + 20e9
        assert before[0] == resource.RLIM_INFINITY or soft <= before[0]
        assert hard == before[1]
        with pytest.raises(MemoryError):
            bytearray(soft)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
