"""Sessions: what was saved goes on as if nothing had happened, and only with the model that it ran on."""

from __future__ import annotations

import pytest
import torch

from schemas import SAMPLES_PER_FRAME
from schemas.errors import UsageError
from schemas.train import SamplerConfig
from tests.training.conftest import small_model
from tests.training.test_causality import inputs
from training.model import Listener
from training.sampler import Stream
from training.session import load_stream, model_id, save_stream

SAMPLER = SamplerConfig(steps=2, anchor=0.5, anchor_seconds=1.0)
FRAMES = 42


def steps(stream: Stream, x: dict[str, torch.Tensor], count: int) -> torch.Tensor:
    """The next blocks of a stream that is given these conditions from its first frame on."""
    blocks = []
    for _ in range(count):
        given, end = stream.state.given, stream.state.given + stream.needs
        samples = slice(given * SAMPLES_PER_FRAME, end * SAMPLES_PER_FRAME)
        blocks.append(
            stream.step(x["avatar_audio"][:, samples], x["user_audio"][:, samples], x["user_motion"][:, given:end])
        )
    return torch.cat(blocks, dim=1)


@pytest.mark.parametrize("mask", ["block", "frame"])
@pytest.mark.parametrize("before", [0, 1, 5])
def test_a_restored_stream_goes_on_with_the_same_motion(mask, before: int):
    model, x = small_model(mask), inputs(FRAMES)
    whole = steps(Stream(model, x["reference"], SAMPLER, ["a", "b"]), x, 8)
    stream = Stream(model, x["reference"], SAMPLER, ["a", "b"])
    if before:
        steps(stream, x, before)
    restored = load_stream(save_stream(stream), small_model(mask))
    assert torch.equal(steps(restored, x, 8 - before), whole[:, 5 * before :])
    assert restored.counts.evaluations == 16


def test_a_state_is_plain_bytes_that_say_the_same_twice():
    model, x = small_model(), inputs(FRAMES)
    stream = Stream(model, x["reference"], SAMPLER, ["a", "b"], "no_user")
    steps(stream, x, 3)
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
