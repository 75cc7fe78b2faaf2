"""What a process held, and how much a worker may hold where nobody said, so that no file takes a machine with it."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import psutil

_SHARE = 0.8
"""Of a machine's memory, for all workers together and at most for one."""
_LEAST_GB = 8.0
"""What a worker may hold however many there are: four times what one held on an hour of 1080p, and room for a Whisper
model on CPUs. Several that hold so much at a time are stopped by Ray, which watches the machine."""
_ROOM_GB = 4.0
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_OWN_STATUS = Path("/proc/self/status")


def default_limit(cpus: float) -> float:
    """Gigabytes that a worker on so many of this machine's CPUs may hold, where its stage's needs do not say."""
    share = _SHARE * machine_gb()
    return min(share, max(_LEAST_GB, share * max(1.0, cpus) / (os.cpu_count() or 1)))


def machine_gb() -> float:
    """This machine's memory, or that of the container or job which this process is in."""
    return min([psutil.virtual_memory().total, *_cgroup_limits()]) / 1e9


def peak_mb() -> float:
    """Megabytes that this process held at most. Without /proc, what its parent held when it began counts, too:
    getrusage hands that on."""
    try:
        return int(_OWN_STATUS.read_text().split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _cgroup_limits() -> Iterator[int]:
    """Bytes that this process' control groups may hold; none where they have no limit, or are of another version."""
    with contextlib.suppress(OSError):
        for line in _OWN_CGROUPS.read_text().splitlines():
            _, kind, path = line.split(":", 2)
            below, name = {"": ("", "memory.max"), "memory": ("memory", "memory.limit_in_bytes")}.get(kind, ("", ""))
            own = Path(path.lstrip("/"))
            for folder in (own, *own.parents) if name else ():
                with contextlib.suppress(OSError, ValueError):  # `max`, or a container that sees another root
                    yield int((_CGROUPS / below / folder / name).read_text())


def bound_claims(limit_gb: float) -> None:
    """Let this process claim no more than a watch over what it holds could miss between two looks.

    Claims beyond fail at once, as MemoryError. RLIMIT_DATA counts private memory only: mapped files are free, and so is
    a GPU's address space, of which a process maps hundreds of gigabytes. Libraries claim some that they never touch.
    """
    _claim_at_most(max(2 * limit_gb, limit_gb + _ROOM_GB))


@contextlib.contextmanager
def machine_spared() -> Iterator[None]:
    """In this block the process can claim no more, on top of what it has, than a worker alone may hold."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    _claim_at_most(_claimed_gb() + _SHARE * machine_gb())
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _claimed_gb() -> float:
    return float(getattr(psutil.Process().memory_info(), "data", 0)) / 1e9


def _claim_at_most(gb: float) -> None:
    """The soft limit, which may be raised again; never above what somebody else set."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = int(gb * 1e9)
    resource.setrlimit(resource.RLIMIT_DATA, (most if soft == resource.RLIM_INFINITY else min(most, soft), hard))
