"""Streaming: the cache changes nothing, length has no limit, and what is paid for is counted."""

from __future__ import annotations

import statistics
import time
from itertools import product

import jaxtyping
import pytest
import torch

from tests.scale import NIGHTLY
from tests.training.conftest import blocks, small_model
from tests.training.synthetic import DIM
from tests.training.test_causality import CONDITIONS, inputs
from visavis.schemas import SAMPLES_PER_FRAME
from visavis.schemas.errors import UsageError
from visavis.schemas.train import Drop, Mask, SamplerConfig
from visavis.training.block import anchored
from visavis.training.guidance import guidance_weights
from visavis.training.model import Keep, Listener
from visavis.training.sampler import Counts, Stream, rollout


def generate(
    model: Listener, x: dict[str, torch.Tensor], sampler: SamplerConfig, drop: Drop = "full", cached: bool = True
) -> torch.Tensor:
    keys = [f"session-{i}" for i in range(len(x["reference"]))]
    conditions = (x["avatar_audio"], x["user_audio"], x["user_motion"])
    return rollout(model, *conditions, x["reference"], sampler, keys, drop, cached=cached)


@pytest.mark.slow
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


@pytest.mark.slow
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
        plain = generate(model, x, sampler, drop)
        for other, value in touched.items():
            same = torch.equal(plain, generate(model, value, sampler, drop))
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
    assert stream.counts == Counts(evaluations=20, cache_writes=1)
    for _ in range(2):  # the second time there is nothing left to do
        stream.remember()
    assert stream.counts == Counts(evaluations=20, cache_writes=2)
    assert passes == 22


def held(stream: Stream) -> int:
    """Bytes that a stream keeps from one step to the next."""
    state = stream.state
    caches = [part for layer in (*state.past, *state.encoder, *state.codes) for part in layer]
    tensors = [*caches, state.avatar_audio, state.user_audio, state.user_motion, state.mean]
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


@pytest.mark.slow
def test_a_long_stream_keeps_its_memory():
    model = small_model(depth=1)
    x, ahead = inputs(5), inputs(2)
    stream = Stream(model, x["reference"], SamplerConfig(steps=1, guidance="none"), ["a", "b"])
    stream.step(*(torch.cat([x[n], ahead[n]], dim=1) for n in CONDITIONS))
    first = held(stream)
    for _ in range(220):  # 1,100 frames: past the released code's limit
        motion = stream.step(*(x[n] for n in CONDITIONS))
        assert held(stream) == first
    assert torch.isfinite(motion).all()


@torch.no_grad()
def test_positions_are_relative_even_after_days():
    """The same past gives the same velocity, whether it is the tenth frame or the fifty-millionth."""
    model = small_model()
    x = inputs(20)
    conditions = model.conditions(*(x[n] for n in CONDITIONS))
    results = []
    for start in (0, 50_000_000):
        code, _ = model.encoder(conditions, Keep.all(2), start)
        frames = range(start, start + 20)
        layout = model.layout(frames, frames, frames)
        modulation = model.modulations(x["noise_level"])
        results.append(
            model.denoise(x["noisy_motion"], x["reference"], modulation, model.codes(code, start), layout)[0]
        )
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


@pytest.mark.nightly("caches over 80 seconds; over a second they are compared above")
def test_cached_equals_uncached_over_2000_frames():
    """80 seconds; blocks are long because the uncached way costs their number times the square of the length."""
    model = small_model(depth=2, block=100, context=150)
    x = inputs(2000, batch=1)
    sampler = SamplerConfig(steps=1, guidance="none", anchor=0.5)
    cached, plain = generate(model, x, sampler), generate(model, x, sampler, cached=False)
    assert plain.std() > 0.1
    torch.testing.assert_close(cached, plain, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_minutes_cost_the_same_at_the_end_as_at_the_start():
    """Two minutes (nightly ten): no error, no growth, and the last looks like the first."""
    steps = 1500 if NIGHTLY else 300
    model = small_model(depth=2, block=10, context=38)
    stream = Stream(model, inputs(1)["reference"][:1], SamplerConfig(steps=1, guidance="none"), ["a"])
    generator = torch.Generator().manual_seed(2)
    motion, seconds, sizes = [], [], []
    for _ in range(steps):
        frames = stream.needs
        voices = (0.1 * torch.randn(1, frames * SAMPLES_PER_FRAME, generator=generator) for _ in range(2))
        seen = torch.randn(1, frames, DIM, generator=generator)
        began = time.process_time()
        motion.append(stream.step(*voices, seen))
        seconds.append(time.process_time() - began)
        sizes.append(held(stream))
    whole = torch.cat(motion, dim=1)[0]
    assert whole.shape == (10 * steps, DIM)
    assert torch.isfinite(whole).all()
    assert len(set(sizes)) == 1
    first, last = slice(10, 160), slice(-150, None)
    assert statistics.median(seconds[last]) < 1.5 * statistics.median(seconds[first])
    begins, ends = whole[:1500], whole[-1500:]
    torch.testing.assert_close(ends.std(0), begins.std(0), rtol=0.1, atol=0)
    assert ((ends.mean(0) - begins.mean(0)).abs() < 0.1 * begins.std(0)).all()


def test_the_anchor_takes_off_what_lasts_and_lets_pass_what_is_quick():
    frames, config = 25 * 60, SamplerConfig(anchor=0.75, anchor_seconds=4.0)
    reference, offset = torch.tensor([[1.0, 1.0]]), 2.0
    seconds = torch.arange(frames) / 25
    nod = torch.sin(2 * torch.pi * seconds)
    x = torch.stack([torch.full((frames,), 1 + offset), 1 + nod], dim=1)[None]
    y, _ = anchored(x, reference, reference, config)
    torch.testing.assert_close(y[0, -1, 0].item(), 1 + 0.25 * offset, atol=1e-3, rtol=0)
    assert y[0, 0, 0] > 1 + 0.98 * offset  # it comes on slowly
    assert ((y[0, 500:, 1] - x[0, 500:, 1]).abs() < 0.05).all()  # a nod a second is passed by 97 %


def test_an_offset_that_every_block_adds_to_the_last_is_bounded():
    """Drift as it comes about in streaming: a block begins where the last one ended, and leans a little further."""
    config, lean = SamplerConfig(anchor=0.5, anchor_seconds=1.0), 0.1
    mean = reference = torch.zeros(1, 1)
    y = torch.zeros(1, 10, 1)
    for _ in range(400):
        y, mean = anchored(y[:, -1:].expand(1, 10, 1) + lean, mean, reference, config)
    assert y.abs().max() < lean / config.anchor


@pytest.mark.slow
@pytest.mark.parametrize("cached", [True, False])
def test_the_anchor_holds_a_model_that_leans(cached: bool):
    """A constant in the velocity moves every block; the mean of what is generated comes back by the anchor's share."""
    model, x = small_model(), inputs(150)
    with torch.no_grad():
        for weight in (model.velocity.weight, model.velocity.bias):
            weight.zero_()
        model.velocity.bias += 1.5
    x["reference"] = model.mean.expand(2, DIM)
    free = SamplerConfig(steps=1, guidance="none")
    held = free.model_copy(update={"anchor": 0.8, "anchor_seconds": 1.0})
    offsets = [model.normalise(generate(model, x, config, cached=cached))[:, 75:].mean() for config in (free, held)]
    assert offsets[0] == pytest.approx(1.5, abs=0.1)
    assert offsets[1] == pytest.approx(0.2 * 1.5, abs=0.1)


@pytest.mark.nightly("torch.compile of the denoiser, which is off by default")
def test_one_graph_serves_every_block(monkeypatch: pytest.MonkeyPatch):
    """The compiled denoiser gives the same motion, and is not compiled again while caches fill and positions grow."""
    from torch._dynamo.testing import CompileCounter  # seconds, and 200 MB that no other test needs

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # no graph holds what checks shapes in tests
    graphs, compile = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, options, **rest: compile(f, backend=graphs, **rest))
    model, x = small_model(), inputs(32)
    made = []
    for compiled in (False, True):
        stream = Stream(model, x["reference"], SamplerConfig(steps=2), ["a", "b"], compile=compiled)
        made.append(blocks(stream, x, 6))
    assert graphs.frame_count == 1
    torch.testing.assert_close(made[0], made[1], atol=1e-5, rtol=0)


@pytest.mark.slow
def test_bfloat16_changes_the_motion_by_little():
    x, sampler = inputs(30), SamplerConfig(steps=4)
    exact, rounded = generate(small_model(), x, sampler), generate(small_model().use_bfloat16(), x, sampler)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).square().mean().sqrt() < 0.05 * exact.std()
