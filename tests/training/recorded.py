"""A graph for those who have no GPU: what was computed once is computed again, at the same addresses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Recorder(TorchDispatchMode):
    """Notes every operation with the very tensors that it took and gave."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing: the host waits for a number")
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out


def recorded(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """As `graphs.capture`, on the CPU, with the faults of a CUDA graph: tensors and numbers of Python are those of the
    capture, whatever comes later, and results are overwritten by the next call. Warm-up and capture run `work`, too.
    """
    work()
    with _Recorder() as recorder:
        work()

    def replay() -> None:
        for func, args, kwargs, out in recorder.calls:
            again = func(*args, **kwargs)
            for place, value in zip(tree_leaves(out), tree_leaves(again), strict=True):
                if isinstance(place, torch.Tensor) and place.data_ptr() != value.data_ptr():
                    place.copy_(value)

    return replay
