"""Activation checkpointing: the same loss and gradients to the bit, with less kept for the backward pass."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.conftest import small_model
from visavis.schemas.train import TrainConfig
from visavis.training.checkpoint import load_checkpoint
from visavis.training.model import Conditions, Keep
from visavis.training.train import train


def step(*, checkpointing: bool, half: bool = False) -> tuple[torch.Tensor, list[torch.Tensor], int]:
    """Loss, gradients, and bytes that the forward pass kept for the backward one, without the weights."""
    model = small_model(depth=6).train()
    model.checkpointing = checkpointing
    generator, (batch, frames, dim) = torch.Generator().manual_seed(1), (4, 30, model.motion.dim)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    features = model.features.size
    conditions = Conditions(*(random(batch, frames, size) for size in (features, features, dim)))
    given = random(batch, frames, dim), torch.full((batch, frames), 0.3), random(batch, dim)
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=half):
        loss = model(*given, conditions, Keep.all(batch)).square().mean()
    loss.backward()
    return loss.detach(), [w.grad for w in model.parameters() if w.grad is not None], sum(kept.values())


@pytest.mark.parametrize("half", [False, True])
def test_losses_and_gradients_are_the_same_to_the_bit_and_less_is_kept(half: bool):
    loss, gradients, kept = step(checkpointing=False, half=half)
    again, recomputed, less = step(checkpointing=True, half=half)
    assert torch.equal(loss, again)
    assert len(gradients) == len(recomputed) > 0
    assert all(torch.equal(one, other) for one, other in zip(gradients, recomputed, strict=True))
    assert less < kept / 2


def test_without_gradients_nothing_is_computed_twice(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("visavis.training.model.checkpoint", lambda *_, **__: pytest.fail("there is nothing to keep"))
    model = small_model()
    model.checkpointing = True
    x = torch.zeros(1, 10, model.motion.dim)
    silence = torch.zeros(1, 10, model.features.size)
    with torch.no_grad():
        model(x, torch.zeros(1, 10), x[:, 0], Conditions(silence, silence, x), Keep.all(1))


@pytest.mark.slow
def test_a_run_that_is_switched_over_goes_through_the_same_losses(
    windows: Path, tmp_path: Path, small_config: TrainConfig
):
    config = small_config.model_copy(update={"checkpoint_every": 2, "val_batches": 0})
    optim = config.optim.model_copy(update={"steps": 3})
    plain = config.model_copy(update={"optim": optim})
    other = config.model_copy(update={"optim": optim.model_copy(update={"activation_checkpointing": True})})
    expected = train(str(windows), tmp_path / "plain", plain)
    with pytest.raises(KeyboardInterrupt):
        train(str(windows), tmp_path / "switched", plain, stop=lambda: True)
    switched = train(str(windows), tmp_path / "switched", other)
    one, two = (load_checkpoint(path).model for path in (expected, switched))
    assert all(torch.equal(one[name], two[name]) for name in one)
