"""A second opinion: the model as one would write it from the paper has the same output, motion and gradients."""

from __future__ import annotations

import pytest
import torch

from benchmarks.plain import PlainListener, PlainStream
from tests.training.conftest import small_model
from tests.training.synthetic import DIM
from tests.training.test_causality import CONDITIONS, inputs
from visavis.schemas import SAMPLES_PER_FRAME
from visavis.schemas.train import Mask, SamplerConfig
from visavis.training.flow import Noise, flow_loss
from visavis.training.model import Conditions, Keep, Listener
from visavis.training.noise import noise
from visavis.training.sampler import rollout

FRAMES = 30


def plain_of(model: Listener, dtype: torch.dtype = torch.float32) -> PlainListener:
    plain = PlainListener(model.config, model.features.config, model.motion)
    plain.load_state_dict(model.state_dict())
    return plain.to(dtype)


def given(dtype: torch.dtype = torch.float32) -> tuple[dict[str, torch.Tensor], Conditions]:
    x = inputs(FRAMES)
    one = small_model().conditions(*(x[name] for name in CONDITIONS))
    conditions = Conditions(*(part.to(dtype) for part in (one.avatar_audio, one.user_audio, one.user_motion)))
    return {name: value.to(dtype) for name, value in x.items()}, conditions


@pytest.mark.parametrize("keep", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("mask", ["block", "frame", "full"])
def test_velocities_agree(mask: Mask, keep: tuple[bool, bool]):
    model = small_model(mask)
    x, seen = given()
    kept = Keep(*(torch.full((2,), flag) for flag in keep))
    with torch.no_grad():
        ours = model(x["noisy_motion"], x["noise_level"], x["reference"], seen, kept)
        plain, _ = plain_of(model)(
            x["noisy_motion"],
            x["noise_level"],
            x["reference"],
            seen.avatar_audio,
            seen.user_audio,
            seen.user_motion,
            keep,
        )
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, plain, atol=2e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("mask", ["block", "frame"])
def test_streams_agree(mask: Mask):
    """Also where the masks' bounds bite: more blocks than the cache holds."""
    model, block, ahead = small_model(mask), 5, 2
    x = inputs(43)
    sampler = SamplerConfig(steps=3, guidance="paper", w_a=2.0, w_u=1.5)
    one = {name: value[:1] for name, value in x.items()}
    ours = rollout(model, *(one[name] for name in CONDITIONS), one["reference"], sampler, ["a"])
    features = model.conditions(*(one[name] for name in CONDITIONS))
    stream = PlainStream(plain_of(model), model.normalise(one["reference"]), steps=3, w_a=2.0, w_u=1.5)
    blocks = []
    for start in range(0, 40, block):
        seen = slice(start, start + block + ahead)
        parts = (features.avatar_audio[:, seen], features.user_audio[:, seen], features.user_motion[:, seen])
        blocks.append(stream.step(noise(sampler.seed, ["a"], start // block, block, DIM), *parts))
    plain = model.denormalise(torch.cat(blocks, dim=1))
    assert plain.std() > 0.1
    torch.testing.assert_close(ours[:, :40], plain, atol=1e-4, rtol=0)


def gradients(model: Listener, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    x, conditions = given(dtype)
    drawn = Noise(x["noisy_motion"], x["noise_level"])
    valid = torch.ones(2, FRAMES, dtype=torch.bool)
    keep = Keep(torch.tensor([True, False]), torch.tensor([True, False]))
    loss, _ = flow_loss(model, x["user_motion"].flip(0), x["reference"], conditions, keep, drawn, valid, "l2")
    loss.backward()
    return {name: weight.grad.double() for name, weight in model.named_parameters() if weight.grad is not None}


def plain_gradients(model: Listener) -> dict[str, torch.Tensor]:
    """The same loss in float64, its mean written out: one sample sees everything, the other nothing."""
    plain = plain_of(model, torch.float64)
    x, seen = given(torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    x1, x0, t = x["user_motion"].flip(0), x["noisy_motion"], x["noise_level"]
    for i, kept in enumerate((True, False)):
        b = slice(i, i + 1)
        x_t = t[b, :, None] * x1[b] + (1 - t[b, :, None]) * x0[b]
        parts = seen.avatar_audio[b], seen.user_audio[b], seen.user_motion[b]
        v, _ = plain(x_t, t[b], x["reference"][b], *parts, (kept, kept))
        total = total + (v - (x1[b] - x0[b])).square().sum()
    (total / x1.numel()).backward()
    return {name: weight.grad for name, weight in plain.named_parameters()}


@pytest.mark.parametrize("mask", ["block", "frame", "full"])
def test_gradients_agree_with_float64(mask: Mask):
    """float32 resolves the sinusoids of 1000·t to 6e-5."""
    reference = plain_gradients(small_model(mask))
    for dtype, bound in ((torch.float64, 1e-6), (torch.float32, 1e-3)):
        ours = gradients(small_model(mask).to(dtype), dtype)
        assert ours.keys() == reference.keys()
        for name, expected in reference.items():
            error = (ours[name] - expected).norm() / expected.norm().clamp(min=1e-6)
            assert error < bound, f"{name}: {error:.1e} in {dtype}"


def test_forgotten_frames_are_forgotten_by_both():
    """The streams above would agree on a wrong cache if neither used it: the past does matter."""
    model = small_model()
    x = inputs(43)
    one = {name: value[:1] for name, value in x.items()}
    one["past"] = one["user_audio"].clone()
    one["past"][:, : 5 * SAMPLES_PER_FRAME] *= -3
    sampler = SamplerConfig(steps=3)
    made = [
        rollout(model, one["avatar_audio"], one[heard], one["user_motion"], one["reference"], sampler, ["a"])
        for heard in ("user_audio", "past")
    ]
    assert not torch.allclose(made[0][:, 10:15], made[1][:, 10:15], atol=1e-4)
