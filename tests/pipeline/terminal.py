"""A terminal for tests: a program in front of a person, in a session of its own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROWS, COLUMNS = 40, 120


class Terminal:
    """What a person sees and types."""

    def __init__(self, side: int, process: subprocess.Popen[bytes]) -> None:
        self._side, self.process = side, process
        self.seen = b""

    @property
    def text(self) -> str:
        return self.seen.decode(errors="replace")

    def watch(self, seconds: float, until: str = "") -> bool:
        """Read for so long, or until a text is there or the program has ended. False where it did not come to that."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            if until and until in self.text:
                return True
            ready, _, _ = select.select([self._side], [], [], 0.2)
            try:
                data = os.read(self._side, 1 << 16) if ready else None
            except OSError:  # nobody has the other side open any more
                data = b""
            if data:
                self.seen += data
            if data == b"" or (not ready and self.process.poll() is not None):
                return not until or until in self.text
        return False

    def type(self, text: str) -> None:
        os.write(self._side, text.encode())


@contextmanager
def terminal(words: Sequence[str], cwd: Path, env: Mapping[str, str] | None = None) -> Iterator[Terminal]:
    """A shell's place taken: the words are run with a terminal as input, output and errors, which controls them."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    command = [sys.executable, "-c", _SESSION, *words]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, env=env, close_fds=True)
    os.close(theirs)
    try:
        yield Terminal(ours, process)
    finally:
        for number in (signal.SIGCONT, signal.SIGTERM, signal.SIGHUP):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)
        os.close(ours)


_SESSION = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
