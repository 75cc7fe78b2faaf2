"""Precision of matrix products for a while, and of a card: what it can do, and how much memory is free."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from visavis.schemas.errors import UsageError
from visavis.schemas.sampling import Precision, Sampling, SamplingConfig

LARGEST = 256
"""Windows that are sampled together where nothing is said: two batches of a task of pairs, so that the second is
decoded meanwhile."""
TRIED = 8
"""Windows with which the memory that one needs is measured."""
_SHARE = 0.5  # of the free memory: graphs of batches that are not full keep theirs, and other workers come


@contextmanager
def products(precision: Precision, device: torch.device) -> Iterator[None]:
    """Matrix products and convolutions of float32 on a GPU in tf32, unless it is to be float32. Then as it was before.

    bfloat16 is a matter of weights (`Listener.use_bfloat16`); what they leave in float32 is done in tf32.
    """
    if device.type != "cuda":
        yield
        return
    settings = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = [each.fp32_precision for each in settings]
    for each in settings:
        each.fp32_precision = "ieee" if precision == "float32" else "tf32"
    try:
        yield
    finally:
        for each, was in zip(settings, before, strict=True):
            each.fp32_precision = was


def settle(
    config: SamplingConfig,
    device: torch.device,
    *,
    on_gpu: Precision,
    usual: int,
    need: Callable[[Sampling], float] | None = None,
) -> Sampling:
    """What the settings come to on a device.

    Args:
        on_gpu: precision there, where nothing is said.
        usual: windows sampled together, where nothing is said.
        need: bytes of a GPU's memory that a window takes, measured in this way; where it is given, a GPU samples as
            many together as it has room for.

    Raises:
        UsageError: as `check`.
    """
    gpu = device.type == "cuda"
    precision = _usual(device, on_gpu) if config.precision == "auto" else config.precision
    check(precision, device)
    trial = Sampling(
        device=name_of(device), precision=precision, batch=TRIED, graphs=gpu if config.graph is None else config.graph
    )
    batch = config.batch or (fitting(need(trial), free_memory(device)) if gpu and need is not None else usual)
    return trial.model_copy(update={"batch": batch})


def check(precision: Precision, device: torch.device) -> None:
    """Raises UsageError: the device does not have this precision."""
    if precision == "tf32" and not _has_tensor_cores(device):
        raise UsageError(f"precision tf32 needs a GPU that has it, and this is {name_of(device)}; use float32")


def name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def fitting(need: float, free: int) -> int:
    """Windows, a power of two: as many as a share of the free bytes holds, at least one and at most `LARGEST`."""
    room = int(_SHARE * free / max(need, 1.0))
    return min(LARGEST, 1 << max(0, room.bit_length() - 1))


def free_memory(device: torch.device) -> int:
    """Bytes that nobody has taken, this process neither."""
    return torch.cuda.mem_get_info(device)[0]


def measured_need(work: Callable[[], None], windows: int, device: torch.device) -> float:
    """Bytes of a GPU's memory that work of so many windows takes, of each; graphs count."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_reserved(device)
    work()
    need = (torch.cuda.max_memory_reserved(device) - before) / windows
    torch.cuda.empty_cache()
    return need


def _usual(device: torch.device, on_gpu: Precision) -> Precision:
    return on_gpu if _has_tensor_cores(device) else "float32"


def _has_tensor_cores(device: torch.device) -> bool:
    """Those for tf32 and bfloat16, of Ampere and later."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
