"""A thousand machines in one process: the driver's own code against a simulated Ray, in virtual time.

    python -m benchmarks.scheduler [--machines 1000] [--items 40000] [--gpus 0] [--autoscale] [--hang] [--profile]
    python -m benchmarks.scheduler --starts
    python -m benchmarks.scheduler --measure-ray

Workflows, index, ledger, scheduler and failure policy are the real ones (`pipeline.engine.ray_executor.RayExecutor` on
other `Workers`); only what a cluster does is simulated: machines of 16 cores, workers that take 2 to 6 s to start,
tasks that take what stages took per second of media on one core, a worker in 20,000 tasks that dies, a machine every
two minutes that goes, is missed after 30 s and comes back after five minutes. Lengths are log-normal around 90 s, from
20 s to 2 h.

The clock stands for the driver's: it jumps to the next event while the driver waits, and goes on by the CPU time that
the driver takes while it does not; so a driver that is too slow leaves workers idle, as it would. Ray's own cost of a
call is added (`--ray-us`): submitted and answered it took 250 to 290 µs of the driver's process, of all its threads;
88 to 105 of them are of the thread that submits.

`--gpus N`: N of the machines have four GPUs, and faces are tracked there. `--autoscale`: a tenth of the machines are
there, the others two minutes after somebody has waited for room. `--hang`: ingest of the first item hangs.

`tail` is what was still to be done of the conversation that ended last when the last one was begun: by stage, how many
tasks, when the last of them ended (seconds after that), and the longest of them. `idle_while_tasks_wait_s`: seconds of
workers that had nothing to do, while the driver had nothing to do either and a task for such a worker was queued.
Utilisation is of the workers without and with a GPU; where one kind is the narrow place, it is that kind's that says
how well the driver does.

`--starts`: the driver's CPU time for each worker that it asks for, by machines. `--measure-ray`: that for a call to an
actor that does nothing, of all threads and of the one that submits, on this machine's Ray.
"""

from __future__ import annotations

import argparse
import cProfile
import itertools
import json
import platform
import pstats
import queue
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.plan import MEMORY_DISK, QUIET, Stopped, write_list
from benchmarks.processes import say
from benchmarks.simulated import CORES, Clock, Simulated
from visavis.pipeline.engine.executor import Executor
from visavis.pipeline.engine.memory import peak_mb
from visavis.pipeline.engine.ray_executor import RayExecutor
from visavis.pipeline.engine.worker import Stages
from visavis.pipeline.plan.build import Build
from visavis.pipeline.plan.graph import Graph
from visavis.pipeline.plan.sources import find_sources
from visavis.pipeline.state.ledger import Ledger
from visavis.pipeline.state.tasks import Task
from visavis.schemas.config import BuildConfig, RunConfig, StageResources
from visavis.schemas.storage.store import Store

SIZES = (16, 64, 256, 1000)
ACTORS = (2, 4)
NAMES = ("CPU", "GPU")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", type=int, default=1000)
    parser.add_argument("--items", type=int, default=40_000)
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--ray-us", type=float, default=270.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--autoscale", action="store_true")
    parser.add_argument("--hang", action="store_true")
    parser.add_argument("--no-faults", dest="faults", action="store_false")
    parser.add_argument("--starts", action="store_true")
    parser.add_argument("--measure-ray", action="store_true")
    parser.add_argument("--profile", action="store_true", help="print where the driver's time goes")
    options = parser.parse_args()
    if options.starts:
        print(json.dumps({"name": "starts", "rows": [starts(machines, options) for machines in SIZES]}))
        return
    if options.measure_ray:
        print(json.dumps({"name": "ray", "rows": [measure_ray(actors) for actors in ACTORS]}))
        return
    parent = MEMORY_DISK if MEMORY_DISK.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="visavis-scheduler-", dir=parent) as folder:
        write_list(Path(folder), options.items)
        print(json.dumps(simulate(Path(folder), options)))


def simulate(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    clock = Clock()
    cluster = Simulated(clock, options)
    config = BuildConfig(run=RunConfig(address="sim:1", resources=resources(options), max_failure_share=0.1))

    @contextmanager
    def engine(stages: Stages, root: str) -> Iterator[Executor]:
        executor = RayExecutor(config.run, stages, cluster)
        cluster.pools = executor._pools
        yield executor

    build = Build(config, str(folder / "run"), engine, QUIET)
    build._codec = stop  # type: ignore[assignment,method-assign]  # what follows the conversations is another benchmark
    profile = cProfile.Profile(time.process_time)
    real, sources = time.perf_counter(), find_sources([str(folder / "corpus.parquet")])
    with patch("time.monotonic", clock.now):
        began, cpu = clock.now(), clock.cpu()
        if options.profile:
            profile.enable()
        try:
            build.run(sources)
        except Stopped:
            profile.disable()
        took, cpu = clock.now() - began, clock.cpu() - cpu
    if options.profile:
        pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(40)
    rows = Counter((s, st) for t in Ledger(Store(str(folder / "run"))).tables(["stage", "status"])
                   for s, st in zip(t["stage"].to_pylist(), t["status"].to_pylist(), strict=True))  # fmt: skip
    say(f"{time.perf_counter() - real:.0f} s of real time; rows {[(*row, n) for row, n in sorted(rows.items())]}")
    return figures(cluster, options, took, cpu) | {"bound": rows["separate", "ok"], "machine": platform.platform()}


def stop(*_: Any) -> Any:
    raise Stopped


def resources(options: argparse.Namespace) -> dict[str, StageResources]:
    most = CORES * options.machines if options.autoscale else 0
    needs = {
        stage: StageResources(memory_gb=3, max_workers=most) for stage in Graph(BuildConfig()).stages(BuildConfig(), "")
    }
    return needs | ({"faces": StageResources(gpus=0.25, memory_gb=2)} if options.gpus else {})


def figures(cluster: Simulated, options: argparse.Namespace, took: float, cpu: float) -> dict[str, Any]:
    tasks, last = len(cluster.done), cluster.done[-1]
    full = {kind: ramp for kind in (0, 1) if (ramp := ramp_of(cluster, kind)) is not None}
    initial = cluster.asked[: CORES * options.machines]
    return {
        "name": "scheduler",
        "machines": options.machines,
        "gpus": options.gpus,
        "items": options.items,
        "tasks": tasks,
        "virtual_s": round(took, 1),
        "driver_cpu_s": round(cpu, 1),
        "driver_cpu_us_per_task": round(cpu / tasks * 1e6),
        "ray_us_per_call": options.ray_us,
        "tasks_s_sustained": round(1 / (cpu / tasks + options.ray_us * 1e-6)),
        "tasks_s_here": round(tasks / took),
        "workers": max(sum(there) for _, _, there in cluster.log),
        "workers_lost": cluster.deaths,
        "machines_lost": cluster.losses,
        "asked_all_s": round(initial[-1][0] - initial[0][0], 2),
        "asked_all_cpu_s": round(initial[-1][1] - initial[0][1], 2),
        "utilisation": {NAMES[kind]: utilisation(cluster, kind, ramp) for kind, ramp in full.items()},
        "ramp_s": {NAMES[kind]: round(ramp, 1) for kind, ramp in full.items()},
        "last_begun_s": round(cluster.last_begun, 1),
        "last_queued_s": {NAMES[kind]: round(cluster.queued[kind], 1) for kind in full},
        "idle_while_tasks_wait_s": round(cluster.wasted, 1),
        "idle_while_tasks_wait_share": round(cluster.wasted / worker_seconds(cluster), 5),
        "others_end_s": round(cluster.last_but_first, 1),
        "last_but_one_to_end_s": round(last[0] - cluster.done[-2][0], 2),
        "tail_s": round(last[0] - cluster.last_begun, 1),
        "tail": tail_of(cluster),
        "peak_mb": round(peak_mb()),
    }  # fmt: skip


def tail_of(cluster: Simulated) -> dict[str, Any]:
    """By stage, of the conversation that ended last: tasks that ended after the last conversation was begun, when the
    last of them did (seconds after that), and the longest of them, seconds."""
    tail: dict[str, Any] = {}
    for ended, seconds, task in cluster.done:
        if task.item == cluster.done[-1][2].item and ended > cluster.last_begun:
            count, _, longest = tail.get(task.stage, (0, 0.0, 0.0))
            tail[task.stage] = (count + 1, round(ended - cluster.last_begun, 1), max(longest, round(seconds, 1)))
    return tail


def ramp_of(cluster: Simulated, kind: int) -> float | None:
    """When nearly all of the most workers of a kind were at work for the first time."""
    most = max(there[kind] for _, _, there in cluster.log)
    full = (when for when, busy, _ in cluster.log if busy[kind] >= 0.97 * most)
    return next(full, None) if most else None


def utilisation(cluster: Simulated, kind: int, ramp: float) -> float:
    """Share of the time of a kind's workers in which they worked, while conversations were begun and tasks waited."""
    log = [row for row in cluster.log if ramp <= row[0] <= min(cluster.queued[kind], cluster.last_begun)]
    worked = sum(busy[kind] * (after - when) for (when, busy, _), (after, _, _) in itertools.pairwise(log))
    there = sum(workers[kind] * (after - when) for (when, _, workers), (after, _, _) in itertools.pairwise(log))
    return round(worked / there, 4) if there else 0.0


def worker_seconds(cluster: Simulated) -> float:
    return sum(sum(there) * (after - when) for (when, _, there), (after, _, _) in itertools.pairwise(cluster.log))


def starts(machines: int, options: argparse.Namespace) -> dict[str, Any]:
    """What it costs to ask for a cluster's workers until each has its place."""
    clock, wanted = Clock(), CORES * machines
    cluster = Simulated(clock, argparse.Namespace(**vars(options) | {"machines": machines, "faults": False}))
    config = RunConfig(address="sim:1", resources={"diarize": StageResources(memory_gb=3)})
    with patch("time.monotonic", clock.now):
        began = clock.now()
        executor = RayExecutor(config, {"diarize": Graph(BuildConfig()).stages(BuildConfig(), "")["diarize"]}, cluster)
        cpu = clock.cpu()
        for number in range(2 * wanted):
            executor.submit(Task("diarize", f"{number:016x}", "", "", "", seconds=1e5))
        while sum(cluster.workers) < wanted:
            executor.wait(0.1)
        cpu, took = clock.cpu() - cpu, clock.now() - began
    return {"machines": machines, "workers": wanted, "virtual_s": round(took, 1), "cpu_s": round(cpu, 2),
            "cpu_us_per_worker": round(cpu / wanted * 1e6)}  # fmt: skip


def measure_ray(actors: int, calls: int = 5000) -> dict[str, Any]:
    """CPU time of this process for a call of a kilobyte to an actor that does nothing, and its answer."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", ignore_reinit_error=True)
    kind = ray.remote(num_cpus=0.01, max_restarts=0, max_task_retries=0, max_concurrency=2)(_Nothing)
    workers = [kind.remote() for _ in range(actors)]
    ray.get([worker.run.remote(b"") for worker in workers])
    answered: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def call(worker: Any) -> None:
        worker.run.remote(bytes(1000)).future().add_done_callback(lambda done: answered.put((worker, done)))

    cpu, thread = time.process_time(), time.thread_time()
    for worker in workers:
        call(worker)
    for number in range(calls):
        worker, _ = answered.get(timeout=60)
        if number < calls - actors:
            call(worker)
    cpu, thread = time.process_time() - cpu, time.thread_time() - thread
    for worker in workers:
        ray.kill(worker)
    return {"actors": actors, "calls": calls, "us_per_call": round(cpu / calls * 1e6),
            "of_the_thread_that_submits": round(thread / calls * 1e6)}  # fmt: skip


class _Nothing:
    def run(self, data: bytes) -> bytes:
        return data


if __name__ == "__main__":
    main()
