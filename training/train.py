"""The training loop: flow matching, and the same loop with preferences beside it, in one process or many.

    L = L_DF                        first stage (eq. 6)
    L = L_DF + λ · L_DPO            preference tuning, against the frozen checkpoint it starts from (eq. 12)
    L = Σ ‖x − x*‖²                 distillation of that checkpoint into a student (`training.distill`)

All randomness of a step comes from (seed, step, part of it), and a loader's position is three numbers per class: a run
that is stopped and resumed goes through the same losses as one that never stopped. Each process has its own part of the
data and an equal share of each step; N processes do what one does that accumulates their N batches. The first of them
writes checkpoints and metrics, the former in the background (`training.background`). Metrics are JSON lines in
`metrics.jsonl`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from visavis.schemas import FPS
from visavis.schemas.errors import RunFailed
from visavis.schemas.storage.held import held
from visavis.schemas.train import OptimConfig, TrainConfig
from visavis.training.background import CheckpointWriter, finish, writing
from visavis.training.checkpoint import CHECKPOINT_NAME, keep_copy
from visavis.training.distill import Distillation
from visavis.training.feed import Feed
from visavis.training.finite import Taken, check
from visavis.training.inputs import Run, open_run
from visavis.training.log import MetricsLog
from visavis.training.objective import Losses, Objective, Part, step_generator
from visavis.training.optimizer import adam, set_learning_rate, update_average
from visavis.training.process_group import Processes, join
from visavis.training.stopping import asked_to_stop
from visavis.training.validate import validate_pairs, validate_student, validate_windows

Goal = Objective | Distillation
Progress = Callable[[int, int, dict[str, float]], None]
"""Called after every step with (steps done, steps in all, latest line of metrics, empty before the first)."""
_log = logging.getLogger(__name__)


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
            frozen reference model, with `distill.evaluations` the student's frozen teacher.
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
            asked_to_stop(stop) as asked,
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
    optimizer = adam(run)
    with group.together():
        objective: Goal = (
            Distillation(run.model, run.frozen, config)
            if run.distils and run.frozen is not None
            else Objective(run.model, run.frozen, config, run.preference, run.reference_answers)
        )
    network: Goal | DistributedDataParallel = objective
    if group.gloo is not None:
        network = DistributedDataParallel(
            network, process_group=group.gradients, broadcast_buffers=False, gradient_as_bucket_view=True
        )
    saved = run.first_step
    with group.together():
        feed = Feed(run)
    before: Taken | None = None
    with closing(feed), writing(group) as writer:
        for step in range(run.first_step, run.steps):
            taken = _take(run, network, optimizer, feed, log, step)
            done = step + 1
            last, due, logged = done == run.steps, done % config.checkpoint_every == 0, done % config.log_every == 0
            stopping = check(run, before, saved, out, asked=asked())
            if last or due or logged or stopping:
                check(run, taken, saved, out)
            before = taken
            _note(taken, log)
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
                finish(writer, group)
                raise Stopped(f"stopped after step {done} of {run.steps}, which {out / CHECKPOINT_NAME} holds")


def _take(
    run: Run,
    network: Goal | DistributedDataParallel,
    optimizer: torch.optim.Optimizer,
    feed: Feed,
    log: MetricsLog,
    step: int,
) -> Taken:
    """A step, of weights and of their average. Nothing waits for a GPU."""
    optim = run.config.optim
    parts, shares = feed.next_parts(log)
    set_learning_rate(optimizer, run, step)
    optimizer.zero_grad(set_to_none=True)
    losses = [
        _backward(run, network, part, share, step, i) for i, (part, share) in enumerate(zip(parts, shares, strict=True))
    ]
    loss = torch.stack([each.total.detach() for each in losses]).sum()
    norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), optim.grad_clip)
    taken = Taken(step, parts, losses, loss, norm)
    optimizer.found_inf = taken.broken  # type: ignore[attr-defined]  # then this step changes no weights
    optimizer.step()
    update_average(run.average, run.model, optim.ema, step)
    return taken


def _backward(
    run: Run, network: Goal | DistributedDataParallel, part: Part, shares: Sequence[float], step: int, index: int
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


def _precision(optim: OptimConfig, device: torch.device) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if optim.precision == "bfloat16" else nullcontext()


def _note(taken: Taken, log: MetricsLog) -> None:
    log.add({"loss": taken.loss, "grad_norm": taken.norm})
    for losses in taken.losses:
        log.add(losses.logs)
        log.add_errors(losses.t_BT, losses.error_BT, losses.valid_BT)
    log.end_step()


def _validate(run: Run, step: int, log: MetricsLog) -> float | None:
    """Write a line of validation. Returns by how much the chosen side's error has risen where that is too much."""
    rise = None
    with run.group.together():
        if run.group.first:
            line = validate_student(run) if run.distils else validate_windows(run) | validate_pairs(run)
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
    feed: Feed,
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
