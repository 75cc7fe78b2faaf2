"""Streaming: the cache changes nothing, length has no limit, and what is paid for is counted."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from schemas import SAMPLES_PER_FRAME
from schemas.errors import UsageError
from schemas.train import Drop, Mask, SamplerConfig
from tests.training.conftest import small_model
from tests.training.synthetic import DIM
from tests.training.test_causality import inputs
from training.model import Listener
from training.sampler import Counts, Stream, guidance_weights, rollout


def generate(
    model: Listener, x: dict[str, torch.Tensor], sampler: SamplerConfig, drop: Drop = "full", cached: bool = True
) -> torch.Tensor:
    keys = [f"session-{i}" for i in range(len(x["reference"]))]
    conditions = (x["avatar_audio"], x["user_audio"], x["user_motion"])
    return rollout(model, *conditions, x["reference"], sampler, keys, drop, cached=cached)


@pytest.mark.parametrize(
    ("mask", "frames", "guidance", "context", "look_ahead", "cross_window"),
    [
        ("block", 43, "paper", 12, 2, 2),
        ("block", 43, "full", 7, 5, 3),
        ("block", 30, "none", 0, 0, 2),
        ("frame", 43, "paper", 12, 2, 2),
        ("frame", 33, "full", 3, 1, 4),
        ("block", 4, "none", 12, 2, 2),
        ("block", 30, "none", 100, 2, 0),
    ],
)
def test_cached_rollout_equals_the_uncached_one(mask, frames, guidance, context, look_ahead, cross_window):
    model = small_model(mask, context=context, look_ahead=look_ahead, cross_window=cross_window)
    x = inputs(frames)
    sampler = SamplerConfig(steps=3, guidance=guidance, w_a=1.5, w_u=1.2)
    cached, plain = generate(model, x, sampler), generate(model, x, sampler, cached=False)
    assert cached.shape == (2, frames, DIM)
    assert plain.std() > 0.1
    torch.testing.assert_close(cached, plain, atol=2e-5, rtol=0)


def test_a_result_does_not_depend_on_the_batch():
    model, x, sampler = small_model(), inputs(20), SamplerConfig(steps=2)
    together = generate(model, x, sampler)
    alone = generate(model, {name: value[:1] for name, value in x.items()}, sampler)
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=0)
    assert not torch.allclose(together[:1], generate(model, x, sampler.model_copy(update={"seed": 1}))[:1])


@pytest.mark.parametrize("mask", ["block", "frame", "full"])
def test_dropped_conditions_do_not_reach_the_result(mask: Mask):
    model, x = small_model(mask), inputs(15)
    touched = {
        "no_user": x | {"user_audio": -x["user_audio"], "user_motion": -x["user_motion"]},
        "no_avatar": x | {"avatar_audio": 0.5 * x["avatar_audio"]},
    }
    drops: list[Drop] = ["no_user", "no_avatar", "none"]
    for guidance, drop in product(("paper", "full", "none"), drops):
        sampler = SamplerConfig(steps=2, guidance=guidance, w_u=1.5)
        for other, value in touched.items():
            same = torch.equal(generate(model, x, sampler, drop), generate(model, value, sampler, drop))
            assert same == (drop in (other, "none")), (guidance, drop, other)


def test_guidance_is_the_written_formula_with_no_branch_in_vain():
    paper = SamplerConfig(guidance="paper", w_a=2, w_u=1)
    assert guidance_weights(paper) == {(False, False): -2, (True, False): 2, (False, True): 1}
    assert guidance_weights(paper, "no_user") == {(False, False): -1, (True, False): 2}
    full = SamplerConfig(guidance="full", w_a=1, w_u=2)
    assert guidance_weights(full) == {(True, True): 2, (True, False): -1}
    assert guidance_weights(SamplerConfig(guidance="none")) == {(True, True): 1}
    drops: list[Drop] = ["full", "no_user", "no_avatar", "none"]
    for config, drop in product((paper, full), drops):
        assert sum(guidance_weights(config, drop).values()) == pytest.approx(1)


def test_every_evaluation_is_counted():
    model, x = small_model(), inputs(20)
    stream = Stream(model, x["reference"], SamplerConfig(steps=10), ["a", "b"])
    passes = 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    model.velocity.register_forward_hook(count)
    first, rest = 7, 12
    cut = first * SAMPLES_PER_FRAME, rest * SAMPLES_PER_FRAME
    stream.step(x["avatar_audio"][:, : cut[0]], x["user_audio"][:, : cut[0]], x["user_motion"][:, :first])
    voices = x["avatar_audio"][:, cut[0] : cut[1]], x["user_audio"][:, cut[0] : cut[1]]
    stream.step(*voices, x["user_motion"][:, first:rest])
    assert stream.counts == Counts(evaluations=20, cache_writes=2)
    assert passes == 22


def test_a_long_stream_keeps_its_memory_and_its_speed():
    model = small_model()
    x = inputs(5)
    stream = Stream(model, x["reference"], SamplerConfig(steps=1, guidance="none"), ["a", "b"])
    ahead = inputs(2)
    stream.step(*(torch.cat([x[n], ahead[n]], dim=1) for n in ("avatar_audio", "user_audio", "user_motion")))

    def held() -> int:
        assert stream._past is not None
        assert stream._encoder_past is not None
        assert stream._codes is not None
        layers = [*stream._past, *stream._encoder_past, *stream._codes.layers]
        return sum(k.numel() + v.numel() for k, v in layers)

    sizes = set()
    for block in range(220):  # 1,100 frames: past the released code's limit
        motion = stream.step(x["avatar_audio"], x["user_audio"], x["user_motion"])
        if block > 10:
            sizes.add(held())
    assert torch.isfinite(motion).all()
    assert len(sizes) == 1


BEFORE = {"avatar_audio": SAMPLES_PER_FRAME, "user_audio": SAMPLES_PER_FRAME, "user_motion": 1}
"""One frame of silence, as a stream has none before it."""


def test_positions_are_relative_even_after_days():
    """The same past gives the same block, whether it is the tenth or the ten-millionth."""
    model = small_model()
    x = inputs(10)
    results = []
    for start in (0, 50_000_000):
        stream = Stream(model, x["reference"], SamplerConfig(steps=2), ["a", "b"])
        if start:
            stream._done = stream._encoded = start
            stream._start = start - 1
            stream._take(*(torch.zeros_like(x[n][:, :f]) for n, f in BEFORE.items()))
        first = (x["avatar_audio"][:, : 7 * 640], x["user_audio"][:, : 7 * 640], x["user_motion"][:, :7])
        second = (x["avatar_audio"][:, 7 * 640 :], x["user_audio"][:, 7 * 640 :], x["user_motion"][:, 7:])
        results.append(torch.cat([stream.step(*first), stream.step(*second, last=True)], dim=1))
    torch.testing.assert_close(results[0], results[1], atol=1e-4, rtol=0)


def test_a_step_says_how_many_frames_it_needs():
    x = inputs(6)
    stream = Stream(small_model(), x["reference"], SamplerConfig(steps=1), ["a", "b"])
    with pytest.raises(ValueError, match="needs 7 new frames, got 6"):
        stream.step(x["avatar_audio"], x["user_audio"], x["user_motion"])


def test_a_model_that_sees_the_future_cannot_stream():
    x = inputs(6)
    with pytest.raises(UsageError, match="cannot stream"):
        Stream(small_model("full"), x["reference"], SamplerConfig(), ["a", "b"])
