"""A run's folder: opened for work, and held against the settings that it was built with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from pydantic import BaseModel

from visavis.pipeline.engine.executor import Engine, Executor, InFlight
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.engine.run import Run
from visavis.pipeline.engine.worker import Stages
from visavis.pipeline.plan.file_names import RUN_FILE
from visavis.pipeline.state.ledger import Outcome
from visavis.pipeline.state.lock import locked
from visavis.pipeline.state.standing import Keeper
from visavis.pipeline.state.tasks import Task
from visavis.schemas.config import RunConfig
from visavis.schemas.errors import UsageError
from visavis.schemas.manifest import MANIFEST_NAME
from visavis.schemas.names import Text
from visavis.schemas.plain import MOST_BYTES, fitted, read_strict, to_json
from visavis.schemas.secrets import written
from visavis.schemas.storage.store import Store
from visavis.schemas.untrusted import parsing
from visavis.schemas.words import first_difference


class _WhenNeeded:
    """An executor that is opened at the first task: a run that finds everything done starts no worker."""

    def __init__(self, open_executor: Callable[[], Executor]) -> None:
        self._open = open_executor
        self._executor: Executor | None = None

    def submit(self, task: Task) -> None:
        if self._executor is None:
            self._executor = self._open()
        self._executor.submit(task)

    def has_capacity(self) -> bool:
        return self._executor is None or self._executor.has_capacity()

    def wait(self, seconds: float = 1.0) -> list[Outcome]:
        return self._executor.wait(seconds) if self._executor else []

    def in_flight(self) -> list[InFlight]:
        return self._executor.in_flight() if self._executor else []

    def waiting(self) -> str:
        return self._executor.waiting() if self._executor else ""


@contextmanager
def opened(
    root: str,
    engine: Engine,
    stages: Stages,
    limits: RunConfig,
    settings: dict[str, Any],
    reporter: Reporter,
    *,
    reconfigure: bool = False,
) -> Iterator[Run]:
    """A run's folder, ready to work in: locked, of these settings, and with an executor once there is something to do.

    Raises:
        UsageError: the folder is in use or belongs to other settings; or, at the first task, there is no executor.
            Nothing was written then.
    """
    with locked(root, reporter.line) as hold:
        store = Store(root)
        if not reconfigure:
            check_settings(store, settings)

        def settle() -> None:
            text = to_json(written(settings), indent=1, sort_keys=False)  # stages stay in their order
            if not store.create(RUN_FILE, data := f"{text}\n".encode()):
                if not reconfigure:
                    check_settings(store, settings)  # another run may have begun here meanwhile
                store.write(RUN_FILE, data)

        keeper = Keeper(store, settle)
        with keeper.ending(), ExitStack() as stack:

            def open_executor() -> Executor:
                executor = stack.enter_context(engine(stages, root))
                keeper.begin()
                return executor

            with Run(root, _WhenNeeded(open_executor), limits, reporter, hold) as run:
                keeper.how_far = lambda: run.how_far
                yield run


def read_settings(store: Store) -> dict[str, Any]:
    """What run.json says: the settings, and every stage's fingerprint.

    Raises:
        UsageError: not a run's folder.
    """
    if not store.exists(RUN_FILE):
        raise UsageError(f"{store.root}: not a run's folder ({RUN_FILE} is missing){_what_it_is(store)}")
    return _settings(store)


def _settings(store: Store) -> dict[str, Any]:
    """run.json, which may be of anybody's making.

    Raises:
        UsageError: it is not what a run writes.
    """
    with parsing(lambda why: UsageError(f"{store.root}/{RUN_FILE} is not what a run writes ({why})")):
        settings: dict[str, Any] = read_strict(store.read(RUN_FILE, MOST_BYTES))
        checked = fitted(_Settings, settings)
    return settings | {"fingerprints": checked.fingerprints}


class _Settings(BaseModel):
    """What every run.json has; others than builds have more."""

    config: dict[str, Any]
    fingerprints: dict[Text, Text] = {}


def _what_it_is(store: Store) -> str:
    """What people may have taken for a run's folder."""
    if store.exists(MANIFEST_NAME):
        return "; it is a dataset: name the folder of the run that built it, often the one above"
    if store.exists("metrics.jsonl"):
        return "; it is a training run: its metrics.jsonl says how far it is"
    return "; name the --out of `visavis build` or `visavis pairs`"


def check_settings(store: Store, settings: dict[str, Any]) -> None:
    """Refuse a folder that other settings made.

    Raises:
        UsageError: the folder belongs to other settings; names the first difference.
    """
    changed = difference(store, settings)
    if changed:
        raise UsageError(
            f"{store.root} was built with {changed}; choose another --out, or --reconfigure to rebuild what changed"
        )


def difference(store: Store, settings: dict[str, Any]) -> str:
    """The first setting that differs from those that made what lies in a folder; empty if there is none."""
    if not store.exists(RUN_FILE):
        return ""
    return first_difference(written(_settings(store)["config"]), written(settings["config"]))
