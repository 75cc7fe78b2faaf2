"""The machines that Ray offers: joining a cluster or starting one here, and how many workers they have places for."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from schemas.config import StageResources
from schemas.errors import UsageError
from stages.quiet import silent_stderr

_CONNECT_SECONDS = 10.0


def start_ray(address: str | None) -> None:
    """Join a cluster, or start one on this machine; once per process. Quiet, and nothing leaves the machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # or every worker rebuilds the environment
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its warnings about its own internals help no user
    import ray

    if ray.is_initialized():
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    _check_reachable(address)
    # Ray would end the process on SIGTERM in its own way, and nothing would be committed first.
    on_main_thread = threading.current_thread() is threading.main_thread()
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        with silent_stderr():  # it announces the log level that was asked for
            ray.init(
                # Without a word Ray would also join a cluster that some other process left a note of.
                address=address,
                log_to_driver=False,
                include_dashboard=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        raise UsageError(
            f"no Ray cluster at {address} can be joined ({_first_line(str(error))}): start one with `ray start --head`,"
            " or unset run.address; a cluster with tokens wants RAY_AUTH_MODE=token and its token here, too"
        ) from error
    finally:
        if on_main_thread:
            signal.signal(signal.SIGTERM, on_sigterm)


def _check_reachable(address: str) -> None:
    """Ray itself would try for minutes without a word."""
    host, colon, port = address.rpartition(":")
    if not colon or "/" in address or not port.isdigit():
        return  # auto, local, or a kind of address that Ray knows about
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise UsageError(
            f"no Ray cluster at {address} ({error.strerror or error}): start one with `ray start --head`,"
            " or unset run.address"
        ) from error


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "no message")


@dataclass(frozen=True)
class Machine:
    """A node of the cluster, and all that it has."""

    node: str
    amounts: Mapping[str, float]
    labels: Mapping[str, str]

    def suits(self, needs: StageResources) -> bool:
        """Whether its labels are those that workers with these needs ask for."""
        return all(selects(wanted, self.labels.get(name, "")) for name, wanted in needs.labels.items())


def selects(wanted: str, value: str) -> bool:
    """Ray's label selectors: `value`, `!value`, `in(a, b)`, `!in(a, b)`."""
    plain = wanted.removeprefix("!")
    listed = plain.removeprefix("in(").removesuffix(")").split(",") if plain.startswith("in(") else [plain]
    return (value in [v.strip() for v in listed]) != wanted.startswith("!")


def times(needs: StageResources, amounts: Mapping[str, float]) -> int:
    """How many workers so much is enough for."""
    return int(min((amounts.get(name, 0.0) / one + 1e-9 for name, one in amounts_of(needs).items()), default=1.0))


def take(needs: StageResources, amounts: dict[str, float]) -> None:
    """Take a worker's needs away from what is left."""
    for name, one in amounts_of(needs).items():
        amounts[name] = amounts.get(name, 0.0) - one


def amounts_of(needs: StageResources) -> dict[str, float]:
    """What a worker takes, by Ray's names; memory in bytes."""
    amounts = {"CPU": needs.cpus, "GPU": needs.gpus, "memory": needs.memory_gb * 1e9}
    return {name: amount for name, amount in amounts.items() if amount}
