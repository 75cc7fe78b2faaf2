"""The machines that Ray offers: joining a cluster or starting one here, and how many workers they have places for."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import visavis
from visavis.pipeline.engine import metrics
from visavis.pipeline.engine.ray_token import ensure_token
from visavis.schemas.config import StageResources
from visavis.schemas.errors import UsageError
from visavis.schemas.untrusted import first_line
from visavis.stages.models.native import silent_stderr
from visavis.training.home import is_private, own_folder, report_nothing

_CONNECT_SECONDS = 10.0
_LONGEST_SOCKET = 107  # bytes of a path, by the kernel
_LONGEST_FOLDER = _LONGEST_SOCKET - len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.1")


def start_ray(address: str | None) -> None:
    """Join a cluster, or start one on this machine; once per process. Quiet, and nothing leaves the machine.

    Args:
        address: `auto`, host:port, or None for RAY_ADDRESS and, without it, this machine.

    Raises:
        UsageError: no such cluster, an address of another kind, or no folder for a cluster's files here.
    """
    report_nothing()
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # or every worker rebuilds the environment
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its warnings about its own internals help no user
    import ray

    if ray.is_initialized():
        return
    local = is_local(address)
    address, remedy = _wanted(address)
    _check_address(address, remedy)
    if local:  # else 15, behind all else on this machine; on a cluster that is its owner's to say
        os.environ.setdefault("RAY_worker_niceness", "0")
    ensure_token(local=local)
    # Ray would end the process on SIGTERM in its own way, and nothing would be committed first.
    on_main_thread = threading.current_thread() is threading.main_thread()
    on_sigterm = signal.getsignal(signal.SIGTERM)
    # It puts the current folder before all others on its workers' search path, and a user's own `visavis/` may lie
    # there. Where this program lies, workers find what the driver found.
    home = Path(visavis.__file__).parents[1]
    try:
        # it announces the log level that was asked for
        with silent_stderr(), contextlib.chdir(home), _on_loopback() if local else contextlib.nullcontext():
            joined = ray.init(
                # Without a word Ray would also join a cluster that some other process left a note of.
                address=address,
                log_to_driver=False,
                include_dashboard=False,
                logging_level=logging.ERROR,
                **({"_temp_dir": _folder_for_sockets()} if local else {}),
            )
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        why = first_line(error)
        if local:
            raise UsageError(f"Ray cannot start on this machine: {why}; --engine local does without it") from error
        raise UsageError(
            f"no Ray cluster at {address} can be joined ({why}): start one with `ray start --head`,"
            f" or {remedy}; a cluster with tokens wants RAY_AUTH_MODE=token and its token here, too"
        ) from error
    finally:
        if on_main_thread:
            signal.signal(signal.SIGTERM, on_sigterm)
    if not local:
        metrics.begin(joined.address_info.get("webui_url") or "")


def is_local(address: str | None) -> bool:
    """Whether a cluster is started on this machine, and ends with this process."""
    return _wanted(address)[0] == "local"


def _wanted(address: str | None) -> tuple[str, str]:
    """The address that Ray gets, and how its user changes it."""
    if address:
        return address.strip(), "unset run.address (--address)"
    return (os.environ.get("RAY_ADDRESS") or "").strip() or "local", "unset RAY_ADDRESS"


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """A cluster that is started in this block listens on this machine's loopback alone, not to the network.

    That is what Ray does on macOS and Windows; of its reasons there, this constant is all that it asks.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _check_address(address: str, remedy: str) -> None:
    """Refuse what this program cannot join; Ray itself would raise whatever comes, or try for minutes without a word.

    Raises:
        UsageError: says what address is wanted.
    """
    if address in ("auto", "local"):
        return
    kind, mark, _ = address.partition("://")
    if mark:
        what = {
            "http": "that of the dashboard, which takes jobs (`ray job submit`)",
            "ray": "that of Ray Client, which cannot carry a build: start visavis on a machine of the cluster, for"
            " example with `ray job submit`",
        }.get(kind.removesuffix("s"), "of a kind that is not known here")
        raise UsageError(f"the Ray address {address} is {what}; wanted is auto or host:port of its head, or {remedy}")
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 65536):
        raise UsageError(f"the Ray address {address!r} is neither auto nor host:port (often port 6379); or {remedy}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(
            f"no Ray cluster at {address} ({why}): start one with `ray start --head`, or {remedy}"
        ) from error


def _folder_for_sockets() -> str:
    """Where a cluster of this machine keeps its files: as Ray would, or in /tmp where TMPDIR is too long for a socket.

    Ray opens its folder to everybody, sockets and logs included. So that lies in one that only its user may enter.

    Raises:
        UsageError: neither will do.
    """
    named = os.environ.get("RAY_TMPDIR")
    for folder in [named] if named else [tempfile.gettempdir(), "/tmp"]:  # noqa: S108 - as Ray does
        if len(os.fsencode(folder)) <= _LONGEST_FOLDER and os.access(folder, os.W_OK | os.X_OK):
            own = folder if is_private(Path(folder)) else own_folder(folder)
            if len(os.fsencode(own)) <= _LONGEST_FOLDER:
                return str(Path(own) / "ray")
    raise UsageError(
        f"Ray keeps its sockets in {named or tempfile.gettempdir()}, which cannot be written or is longer than"
        f" {_LONGEST_FOLDER} characters: set RAY_TMPDIR to a folder that will do, or use --engine local"
    )


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


def amounts_of(needs: StageResources) -> dict[str, float]:
    """What a worker takes, by Ray's names; memory in bytes."""
    amounts = {"CPU": needs.cpus, "GPU": needs.gpus, "memory": (needs.memory_gb or 0.0) * 1e9}
    return {name: amount for name, amount in amounts.items() if amount}
