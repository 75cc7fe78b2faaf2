"""Jobs side by side, each in a process of one core, with a line for each that is done."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from threading import Thread
from typing import Any

import torch

from benchmarks.processes import say


def workers(jobs: int) -> Executor:
    """jobs: processes of one core each; 0: this process, for debuggers and tests."""
    if not jobs:
        return ThreadPoolExecutor(1)
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_begin)


def _begin() -> None:
    torch.set_num_threads(1)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever; what it trains is kept at a checkpoint."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(20)
    os._exit(1)


def phase(pool: Executor, name: str, function: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[Any]:
    """Results in order; a line for each that is done."""
    begun = time.monotonic()
    futures = {pool.submit(function, *each): i for i, each in enumerate(arguments)}
    results: list[Any] = [None] * len(arguments)
    for done, future in enumerate(as_completed(futures), start=1):
        results[futures[future]] = future.result()
        minutes = (time.monotonic() - begun) / 60
        left = minutes / done * (len(arguments) - done)
        say(f"{name}: {done} of {len(arguments)}, {minutes:.1f} min, about {left:.1f} to go")
    return results
