"""Sessions: what was saved goes on as if nothing had happened, and only with the model that it ran on."""

from __future__ import annotations

import pytest
import torch

from tests.training.conftest import blocks, small_model
from tests.training.test_causality import inputs
from visavis.schemas import SAMPLES_PER_FRAME
from visavis.schemas.errors import UsageError
from visavis.schemas.train import SamplerConfig
from visavis.training.model import Listener
from visavis.training.sampler import Stream, rollout
from visavis.training.session import load_stream, model_id, save_stream

SAMPLER = SamplerConfig(steps=2, anchor=0.5, anchor_seconds=1.0)
FRAMES = 42


@pytest.mark.parametrize("mask", ["block", "frame"])
@pytest.mark.parametrize("before", [0, 1, 5])
def test_a_restored_stream_goes_on_with_the_same_motion(mask, before: int):
    model, x = small_model(mask), inputs(FRAMES)
    whole = blocks(Stream(model, x["reference"], SAMPLER, ["a", "b"]), x, 8)
    stream = Stream(model, x["reference"], SAMPLER, ["a", "b"])
    if before:
        blocks(stream, x, before)
    restored = load_stream(save_stream(stream), small_model(mask))
    assert torch.equal(blocks(restored, x, 8 - before), whole[:, 5 * before :])
    assert restored.counts.evaluations == 16


def test_a_state_is_plain_bytes_that_say_the_same_twice():
    model, x = small_model(), inputs(FRAMES)
    stream = Stream(model, x["reference"], SAMPLER, ["a", "b"], "no_user")
    blocks(stream, x, 3)
    saved = save_stream(stream)
    assert save_stream(stream, model_id(model)) == saved
    assert save_stream(load_stream(saved, model)) == saved


def weights_differ() -> Listener:
    model = small_model()
    with torch.no_grad():
        model.velocity.bias[0] += 1e-6
    return model


@pytest.mark.parametrize("other", [small_model(seed=1), small_model(look_ahead=1), weights_differ()])
def test_the_state_of_another_model_is_refused_in_one_line(other: Listener):
    saved = save_stream(Stream(small_model(), inputs(5)["reference"], SAMPLER, ["a", "b"]))
    with pytest.raises(UsageError, match=r"made by model .* not by this one") as refused:
        load_stream(saved, other)
    assert "\n" not in str(refused.value)


def test_what_is_no_state_is_told():
    model = small_model()
    saved = save_stream(Stream(model, inputs(5)["reference"], SAMPLER, ["a", "b"]))
    for broken in (b"", saved[:-100], saved[:20]):
        with pytest.raises(UsageError, match="not a whole state of a stream"):
            load_stream(broken, model)


def test_a_broken_frame_is_named_and_does_not_stay_in_the_stream():
    """A tracker that fails for a moment must not end a session: the step may be tried again."""
    model, x = small_model(), inputs(FRAMES)
    whole = blocks(Stream(model, x["reference"], SAMPLER, ["a", "b"]), x, 6)
    stream = Stream(model, x["reference"], SAMPLER, ["a", "b"])
    begun = blocks(stream, x, 2)
    spoilt_at = stream.state.given + 1
    for name, what, value, place in (
        ("user_motion", "user's motion", float("nan"), (1, spoilt_at, 3)),
        ("user_audio", "user's audio", float("inf"), (1, spoilt_at * SAMPLES_PER_FRAME + 639)),
        ("avatar_audio", "avatar's audio", float("-inf"), (1, spoilt_at * SAMPLES_PER_FRAME)),
    ):
        broken = x | {name: x[name].clone()}
        broken[name][place] = value
        with pytest.raises(ValueError, match=f"session b: the {what} is not finite in frame {spoilt_at};"):
            blocks(stream, broken, 1)
    torch.testing.assert_close(torch.cat([begun, blocks(stream, x, 4)], dim=1), whole, atol=0, rtol=0)


@pytest.mark.parametrize("mask", ["block", "full"])
def test_windows_with_broken_conditions_are_not_rolled_out(mask):
    model, x = small_model(mask), inputs(FRAMES)
    x["user_motion"][0, 30, 0] = float("nan")
    conditions = x["avatar_audio"], x["user_audio"], x["user_motion"], x["reference"]
    with pytest.raises(ValueError, match="session a: the user's motion is not finite in frame 30"):
        rollout(model, *conditions, SAMPLER, ["a", "b"])


def test_neither_a_broken_reference_nor_a_broken_state_starts_a_stream():
    model, x = small_model(), inputs(FRAMES)
    with pytest.raises(UsageError, match="reference motion of a session is not finite"):
        Stream(model, x["reference"] * float("nan"), SAMPLER, ["a", "b"])
    stream = Stream(model, x["reference"], SAMPLER, ["a", "b"])
    blocks(stream, x, 1)
    stream.state.past[0][0][0, 0, -1, 0] = float("inf")
    saved = save_stream(stream)
    with pytest.raises(UsageError, match=r"not finite \(past\.\d\.(keys|values)\); start"):
        load_stream(saved, model)
