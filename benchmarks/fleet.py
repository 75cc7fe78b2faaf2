"""A thousand machines in one process: the driver's own code against a simulated Ray, in virtual time.

    python -m benchmarks.fleet [--machines 1000] [--items 40000] [--gpus 0] [--autoscale] [--profile]

Roads, index, ledger, scheduler and failure policy are the real ones (`pipeline.fleet.Fleet` on other `Workers`); only
what a cluster does is simulated: machines of 16 cores, workers that take 2 to 6 s to start, tasks that take what stages
took per second of media on one core, a worker in 20,000 tasks that dies, a machine every two minutes that goes, is
missed after 30 s and comes back after five minutes. Lengths are log-normal around 90 s, from 20 s to 2 h.

The clock stands for the driver's: it jumps to the next event while the driver waits, and goes on by the CPU time that
the driver takes while it does not; so a driver that is too slow leaves workers idle, as it would. Ray's own cost of a
call is added (`--ray-us`): submitted and answered it took 250 to 290 µs of the driver's process, of all its threads;
88 to 105 of them are of the thread that submits.

`--gpus N`: N of the machines have four GPUs, and faces are tracked there. `--autoscale`: a tenth of the machines are
there, the others two minutes after somebody has waited for room. `--hang`: ingest of the first item hangs.
"""

from __future__ import annotations

import argparse
import cProfile
import itertools
import json
import platform
import pstats
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
from pipeline.build import Build
from pipeline.chain import stages_of
from pipeline.crew import Crew
from pipeline.fleet import Fleet
from pipeline.ledger import Ledger
from pipeline.memory import peak_mb
from pipeline.sources import find_sources
from pipeline.task import Stages
from schemas.config import BuildConfig, RunConfig, StageResources
from stages.store import Store


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
    parser.add_argument("--profile", action="store_true", help="print where the driver's time goes")
    options = parser.parse_args()
    parent = MEMORY_DISK if MEMORY_DISK.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="visavis-fleet-", dir=parent) as folder:
        write_list(Path(folder), options.items)
        print(json.dumps(simulate(Path(folder), options)))


def simulate(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    clock = Clock()
    cluster = Simulated(clock, options)
    config = BuildConfig(run=RunConfig(address="sim:1", resources=resources(options), max_failure_share=0.1))

    @contextmanager
    def engine(stages: Stages, root: str) -> Iterator[Crew]:
        yield Fleet(config.run, stages, cluster)

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
    say(f"{time.perf_counter() - real:.0f} s of real time; rows {dict(rows)}")
    return figures(cluster, options, took, cpu) | {"bound": rows["separate", "ok"], "machine": platform.platform()}


def stop(*_: Any) -> Any:
    raise Stopped


def resources(options: argparse.Namespace) -> dict[str, StageResources]:
    most = CORES * options.machines if options.autoscale else 0
    needs = {stage: StageResources(memory_gb=3, max_workers=most) for stage in stages_of(BuildConfig(), "")}
    return needs | ({"faces": StageResources(gpus=0.25, memory_gb=2)} if options.gpus else {})


def figures(cluster: Simulated, options: argparse.Namespace, took: float, cpu: float) -> dict[str, Any]:
    tasks, most = len(cluster.done), max(workers for _, _, workers in cluster.log)
    first_full = next((when for when, busy, _ in cluster.log if busy >= 0.97 * most), took)
    share = utilisation([row for row in cluster.log if first_full <= row[0] <= cluster.last_begun])
    initial = cluster.asked[: CORES * options.machines]
    return {
        "name": "fleet",
        "machines": options.machines,
        "items": options.items,
        "tasks": tasks,
        "virtual_s": round(took, 1),
        "driver_cpu_s": round(cpu, 1),
        "driver_cpu_us_per_task": round(cpu / tasks * 1e6),
        "ray_us_per_call": options.ray_us,
        "tasks_s_sustained": round(1 / (cpu / tasks + options.ray_us * 1e-6)),
        "tasks_s_here": round(tasks / took),
        "workers": most,
        "asked_all_s": round(initial[-1][0] - initial[0][0], 2),
        "asked_all_cpu_s": round(initial[-1][1] - initial[0][1], 2),
        "utilisation": round(share, 4),
        "from_ramp_to_tail_s": [round(first_full, 1), round(cluster.last_begun, 1)],
        "others_end_s": round(cluster.last_but_first, 1),
        "last_but_one_to_end_s": round(cluster.done[-1] - cluster.done[-2], 2),
        "tail_s": round(cluster.done[-1] - cluster.last_begun, 1),
        "peak_mb": round(peak_mb(), 1),
    }


def utilisation(log: list[tuple[float, int, int]]) -> float:
    worked = sum(busy * (after - when) for (when, busy, _), (after, _, _) in itertools.pairwise(log))
    there = sum(workers * (after - when) for (when, _, workers), (after, _, _) in itertools.pairwise(log))
    return worked / there if there else 0.0


if __name__ == "__main__":
    main()
