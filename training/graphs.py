"""Capture of work on a GPU: launched once kernel by kernel, then again as a whole.

A block of a stream is some thousand small kernels, and one thread of Python launches them more slowly than a GPU does
them. A CUDA graph is launched as one. It reads and writes the very addresses that it was captured with, and everything
that was a number in Python then (a position, a size) is what it was then: work that is captured takes all that changes
from tensors that stay where they are, and puts its results into such.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

WARM_UP = 2
"""Calls before the capture, in which libraries choose kernels and reserve their workspaces."""


def capture(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """What does `work` again, on the same tensors.

    `work` is called a few times for it, so what it changes must be put back. It must not make the host wait.

    Raises:
        RuntimeError: the device has no graphs, or the work cannot be captured.
    """
    if device.type != "cuda":
        raise RuntimeError(f"device {device} has no graphs")
    cached = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)  # its copies of weights do not live as long as the graph
    try:
        with torch.cuda.device(device):
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP):
                    work()
            torch.cuda.current_stream().wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may go on
                work()
    finally:
        torch.set_autocast_cache_enabled(cached)
    return graph.replay
