"""DPO, against eq. 12, and what every objective logs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.training.conftest import small_model
from tests.training.preferences.made import pairs_of
from tests.training.synthetic import DIM
from visavis.training.flow import draw_noise
from visavis.training.model import Listener
from visavis.training.preferences.dpo import preference_loss
from visavis.training.preferences.pairs import PairErrors, pair_offsets, sizes, watched


@pytest.fixture
def errors() -> tuple[PairErrors, PairErrors]:
    """Of the policy and of the reference model."""
    generator = torch.Generator().manual_seed(0)
    chosen, rejected, *reference = (0.01 * torch.rand(3, 7, generator=generator, dtype=torch.float64) for _ in range(4))
    return (chosen, rejected), (reference[0], reference[1])


VALID = torch.ones(3, 7, dtype=torch.bool)


def test_preference_loss_is_equation_12(errors):
    valid = VALID.clone()
    valid[1, 3:] = False
    policy, reference = errors
    loss, logs = preference_loss(policy, reference, valid, beta=1000), watched(policy, reference, valid)
    terms, wins = [], []
    for b, n in zip(*np.nonzero(valid.numpy()), strict=True):
        chosen, rejected = (float(policy[side][b, n] - reference[side][b, n]) for side in (0, 1))
        z = -1000 * (chosen - rejected)
        terms.append(math.log1p(math.exp(-z)) if z > 0 else -z + math.log1p(math.exp(z)))
        wins.append(z > 0)
    assert loss.item() == pytest.approx(np.mean(terms), rel=1e-12)
    assert logs["implicit_accuracy"].item() == pytest.approx(np.mean(wins))


def test_log_sigmoid_comes_before_the_mean_over_frames():
    """Two frames that cancel in the mean cost more than log 2: the other order would say exactly log 2."""
    zero = torch.zeros(1, 2, dtype=torch.float64)
    chosen = torch.tensor([[0.001, -0.001]]).double()
    loss = preference_loss((chosen, zero), (zero, zero), torch.ones(1, 2, dtype=torch.bool), 1000)
    assert loss.item() == pytest.approx((math.log1p(math.e) + math.log1p(1 / math.e)) / 2)


def test_swapping_the_sides_flips_the_margin(errors):
    policy, reference = errors
    logs, flipped = watched(policy, reference, VALID), watched(policy[::-1], reference[::-1], VALID)
    assert flipped["margin"].item() == pytest.approx(-logs["margin"].item())
    assert flipped["implicit_accuracy"].item() == pytest.approx(1 - logs["implicit_accuracy"].item())


def dpo(policy: Listener, reference: Listener, *, beta: float = 1000.0):
    pairs, noise = pairs_of(20), draw_noise((2, 20, DIM), 5, torch.Generator().manual_seed(3))
    valid = torch.ones(2, 20, dtype=torch.bool)
    with torch.no_grad():
        before = sizes(pair_offsets(reference, pairs, (noise, noise)), "l1")
    after = sizes(pair_offsets(policy, pairs, (noise, noise)), "l1")
    return preference_loss(after, before, valid, beta), watched(after, before, valid)


def test_at_the_start_the_loss_is_exactly_log_two():
    loss, logs = dpo(small_model(), small_model())
    assert loss.item() == pytest.approx(math.log(2), abs=1e-7)
    assert logs["margin"].item() == 0
    assert logs["implicit_accuracy"].item() == 0.5
    assert logs["chosen_policy"] == logs["chosen_reference"]


def test_gradient_goes_into_the_policy_only():
    policy, reference = small_model(), small_model(seed=1)
    loss, _ = dpo(policy, reference)
    loss.backward()
    assert all(weight.grad is None for weight in reference.parameters())
    with_gradient = {name for name, weight in policy.named_parameters() if weight.grad is not None}
    dropped = {"encoder.no_avatar_audio", "encoder.no_user_audio", "encoder.no_user_motion"}
    assert all(policy.get_parameter(name).grad.abs().sum() == 0 for name in dropped)
    assert with_gradient == {name for name, _ in policy.named_parameters()}


def test_a_step_down_the_gradient_prefers_the_chosen_side():
    policy, reference = small_model(), small_model()
    optimizer = torch.optim.SGD(policy.parameters(), lr=1e-4)
    loss, _ = dpo(policy, reference, beta=10.0)
    loss.backward()
    optimizer.step()
    after, logs = dpo(policy, reference, beta=10.0)
    assert after.item() < loss.item()
    assert logs["margin"].item() > 0
