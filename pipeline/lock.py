"""One run at a time in a run's folder, and the lock of a dead run does not hold the next one up.

On a disk: an flock on `.lock`, which the kernel drops together with its process; lock.json only says who has it. On an
object store, and on a file system without flock: lock.json is a lease, taken and renewed by compare-and-swap, and dead
when nobody renews it (Gray and Cheriton, "Leases", SOSP 1989); who finds a lease of another machine waits until it is
renewed or dead. The trade-off: a lease asks the clocks of two hosts to agree within a minute, and a run that stalls for
two can lose it. So a run calls `check` before it goes on; and a commit that comes too late does no harm, because
commits are atomic and the same bytes.

Whoever may write into the folder may write lock.json, so whatever it holds is a valid owner or none: a lease from the
future is dead, as no clock may be so far ahead, and it would hold the folder until then.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import psutil
from filelock import FileLock, Timeout
from pydantic import AfterValidator, AwareDatetime, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from schemas.errors import RunFailed, UsageError
from schemas.plain import to_json
from schemas.uris import printable
from stages.store import Store

LOCK_FILE = "lock.json"
RENEW_S = 20.0
"""Seconds between renewals of a lease."""
LEASE_S = 120.0
"""Seconds without renewal after which a lease is dead."""
SKEW_S = 60.0
"""Seconds by which the clocks of two hosts may differ; a lease from further ahead is dead."""

_LOOK_S = 2.0
_LONGEST_HOST = 253  # characters
_NO_FLOCK = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)

Owner = dict[str, Any]
"""pid, host, started, renewed (ISO 8601, UTC); and id, born, namespace, which tell one process from another."""


class Hold:
    """A run's folder that is held. `left_by`: who held it last and died without letting go, if so."""

    def __init__(self, left_by: Owner | None) -> None:
        self.left_by = left_by

    def check(self) -> None:
        """Go on only if the folder is still ours. Costs nothing as long as all is well.

        Raises:
            RunFailed: another run took over.
        """


def _quiet(text: str) -> None:
    """Nobody is told."""


@contextmanager
def locked(root: str, say: Callable[[str], None] = _quiet) -> Iterator[Hold]:
    """Hold a run's folder.

    Args:
        say: told in a line when it takes a while to see whether somebody else still holds it.

    Raises:
        UsageError: another run is at work in it.
    """
    store = Store(root)
    with _flocked(store) if store.local and _has_flock(store) else _leased(store, say) as hold:
        yield hold


def holder(store: Store) -> Owner | None:
    """Who holds a run's folder now, as {pid, host, started, renewed}; None where nobody does."""
    found = store.peek(LOCK_FILE)
    owner = _parsed(found[0]) if found else {}
    flocked = _is_flocked(store) if store.local else None
    held = _is_alive(owner) if flocked is None else flocked
    return {key: owner.get(key) for key in ("pid", "host", "started", "renewed")} if held else None


# ---- a disk ----


@contextmanager
def _flocked(store: Store) -> Iterator[Hold]:
    path = _flock_file(store)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0.5, poll_interval=0.05)  # `holder` may be looking, which takes no time
    except Timeout:
        found = store.peek(LOCK_FILE)
        raise _refusal(store, _parsed(found[0]) if found else {}) from None
    try:
        found = store.peek(LOCK_FILE)
        store.write(LOCK_FILE, _dumped(_myself()))
        try:
            yield Hold(_parsed(found[0]) if found else None)
        finally:
            with suppress(OSError):  # on a disk that turned read-only it stays, and the next run finds it
                store.delete(LOCK_FILE)
    finally:
        lock.release()


def _has_flock(store: Store) -> bool:
    """Whether the folder's file system has locks. Some mounts of clusters and clouds have none: there, a lease."""
    _flock_file(store).parent.mkdir(parents=True, exist_ok=True)
    return _is_flocked(store, os.O_CREAT) is not None


def _is_flocked(store: Store, flags: int = 0) -> bool | None:
    """None: the file system cannot tell.

    Raises:
        UsageError: `.lock` is a link, a pipe or anything else but a file.
    """
    path = _flock_file(store)
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | flags, 0o666)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise (
            _no_file(path) if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR) else _named(error, path)
        ) from error
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise _no_file(path)
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # let go when the file closes
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno in _NO_FLOCK:
            return None
        raise _named(error, path) from error
    finally:
        os.close(file)
    return False


def _named(error: OSError, path: Path) -> OSError:
    return OSError(error.errno, error.strerror, str(path))


def _no_file(path: Path) -> UsageError:
    return UsageError(f"{printable(str(path))} is a link, a pipe or a folder, which no run made: remove it")


def _flock_file(store: Store) -> Path:
    return Path(store.full(".lock"))


# ---- an object store, or a file system without flock ----


@contextmanager
def _leased(store: Store, say: Callable[[str], None]) -> Iterator[Hold]:
    lease = _Lease(store, say)
    try:
        yield lease
    finally:
        lease.release()


class _Lease(Hold):
    """lock.json, renewed by a thread for as long as this process lives."""

    def __init__(self, store: Store, say: Callable[[str], None]) -> None:
        self._store = store
        self._say = say
        self._owner = _myself()
        super().__init__(self._take())
        self._lost = ""
        self._turn = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        if not self._lost and _age(self._owner) > LEASE_S:  # this process stood still: the thread may not have had
            self._renew()  # its turn yet
        if self._lost:
            raise RunFailed(f"{self._store.root}: {self._lost}; what was committed stands, run again to go on")

    def release(self) -> None:
        self._over.set()
        self._thread.join(timeout=5)
        with suppress(OSError):  # no connection: then it is dead in two minutes
            found = self._store.peek(LOCK_FILE)
            if found and _parsed(found[0]).get("id") == self._owner["id"]:
                self._store.delete(LOCK_FILE)

    def _take(self) -> Owner | None:
        left_by = None
        for _ in range(5):  # who loses the race finds the winner's lease and is refused
            found = self._store.peek(LOCK_FILE)
            other = _parsed(found[0]) if found else {}
            if other.get("id") == self._owner["id"]:  # ours: the answer was lost, and the repeated request refused
                return left_by
            if _is_alive(other) and self._lives_on(other):
                raise _refusal(self._store, other)
            left_by = other if found else None
            self._owner["renewed"] = _now()
            if self._store.swap(LOCK_FILE, _dumped(self._owner), found[1] if found else None):
                return left_by
        raise UsageError(f"{self._store.root} is wanted by several runs at once; start one of them")

    def _lives_on(self, other: Owner) -> bool:
        """Whether a lease is renewed before it runs out: a run that starts again elsewhere need not be told to wait."""
        if _is_of_this_machine(other):
            return True
        self._say(f"{self._store.root} was held by {_name(other)} a moment ago; waiting to see whether it still is")
        while _is_alive(other):
            time.sleep(_LOOK_S)
            found = self._store.peek(LOCK_FILE)
            now = _parsed(found[0]) if found else {}
            if now.get("id") != other["id"]:
                return False  # it let go, or somebody else was faster: look again
            if now["renewed"] != other["renewed"]:
                return _is_alive(now)
        return False

    def _keep(self) -> None:
        while not self._over.wait(RENEW_S) and not self._lost:
            self._renew()

    def _renew(self) -> None:
        with self._turn:
            reason = "the server refused"
            try:
                found = self._store.peek(LOCK_FILE)
                other = _parsed(found[0]) if found else {}
                renewed = {**self._owner, "renewed": _now()}
                if not found or other.get("id") != self._owner["id"]:
                    self._lost = f"{_name(other)} took over" if found else f"{LOCK_FILE} was removed"
                elif self._store.swap(LOCK_FILE, _dumped(renewed), found[1]):
                    self._owner = renewed
            except OSError as error:
                reason = error.strerror or str(error)
            if not self._lost and _age(self._owner) > LEASE_S:  # until then the next renewal may succeed
                self._lost = f"the lock could not be renewed ({reason})"


# ---- owners ----


def _myself() -> Owner:
    return {
        "id": uuid.uuid4().hex,
        "pid": os.getpid(),
        "host": _host(),
        "born": psutil.Process().create_time(),
        "namespace": _namespace(),
        "started": _now(),
        "renewed": _now(),
    }


def _host() -> str:
    return _plain(socket.gethostname())


def _plain(name: str) -> str:
    """A name that may be printed anywhere, and is not too long."""
    return printable(name)[:_LONGEST_HOST]


def _namespace() -> int:
    """Where the pid counts: containers may share a host's name and not its processes. 0 where there are none."""
    with suppress(OSError):
        return Path("/proc/self/ns/pid").stat().st_ino
    return 0


def _is_alive(owner: Owner) -> bool:
    """A lease that was renewed not long ago, by a process that is not known to be dead."""
    return _age(owner) <= LEASE_S and not _is_dead(owner)


def _is_dead(owner: Owner) -> bool:
    """Whether it was a process of this machine and is no more; its pid may be another's by now."""
    if not _is_of_this_machine(owner):
        return False
    try:
        process = psutil.Process(owner["pid"])
        # a minute: the time of birth moves when the clock is set
        return process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - owner["born"]) > 60
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def _is_of_this_machine(owner: Owner) -> bool:
    return (owner.get("host"), owner.get("namespace")) == (_host(), _namespace())


def _age(owner: Owner) -> float:
    """Seconds since the last sign of life; endless for what is no owner, or gives its signs in the future."""
    if not owner:
        return float("inf")
    age = time.time() - datetime.fromisoformat(owner["renewed"]).timestamp()
    return age if age >= -SKEW_S else float("inf")


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds")


def _name(owner: Owner) -> str:
    since = f" since {owner['started']}" if "started" in owner else ""
    return f"process {owner.get('pid', '?')} on {owner.get('host', '?')}{since}"


def _refusal(store: Store, owner: Owner) -> UsageError:
    return UsageError(f"{store.root} is in use by {_name(owner)}; wait for it or choose another --out")


def _dumped(owner: Owner) -> bytes:
    return (to_json(owner, sort_keys=False) + "\n").encode()


def _utc(when: datetime) -> str:
    """The same moment as this program writes it: other texts of it may hold what is not to be printed."""
    try:
        return when.astimezone(UTC).isoformat()
    except OverflowError as error:  # in the first hours of year 1, or the last of 9999
        raise ValueError(str(error)) from error


_Name = Annotated[str, AfterValidator(_plain)]
_Moment = Annotated[AwareDatetime, Field(strict=False), AfterValidator(_utc)]


class _Fields(TypedDict):
    id: _Name
    pid: Annotated[int, Field(gt=0, lt=2**31)]
    host: _Name
    born: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    namespace: Annotated[int, Field(ge=0, lt=2**63)]
    started: _Moment
    renewed: _Moment


_OWNER = TypeAdapter(_Fields)


def _parsed(data: bytes) -> Owner:
    """What lock.json says; nothing where something else wrote it."""
    try:
        return dict(_OWNER.validate_json(data, strict=True))
    except (ValidationError, RecursionError, ValueError):
        return {}
