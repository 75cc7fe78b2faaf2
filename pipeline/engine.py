"""Engines: carry out the tasks of one stage, in this process or on Ray. Both yield the same outcomes.

Ray places work and retries lost workers. It does not decide what is done: artifacts do (`pipeline.task`).
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from pipeline.ledger import Outcome
from pipeline.task import AnyStage, Artifact, Task, Worker
from schemas.config import RunConfig, StageResources
from schemas.errors import RunFailed, UsageError
from stages.base import Stage
from stages.quiet import silent_stderr

Engine = Callable[[AnyStage, Sequence[Task], str], Iterator[Outcome]]
"""(stage, tasks, root of the run's folder) → outcomes, in any order."""

_MAX_BLOCKS = 4096


def local_engine(stage: AnyStage, tasks: Sequence[Task], root: str) -> Iterator[Outcome]:
    """One task after the other in this process: for debugging, notebooks and tests."""
    worker = Worker(stage, root)
    for task in tasks:
        yield worker.run(task)


def ray_engine(config: RunConfig) -> Engine:
    """Actor pools on Ray Data, one worker per process, models loaded once per worker."""

    def run(stage: AnyStage, tasks: Sequence[Task], root: str) -> Iterator[Outcome]:
        import ray.data

        start_ray(config.address)
        wanted = config.resources.get(stage.name) or _default_resources(stage)
        workers = min(len(tasks), wanted.workers or _room(wanted))
        source = ray.data.from_items(
            [{"task": json.dumps(asdict(task))} for task in tasks], override_num_blocks=min(len(tasks), _MAX_BLOCKS)
        )
        takes: dict[str, Any] = {"num_cpus": wanted.cpus, "num_gpus": wanted.gpus}
        if wanted.memory_gb:
            takes["memory"] = wanted.memory_gb * 1e9
        if type(stage).setup is Stage.setup:  # no model to keep: plain tasks, which start at once on idle processes
            outcomes = source.map(_run_once, fn_args=(stage, root), **takes)
        else:
            pool = ray.data.ActorPoolStrategy(size=workers)
            outcomes = source.map(_RayWorker, fn_constructor_args=(stage, root), compute=pool, **takes)
        try:
            for row in outcomes.iter_rows():
                yield Outcome(**json.loads(row["outcome"]))
        except ray.exceptions.RayError as error:  # items that fail are outcomes; this is the machinery itself
            raise RunFailed(f"{stage.name}: Ray could not carry out the stage: {_last_line(error)}") from error

    return run


def start_ray(address: str | None) -> None:
    """Join a cluster, or start one on this machine; once per process. Quiet, and nothing leaves the machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # or every worker rebuilds the environment
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its warnings about its own internals help no user
    # Idle processes are kept from one stage to the next: starting one and importing takes seconds.
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "120000")
    import ray
    import ray.data

    if not ray.is_initialized():
        try:
            with silent_stderr():  # it announces the log level that was asked for
                ray.init(address=address, log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
        except ConnectionError as error:
            raise UsageError(
                f"no Ray cluster at {address}: start one with `ray start --head`, or unset run.address"
            ) from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


class _RayWorker:
    def __init__(self, stage: AnyStage, root: str) -> None:
        self._worker = Worker(stage, root)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"outcome": json.dumps(asdict(self._worker.run(_task(row["task"]))))}


def _run_once(row: dict[str, Any], stage: AnyStage, root: str) -> dict[str, Any]:
    return _RayWorker(stage, root)(row)


def _task(text: str) -> Task:
    raw = json.loads(text)
    inputs = {name: tuple(Artifact(**a) for a in artifacts) for name, artifacts in raw["inputs"].items()}
    return Task(**{**raw, "inputs": inputs, "files": tuple(raw["files"]), "places": tuple(raw["places"])})


def _default_resources(stage: AnyStage) -> StageResources:
    needs = stage.resources
    return StageResources(cpus=needs.cpus, gpus=needs.gpus, memory_gb=needs.memory_gb)


def _last_line(error: Exception) -> str:
    """Ray's messages end with the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _room(wanted: StageResources) -> int:
    """How many workers the cluster has room for."""
    import ray

    have = ray.cluster_resources()
    rooms = [have.get("CPU", 1.0) / wanted.cpus] if wanted.cpus else []
    rooms += [have.get("GPU", 0.0) / wanted.gpus] if wanted.gpus else []
    return max(1, int(min(rooms, default=1)))
