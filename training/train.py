"""The training loop: flow matching, and the same loop with preferences beside it, in one process or many.

    L = L_DF                        first stage (eq. 6)
    L = L_DF + λ · L_DPO            preference tuning, against the frozen checkpoint it starts from (eq. 12)

All randomness of a step comes from (seed, step, part of it), and a loader's position is three numbers per class: a run
that is stopped and resumed goes through the same losses as one that never stopped. Each process has its own part of the
data and an equal share of each step; N processes do what one does that accumulates their N batches. The first of them
writes checkpoints and metrics, the former in the background (`training.background`). Metrics are JSON lines in
`metrics.jsonl`.
"""

from __future__ import annotations

import json
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from visavis.schemas import FPS
from visavis.schemas.errors import RunFailed
from visavis.schemas.storage.held import held
from visavis.schemas.train import OptimConfig, TrainConfig
from visavis.training.background import CheckpointWriter
from visavis.training.checkpoint import CHECKPOINT_NAME, keep_copy
from visavis.training.inputs import Run, open_run
from visavis.training.loader import Batch, Loader, prefetch
from visavis.training.log import MetricsLog
from visavis.training.model import Listener
from visavis.training.objective import Losses, Objective, Part, step_generator
from visavis.training.process_group import Processes, join
from visavis.training.validate import validate, validate_pairs

Progress = Callable[[int, int, dict[str, float]], None]
"""Called after every step with (steps done, steps in all, latest line of metrics, empty before the first)."""
_log = logging.getLogger(__name__)
_SUSPECTS = 8
"""Samples that are named when a loss is not finite."""


class Worsened(RunFailed):
    """The chosen side got worse before there was a checkpoint to end at."""


class Stopped(KeyboardInterrupt):
    """The run was asked to stop, and wrote a checkpoint that it can go on from."""


def train(
    dataset: str,
    out: Path,
    config: TrainConfig,
    *,
    init: Path | None = None,
    pairs: str | None = None,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
) -> Path:
    """Train from shards, or go on with the run that lies in `out`.

    Started in several processes (torchrun, Ray Train), all of which call this alike, it is one run.

    Args:
        dataset: folder or URL of a windows dataset; L_DF is computed on it.
        out: folder of `checkpoint.safetensors`, `metrics.jsonl` and TensorBoard's files; all processes must see it.
        init: checkpoint whose averaged weights are the start; its model, features and motion statistics are kept,
            whatever `config` says (but for the place of a frozen encoder's weights). With `pairs` it is also the
            frozen reference model.
        pairs: folder or URL of a pairs dataset; turns preference tuning on.
        progress: called in the first process only.
        stop: asked after every step whether to stop, in any process; as SIGTERM and SIGINT do in the main thread.

    Returns: the path of the checkpoint.

    Raises:
        UsageError: inputs that do not belong together, or `out` holds another run.
        DatasetError: a dataset that is not what its manifest says.
        RunFailed: the loss is not finite, or another process failed.
        Worsened: tuning made the chosen side worse before there was a checkpoint.
        Stopped: a checkpoint was written because somebody asked to stop.
    """
    with join(config.device) as group:
        run = open_run(dataset, out, config, init, pairs, group)
        window_s = run.windows.manifest.window / FPS
        with (
            _alone_in(out, group),
            closing(MetricsLog(out, run.first_step, group, window_s)) as log,
            _asked_to_stop(stop) as asked,
        ):
            _loop(run, out, log, progress, asked)
    return out / CHECKPOINT_NAME


@contextmanager
def _alone_in(out: Path, group: Processes) -> Iterator[None]:
    """Hold a run's folder. A launcher that sets no ranks starts many processes that each take themselves for the first.

    Raises:
        UsageError: another run is at work in it.
    """
    with ExitStack() as stack:
        with group.together():
            if group.first:
                remedy = "wait for it, choose another --out, or start processes of one run with torchrun"
                stack.enter_context(held(out, "training run", remedy))
        yield


def _loop(run: Run, out: Path, log: MetricsLog, progress: Progress | None, asked: Callable[[], bool]) -> None:
    config, group = run.config, run.group
    optimizer = torch.optim.Adam(run.model.parameters(), lr=config.optim.lr, betas=config.optim.betas, fused=True)
    if run.resumed is not None:
        optimizer.load_state_dict(run.resumed.optimizer)
    with group.together():
        objective = Objective(run.model, run.frozen, config, run.preference, run.reference_answers)
    network: Objective | DistributedDataParallel = objective
    if group.gloo is not None:
        network = DistributedDataParallel(
            network, process_group=group.gradients, broadcast_buffers=False, gradient_as_bucket_view=True
        )
    saved = run.first_step
    with group.together():
        feed = _Feed(run)
    before: _Taken | None = None
    with closing(feed), _writing(group) as writer:
        for step in range(run.first_step, run.steps):
            parts, shares = _next_parts(run, feed, log)
            _set_learning_rate(optimizer, run, step)
            optimizer.zero_grad(set_to_none=True)
            done_parts = [
                _backward(run, network, part, share, step, i)
                for i, (part, share) in enumerate(zip(parts, shares, strict=True))
            ]
            loss = torch.stack([losses.total.detach() for losses in done_parts]).sum()
            norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), config.optim.grad_clip)
            taken = _Taken(step, parts, done_parts, loss, norm)
            optimizer.found_inf = taken.broken  # type: ignore[attr-defined]  # then this step changes no weights
            optimizer.step()
            update_average(run.average, run.model, config.optim.ema, step)

            done = step + 1
            last, due, logged = done == run.steps, done % config.checkpoint_every == 0, done % config.log_every == 0
            # A GPU works behind the host, so what it found is asked for a step later, or when it is written down.
            stopping = _check(run, before, saved, out, asked=asked())
            if last or due or logged or stopping:
                _check(run, taken, saved, out)
            before = taken
            log.add({"loss": loss, "grad_norm": norm})
            for part, losses in zip(parts, done_parts, strict=True):
                log.add(losses.logs)
                log.add_errors(
                    losses.t_BT, losses.error_BT, part.windows.valid[..., 0].to(run.device, non_blocking=True)
                )
            log.end_step()
            if last or logged:
                log.write(done, run.steps, lr=optimizer.param_groups[0]["lr"], bad_samples=feed.bad)
            rise = _validate(run, done, log) if last or due else None
            if rise is not None:
                _end_early(run, done, saved, out, rise)
            elif last or due or stopping:
                _save(run, optimizer, feed, done, out, writer, numbered=last or due)
                saved = done
            if progress is not None and group.first:
                progress(done, run.steps, log.latest)
            if rise is not None:
                return
            if stopping and not last:
                _finish(writer, group)
                raise Stopped(f"stopped after step {done} of {run.steps}, which {out / CHECKPOINT_NAME} holds")


@dataclass(frozen=True)
class _Taken:
    """A step that was taken, and what tells whether its numbers were finite. Scalars are on the device."""

    step: int
    parts: list[Part]
    losses: list[Losses]
    loss: Tensor
    norm: Tensor

    @cached_property
    def broken(self) -> Tensor:
        """float32, 1 or 0, as a fused optimizer wants it."""
        return (~(torch.isfinite(self.loss) & torch.isfinite(self.norm))).float()


def _check(run: Run, taken: _Taken | None, saved: int, out: Path, *, asked: bool = False) -> bool:
    """Whether somebody asked to stop, in any process.

    Raises:
        RunFailed: in all processes, where a step's loss or gradients are not finite in one.
    """
    broken, stopping = run.group.total([taken is not None and bool(taken.broken), asked])
    if broken and taken is not None:
        raise RunFailed(_what_broke(run, taken, saved, out))
    return bool(stopping)


@contextmanager
def _writing(group: Processes) -> Iterator[CheckpointWriter]:
    """A writer whose last checkpoint is whole when this is left, by whatever way.

    Raises the error of a write that failed, unless another one is on its way.
    """
    writer = CheckpointWriter()
    try:
        yield writer
    except BaseException:
        try:
            writer.wait()
        except Exception as error:  # noqa: BLE001 - the first error is the one to tell
            _log.warning("the last checkpoint was not written: %s", error)
        raise
    _finish(writer, group)


def _finish(writer: CheckpointWriter, group: Processes) -> None:
    with group.together():
        writer.wait()


class _Feed:
    """Parts of steps from this process' loaders, read ahead."""

    def __init__(self, run: Run) -> None:
        self._loaders: dict[str, Loader] = {"windows": run.loader(run.windows, "windows")}
        if run.pairs is not None:
            self._loaders["pairs"] = run.loader(run.pairs, "pairs")
        self._close = ExitStack()
        self._ahead = {
            name: self._close.enter_context(closing(prefetch(_pinned(loader) if run.device.type == "cuda" else loader)))
            for name, loader in self._loaders.items()
        }
        self.positions: dict[str, Any] = {}

    @property
    def bad(self) -> int:
        return len(self._loaders["windows"].bad)

    def next(self) -> Part:
        batches = {}
        for name, ahead in self._ahead.items():
            batches[name], self.positions[name] = next(ahead)
        return Part(**batches)

    def close(self) -> None:
        self._close.close()


def _pinned(loader: Loader) -> Iterator[tuple[Batch, dict[str, Any]]]:
    for batch, state in loader:
        yield batch.pinned(), state


def _next_parts(run: Run, feed: _Feed, log: MetricsLog) -> tuple[list[Part], list[list[float]]]:
    """The batches of a step, and the share that each has in its frames (see `training.objective`)."""
    waiting = time.perf_counter()
    parts: list[Part] = []
    error = None
    try:
        parts = [feed.next() for _ in range(run.config.optim.accumulate)]
    except Exception as caught:  # noqa: BLE001 - raised again by `agree`, in all processes
        error = caught
    log.waited += time.perf_counter() - waiting
    counts = [part.counts(run.config.dpo) for part in parts]
    own = [sum(column) for column in zip(*counts, strict=True)] or [0, 0, 0]
    failed, *totals = run.group.total([error is not None, *own])
    if failed:
        run.group.agree(error)
    return parts, [[run.group.size * n / max(t, 1) for n, t in zip(row, totals, strict=True)] for row in counts]


def _backward(
    run: Run, network: Objective | DistributedDataParallel, part: Part, shares: Sequence[float], step: int, index: int
) -> Losses:
    """Add a part's gradients; with the last part those of all processes are averaged."""
    generator = step_generator(run.config.seed, step, index * run.group.size + run.group.rank)
    last = index + 1 == run.config.optim.accumulate
    with network.no_sync() if isinstance(network, DistributedDataParallel) and not last else nullcontext():
        with _precision(run.config.optim, run.device):
            place = step * run.config.optim.accumulate + index
            losses: Losses = network(part.to(run.device), shares, generator, place)
        losses.total.backward()  # type: ignore[no-untyped-call]
    return losses


def _validate(run: Run, step: int, log: MetricsLog) -> float | None:
    """Write a line of validation. Returns by how much the chosen side's error has risen where that is too much."""
    rise = None
    with run.group.together():
        if run.group.first:
            line = validate(run.average, run.held_out, run.config.objective.norm, run.device) | validate_pairs(run)
            log.write_line({"step": step, **line})
            rise = line.get("val_chosen_rise")
    limit = run.config.dpo.max_chosen_rise
    (found,) = run.group.total([rise if rise is not None and limit is not None and rise > limit else 0.0])
    return found or None


def _end_early(run: Run, step: int, saved: int, out: Path, rise: float) -> None:
    """Say why no more steps are taken; what came after the last checkpoint is left."""
    why = f"step {step}: the model has become {rise:.1%} worse on the chosen side than the reference model"
    if not saved:
        raise Worsened(
            f"{why}, and no checkpoint came before it; lower dpo.lr or dpo.lambda_, raise dpo.beta, or write "
            "checkpoints more often (checkpoint_every)"
        )
    if run.group.first:
        _log.warning("%s; %s is of step %d, the last before it", why, out / CHECKPOINT_NAME, saved)


def _save(
    run: Run,
    optimizer: torch.optim.Optimizer,
    feed: _Feed,
    step: int,
    out: Path,
    writer: CheckpointWriter,
    *,
    numbered: bool,
) -> None:
    """Begin to write a checkpoint; numbered: under a name of its own, too."""
    states = [json.loads(text) for text in run.group.gather(json.dumps(feed.positions))]
    with run.group.together():
        if not run.group.first:
            return
        path = out / CHECKPOINT_NAME
        loaders = {name: [state[name] for state in states] for name in feed.positions}
        keep = partial(keep_copy, path, step, run.config.keep_checkpoints, run.config.keep_every)
        writer.write(run.checkpoint(step, optimizer, loaders), path, keep if numbered else None)


def _what_broke(run: Run, taken: _Taken, saved: int, out: Path) -> str:
    """A sentence that is the same in all processes: the samples whose own error is not finite, or all of the step."""
    broken = [
        key
        for part, each in zip(taken.parts, taken.losses, strict=True)
        for key, error_T in zip(part.windows.keys, each.error_BT, strict=True)
        if not torch.isfinite(error_T).all()
    ]
    everything = [key for part in taken.parts for key in part.keys]
    said = [json.loads(text) for text in run.group.gather(json.dumps([broken, everything, taken.loss.item()]))]
    suspects = [key for each in said for key in each[0]] or [key for each in said for key in each[1]]
    named = ", ".join(suspects[:_SUSPECTS]) + (f" and {len(suspects) - _SUSPECTS} more" if suspects[_SUSPECTS:] else "")
    value = sum(each[2] for each in said) / run.group.size
    left = f"{out / CHECKPOINT_NAME} is of step {saved}" if saved else "no checkpoint was written before it"
    return (
        f"step {taken.step + 1}: loss is {value}, gradient norm {taken.norm.item()}; {left}; "
        f"lower the learning rate, or look at the samples {named}"
    )


@contextmanager
def _asked_to_stop(also: Callable[[], bool] | None) -> Iterator[Callable[[], bool]]:
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


def learning_rate(step: int, steps: int, peak: float, warmup: int, schedule: str) -> float:
    """Linear warm-up, then constant, or a half cosine to zero."""
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _set_learning_rate(optimizer: torch.optim.Optimizer, run: Run, step: int) -> None:
    optim, dpo = run.config.optim, run.config.dpo
    peak, warmup = (optim.lr, optim.warmup) if run.pairs is None else (dpo.lr, dpo.warmup)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, run.steps, peak, warmup, optim.schedule)


@torch.no_grad()
def update_average(average: Listener, model: Listener, decay: float, step: int) -> None:
    """Exponential moving average of the weights; early steps count more, so a short run has one too."""
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)


def _precision(optim: OptimConfig, device: torch.device) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if optim.precision == "bfloat16" else nullcontext()
