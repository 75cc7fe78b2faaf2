"""The processes of a run: which of them this is, and the little that they tell each other beside gradients.

One process, torchrun and Ray Train run the same loop. Whoever starts several sets torch's variables (RANK, WORLD_SIZE,
LOCAL_RANK, MASTER_ADDR, MASTER_PORT) or has joined them already. Gradients go through DistributedDataParallel, by nccl
between GPUs and by gloo between CPUs; counts, errors and positions go by gloo from the CPU, so that no GPU is waited
for, and as numbers and text: nothing is pickled.

What one process cannot do ends all of them with the same error. A process that dies without a word closes its
connections; the others fail at their next exchange, or whoever started them ends them. One that never comes is waited
for aloud.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

import torch
import torch.distributed as dist

from visavis.schemas.errors import DatasetError, RunFailed, UsageError, VisavisError
from visavis.training.ranks import Ranks, ranks

PATIENCE = timedelta(minutes=30)
"""How long processes wait for one that says nothing: longer than a checkpoint takes to write, or a model to compile."""
_SAY_SECONDS = (10.0, 60.0)
"""Seconds of waiting for the others before the first word about it, and between the next."""
_log = logging.getLogger(__name__)
_SHARED: dict[str, type[VisavisError]] = {kind.__name__: kind for kind in (UsageError, DatasetError, RunFailed)}


@dataclass(frozen=True)
class Processes:
    """The processes of a run, as one of them sees them. Its methods are to be called by all of them alike."""

    device: torch.device  # of this process
    rank: int = 0
    size: int = 1
    gloo: dist.ProcessGroup | None = None  # gloo; none: a process alone
    gradients: dist.ProcessGroup | None = None  # nccl between GPUs

    @property
    def first(self) -> bool:
        """The process that writes files and talks."""
        return self.rank == 0

    def total(self, numbers: Sequence[float]) -> list[float]:
        """Sums over the processes, number by number."""
        return self._reduce(numbers, dist.ReduceOp.SUM)

    def largest(self, numbers: Sequence[float]) -> list[float]:
        """Maxima over the processes, number by number."""
        return self._reduce(numbers, dist.ReduceOp.MAX)

    def _reduce(self, numbers: Sequence[float], how: dist.ReduceOp.RedOpType) -> list[float]:
        if self.gloo is None:
            return list(numbers)
        tensor = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(tensor, how, group=self.gloo)
        return tensor.tolist()

    def gather(self, text: str) -> list[str]:
        """What each process says, by rank."""
        if self.gloo is None:
            return [text]
        data = text.encode()
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(sizes, torch.tensor([len(data)]), group=self.gloo)
        longest = int(max(sizes))
        if longest == 0:
            return [""] * self.size
        padded = torch.zeros(longest, dtype=torch.uint8)
        padded[: len(data)] = torch.tensor(list(data), dtype=torch.uint8)
        parts = [torch.zeros_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded, group=self.gloo)
        return [bytes(part[: int(size)].tolist()).decode() for part, size in zip(parts, sizes, strict=True)]

    def agree(self, error: Exception | None) -> None:
        """Nothing if no process has an error; else each raises that of the first one that has."""
        if self.gloo is None:
            if error is not None:
                raise error
            return
        said = self.gather("" if error is None else json.dumps([type(error).__name__, str(error)]))
        failed = next((rank for rank, text in enumerate(said) if text), None)
        if failed is None:
            return
        if error is not None and failed == self.rank:
            raise error
        name, message = json.loads(said[failed])
        if name in _SHARED:
            raise _SHARED[name](message)
        raise RunFailed(f"process {failed} of {self.size} failed: {name}: {message}")

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is done inside is done by every process, or ends every process."""
        error = None
        try:
            yield
        except Exception as caught:  # noqa: BLE001 - raised again by `agree`, in this process and in the others
            error = caught
        self.agree(error)


@contextmanager
def join(device: str) -> Iterator[Processes]:
    """The processes that were started with this one, for as long as the context lasts.

    Raises UsageError, in all of them, where one lacks the device; RunFailed where the others do not come, or go.
    """
    joined = dist.is_available() and dist.is_initialized()
    if not joined and ranks().size == 1:
        yield Processes(pick_device(device))
        return
    if not joined:
        _meet(ranks())
    gloo = dist.group.WORLD if dist.get_backend() == "gloo" else dist.new_group(backend="gloo", timeout=PATIENCE)
    group = Processes(torch.device("cpu"), dist.get_rank(), dist.get_world_size(), gloo, gloo)
    try:
        with group.together():
            own = pick_device(device)
        if len(set(group.gather(own.type))) > 1:
            raise UsageError("some processes have a GPU and others do not; use device=cpu, or machines that are alike")
        if own.type == "cuda":
            group = replace(group, gradients=dist.new_group(backend="nccl", timeout=PATIENCE))
        yield replace(group, device=own)
    except BaseException as error:
        # All end by an error of ours. Of others they learn as connections close, but nccl might wait for them first.
        if not joined and (group.gradients is gloo or isinstance(error, VisavisError | KeyboardInterrupt)):
            dist.destroy_process_group()
        if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error)):
            raise RunFailed(f"another process is gone, or has not answered for {PATIENCE}: {error}") from error
        raise
    if not joined:
        dist.destroy_process_group()


def _meet(own: Ranks) -> None:
    """Wait for the other processes. Beside a thread, for torch waits in C: no word, and deaf to Ctrl-C."""
    failures: list[Exception] = []

    def wait() -> None:
        try:
            dist.init_process_group("gloo", timeout=PATIENCE)
        except (ValueError, RuntimeError) as error:
            failures.append(error)

    place = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
    thread = threading.Thread(target=wait, name="meet", daemon=True)
    began, pause = time.monotonic(), _SAY_SECONDS[0]
    thread.start()
    while thread.is_alive():
        thread.join(pause)
        if thread.is_alive():
            seconds = time.monotonic() - began
            _log.warning(f"rank {own.rank} waits for the others of {own.size} at {place}, for {seconds:.0f} s so far")
            pause = _SAY_SECONDS[1]
    for error in failures:
        if isinstance(error, ValueError):  # a variable is missing
            raise UsageError(f"several processes are to train together: {error}; start them with torchrun") from error
        raise RunFailed(f"rank {own.rank} of {own.size} did not meet the others at {place}: {error}") from error


def pick_device(name: str) -> torch.device:
    """The device of this process: one GPU each, if there are some.

    Raises UsageError where cuda is asked for and absent.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("device cuda was asked for, and this machine has none; use device=auto")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device
