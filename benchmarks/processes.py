"""What benchmarks share: processes of their own, their memory, and lines for people."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from typing import Any

import psutil

_RAYS_OWN = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent")


def new_process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def alone(work: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a new process that ends with it."""
    with new_process() as pool:
        return pool.submit(work, *args).result()


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Family:
    """A driver and all processes that came of it, and the most memory that they had together.

    peak: gigabytes; the sum of proportional set sizes, looked at each second.
    """

    def __init__(self, driver: subprocess.Popen[bytes]) -> None:
        self.driver = driver
        self.peak = 0.0
        self._known: dict[int, psutil.Process] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def members(self) -> list[psutil.Process]:
        """Those that came of the driver and are there still."""
        with suppress(psutil.NoSuchProcess):
            self._known |= {p.pid: p for p in psutil.Process(self.driver.pid).children(recursive=True)}
        return [process for process in list(self._known.values()) if is_alive(process)]

    def workers(self) -> list[psutil.Process]:
        """Ray's actors and tasks at work, and our supervisors' children."""
        return [process for process in self.members() if _is_worker(process)]

    def drivers(self) -> list[psutil.Process]:
        """The driver, if it is there still."""
        return [psutil.Process(self.driver.pid)] if self.driver.poll() is None else []

    def close(self) -> None:
        """End the driver. What a dead driver leaves ends by itself, and must be gone before the next one is timed."""
        self._over.set()
        self._thread.join()
        if self.driver.poll() is None:
            self.members()
            self.driver.kill()
        self.driver.communicate()
        _, alive = psutil.wait_procs(self.members(), timeout=60)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _look(self) -> None:
        while not self._over.wait(1.0):
            self.peak = max(self.peak, round(sum(map(pss, self.members())) / 1e9, 2))


@contextmanager
def family_of(driver: subprocess.Popen[bytes]) -> Iterator[Family]:
    family = Family(driver)
    try:
        yield family
    finally:
        family.close()


def is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        # Not `status` alone: another process may have its number by now.
        return process.is_running() and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    return False


def _is_worker(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        line = " ".join(process.cmdline())
        return "spawn_main" in line or (line.startswith("ray::") and not line.startswith(_RAYS_OWN))
    return False


def pss(process: psutil.Process) -> int:
    """Bytes that a process holds, those that it shares counted in parts; 0 of one that has ended."""
    with suppress(psutil.Error):
        return int(process.memory_full_info().pss)
    return 0
