"""Flow matching with one noise level per block (diffusion forcing): Avatar Forcing, eq. 6.

    x_t = t·x1 + (1 − t)·x0        x1 motion, x0 noise, t drawn for each block by itself
    loss = E ‖(x1 − x0) − v(x_t, t, conditions)‖

Because past blocks are noisy to every degree in training, a clean past (t = 1) in streaming is nothing new.
Conditions are dropped *jointly*, by a pattern drawn per sample: dropped one by one at 10 %, "no user at all" would be
seen in 1 % of samples, and both guidance and the rejected motion of preference pairs rely on it.

The norm is an option. Measured on the synthetic rule of the tests (800 windows, preset `tiny`, 800 steps, one seed;
correlation of the mirrored smile with its cause, the truth being 1):

    features      norm   smile mirrored   user dropped   val error explained by the user (own norm), step 200 / 800
    normalised    l2     .74              −.03           2.7 % / 3.9 %
    normalised    l1     .79              −.05           2.1 % / 3.8 %
    raw log-mel   l2     −.04             −.04           0.0 % / 0.3 %

Normalised there is (x + 7.5) / 3; with today's (x + 5) / 4 and l2 the last column is 3.4 % after 200 steps and 6.3 %
after 600, against 2.7 % and 3.7 %.
So it was the features' scale that decided whether this reaction was learned, not the norm. A rare nod was learned by
neither in so few steps; on the corpus of docs/results.md it takes `l2` 900 steps, and `l1` more than 2,200. `l2` is the
default because its minimiser, the conditional mean, is the velocity that transports the distribution; `l1` (paper) has
the conditional median, which makes a reaction that comes less than half of the time two to four times rarer still.

Two options found useful elsewhere, off by default:

- `level: logit_normal` draws t as the sigmoid of a normal variable (Stable Diffusion 3, arXiv 2403.03206, §3.1), so
  that training spends less on levels near pure noise and near clean motion. Beware: there a sample has one level; here
  the past of a stream is clean (t = 1), and with mean 0 and deviation 1 only one block in 600 is cleaner than .95,
  where uniform levels make it one in 20.
- `velocity` adds the error of the motion from one frame to the next, between the clean motion that the network implies,
  x_t + (1 − t)·v, and the true one (Human Motion Diffusion, arXiv 2209.14916, eq. 5), in the norm of the loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from visavis.schemas.train import Norm, ObjectiveConfig
from visavis.training.model import Conditions, Keep, Listener
from visavis.training.shapes import BD, BT, BTD, Scalar, ValidBT


@dataclass(frozen=True)
class Noise:
    """Everything random about one evaluation of the objective."""

    x0: Tensor  # [B, T, D] standard normal
    t: Tensor  # [B, T], constant inside a block


def draw_noise(
    shape: tuple[int, int, int], block: int, generator: torch.Generator, config: ObjectiveConfig | None = None
) -> Noise:
    """Noise and levels for a batch [B, T, D], drawn on the generator's device; without a config levels are uniform."""
    batch, frames, _ = shape
    device = generator.device
    x0 = torch.randn(shape, generator=generator, device=device)
    blocks = (batch, -(-frames // block))
    if config is None or config.level == "uniform":
        t_per_block = torch.rand(blocks, generator=generator, device=device)
    else:
        normal = torch.randn(blocks, generator=generator, device=device)
        t_per_block = torch.sigmoid(config.level_mean + config.level_std * normal)
    return Noise(x0, t_per_block.repeat_interleave(block, dim=1)[:, :frames])


def draw_keep(batch: int, config: ObjectiveConfig, generator: torch.Generator) -> Keep:
    """A joint drop pattern per sample."""
    u = torch.rand(batch, generator=generator, device=generator.device)
    no_user = (u >= config.full) & (u < config.full + config.no_user)
    no_avatar = (u >= config.full + config.no_user) & (u < config.full + config.no_user + config.no_avatar)
    none = u >= config.full + config.no_user + config.no_avatar
    return Keep(avatar=~(no_avatar | none), user=~(no_user | none))


def interpolate(x1_BTD: BTD, noise: Noise) -> tuple[BTD, BTD]:
    """x_t and the velocity that is to be learned."""
    t = noise.t[..., None]
    return t * x1_BTD + (1 - t) * noise.x0, x1_BTD - noise.x0


def frame_error(velocity_BTD: BTD, target_BTD: BTD, norm: Norm) -> BT:
    """Error per frame, averaged over latent dimensions: [B, T]."""
    difference = velocity_BTD - target_BTD
    return (difference.abs() if norm == "l1" else difference.square()).mean(dim=2)


def masked_mean(value_BT: BT, valid_BT: ValidBT) -> Scalar:
    """Mean over valid frames; 0 where there is none."""
    weight = valid_BT.to(value_BT.dtype)
    return (value_BT * weight).sum() / weight.sum().clamp(min=1)


def flow_errors(
    model: Listener,
    x1_BTD: BTD,
    reference_BD: BD,
    conditions: Conditions,
    keep: Keep,
    noise: Noise,
    norm: Norm,
    weight_D: Tensor | None = None,
) -> tuple[BT, BTD]:
    """Eq. 6 on normalised motion, before the mean.

    Args:
        weight_D: of each dimension's error; None: 1.

    Returns: the error per frame [B, T], and by how much the clean motion that the velocity implies is off [B, T, D].
    """
    x_t, target = interpolate(x1_BTD, noise)
    velocity = model(x_t, noise.t, reference_BD, conditions, keep).float()
    if weight_D is not None:
        scale_D = weight_D if norm == "l1" else weight_D.sqrt()
        velocity, target = velocity * scale_D, target * scale_D
    return frame_error(velocity, target, norm), (1 - noise.t[..., None]) * (velocity - target)


def flow_loss(
    model: Listener,
    x1_BTD: BTD,
    reference_BD: BD,
    conditions: Conditions,
    keep: Keep,
    noise: Noise,
    valid_BT: ValidBT,
    norm: Norm,
) -> tuple[Scalar, BT]:
    """Eq. 6 on normalised motion.

    Returns: the loss over valid frames, and the error per frame [B, T] (detached) for the logs.
    """
    error_BT, _ = flow_errors(model, x1_BTD, reference_BD, conditions, keep, noise, norm)
    return masked_mean(error_BT, valid_BT), error_BT.detach()


def valid_steps(valid_BT: ValidBT) -> Bool[Tensor, "B T-1"]:
    """From which frames to the next one motion is known: [B, T − 1]."""
    return valid_BT[:, 1:] & valid_BT[:, :-1]


def step_error(off_BTD: BTD, valid_BT: ValidBT, norm: Norm) -> Scalar:
    """Mean error of the motion from one valid frame to the next, given by how much each frame is off."""
    steps = off_BTD.diff(dim=1)
    return masked_mean(frame_error(steps, torch.zeros_like(steps), norm), valid_steps(valid_BT))
