"""A whole run of the driver on a simulated cluster on which everything goes wrong (`benchmarks.scheduler`)."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks import scheduler
from benchmarks import simulated as cluster
from benchmarks.plan import write_list
from visavis.pipeline.state.ledger import Ledger
from visavis.schemas.config import StageResources
from visavis.schemas.storage.store import Store

CALM: dict[str, Any] = {
    "machines": 4, "items": 40, "gpus": 0, "ray_us": 150.0, "seed": 0, "faults": False, "autoscale": False,
    "hang": False, "profile": False,
}  # fmt: skip


def ok_rows(root: Path) -> Counter[tuple[str, str]]:
    """How many there are of each item, of all that were ever written."""
    tables = [table.to_pylist() for table in Ledger(Store(str(root))).tables(["stage", "key", "status"])]
    return Counter((row["stage"], row["key"]) for rows in tables for row in rows if row["status"] == "ok")


def simulated(tmp_path: Path, **more: Any) -> tuple[dict[str, Any], Counter[tuple[str, str]]]:
    tmp_path.mkdir(exist_ok=True)
    options = Namespace(**(CALM | more))
    write_list(tmp_path, options.items)
    return scheduler.simulate(tmp_path, options), ok_rows(tmp_path / "run")


def test_workers_that_die_and_machines_that_come_and_go_lose_and_double_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, calm = simulated(tmp_path / "calm")
    monkeypatch.setattr(cluster, "DIES", 0.02)
    monkeypatch.setattr(cluster, "MACHINE_EVERY", 60.0)
    monkeypatch.setattr(cluster, "BACK", 50.0)
    figures, rows = simulated(tmp_path / "wild", faults=True, machines=6)
    assert rows == calm
    assert set(rows.values()) == {1}
    assert figures["bound"] == 40


@pytest.mark.slow
def test_one_file_on_which_ingest_hangs_delays_nobody(tmp_path: Path) -> None:
    calm, _ = simulated(tmp_path / "calm", machines=1)
    hung, rows = simulated(tmp_path / "hung", machines=1, hang=True)
    assert hung["bound"] == 39
    assert len({key for stage, key in rows if stage == "ingest"}) == 39
    assert hung["tasks"] >= calm["tasks"] - 20
    assert hung["others_end_s"] < calm["others_end_s"] * 1.2


@pytest.mark.slow
def test_in_the_tail_nobody_idles_while_a_piece_of_the_longest_conversation_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = {f"{number:08d}.mp4": 7200.0 if number == 29 else 30.0 for number in range(30)}
    monkeypatch.setattr(cluster.Simulated, "length", lambda _, task: lengths[task.item])
    figures, _ = simulated(tmp_path, machines=2, items=30)
    pieces, last, longest = figures["tail"]["faces"]
    assert pieces >= 120  # all of them after the last conversation was begun …
    heard = figures["tail"]["diarize"][1]
    assert last - heard < longest * (pieces / (2 * cluster.CORES) + 1)  # … on all workers side by side
    assert figures["idle_while_tasks_wait_s"] == 0


@pytest.mark.nightly("the schedule of 500 items on GPUs")
def test_gpus_that_are_the_narrow_place_are_at_work_all_the_time(tmp_path: Path) -> None:
    figures, _ = simulated(tmp_path, machines=6, items=500, gpus=1)
    assert figures["bound"] == 500
    assert figures["utilisation"]["GPU"] > 0.95


@pytest.mark.slow
def test_an_autoscaler_is_asked_for_all_at_once(tmp_path: Path) -> None:
    figures, _ = simulated(tmp_path, machines=20, items=400, autoscale=True)
    assert figures["workers"] == 20 * cluster.CORES
    assert figures["asked_all_s"] < 60  # before it has answered


@pytest.mark.nightly("the schedule of unequal workers")
def test_who_needs_most_of_a_machine_gets_one_though_small_workers_fill_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = scheduler.resources(Namespace(**CALM)) | {"diarize": StageResources(cpus=12, memory_gb=2)}
    monkeypatch.setattr(scheduler, "resources", lambda _: needs)
    figures, _ = simulated(tmp_path, machines=3, items=300)
    assert figures["bound"] == 300
    assert figures["virtual_s"] < 6000


@pytest.mark.nightly("that the benchmark of the driver still runs, not what the product does")
def test_the_benchmark_of_a_million_items_runs_with_a_few() -> None:
    words = [sys.executable, "-m", "benchmarks.plan", "--items", "300"]
    done = subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1])["rows"][0]["items"] == 300
