"""What a checkpoint's averaged weights are worth, on the same few batches and the same noise every time.

Of held-out windows: the flow loss with the user seen and dropped, or of a student how far it is from its teacher. In
preference tuning also of pairs: what every objective logs, and by how much the chosen side has become worse than the
reference model had it, which is the classic failure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from visavis.schemas.train import Norm
from visavis.training.distill import Distillation
from visavis.training.flow import flow_loss, masked_mean
from visavis.training.inputs import Run
from visavis.training.loader import Batch
from visavis.training.model import Keep, Listener
from visavis.training.objective import compared_frames, step_generator, window_noise


def validate_windows(run: Run) -> dict[str, float]:
    """`validate` of a run's averaged weights."""
    return validate(run.average, run.held_out, run.config.objective.norm, run.device)


@torch.no_grad()
def validate(model: Listener, held_out: Sequence[Batch], norm: Norm, device: torch.device) -> dict[str, float]:
    """Loss on held-out batches, with the user seen and dropped.

    `val_user_gain` is how much of the error without the user disappears when the user is seen; NaN where there is none.
    Empty where nothing is held out.
    """
    if not held_out:
        return {}
    generator = step_generator(0, 0)
    seen = dropped = 0.0
    for each in held_out:
        batch = each.to(device)
        noise = window_noise(model, batch, generator)
        x1, reference = model.normalise(batch.avatar_motion), model.normalise(batch.reference)
        conditions = model.conditions(batch.avatar_audio, batch.user_audio, batch.user_motion)
        everything = Keep.all(len(batch.keys), device)
        no_user = Keep(everything.avatar, ~everything.user)
        valid = batch.valid[..., 0]
        seen += flow_loss(model, x1, reference, conditions, everything, noise, valid, norm)[0].item()
        dropped += flow_loss(model, x1, reference, conditions, no_user, noise, valid, norm)[0].item()
    return {
        "val_loss": seen / len(held_out),
        "val_loss_no_user": dropped / len(held_out),
        "val_user_gain": 1 - seen / dropped if dropped else math.nan,
    }


@torch.no_grad()
def validate_pairs(run: Run) -> dict[str, float]:
    """Preferences of the averaged model, and `val_chosen_rise`: its error on the chosen side over the reference's, − 1;
    NaN where no frame of them is compared.

    Empty without pairs, or where `val_batches` is 0.
    """
    if run.frozen is None or run.preference is None or not run.watched:
        return {}
    generator, preference = step_generator(0, 1), run.preference
    sums: dict[str, float] = {}
    for each in run.watched:
        pairs = each.to(run.device)
        noise = preference.noise(pairs, window_noise(run.average, pairs, generator))
        reference = preference.ask(run.frozen, pairs, noise)
        loss, logs = preference.loss(run.average, reference, pairs, noise, compared_frames(pairs, run.config.dpo))
        for name, value in (logs | {"loss_dpo": loss}).items():
            sums[name] = sums.get(name, 0.0) + value.item() / len(run.watched)
    before = sums["chosen_reference"]
    rise = sums["chosen_policy"] / before - 1 if before else math.nan
    return {f"val_{name}": value for name, value in sums.items()} | {"val_chosen_rise": rise}


@torch.no_grad()
def validate_student(run: Run) -> dict[str, float]:
    """`val_distance` of the student's motion from its teacher's, of the same noise and past, squared, in deviations of
    the motion; `val_distance_naive` is that of the teacher itself where it takes as few evaluations, unguided.

    Empty where nothing is held out.
    """
    if run.frozen is None or not run.held_out:
        return {}
    found = {}
    for name, model in (("val_distance", run.average), ("val_distance_naive", run.frozen)):
        distillation, generator, total = Distillation(model, run.frozen, run.config), step_generator(0, 0), 0.0
        for each in run.held_out:
            batch = each.to(run.device)
            errors = distillation.errors(batch, Keep.all(len(batch.keys), run.device), generator)
            total += masked_mean(errors[-1], batch.valid[..., 0]).item()
        found[name] = total / len(run.held_out)
    return found
