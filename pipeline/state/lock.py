"""One run at a time in a run's folder, and the lock of a dead run does not hold the next one up.

lock.json is a lease: made by who is the first (`Store.create`), renewed by writing it again, and dead when nobody has
renewed it for a while (Gray and Cheriton, "Leases", SOSP 1989), or when its process was of this machine and is no more.
Who finds a lease of another machine waits until it is renewed or dead.

It saves two runs from doing the same work twice. It does not keep them from harm, and need not: clocks may disagree, a
process may stand still for longer than its lease, and of two that find the same dead lease both may take it for a
moment. What runs write side by side does no harm anyway (`docs/running.md`, "One run at a time").

Whoever may write into the folder may write lock.json, so whatever it holds is a valid owner or none: a lease from the
future is dead, as no clock may be so far ahead, and it would hold the folder until then.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import psutil
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from visavis.schemas.errors import RunFailed, UsageError
from visavis.schemas.names import Count, Text
from visavis.schemas.storage.store import Store
from visavis.schemas.uris import printable

LOCK_FILE = "lock.json"
RENEW_S = 20.0
"""Seconds between renewals of a lease."""
LEASE_S = 120.0
"""Seconds without renewal after which a lease is dead."""
SKEW_S = 60.0
"""Seconds by which the clocks of two hosts may differ; a lease from further ahead is dead."""

_LOOK_S = 2.0
_Moment = Annotated[AwareDatetime, Field(strict=False)]


class Owner(BaseModel):
    """Who has a folder. born and namespace tell a process from others with its pid: earlier ones, and other
    containers' on the same host (0 where there are none)."""

    model_config = ConfigDict(strict=True)

    id: Text
    pid: Annotated[int, Field(gt=0, lt=2**31)]
    host: Text
    born: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    namespace: Count
    started: _Moment
    renewed: _Moment

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.started.isoformat(timespec='seconds')}"

    @property
    def age(self) -> float:
        """Seconds since the last sign of life."""
        return time.time() - self.renewed.timestamp()

    @property
    def alive(self) -> bool:
        """Whether it gave a sign of life not long ago, and is not known to be dead."""
        return -SKEW_S <= self.age <= LEASE_S and not (self.is_here and self._is_gone())

    @property
    def is_here(self) -> bool:
        """Whether it is, or was, a process of this machine."""
        return (self.host, self.namespace) == _here()

    def _is_gone(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            # a minute: the time of birth moves when the clock is set
            return process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - self.born) > 60
        except psutil.Error as error:
            return isinstance(error, psutil.NoSuchProcess)  # else we may not look


class Hold:
    """A run's folder that is held: a lease that a thread renews for as long as this process lives."""

    def __init__(self, store: Store, say: Callable[[str], None]) -> None:
        self._store, self._say = store, say
        self._owner = _myself()
        self._take()
        self._lost = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Go on only if the folder is still ours. Costs nothing as long as all is well.

        Raises:
            RunFailed: another run took over.
        """
        if not self._lost and self._owner.age > LEASE_S:  # this process stood still, and the thread with it
            self._renew()
        if self._lost:
            raise RunFailed(f"{self._store.root}: {self._lost}; what was committed stands, run again to go on")

    def release(self) -> None:
        self._over.set()
        self._thread.join(timeout=5)
        with suppress(OSError):  # no connection, or a disk that turned read-only: it is dead in two minutes
            other = _found(self._store)
            if other and other.id == self._owner.id:
                self._store.delete(LOCK_FILE)

    def _take(self) -> None:
        for _ in range(5):  # who loses the race finds the winner's lease and is refused
            self._owner.renewed = _now()
            if self._store.create(LOCK_FILE, _dumped(self._owner)):
                return
            other = _found(self._store)
            if other and other.id == self._owner.id:  # the answer was lost, and the repeated request refused
                return
            if other and other.alive and (other.is_here or self._is_renewed(other)):
                raise UsageError(f"{self._store.root} is in use by {other}; wait for it or choose another --out")
            self._store.delete(LOCK_FILE)
        raise UsageError(f"{self._store.root} is wanted by several runs at once; start one of them")

    def _is_renewed(self, other: Owner) -> bool:
        """Whether a lease is renewed before it runs out: a run that starts again elsewhere need not be told to wait."""
        self._say(f"{self._store.root} was held by {other} a moment ago; waiting to see whether it still is")
        now: Owner | None = other
        while now == other and other.alive:
            time.sleep(_LOOK_S)
            now = _found(self._store)
        return now is not None and now.id == other.id and now.alive

    def _keep(self) -> None:
        while not self._over.wait(RENEW_S) and not self._lost:
            self._renew()

    def _renew(self) -> None:
        try:
            other = _found(self._store)
            if other is None or other.id != self._owner.id:
                self._lost = f"{other} took over" if other else f"{LOCK_FILE} was removed"
                return
            renewed = self._owner.model_copy(update={"renewed": _now()})
            self._store.write(LOCK_FILE, _dumped(renewed))
            self._owner = renewed
        except OSError as error:
            if self._owner.age > LEASE_S:  # until then the next renewal may succeed
                self._lost = f"the lock could not be renewed ({error.strerror or error})"


@contextmanager
def locked(root: str, say: Callable[[str], None] = lambda _: None) -> Iterator[Hold]:
    """Hold a run's folder.

    Args:
        say: told in a line when it takes a while to see whether somebody else still holds it.

    Raises:
        UsageError: another run is at work in it.
    """
    hold = Hold(Store(root), say)
    try:
        yield hold
    finally:
        hold.release()


def holder(store: Store) -> dict[str, Any] | None:
    """Who holds a run's folder now, as {pid, host, started, renewed}; None where nobody does."""
    owner = _found(store)
    shown = {"pid", "host", "started", "renewed"}
    return owner.model_dump(mode="json", include=shown) if owner and owner.alive else None


def _found(store: Store) -> Owner | None:
    """What lock.json says; None where there is none, or something else wrote it."""
    data = store.peek(LOCK_FILE)
    with suppress(ValidationError, RecursionError, ValueError):
        return None if data is None else Owner.model_validate_json(data)
    return None


def _myself() -> Owner:
    host, namespace = _here()
    born, now = psutil.Process().create_time(), _now()
    return Owner(
        id=uuid.uuid4().hex, pid=os.getpid(), host=host, born=born, namespace=namespace, started=now, renewed=now
    )


def _here() -> tuple[str, int]:
    """This host, and the namespace in which its pids count."""
    host = printable(socket.gethostname())
    with suppress(OSError):
        return host, Path("/proc/self/ns/pid").stat().st_ino
    return host, 0


def _now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)


def _dumped(owner: Owner) -> bytes:
    return f"{owner.model_dump_json()}\n".encode()
