"""A watched process, and what nobody may touch."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.media import Elsewhere
from tests.hostile.watch import PROJECT, Driver, Told, shim

SEED = 16
PEAK_MB = 2500  # of a process that carries out whatever comes; a third of it is what the libraries take
# Ray asks the cloud's own address what machine this is, and the kernel which way leads out; neither sends anything.
OF_RAY = ("169.254.169.254:80", "8.8.8.8:53")
SYSTEM = (
    "/.dockerenv",
    "/run/",
    "/usr/",
    "/lib",
    "/etc/",
    "/bin/",
    "/proc/",
    "/sys/",
    "/dev/null",
    "/dev/urandom",
    "/dev/shm",
    "/var/lib/",
)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shim(tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    """A secret file, and a port that notes who calls (and answers nothing)."""
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.json"
    secret.write_text('{"secret": true}')
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_refuse, args=(server,), daemon=True).start()
    yield Elsewhere(secret, f"http://127.0.0.1:{server.getsockname()[1]}")
    server.close()


def _refuse(server: socket.socket) -> None:
    while True:
        try:
            server.accept()[0].close()
        except OSError:
            return


@pytest.fixture(scope="module")
def driver(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    driver = Driver(library, tmp_path_factory.mktemp("driver"))
    yield driver
    assert driver.children == []
    driver.close()


class Judge:
    """Collects what no input may bring about, so that one run reports all of it."""

    def __init__(self, elsewhere: Elsewhere, *allowed: Path) -> None:
        self._elsewhere = elsewhere
        home = (
            str(PROJECT),
            str((PROJECT / ".venv").resolve()),
            sys.prefix,
            sys.base_prefix,
            str(Path(sys.executable).resolve().parent),
        )
        self._readable = (*SYSTEM, *home, *(str(path) for path in allowed))
        self._writable = ("/dev/null", "/dev/shm/", "/proc/self/", *(str(path) for path in allowed))
        self._known: tuple[str, ...] = ()
        self.faults: list[str] = []
        self.slowest: list[tuple[float, str]] = []

    def expect_ray(self) -> None:
        """What Ray itself does at its start is no fault of an input's."""
        self._known = OF_RAY
        self._readable += ("/root/ray_bootstrap_config.yaml",)
        self._writable += ("/proc/",)

    def expect_read(self, beginning: str) -> None:
        """A list of this machine may name any of its files, and the dry run reads the headers of some."""
        self._readable += (beginning,)

    def look(self, name: str, told: Told, codes: tuple[int, ...]) -> None:
        """Judge a command."""
        self.slowest.append((told.seconds, name))
        if told.peak_mb > PEAK_MB:
            self.faults.append(f"{name}: held {told.peak_mb:.0f} MB")
        for fault in (*told.faults(codes), *self._outside(told)):
            self.faults.append(f"{name}: {fault}: {told.last_words()}")

    def _outside(self, told: Told) -> Iterator[str]:
        port = self._elsewhere.host.rpartition(":")[2]
        for what, places in told.seen.items():
            for place in dict.fromkeys(places):
                if what in ("connect", "bind"):
                    own = place.startswith(("127.0.0.1:", "[::1]:", "[::ffff:127.0.0.1]:")) or place in self._known
                    if place.endswith(f":{port}") or not own:
                        yield f"{what} {place}"
                elif what == "read" and place.startswith("/") and not place.startswith(self._readable):
                    yield f"read {place}"
                elif what in ("write", "unlink") and place.startswith("/") and not place.startswith(self._writable):
                    yield f"{what} {place}"
                if os.path.normpath(place).startswith(str(self._elsewhere.file.parent)):
                    yield f"{what} {place}"

    def verdict(self) -> None:
        """Fail if there was anything."""
        slow = ", ".join(f"{name} {seconds:.1f} s" for seconds, name in sorted(self.slowest, reverse=True)[:8])
        print(f"{len(self.slowest)} commands, {sum(s for s, _ in self.slowest):.0f} s; slowest: {slow}")
        assert not self.faults, f"{len(self.faults)} faults:\n" + "\n".join(self.faults)
