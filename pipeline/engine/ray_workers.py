"""Workers on Ray: all that the scheduler (`pipeline.engine.ray_executor`) needs of a cluster, in five calls.

Ray places workers, moves tasks and says when a machine is lost. Which task goes where is not decided here; so another
cluster can stand in for Ray (`benchmarks.scheduler` simulates one of 1,000 machines).

Answers come through callbacks into one queue. `ray.wait` looks at every reference each time it is asked, which takes
9 ms for 16,000 of them, for each answer that comes alone.
"""

from __future__ import annotations

import hashlib
import queue
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pydantic import TypeAdapter

import visavis
from visavis.pipeline.engine.cluster import Machine, is_local
from visavis.pipeline.engine.memory import default_limit
from visavis.pipeline.engine.supervise import Supervisor, detach
from visavis.pipeline.engine.worker import Stages
from visavis.pipeline.state.ledger import Outcome
from visavis.pipeline.state.tasks import Task
from visavis.schemas.config import RunConfig, StageResources
from visavis.schemas.errors import UsageError, VisavisError
from visavis.schemas.secrets import guard_output

_OURS = ("schemas", "training", "stages", "pipeline")  # packages that a worker must have as the driver has them
_CREATION = "The actor died because of an error raised in its creation task"


# Tasks and outcomes cross as JSON: Ray takes twice as long over a call whose arguments it has to pickle.
CALL = TypeAdapter(tuple[Task, int, float])
OUTCOME = TypeAdapter(Outcome)


class Answer(NamedTuple):
    """To one call. tag: the caller's. error: the worker is gone, or never came to be."""

    tag: Any
    value: Any
    error: Exception | None


class Workers(Protocol):
    """Workers of a cluster. Ours are opaque handles that `start` gives."""

    def machines(self) -> list[Machine]:
        """Those that are there now."""

    def start(self, needs: StageResources) -> Any:
        """Ask for a worker. It is placed when there is room for it."""

    def call(self, worker: Any, what: str, *arguments: Any, tag: Any) -> None:
        """Have a worker do something. It answers as soon as it is placed and done."""

    def answers(self, seconds: float) -> list[Answer]:
        """Answers that came in since; waits so long for the first."""

    def stop(self, worker: Any) -> None:
        """End a worker, or withdraw the wish for it. Calls that it has not answered are answered with an error."""


def failed_to_start(error: Exception) -> bool:
    """Whether a worker came to its machine and could not begin there."""
    return _CREATION in str(error)


class RayWorkers:
    """Workers on the cluster that this process has joined."""

    def __init__(self, config: RunConfig, stages: Stages, root: str) -> None:
        import ray

        self._ray, self._config, self._root = ray, config, root
        self._shared = ray.put(dict(stages))
        self._remote = ray.remote(max_restarts=0, max_task_retries=0, max_concurrency=2)(_RayWorker)
        self._answered: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()

    def machines(self) -> list[Machine]:
        return [Machine(n["NodeID"], n["Resources"], n["Labels"]) for n in self._ray.nodes() if n["Alive"]]

    def start(self, needs: StageResources) -> Any:
        options: dict[str, Any] = {"num_cpus": needs.cpus, "num_gpus": needs.gpus, "scheduling_strategy": "SPREAD"}
        if needs.memory_gb:
            options["memory"] = needs.memory_gb * 1e9
        if needs.labels:
            options["label_selector"] = dict(needs.labels)
        config = self._config
        return self._remote.options(**options).remote(
            [self._shared], self._root, limit_gb(config, needs), config.recycle_items, config.setup_seconds
        )

    def call(self, worker: Any, what: str, *arguments: Any, tag: Any) -> None:
        told = [CALL.dump_json(arguments)] if arguments else []
        future = getattr(worker, what).remote(*told).future()
        future.add_done_callback(lambda done: self._answered.put((tag, done)))

    def answers(self, seconds: float) -> list[Answer]:
        found: list[Answer] = []
        while not found or not self._answered.empty():
            try:
                tag, future = self._answered.get(timeout=seconds)
            except queue.Empty:
                break
            error = future.exception()
            found.append(Answer(tag, None if error else unpacked(future.result()), error))
        return found

    def stop(self, worker: Any) -> None:
        self._ray.kill(worker)


class _RayWorker:
    """The actor: a supervisor on some machine. It answers `awake` also while `run` is at work."""

    def __init__(self, stages: list[Any], root: str, memory_gb: float, recycle: int, setup: float) -> None:
        """stages: the reference to them in a list, or Ray would load their modules before this runs."""
        detach()
        guard_output()
        import ray

        loaded: Stages = ray.get(stages[0])
        self._supervisor = Supervisor(loaded, root, memory_gb=memory_gb, recycle=recycle, setup_seconds=setup)

    def awake(self) -> bool:
        return True

    def hello(self) -> tuple[str, str, Mapping[str, str]]:
        """Host name, Ray's id of the machine, and the code that it runs."""
        import ray

        return socket.gethostname(), ray.get_runtime_context().get_node_id(), code_digests()

    def run(self, call: bytes) -> bytes | VisavisError:
        task, attempt, limit = CALL.validate_json(call)
        try:
            return OUTCOME.dump_json(self._supervisor.run(task, attempt, limit))
        except VisavisError as error:
            return error


def unpacked(value: Any) -> Any:
    """An answer as it came from one."""
    return OUTCOME.validate_json(value) if isinstance(value, bytes) else value


def limit_gb(config: RunConfig, needs: StageResources) -> float:
    """What a worker may hold. 0: no limit, as on a cluster of which we do not know what else it does."""
    if needs.memory_gb is not None:
        return needs.memory_gb
    return default_limit(needs.cpus) if is_local(config.address) else 0.0


@cache
def code_digests() -> Mapping[str, str]:
    """A digest of the code of each of our packages, as it lies on this machine."""
    home = Path(visavis.__file__).parent
    return {name: _code_digest(home / name) for name in _OURS}


def _code_digest(package: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def check_code(host: str, theirs: Mapping[str, str]) -> None:
    """Refuse a worker that runs other code: its artifacts would be recorded as made by ours.

    Raises:
        UsageError: says which packages differ.
    """
    ours = code_digests()
    differ = [name for name in _OURS if theirs.get(name) != ours[name]]
    if differ:
        raise UsageError(
            f"the worker on {host} runs another version of {', '.join(differ)} than this process:"
            " install the same version on every machine of the cluster, and start its Ray again"
        )
