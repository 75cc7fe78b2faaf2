"""What a step minimises, as one module: the flow loss, and the preference loss beside it.

    L = L_DF + w · L_velocity + λ · L_preference      eq. 6, the option of `training.flow`, `training.preferences`

It is a module because DistributedDataParallel averages the gradients of what is called through it, and of nothing else.

A step's loss is a mean over the valid frames of *all* its batches, however many processes and accumulated batches they
are spread over. Each batch gives its own means, times its share of those frames; shares are made so that the mean over
processes, which is what DistributedDataParallel takes, is the mean over frames. Preferences and the velocity term have
counts of their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from visavis.schemas.coefficients import column_groups
from visavis.schemas.errors import UsageError
from visavis.schemas.manifest import MotionSpec
from visavis.schemas.sample import AVATAR_SPEAKS, USER_SPEAKS
from visavis.schemas.train import DpoConfig, ObjectiveConfig, TrainConfig
from visavis.training.effort import effort, user_effect
from visavis.training.flow import Noise, draw_keep, draw_noise, flow_errors, masked_mean, step_error, valid_steps
from visavis.training.loader import Batch
from visavis.training.model import Keep, Listener
from visavis.training.preferences.seam import Preference
from visavis.training.reference import ReferenceErrors


@dataclass(frozen=True)
class Part:
    """What a process works on at once."""

    windows: Batch
    pairs: Batch | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        return self.windows.keys + (self.pairs.keys if self.pairs else ())

    def counts(self, config: DpoConfig) -> list[int]:
        """Valid frames, valid steps from frame to frame, frames of pairs that are compared."""
        valid = self.windows.valid[..., 0]
        pairs = 0 if self.pairs is None else int(compared_frames(self.pairs, config).sum())
        return [int(valid.sum()), int(valid_steps(valid).sum()), pairs]

    def to(self, device: torch.device) -> Part:
        return Part(self.windows.to(device), self.pairs and self.pairs.to(device))


@dataclass(frozen=True)
class Losses:
    total: Tensor
    logs: dict[str, Tensor]  # terms of the total, and what DPO watches; times the part's shares, as the total
    t_BT: Tensor
    error_BT: Tensor  # of the flow
    valid_BT: Tensor  # bool: frames that count in it


class Objective(nn.Module):
    """Loss of a part of a step."""

    _weights: Tensor | None

    def __init__(
        self,
        model: Listener,
        frozen: Listener | None,
        config: TrainConfig,
        preference: Preference | None = None,
        answers: ReferenceErrors | None = None,
    ) -> None:
        """frozen: the reference model. preference: of pairs, where there are any. answers: what was said of them."""
        super().__init__()
        self.model = model
        self.config = config
        self._preference, self._answers = preference, answers
        self.register_buffer("_weights", group_weights(model.motion, config.objective), persistent=False)
        self._frozen = (frozen,)  # in a tuple: its weights are none of this module's

    def forward(self, part: Part, shares: Sequence[float], generator: torch.Generator, place: int = 0) -> Losses:
        """
        Args:
            shares: of the part in the step's frames, steps and frames of pairs, times the number of processes.
            generator: of all randomness, on the CPU.
            place: of the part among those of this process, for `ReferenceErrors`.
        """
        model, config, batch = self.model, self.config.objective, part.windows
        of_frames, of_steps, of_pairs = shares
        noise = window_noise(model, batch, generator, config)
        keep = draw_keep(len(batch.keys), config, generator)
        device, valid_BT = batch.valid.device, batch.valid[..., 0]
        keep = Keep(keep.avatar.to(device), keep.user.to(device) & has_user(batch))
        x1, reference = model.normalise(batch.avatar_motion), model.normalise(batch.reference)
        conditions = model.conditions(batch.avatar_audio, batch.user_audio, batch.user_motion)
        error_BT, off_BTD = flow_errors(model, x1, reference, conditions, keep, noise, config.norm, self._weights)
        weighted_BT, logs = error_BT, {}
        if config.user_weight:
            (frozen,) = self._frozen
            assert frozen is not None  # `inputs` asks for the initial checkpoint
            effect_BT = user_effect(frozen, x1, reference, conditions, keep, noise)
            weighted_BT = error_BT * effort(effect_BT, keep, valid_BT, config.user_weight)
            logs["user_effect"] = of_frames * masked_mean(effect_BT, valid_BT)
        total = flow = of_frames * masked_mean(weighted_BT, valid_BT)
        if config.velocity:
            logs["loss_velocity"] = of_steps * step_error(off_BTD, valid_BT, config.norm)
            total = total + config.velocity * logs["loss_velocity"]
        if part.pairs is not None:
            preference, watched = self._compare(part.pairs, generator, place)
            logs["loss_dpo"] = of_pairs * preference
            logs |= {name: of_pairs * value for name, value in watched.items()}
            total = total + self.config.dpo.lambda_ * logs["loss_dpo"]
        if logs:
            logs = {"loss_flow": flow, **logs}
        logs = {name: value.detach() for name, value in logs.items()}
        return Losses(total, logs, noise.t, error_BT.detach(), valid_BT)

    def _compare(self, pairs: Batch, generator: torch.Generator, place: int) -> tuple[Tensor, dict[str, Tensor]]:
        (frozen,), preference = self._frozen, self._preference
        assert frozen is not None
        assert preference is not None
        noise = preference.noise(pairs, window_noise(self.model, pairs, generator, self.config.objective))

        def ask() -> tuple[Tensor, Tensor]:
            return preference.ask(frozen, pairs, noise)

        reference = ask() if self._answers is None else self._answers.of(place, pairs, noise[0], ask)
        return preference.loss(self.model, reference, pairs, noise, compared_frames(pairs, self.config.dpo))


def group_weights(motion: MotionSpec, config: ObjectiveConfig) -> Tensor | None:
    """Weight of each column's error in the flow loss, mean 1, float32 [D]; None where none is given.

    Raises:
        UsageError: the motion has no such group, or none is left.
    """
    if not config.groups:
        return None
    groups = column_groups(motion)
    if unknown := sorted(set(config.groups) - set(groups)):
        raise UsageError(f"objective.groups: {motion.codec} has no {unknown[0]}; it has {', '.join(groups)}")
    weight_D = torch.ones(motion.dim)
    for name, span in groups.items():
        weight_D[span] = config.groups.get(name, 1.0)
    if not weight_D.any():
        raise UsageError("objective.groups: every weight is 0, so there is nothing to learn")
    return weight_D / weight_D.mean()


def has_user(batch: Batch) -> Tensor:
    """Which windows have a user that is seen or heard, bool [B]. Clips of one person have none: beside them the model
    learns as where the user's signals are dropped, both together."""
    return batch.valid[..., 1].any(dim=1) | (batch.user_audio != 0).any(dim=1)


def compared_frames(pairs: Batch, config: DpoConfig) -> Tensor:
    """Frames of pairs whose sides are compared, bool [B, T]."""
    valid_BT = pairs.valid[..., 0]
    return (
        valid_BT if config.frames == "all" else valid_BT & (pairs.state & (AVATAR_SPEAKS | USER_SPEAKS) == USER_SPEAKS)
    )


def window_noise(
    model: Listener, batch: Batch, generator: torch.Generator, config: ObjectiveConfig | None = None
) -> Noise:
    """Noise for a batch, on its device; without a config levels are uniform."""
    frames = batch.avatar_motion.shape[1]
    block = frames if model.config.mask == "full" else model.config.block
    shape = (len(batch.keys), frames, model.motion.dim)
    noise = draw_noise(shape, block, generator, config)
    device = batch.avatar_motion.device
    return Noise(noise.x0.to(device), noise.t.to(device))


def step_generator(seed: int, step: int, part: int = 0) -> torch.Generator:
    """Randomness of a part of a step, the same on every device.

    Parts are counted over accumulated batches and, fastest, processes. Hashed, because torch looks at 32 bits of a seed
    only.
    """
    digest = hashlib.sha256(f"{seed}/{step}/{part}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))
