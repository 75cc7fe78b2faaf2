"""The flow loss, against its formula."""

from __future__ import annotations

import jaxtyping
import numpy as np
import pytest
import torch

from tests.training.conftest import SMALL, small_model
from tests.training.synthetic import DIM, SPEC
from tests.training.test_causality import inputs
from visavis.schemas.train import FeatureConfig, Norm, ObjectiveConfig
from visavis.training.flow import Noise, draw_keep, draw_noise, flow_loss, frame_error, interpolate, masked_mean
from visavis.training.model import Conditions, Keep, Listener, build_model


def conditions_of(model: Listener, x: dict[str, torch.Tensor]) -> Conditions:
    return model.conditions(x["avatar_audio"], x["user_audio"], x["user_motion"])


# --- flow matching, eq. 6


def test_noise_level_is_drawn_per_block_and_shared_inside_it():
    noise = draw_noise((64, 25, DIM), 10, torch.Generator().manual_seed(0))
    assert noise.t.shape == (64, 25)
    blocks = [noise.t[:, :10], noise.t[:, 10:20], noise.t[:, 20:]]
    assert all((block == block[:, :1]).all() for block in blocks)
    levels = torch.stack([block[:, 0] for block in blocks], dim=1)
    assert len(levels.unique()) == levels.numel()
    assert abs(levels.mean() - 0.5) < 0.07


def test_the_path_goes_from_noise_to_motion():
    x1 = torch.randn(2, 10, DIM)
    x0 = torch.randn(2, 10, DIM)
    for t, expected in ((0.0, x0), (1.0, x1)):
        x_t, v = interpolate(x1, Noise(x0, torch.full((2, 10), t)))
        torch.testing.assert_close(x_t, expected)
        torch.testing.assert_close(v, x1 - x0)


def test_errors_are_means_over_dimensions():
    v, target = torch.zeros(1, 2, 4), torch.tensor([[[1.0, -1, 1, -1], [2, 2, 2, -2]]])
    assert frame_error(v, target, "l1").tolist() == [[1, 2]]
    assert frame_error(v, target, "l2").tolist() == [[1, 4]]


def test_frames_that_are_not_valid_do_not_count():
    model, x = small_model(), inputs(20)
    x1, noise = torch.randn(2, 20, DIM), draw_noise((2, 20, DIM), 5, torch.Generator().manual_seed(0))
    valid = torch.ones(2, 20, dtype=torch.bool)
    valid[:, 15:] = False

    def loss(motion: torch.Tensor) -> torch.Tensor:
        return flow_loss(model, motion, x["reference"], conditions_of(model, x), Keep.all(2), noise, valid, "l1")[0]

    changed = x1.clone()
    changed[:, 15:] += 5
    assert loss(x1) == loss(changed)
    assert masked_mean(torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool)) == 0


def test_drop_patterns_come_in_their_shares():
    config = ObjectiveConfig(full=0.4, no_user=0.3, no_avatar=0.2, none=0.1)
    keep = draw_keep(20_000, config, torch.Generator().manual_seed(0))
    shares = {
        "full": (keep.avatar & keep.user),
        "no_user": (keep.avatar & ~keep.user),
        "no_avatar": (~keep.avatar & keep.user),
        "none": (~keep.avatar & ~keep.user),
    }
    for name, hit in shares.items():
        assert hit.float().mean().item() == pytest.approx(getattr(config, name), abs=0.015)


def test_dropped_conditions_reach_nothing():
    model, x = small_model(), inputs(20)
    other = inputs(20)
    other["user_audio"], other["user_motion"] = -x["user_audio"] * 2, x["user_motion"] + 1
    no_user = Keep(torch.tensor([True, True]), torch.tensor([False, True]))
    with torch.no_grad():
        outputs = [
            model(x["noisy_motion"], x["noise_level"], x["reference"], conditions_of(model, given), no_user)
            for given in (x, other)
        ]
    assert torch.equal(outputs[0][0], outputs[1][0])
    assert not torch.equal(outputs[0][1], outputs[1][1])


@pytest.mark.slow
def test_one_batch_can_be_learned_by_heart():
    model, x = small_model(), inputs(20)
    x1 = torch.randn(2, 20, DIM, generator=torch.Generator().manual_seed(5))
    noise = draw_noise((2, 20, DIM), 5, torch.Generator().manual_seed(0))
    conditions, valid = conditions_of(model, x), torch.ones(2, 20, dtype=torch.bool)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(80):
        loss, _ = flow_loss(model, x1, x["reference"], conditions, Keep.all(2), noise, valid, "l2")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def gaussian_flow(x: torch.Tensor, t: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """E[x1 − x0 | x_t = x] for x1 ~ N(mean, std²) and x0 ~ N(0, 1): the velocity that eq. 6 has as its minimiser."""
    slope = (t * std**2 - (1 - t)) / (t**2 * std**2 + (1 - t) ** 2)
    return mean + slope * (x - t * mean)


MEAN, STD = torch.linspace(-1, 1, DIM), torch.linspace(0.3, 1.5, DIM)


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_the_minimiser_of_the_objective_is_the_flow_of_a_gaussian(norm: Norm, t: float):
    """Of all affine velocities at a level the analytic one costs least: any other slope or shift costs more."""
    generator = torch.Generator().manual_seed(0)
    x1 = MEAN + STD * torch.randn(1, 40_000, DIM, generator=generator)
    noise = Noise(torch.randn(x1.shape, generator=generator), torch.full(x1.shape[:2], t))
    x_t, target = interpolate(x1, noise)
    best = gaussian_flow(x_t, noise.t[..., None], MEAN, STD)

    def cost(velocity: torch.Tensor) -> torch.Tensor:
        return frame_error(velocity, target, norm).mean()

    for changed in (best + 0.1, best - 0.1, best + 0.1 * (x_t - t * MEAN), best - 0.1 * (x_t - t * MEAN)):
        assert cost(best) < cost(changed)


@pytest.mark.slow
def test_training_finds_the_flow_of_a_gaussian_and_sampling_its_moments():
    model = build_model(SMALL.model_copy(update={"depth": 1, "block": 1, "context": 0}), FeatureConfig(), SPEC, 0)
    generator = torch.Generator().manual_seed(0)
    size = 256
    nothing = Keep(torch.zeros(size, dtype=torch.bool), torch.zeros(size, dtype=torch.bool))
    unseen = Conditions(torch.zeros(size, 1, 128), torch.zeros(size, 1, 128), torch.zeros(size, 1, DIM))
    reference, valid = torch.zeros(size, DIM), torch.ones(size, 1, dtype=torch.bool)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    steps = 150
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, steps)
    for _ in range(steps):
        x1 = MEAN + STD * torch.randn(size, 1, DIM, generator=generator)
        noise = draw_noise((size, 1, DIM), 1, generator)
        loss, _ = flow_loss(model, x1, reference, unseen, nothing, noise, valid, "l2")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        x = torch.randn(size, 1, DIM, generator=generator)
        errors = []
        for i in range(25):
            t = torch.full((size, 1), i / 25)
            velocity = model(x, t, reference, unseen, nothing)
            analytic = gaussian_flow(x, t[..., None], MEAN, STD)
            errors.append(((velocity - analytic).square().mean() / analytic.square().mean()).item())
            x = x + velocity / 25
    assert np.mean(errors) < 0.05
    assert (x.mean(dim=(0, 1)) - MEAN).abs().max() < 0.2
    assert ((x.std(dim=(0, 1)) / STD).log().abs()).max() < 0.2


def test_a_wrong_shape_is_found() -> None:
    """Else the signatures of `visavis.training` would promise what no test looks at."""
    with pytest.raises(jaxtyping.TypeCheckError):
        masked_mean(torch.zeros(2, 3), torch.zeros(2, 4, dtype=torch.bool))
