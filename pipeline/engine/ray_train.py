"""The training loop on Ray: TorchTrainer starts the processes, `training.train` runs in each, and this one looks on.

The loop knows nothing of Ray. All machines must see the folders and URLs that it is given; the run's folder carries the
metrics to this process, and the wish to stop from it. A process or machine that is lost is replaced, and the run goes
on from its last checkpoint.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from visavis.pipeline.engine.cluster import start_ray
from visavis.pipeline.engine.paths import in_full
from visavis.schemas.errors import DatasetError, RunFailed, UsageError, VisavisError
from visavis.schemas.secrets import guard_output
from visavis.schemas.train import TrainConfig
from visavis.training.log import METRICS_NAME
from visavis.training.stopping import go_on
from visavis.training.train import Progress, Stopped, train

_STOP_NAME = ".stop"
_ASK_SECONDS = 1.0  # between two looks at the folder
_RESTARTS = 2
_ERRORS: dict[str, type[BaseException]] = {e.__name__: e for e in (UsageError, DatasetError, RunFailed, Stopped)}


def train_on_ray(
    dataset: str,
    out: Path,
    config: TrainConfig,
    *,
    workers: int,
    address: str | None,
    init: Path | None = None,
    pairs: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """`training.train.train` in so many processes of a Ray cluster, with a GPU each where the cluster has GPUs.

    Args:
        address: of the cluster; none: one is started on this machine.

    Raises: what `train` raises; UsageError, too, if the cluster cannot hold so many processes.
    """
    start_ray(address)
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    out = out.resolve()
    features = config.features.model_copy(update={"weights": in_full(config.features.weights)})
    dpo = config.dpo.model_copy(update={"cache": in_full(config.dpo.cache)})
    config = config.model_copy(update={"features": features, "dpo": dpo})
    out.mkdir(parents=True, exist_ok=True)
    stop = out / _STOP_NAME
    stop.unlink(missing_ok=True)
    work = {
        "dataset": in_full(dataset),
        "out": out,
        "config": config,
        "init": init and init.resolve(),
        "pairs": in_full(pairs),
    }
    gpu, cpus = _room(workers, config, here=address is None)
    trainer = TorchTrainer(
        _work,
        train_loop_config=work,
        torch_config=TorchConfig(backend="gloo"),  # the loop adds nccl itself
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=gpu, resources_per_worker={"CPU": cpus, "GPU": int(gpu)}
        ),
        run_config=RunConfig(name="ray", storage_path=str(out), failure_config=FailureConfig(max_failures=_RESTARTS)),
    )
    try:
        with redirect_stdout(sys.stderr):  # where Ray's word of a lost process goes
            answer = _look_on(trainer, out, stop, config.steps(pairs=pairs is not None), progress)
    finally:
        stop.unlink(missing_ok=True)
    if answer["error"]:
        raise _ERRORS[answer["error"]](answer["message"])
    return Path(answer["path"])


def _work(work: dict[str, Any]) -> dict[str, str]:
    """What each process does; expected errors are answers, for Ray would try again."""
    guard_output()
    asked = 0.0

    def stop() -> bool:
        nonlocal asked
        if time.monotonic() - asked < _ASK_SECONDS:
            return False
        asked = time.monotonic()
        return (work["out"] / _STOP_NAME).exists()

    try:
        path = train(work["dataset"], work["out"], work["config"], init=work["init"], pairs=work["pairs"], stop=stop)
    except (VisavisError, Stopped) as error:
        return {"error": type(error).__name__, "message": str(error)}
    return {"error": "", "path": str(path)}


def _look_on(trainer: Any, out: Path, stop: Path, steps: int, progress: Progress | None) -> dict[str, str]:
    """Ray's answer. Meanwhile tell of the metrics; whoever asks this process to stop asks them all."""
    from ray.train import TrainingFailedError

    answer: Future[dict[str, str]] = Future()

    def fit() -> None:
        try:
            answer.set_result(trainer.fit().return_value)
        except Exception as error:  # noqa: BLE001 - raised again by the thread that waits
            answer.set_exception(error)

    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    seen = _Metrics(out / METRICS_NAME)
    thread.start()
    while thread.is_alive():
        try:
            thread.join(_ASK_SECONDS)
        except KeyboardInterrupt:
            if stop.exists():  # the second time
                raise
            stop.touch()
            go_on()
        latest = seen.latest()
        if progress is not None and latest:
            progress(int(latest["step"]), steps, latest)
    try:
        return answer.result()
    except TrainingFailedError as error:
        raise RunFailed(f"Ray gave up after {_RESTARTS} new starts: {error}") from error


class _Metrics:
    """Follows metrics.jsonl as another process writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = path.stat().st_size if path.exists() else 0

    def latest(self) -> dict[str, float]:
        """The newest whole line of training that was not seen yet."""
        if not self._path.exists():
            return {}
        if self._path.stat().st_size < self._read:  # written anew
            self._read = 0
        with self._path.open("rb") as file:
            file.seek(self._read)
            whole = file.read().rpartition(b"\n")[0]
        self._read += len(whole) + bool(whole)
        lines = [json.loads(line) for line in whole.splitlines()]
        return next((line for line in reversed(lines) if "loss" in line), {})


def _room(workers: int, config: TrainConfig, *, here: bool) -> tuple[bool, int]:
    """Whether each process has a GPU, and its CPUs. A cluster may grow, this machine does not."""
    import ray

    has = ray.cluster_resources()
    gpu = config.device == "cuda" or (config.device == "auto" and has.get("GPU", 0) > 0)
    for name, wanted in (("GPU", gpu), ("CPU", True)):
        if here and wanted and has.get(name, 0) < workers:
            raise UsageError(
                f"--num-workers {workers}: this machine has {has.get(name, 0):.0f} {name}s; one each is needed"
            )
    return gpu, max(1, int(has.get("CPU", 1)) // workers) if here else 1
