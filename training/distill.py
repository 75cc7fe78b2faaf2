"""Few evaluations: a student that makes in K evaluations the motion for which its teacher takes N, along the flow.

    x*₀ = x₀ = noise                    of every block, all given the same past and conditions
    x*ₖ₊₁ = x*ₖ by N / K Euler steps of the frozen teacher, with its guidance
    xₖ₊₁ = xₖ + v(xₖ, k / K) / K        the student: one pass, without guidance
    loss = Σₖ ‖xₖ − x*ₖ‖²               a mean over dimensions and valid frames

Where one evaluation has to do what N / K did, the velocity of flow matching gives the mean of what may follow, and
reactions that come now and then go under. The teacher's own couplings of noise and motion have no such mean: which
motion follows is decided by the noise, so it can be learned by squared error. It is the regression of rectified flow
(arXiv 2209.03003, § 2.2) on those couplings, cut into K pieces as in progressive distillation (arXiv 2202.00512), but
of the student's own way: errors of its first evaluation are seen, and mended, by the second.

A stream's past is clean. So all blocks of a window are denoised at once, each beside clean frames before it (teacher
forcing): a first pass at t = 1 gives keys and values as the pass does that writes a stream's cache, and blocks see
them and themselves. What comes out is what a `Stream` makes of the same noise and past, and as causal.

Guidance is the teacher's, and goes into the student: a student is one branch. Conditions are dropped by the pattern of
flow matching from both, so `drop` still means for the student what it means for the teacher.

Shape suffixes as in `training.model`; R: rows of guidance branches · B.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from visavis.schemas.errors import UsageError
from visavis.schemas.train import TrainConfig
from visavis.training.block import noise_levels
from visavis.training.checkpoint import Checkpoint
from visavis.training.flow import draw_keep, frame_error, masked_mean
from visavis.training.guidance import Branch, check_student, guidance_weights, guided, kept_by
from visavis.training.layers import Layout
from visavis.training.loader import Batch
from visavis.training.masks import self_mask
from visavis.training.model import Conditions, Keep, Listener
from visavis.training.objective import Losses, Part, has_user
from visavis.training.shapes import BD, BT, BTD, FramesT, MaskTK

ALONE: dict[Branch, float] = {(True, True): 1.0}
"""Guidance of a student: none."""


def distilling(config: TrainConfig, teacher: Checkpoint) -> TrainConfig:
    """A run's settings with what its teacher decides: how it is asked, and how its student samples.

    Raises:
        UsageError: the student's evaluations do not divide the teacher's, or the teacher cannot be asked like this.
    """
    asked = config.distill.teacher or teacher.config.sampler
    evaluations = config.distill.evaluations
    check_student(teacher.config.distill.evaluations, asked)
    if teacher.config.model.mask == "full":
        raise UsageError("a model with mask `full` cannot stream, so there is no block to make in few evaluations")
    if asked.steps % evaluations or asked.steps == evaluations:
        raise UsageError(
            f"distill.evaluations: the teacher makes a block in {asked.steps} evaluations, a student in a fraction of"
            f" them, and {evaluations} is none; set distill.teacher.steps"
        )
    distill = config.distill.model_copy(update={"teacher": asked})
    sampler = config.sampler.model_copy(update={"steps": evaluations, "guidance": "none"})
    return config.model_copy(update={"distill": distill, "sampler": sampler})


def check_goes_on(start: Checkpoint) -> None:
    """See that further steps of flow matching, or preferences, have a velocity to start from.

    Raises:
        UsageError: it is a student's.
    """
    if start.config.distill.evaluations:
        raise UsageError(
            "the initial checkpoint is a student: between its evaluations it has no velocity that could be tuned;"
            f" train or tune its teacher ({start.reference[:12]}…), and distill that"
        )


class Blocks:
    """All blocks of windows, each denoised beside the clean frames before it."""

    def __init__(
        self,
        model: Listener,
        past_BTD: BTD,
        reference_BD: BD,
        conditions: Conditions,
        keep: Keep,
        weights: dict[Branch, float] = ALONE,
    ) -> None:
        """
        Args:
            past_BTD: clean motion of the windows, normalised. A block sees what lies before it.
            keep: what each window sees; branches of guidance see less.
        """
        branches = len(weights)
        seen = kept_by(weights, len(past_BTD), past_BTD.device)
        seen = Keep(seen.avatar & keep.avatar.repeat(branches), seen.user & keep.user.repeat(branches))
        self._model, self._weights = model, weights
        self._reference_RD = reference_BD.repeat(branches, 1)
        code_RTC, _ = model.encoder(conditions.repeat(branches), seen)
        self._codes = model.codes(code_RTC)
        window = range(past_BTD.shape[1])
        clean = model.layout(window, window, window)
        past_RTD = past_BTD.repeat(branches, 1, 1)
        _, self._past = model.denoise(past_RTD, self._reference_RD, self._modulation(1.0), self._codes, clean)
        frames_T = torch.arange(past_BTD.shape[1], device=past_BTD.device)
        self._layout = Layout(clean.by, forced_mask(model, frames_T), clean.cross_TC)

    def integrate(self, x_BTD: BTD, levels: Sequence[float]) -> list[BTD]:
        """Motion at every noise level after the first, by a step of Euler's method from one to the next."""
        states = []
        for t, following in pairwise(levels):
            x_BTD = x_BTD + (following - t) * self._velocity(x_BTD, t)
            states.append(x_BTD)
        return states

    def _velocity(self, x_BTD: BTD, t: float) -> BTD:
        x_RTD, modulation = x_BTD.repeat(len(self._weights), 1, 1), self._modulation(t)
        velocity, _ = self._model.denoise(
            x_RTD, self._reference_RD, modulation, self._codes, self._layout, self._past
        )  # fmt: skip
        return guided(self._weights, velocity.to(x_BTD.dtype))

    def _modulation(self, t: float) -> Tensor:
        return self._model.modulations(torch.full_like(self._reference_RD[:1, :1], t))


def forced_mask(model: Listener, frames_T: FramesT) -> MaskTK:
    """Whom noisy frames see: clean frames of blocks before theirs, then noisy ones of their own. bool [T, 2T]."""
    config = model.config
    seen_TT = self_mask(config, frames_T, frames_T)
    block_T = torch.div(frames_T, config.block, rounding_mode="floor")
    own_TT = block_T[:, None] == block_T
    return torch.cat([seen_TT & ~own_TT, seen_TT & own_TT], dim=1)


class Distillation(nn.Module):
    """Loss of a part of a step; called as `training.objective.Objective` is."""

    def __init__(self, model: Listener, teacher: Listener, config: TrainConfig) -> None:
        """config: as `distilling` settles it."""
        super().__init__()
        self.model = model
        self.config = config
        assert config.distill.teacher is not None  # it is settled
        self._asked, self._levels = config.distill.teacher, noise_levels(config.sampler)
        self._teacher = (teacher,)  # in a tuple: its weights are none of this module's

    def forward(self, part: Part, shares: Sequence[float], generator: torch.Generator, place: int = 0) -> Losses:
        batch = part.windows
        keep = draw_keep(len(batch.keys), self.config.objective, generator)
        device = batch.valid.device
        keep = Keep(keep.avatar.to(device), keep.user.to(device) & has_user(batch))
        errors = self.errors(batch, keep, generator)
        valid_BT = batch.valid[..., 0]
        of_frames, *_ = shares
        total = of_frames * torch.stack([masked_mean(error_BT, valid_BT) for error_BT in errors]).sum()
        levels = torch.tensor(self._levels[:-1], device=device).repeat_interleave(valid_BT.shape[1])
        logs = {"distance": of_frames * masked_mean(errors[-1].detach(), valid_BT)}
        error_BT = torch.cat(errors, dim=1).detach()  # the states' one after the other
        return Losses(total, logs, levels.expand_as(error_BT), error_BT, valid_BT.repeat(1, len(errors)))

    def errors(self, batch: Batch, keep: Keep, generator: torch.Generator) -> list[BT]:
        """How far the student's states are from the teacher's, by state and frame."""
        model, (teacher,) = self.model, self._teacher
        past, reference = model.normalise(batch.avatar_motion), model.normalise(batch.reference)
        noise = torch.randn(past.shape, generator=generator).to(past.device)
        given = reference, model.conditions(batch.avatar_audio, batch.user_audio, batch.user_motion), keep
        with torch.no_grad():
            blocks = Blocks(teacher, past, *given, guidance_weights(self._asked))
            states = blocks.integrate(noise, noise_levels(self._asked))
        every = self._asked.steps // self.config.distill.evaluations
        made = Blocks(model, past, *given).integrate(noise, self._levels)
        return [frame_error(x, goal, "l2") for x, goal in zip(made, states[every - 1 :: every], strict=True)]
