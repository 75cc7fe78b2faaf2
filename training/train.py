"""The training loop: flow matching, and the same loop with preferences beside it.

    L = L_DF                        first stage (eq. 6)
    L = L_DF + λ · L_DPO            preference tuning, against the frozen checkpoint it starts from (eq. 12)

All randomness of a step comes from (seed, step), and the loader's position is three numbers per class: a run that is
stopped and resumed goes through the same losses as one that never stopped. Metrics are JSON lines in `metrics.jsonl`.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from schemas.errors import RunFailed, UsageError
from schemas.train import OptimConfig, TrainConfig
from training.checkpoint import Checkpoint, checkpoint_id, load_checkpoint, load_model, save_checkpoint
from training.data import Batch, Dataset, Loader, class_mixture, prefetch
from training.dpo import dpo_loss
from training.encoder import load_encoder
from training.flow import Noise, draw_keep, draw_noise, flow_loss
from training.log import MetricsLog
from training.model import Keep, Listener, build_model

CHECKPOINT_NAME = "checkpoint.pt"
METRICS_NAME = "metrics.jsonl"
Progress = Callable[[int, int, dict[str, float]], None]
"""Called after every step with (steps done, steps in all, latest line of metrics, empty before the first)."""

_MAY_CHANGE: dict[str, Any] = {
    **dict.fromkeys(("sampler", "device", "log_every", "checkpoint_every", "val_batches", "max_bad_samples"), True),
    "features": {"weights"},  # where they lie; what they are may not change
}
"""Settings that do not shape the weights: a resumed run may have others."""


@dataclass
class _Run:
    """What a run works on."""

    config: TrainConfig
    windows: Dataset
    pairs: Dataset | None
    model: Listener
    average: Listener
    frozen: Listener | None  # the reference model of preference tuning
    reference: str  # its id
    device: torch.device
    resumed: Checkpoint | None

    @property
    def first_step(self) -> int:
        return self.resumed.step if self.resumed else 0

    @property
    def steps(self) -> int:
        return self.config.optim.steps if self.pairs is None else self.config.dpo.steps

    def checkpoint(self, step: int, optimizer: torch.optim.Optimizer, loaders: dict[str, Any]) -> Checkpoint:
        return Checkpoint(
            config=self.config,
            motion=self.model.motion,
            manifest=self.windows.hash,
            step=step,
            model=self.model.state_dict(),
            ema=self.average.state_dict(),
            optimizer=optimizer.state_dict(),
            loaders=loaders,
            reference=self.reference,
            pairs=self.pairs.hash if self.pairs else "",
        )


def train(
    dataset: str,
    out: Path,
    config: TrainConfig,
    *,
    init: Path | None = None,
    pairs: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train from shards, or go on with the run that lies in `out`.

    Args:
        dataset: folder or URL of a windows dataset; L_DF is computed on it.
        out: folder of `checkpoint.pt` and `metrics.jsonl`.
        init: checkpoint whose averaged weights are the start; its model, features and motion statistics are kept,
            whatever `config` says (but for the place of a frozen encoder's weights). With `pairs` it is also the
            frozen reference model.
        pairs: folder or URL of a pairs dataset; turns preference tuning on.

    Returns: the path of the checkpoint.

    Raises:
        UsageError: inputs that do not belong together, or `out` holds another run.
        DatasetError: a dataset that is not what its manifest says.
        RunFailed: the loss is not finite.
    """
    run = _open(dataset, out, config, init, pairs)
    config = run.config
    optimizer = torch.optim.Adam(run.model.parameters(), lr=config.optim.lr, betas=config.optim.betas, fused=True)
    if run.resumed is not None:
        optimizer.load_state_dict(run.resumed.optimizer)
    windows = _loader(run, run.windows, "windows")
    preferences = None if run.pairs is None else _loader(run, run.pairs, "pairs")
    log = MetricsLog(out / METRICS_NAME, run.first_step)
    with closing(prefetch(windows)) as windows_ahead, closing(prefetch(preferences or ())) as pairs_ahead:
        for step in range(run.first_step, run.steps):
            waiting = time.perf_counter()
            batch, position = next(windows_ahead)
            positions = {"windows": position}
            pair_batch = None
            if preferences is not None:
                pair_batch, positions["pairs"] = next(pairs_ahead)
            log.waited += time.perf_counter() - waiting

            _set_learning_rate(optimizer, run, step)
            with _precision(config.optim, run.device):
                loss, logs, noise, error_BT = _loss(run, batch.to(run.device), pair_batch, step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = torch.nn.utils.clip_grad_norm_(run.model.parameters(), config.optim.grad_clip)
            if not torch.isfinite(loss) or not torch.isfinite(norm):
                raise RunFailed(
                    f"step {step + 1}: loss is {loss.item()}, gradient norm {norm.item()}; lower the learning rate, "
                    f"or look at the samples {', '.join(batch.keys)}"
                )
            optimizer.step()
            update_average(run.average, run.model, config.optim.ema, step)

            done, last = step + 1, step + 1 == run.steps
            log.add({"loss": loss, "grad_norm": norm, **logs}, noise.t, error_BT, batch.valid[..., 0].to(run.device))
            if last or done % config.log_every == 0:
                log.write(done, lr=optimizer.param_groups[0]["lr"], bad_samples=len(windows.bad))
            if last or done % config.checkpoint_every == 0:
                log.write_line({"step": done, **validate(run.average, run.windows, config, run.device)})
                save_checkpoint(run.checkpoint(done, optimizer, positions), out / CHECKPOINT_NAME)
            if progress is not None:
                progress(done, run.steps, log.latest)
    return out / CHECKPOINT_NAME


def _loss(run: _Run, batch: Batch, pairs: Batch | None, step: int) -> tuple[Tensor, dict[str, Tensor], Noise, Tensor]:
    """Loss of one step, its parts for the log, and the noise and error per frame of the flow part."""
    config, model = run.config, run.model
    generator = step_generator(config.seed, step)
    noise = _draw(model, batch, generator)
    keep = draw_keep(len(batch.keys), config.objective, generator)
    flow, error_BT = flow_loss(
        model,
        model.normalise(batch.avatar_motion),
        model.normalise(batch.reference),
        model.conditions(batch.avatar_audio, batch.user_audio, batch.user_motion),
        Keep(keep.avatar.to(run.device), keep.user.to(run.device)),
        noise,
        batch.valid[..., 0],
        config.objective.norm,
    )
    if pairs is None:
        return flow, {}, noise, error_BT
    assert run.frozen is not None
    pairs = pairs.to(run.device)
    assert pairs.chosen is not None  # the loader refuses pairs without both sides
    assert pairs.rejected is not None
    preference, logs = dpo_loss(
        model,
        run.frozen,
        model.normalise(pairs.chosen),
        model.normalise(pairs.rejected),
        model.normalise(pairs.reference),
        model.conditions(pairs.avatar_audio, pairs.user_audio, pairs.user_motion),
        _draw(model, pairs, generator),
        pairs.valid[..., 0],
        beta=config.dpo.beta,
        norm=config.dpo.norm,
    )
    total = flow + config.dpo.lambda_ * preference
    return total, {"loss_flow": flow, "loss_dpo": preference, **logs}, noise, error_BT


@torch.no_grad()
def validate(model: Listener, windows: Dataset, config: TrainConfig, device: torch.device) -> dict[str, float]:
    """Loss on the same few held-out batches and the same noise every time, with the user seen and dropped.

    `val_user_gain` is how much of the error without the user disappears when the user is seen.
    Empty where the dataset has no validation split.
    """
    if config.val_batches == 0 or not class_mixture(windows.manifest, "val"):
        return {}
    loader = iter(Loader(windows, config.optim.batch, split="val", max_bad=config.max_bad_samples))
    generator = step_generator(0, 0)
    seen = dropped = 0.0
    for _ in range(config.val_batches):
        batch = next(loader)[0].to(device)
        noise = _draw(model, batch, generator)
        x1, reference = model.normalise(batch.avatar_motion), model.normalise(batch.reference)
        conditions = model.conditions(batch.avatar_audio, batch.user_audio, batch.user_motion)
        everything = Keep.all(len(batch.keys), device)
        no_user = Keep(everything.avatar, ~everything.user)
        valid, norm = batch.valid[..., 0], config.objective.norm
        seen += flow_loss(model, x1, reference, conditions, everything, noise, valid, norm)[0].item()
        dropped += flow_loss(model, x1, reference, conditions, no_user, noise, valid, norm)[0].item()
    return {
        "val_loss": seen / config.val_batches,
        "val_loss_no_user": dropped / config.val_batches,
        "val_user_gain": 1 - seen / dropped if dropped else 0.0,
    }


def _draw(model: Listener, batch: Batch, generator: torch.Generator) -> Noise:
    frames = batch.avatar_motion.shape[1]
    block = frames if model.config.mask == "full" else model.config.block
    noise = draw_noise((len(batch.keys), frames, model.motion.dim), block, generator)
    device = batch.avatar_motion.device
    return Noise(noise.x0.to(device), noise.t.to(device))


def step_generator(seed: int, step: int) -> torch.Generator:
    """Randomness of one step, the same on every device. Hashed, because torch looks at 32 bits of a seed only."""
    digest = hashlib.sha256(f"{seed}/{step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))


def learning_rate(step: int, steps: int, peak: float, warmup: int, schedule: str) -> float:
    """Linear warm-up, then constant, or a half cosine to zero."""
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _set_learning_rate(optimizer: torch.optim.Optimizer, run: _Run, step: int) -> None:
    optim, dpo = run.config.optim, run.config.dpo
    peak, warmup = (optim.lr, optim.warmup) if run.pairs is None else (dpo.lr, dpo.warmup)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, run.steps, peak, warmup, optim.schedule)


@torch.no_grad()
def update_average(average: Listener, model: Listener, decay: float, step: int) -> None:
    """Exponential moving average of the weights; early steps count more, so a short run has one too."""
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)


def pick_device(name: str) -> torch.device:
    """Raises UsageError where cuda is asked for and absent."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("device cuda was asked for, and this machine has none; use device=auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _precision(optim: OptimConfig, device: torch.device) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if optim.precision == "bfloat16" else nullcontext()


def _loader(run: _Run, dataset: Dataset, name: str) -> Loader:
    return Loader(
        dataset,
        run.config.optim.batch,
        seed=run.config.seed,
        max_bad=run.config.max_bad_samples,
        state=run.resumed.loaders.get(name) if run.resumed else None,
    )


def _open(dataset: str, out: Path, config: TrainConfig, init: Path | None, pairs: str | None) -> _Run:
    """Check that everything belongs together, and load or build the models."""
    device = pick_device(config.device)
    windows = Dataset(dataset)
    preferences = None if pairs is None else Dataset(pairs)
    if preferences is not None and preferences.manifest.kind != "pairs":
        raise UsageError(f"{pairs} holds windows, not pairs; make pairs with `visavis pairs`")
    if preferences is not None and init is None:
        raise UsageError("preference tuning starts from a trained checkpoint: give one as init")
    started = None if init is None else load_checkpoint(init)
    if started is not None:
        weights = config.features.weights or started.config.features.weights
        features = started.config.features.model_copy(update={"weights": weights})
        config = config.model_copy(update={"model": started.config.model, "features": features})
    motion = started.motion if started else windows.manifest.motion
    for each in (windows, preferences):
        if each is not None and (each.manifest.motion.codec, each.manifest.motion.dim) != (motion.codec, motion.dim):
            raise UsageError(
                f"{each.location} has motion of codec {each.manifest.motion.codec}, the model was trained on "
                f"{motion.codec}; rebuild the dataset with the model's codec (motion.codec)"
            )
    features, encoder = load_encoder(config.features, device)
    config = config.model_copy(update={"features": features})
    reference = checkpoint_id(init) if init is not None else ""
    path = out / CHECKPOINT_NAME
    resumed = load_checkpoint(path) if path.exists() else None
    if resumed is not None:
        _check_same_run(resumed, config, windows, preferences, reference, out)

    model, average = (build_model(config.model, features, motion, config.seed, encoder) for _ in range(2))
    if resumed is not None:
        model.load_state_dict(resumed.model)
        average.load_state_dict(resumed.ema)
    elif started is not None:
        model.load_state_dict(started.ema)
        average.load_state_dict(started.ema)
    return _Run(
        config=config,
        windows=windows,
        pairs=preferences,
        model=model.to(device).train(),
        average=average.to(device).eval().requires_grad_(False),
        frozen=load_model(started, device, encoder=encoder) if started and preferences else None,
        reference=reference,
        device=device,
        resumed=resumed,
    )


def _check_same_run(
    resumed: Checkpoint, config: TrainConfig, windows: Dataset, pairs: Dataset | None, reference: str, out: Path
) -> None:
    again = "give another output folder, or remove this one"
    if resumed.manifest != windows.hash:
        raise UsageError(f"{out} holds a run on another dataset (manifest {resumed.manifest[:12]}); {again}")
    if resumed.pairs != (pairs.hash if pairs else "") or resumed.reference != reference:
        raise UsageError(f"{out} holds a run from another initial checkpoint or with other pairs; {again}")
    if resumed.config.features.weights_sha256 != config.features.weights_sha256:
        raise UsageError(f"{out} holds a run with another encoder; name its weights (features.weights), {again}")
    if resumed.config.model_dump(exclude=_MAY_CHANGE) != config.model_dump(exclude=_MAY_CHANGE):
        raise UsageError(f"{out} holds a run of another training config; {again}")
