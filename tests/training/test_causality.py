"""Nothing after the allowed look-ahead may change an output, by a single bit, whatever the depth of the stack."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.conftest import small_model
from tests.training.synthetic import DIM
from visavis.schemas import SAMPLES_PER_FRAME
from visavis.schemas.train import FeatureConfig, Mask, SamplerConfig
from visavis.training.features import LogMel
from visavis.training.masks import last_condition, last_motion
from visavis.training.model import Keep, Listener
from visavis.training.sampler import Stream, rollout

FRAMES = 33  # not a whole number of blocks
CONDITIONS = ["avatar_audio", "user_audio", "user_motion"]
INPUTS = [*CONDITIONS, "noisy_motion", "noise_level"]
MODELS: dict[Mask, Listener] = {mask: small_model(mask) for mask in ("block", "frame", "full")}


def inputs(frames: int = FRAMES, batch: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "avatar_audio": 0.1 * torch.randn(batch, frames * SAMPLES_PER_FRAME, generator=generator),
        "user_audio": 0.1 * torch.randn(batch, frames * SAMPLES_PER_FRAME, generator=generator),
        "user_motion": torch.randn(batch, frames, DIM, generator=generator),
        "noisy_motion": torch.randn(batch, frames, DIM, generator=generator),
        "noise_level": torch.rand(batch, frames, generator=generator),
        "reference": torch.randn(batch, DIM, generator=generator),
    }


def changed_after(given: dict[str, torch.Tensor], name: str, frame: int) -> dict[str, torch.Tensor]:
    """The same inputs, with one of them other in every frame after `frame`, from its first sample on."""
    value = given[name].clone()
    first = (frame + 1) * (SAMPLES_PER_FRAME if name.endswith("audio") else 1)
    value[:, first:] = 0.5 - 3 * value[:, first:]
    return given | {name: value}


@torch.no_grad()
def velocity(model: Listener, x: dict[str, torch.Tensor]) -> torch.Tensor:
    conditions = model.conditions(x["avatar_audio"], x["user_audio"], x["user_motion"])
    return model(x["noisy_motion"], x["noise_level"], x["reference"], conditions, Keep.all(2))


def bound(model: Listener, name: str, n: int) -> int:
    last = last_condition(model.config, n) if name in CONDITIONS else last_motion(model.config, n)
    assert last is not None
    return last


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("mask", ["block", "frame"])
def test_outputs_up_to_n_ignore_everything_after_the_bound_of_n(mask: Mask, name: str):
    model = MODELS[mask]
    original = inputs()
    before = velocity(model, original)
    for n in range(0, FRAMES - 1, 3):  # 3 and a block of 5: every place in a block comes up
        after = velocity(model, changed_after(original, name, bound(model, name, n)))
        assert torch.equal(before[:, : n + 1], after[:, : n + 1]), f"frame ≤ {n} changed"


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("mask", ["block", "frame"])
def test_the_bound_is_reached(mask: Mask, name: str):
    """The look-ahead is used, so the test above does not pass because nothing matters."""
    model = MODELS[mask]
    original = inputs()
    before = velocity(model, original)
    for n in (0, 7, 14):
        after = velocity(model, changed_after(original, name, bound(model, name, n) - 1))
        assert not torch.equal(before[:, : n + 1], after[:, : n + 1])


@pytest.mark.parametrize("name", INPUTS)
def test_full_mask_sees_the_whole_future(name: str):
    original = inputs()
    after = velocity(MODELS["full"], changed_after(original, name, FRAMES - 2))
    assert not torch.equal(velocity(MODELS["full"], original)[:, 0], after[:, 0])


@settings(max_examples=12, deadline=None)
@given(data=st.data(), mask=st.sampled_from(["block", "frame"]), name=st.sampled_from(INPUTS))
def test_depth_and_geometry_do_not_widen_the_look_ahead(data, mask: Mask, name: str):
    block = data.draw(st.integers(1, 8))
    model = small_model(
        mask,
        depth=data.draw(st.integers(1, 6)),
        block=block,
        look_ahead=data.draw(st.integers(0, block)),
        cross_window=data.draw(st.integers(0, 4)),
        context=data.draw(st.integers(0, 20)),
    )
    n = data.draw(st.integers(0, FRAMES - 2))
    original = inputs()
    after = velocity(model, changed_after(original, name, bound(model, name, n)))
    assert torch.equal(velocity(model, original)[:, : n + 1], after[:, : n + 1])


def test_features_of_a_frame_hear_no_sample_of_the_next():
    log_mel = LogMel(FeatureConfig())
    audio = inputs()["user_audio"]
    before = log_mel(audio)
    for n in range(FRAMES - 1):
        changed = audio.clone()
        changed[:, (n + 1) * SAMPLES_PER_FRAME] += 0.5
        after = log_mel(changed)
        assert torch.equal(before[:, : n + 1], after[:, : n + 1])
        assert not torch.equal(before[:, n + 1], after[:, n + 1])


def test_features_of_a_stream_equal_those_of_the_whole():
    log_mel = LogMel(FeatureConfig())
    audio = inputs()["user_audio"]
    cut = 7 * SAMPLES_PER_FRAME
    parts = [log_mel(audio[:, :cut]), log_mel(audio[:, cut - SAMPLES_PER_FRAME :], start=6, first=7)]
    torch.testing.assert_close(torch.cat(parts, dim=1), log_mel(audio), atol=1e-5, rtol=0)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("name", CONDITIONS)
@pytest.mark.parametrize("mask", ["block", "frame"])
def test_generated_frames_ignore_conditions_after_their_bound(mask: Mask, name: str, cached: bool):
    """In generation a block is integrated as one, so frames share the bound of the block's last frame."""
    model = MODELS[mask]
    sampler = SamplerConfig(steps=1, guidance="full", w_a=2.0, w_u=1.5)
    frames = 15
    original = inputs(frames)

    def generated(x: dict[str, torch.Tensor]) -> torch.Tensor:
        conditions = (x["avatar_audio"], x["user_audio"], x["user_motion"])
        return rollout(model, *conditions, x["reference"], sampler, ["a", "b"], cached=cached)

    before = generated(original)
    for n in (0, 4, 5, 8):
        after = generated(changed_after(original, name, bound(model, name, n)))
        assert torch.equal(before[:, : n + 1], after[:, : n + 1])
        assert not torch.equal(before, after)


@pytest.mark.parametrize("mask", ["block", "frame"])
def test_a_stream_gives_each_block_before_it_is_given_more_than_the_look_ahead(mask: Mask):
    model = MODELS[mask]
    x = inputs(20)
    whole = rollout(
        model, x["avatar_audio"], x["user_audio"], x["user_motion"], x["reference"], SamplerConfig(steps=2), ["a", "b"]
    )
    stream = Stream(model, x["reference"], SamplerConfig(steps=2), ["a", "b"])
    given = 0
    for block in range(3):
        end = given + stream.needs
        assert end == (block + 1) * 5 + 2
        samples = slice(given * SAMPLES_PER_FRAME, end * SAMPLES_PER_FRAME)
        motion = stream.step(x["avatar_audio"][:, samples], x["user_audio"][:, samples], x["user_motion"][:, given:end])
        assert torch.equal(motion, whole[:, block * 5 : block * 5 + 5])
        given = end


@pytest.mark.parametrize("name", CONDITIONS)
@pytest.mark.parametrize("mask", ["block", "frame"])
@torch.no_grad()
def test_a_code_holds_nothing_later_than_its_own_frame(mask: Mask, name: str):
    model, original = MODELS[mask], inputs()

    def codes(x: dict[str, torch.Tensor]) -> torch.Tensor:
        code, _ = model.encoder(model.conditions(*(x[condition] for condition in CONDITIONS)), Keep.all(2))
        return code

    before = codes(original)
    for n in range(0, FRAMES - 1, 4):
        after = codes(changed_after(original, name, n))
        assert torch.equal(before[:, : n + 1], after[:, : n + 1])
        assert not torch.equal(before[:, n + 1], after[:, n + 1])


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    mask=st.sampled_from(["block", "frame"]),
    name=st.sampled_from(CONDITIONS),
    n=st.integers(0, 17),
    change=st.sampled_from([0.0, -1.0, 1e6, -1e30]),
    anchor=st.sampled_from([0.0, 0.7]),
)
def test_whatever_the_future_brings_the_past_of_a_stream_stays(mask: Mask, name: str, n: int, change, anchor: float):
    model, original = MODELS[mask], inputs(20)
    sampler = SamplerConfig(steps=1, anchor=anchor, anchor_seconds=0.5)
    last = n // 5 * 5 + 4  # a block is generated as one
    future = original[name].clone()
    future[:, (bound(model, name, last) + 1) * (SAMPLES_PER_FRAME if name.endswith("audio") else 1) :] = change

    def generated(x: dict[str, torch.Tensor]) -> torch.Tensor:
        return rollout(model, *(x[condition] for condition in CONDITIONS), x["reference"], sampler, ["a", "b"])

    past, other = generated(original)[:, : last + 1], generated(original | {name: future})[:, : last + 1]
    assert torch.equal(past, other)
