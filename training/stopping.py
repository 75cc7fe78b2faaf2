"""Being asked to stop, once and again: by Ctrl-C, by a cluster that takes its machine back, by a terminal that closes.

The first request is a KeyboardInterrupt, or whatever who is at work made of it (`training.train` finishes its step,
by `asked_to_stop`).
The second one is answered with a line, for what is under way is to be committed first. The third ends the process at
once, also where Python's own handlers have no turn: waiting for another process happens in C.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 130
"""As shells give it to a program that Ctrl-C ended."""
_REQUESTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def answer_requests_to_stop(name: str) -> None:
    """For a program's main thread, at its start. name: of the program, for what it says."""
    global _answering
    _asked.clear()
    if _answering:
        return
    _answering = True
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    signal.set_wakeup_fd(writes, warn_on_full_buffer=False)  # written to at once, whatever the main thread waits for
    threading.Thread(target=_count, args=(reads, name), name="stopping", daemon=True).start()
    signal.signal(signal.SIGINT, _once)
    signal.signal(signal.SIGTERM, _once)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, _once)


def _once(_number: int, _frame: FrameType | None) -> None:
    """The first request is an exception; while that takes its way, later ones must not end the cleaning up."""
    if not _asked.is_set():
        _asked.set()
        raise KeyboardInterrupt


_asked = threading.Event()
_answering = False


def go_on() -> None:
    """Whoever caught the KeyboardInterrupt and goes on for a while says so: the next request is one again."""
    _asked.clear()


def _count(reads: int, name: str) -> None:
    count = 0
    while data := os.read(reads, 64):
        for number in data:
            count += number in _REQUESTS
            if number in _REQUESTS and count == 2:
                print(f"{name}: stopping; once more ends it at once", file=sys.stderr, flush=True)
            if count > 2:
                os._exit(EXIT_CODE)


@contextmanager
def asked_to_stop(also: Callable[[], bool] | None) -> Iterator[Callable[[], bool]]:
    """Whether somebody asked to stop, by SIGTERM, SIGINT or `also`. A second signal does not wait for a checkpoint."""
    asked = threading.Event()

    def note(_number: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    numbers = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield lambda: asked.is_set() or (also is not None and also())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
