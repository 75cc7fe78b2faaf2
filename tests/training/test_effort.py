"""Weights of frames by how much the user matters: where they go, and that they shift no mean."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.conftest import small_model
from tests.training.synthetic import DIM
from tests.training.test_causality import inputs
from visavis.schemas.errors import UsageError
from visavis.schemas.train import TrainConfig
from visavis.training.checkpoint import load_checkpoint
from visavis.training.effort import effort, user_effect
from visavis.training.flow import draw_noise, interpolate
from visavis.training.model import Keep
from visavis.training.train import train

SEEN = Keep(torch.tensor([True, True]), torch.tensor([True, False]))


def effect(model, x, keep=SEEN, motion=None):
    noise = draw_noise((2, 20, DIM), 5, torch.Generator().manual_seed(0))
    conditions = model.conditions(x["avatar_audio"], x["user_audio"], x["user_motion"])
    x1 = x["noisy_motion"] if motion is None else motion
    return user_effect(model, x1, x["reference"], conditions, keep, noise), noise


def test_the_effect_is_what_the_user_changes():
    model, x = small_model(), inputs(20)
    found, noise = effect(model, x)
    x_t, _ = interpolate(x["noisy_motion"], noise)
    conditions = model.conditions(x["avatar_audio"], x["user_audio"], x["user_motion"])
    everything, nobody = Keep.all(2), Keep(SEEN.avatar, torch.tensor([False, False]))
    with torch.no_grad():
        with_user, without = (model(x_t, noise.t, x["reference"], conditions, k) for k in (everything, nobody))
    torch.testing.assert_close(found[0], (with_user - without)[0].square().mean(dim=1))
    assert (found[0] > 0).all()
    assert (found[1] == 0).all()  # a sample that is shown without its user has no weight that knows the user


def test_weights_are_one_and_more_where_the_user_matters_more():
    valid = torch.ones(2, 4, dtype=torch.bool)
    valid[0, 3] = False
    d = torch.tensor([[0.0, 1.0, 2.0, 50.0], [0.0, 0.0, 0.0, 0.0]])
    weight = effort(d, SEEN, valid, 3.0)
    assert weight[0, :3].tolist() == [1.0, 4.0, 7.0]  # the mean is over valid frames whose user is seen
    assert weight[1].tolist() == [1.0] * 4
    assert (effort(d, SEEN, valid, 0.0) == 1).all()
    assert (effort(torch.zeros(2, 4), SEEN, valid, 3.0) == 1).all()  # a user who matters nowhere


def test_weights_that_know_the_input_alone_keep_the_conditional_mean():
    """Fit E[v | a, b] from weighted squares, where weights grow with the input: the same as without."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 200_000, generator=generator, dtype=torch.float64)
    v = 0.7 * a - 0.2 * b + (1 + a.abs()) * torch.randn(200_000, generator=generator, dtype=torch.float64)
    inputs_ND = torch.stack([a, b], dim=1)
    for by_input in (torch.ones_like(a), 1 + 5 * (a - b).square()):
        root = by_input.sqrt()[:, None]
        slope = torch.linalg.lstsq(inputs_ND * root, v[:, None] * root).solution[:, 0]
        torch.testing.assert_close(slope, torch.tensor([0.7, -0.2]).double(), atol=0.03, rtol=0)
    by_target = 1 + 5 * v.square()  # what is right must not decide
    root = by_target.sqrt()[:, None]
    shifted = torch.linalg.lstsq(inputs_ND * root, v[:, None] * root).solution[:, 0]
    assert (shifted - torch.tensor([0.7, -0.2]).double()).abs().max() > 0.1


@pytest.mark.slow
def test_further_steps_with_and_without_pairs(
    windows: Path, pairs: Path, trained: Path, tmp_path: Path, small_config: TrainConfig
):
    def weighted(weight: float) -> TrainConfig:
        objective = small_config.objective.model_copy(update={"user_weight": weight})
        dpo = small_config.dpo.model_copy(update={"steps": 6, "warmup": 0})
        return small_config.model_copy(update={"objective": objective, "dpo": dpo, "val_batches": 0})

    with pytest.raises(UsageError, match=r"objective\.user_weight is for further steps"):
        train(str(windows), tmp_path / "first", weighted(1.0))
    for name, more in {"pairs": {"pairs": str(pairs)}, "windows": {}}.items():
        found = [
            load_checkpoint(train(str(windows), tmp_path / f"{name}-{weight}", weighted(weight), init=trained, **more))
            for weight in (0.0, 4.0)
        ]
        assert any(not found[0].model[key].equal(found[1].model[key]) for key in found[0].model)
        assert "user_effect" in (tmp_path / f"{name}-4.0" / "metrics.jsonl").read_text()
