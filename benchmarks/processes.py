"""What benchmarks share: processes of their own, their memory, and lines for people."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any


def new_process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def alone(work: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a new process that ends with it. The caller had better stay small: a child's peak begins with
    its parent's."""
    with new_process() as pool:
        return pool.submit(work, *args).result()


def peak_mb() -> float:
    """Largest resident set of this process so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
