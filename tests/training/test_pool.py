"""Sessions that come and go: each moves as if it were alone, whoever else is there."""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.conftest import small_model
from tests.training.synthetic import DIM
from visavis.schemas import SAMPLES_PER_FRAME
from visavis.schemas.errors import UsageError
from visavis.schemas.train import SamplerConfig
from visavis.training.model import Listener
from visavis.training.noise import noise
from visavis.training.pool import Given, StreamPool
from visavis.training.sampler import Stream
from visavis.training.session import load_stream, save_stream

SAMPLER = SamplerConfig(steps=1, anchor=0.5, anchor_seconds=1.0)
MODEL = small_model(depth=2)
BATCH, FRAMES = 3, 60


@cache
def conditions(key: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """What a session hears and sees from its first frame on, and its reference."""
    generator = torch.Generator().manual_seed(int.from_bytes(key.encode()))
    voices = 0.1 * torch.randn(2, FRAMES * SAMPLES_PER_FRAME, generator=generator)
    seen = torch.randn(FRAMES, DIM, generator=generator)
    return voices[0], voices[1], seen, torch.randn(DIM, generator=generator)


def part(key: str, first: int, frames: int) -> Given:
    avatar, user, seen, _ = conditions(key)
    samples = slice(first * SAMPLES_PER_FRAME, (first + frames) * SAMPLES_PER_FRAME)
    return avatar[samples], user[samples], seen[first : first + frames]


def step(pool: StreamPool, *keys: str) -> dict[str, torch.Tensor]:
    """A step of these sessions, each at its own place."""
    block, ahead = MODEL.config.block, 2
    first = {key: pool.done(key) and pool.done(key) + ahead for key in keys}
    assert all(pool.needs(key) == block + (0 if first[key] else ahead) for key in keys)
    return pool.step({key: part(key, first[key], pool.needs(key)) for key in keys})


def streamed(keys: list[str], blocks: int, model: Listener = MODEL) -> torch.Tensor:
    """Motion of sessions that begin together, [S, T, D]."""
    reference = torch.stack([conditions(key)[3] for key in keys])
    stream, made = Stream(model, reference, SAMPLER, keys), []
    for _ in range(blocks):
        given = [part(key, stream.state.given, stream.needs) for key in keys]
        made.append(stream.step(*(torch.stack(parts) for parts in zip(*given, strict=True))))
    return torch.cat(made, dim=1)


@pytest.mark.slow
@settings(max_examples=6)
@given(st.lists(st.tuples(*[st.sampled_from(["stay", "step", "step", "leave"])] * 4), min_size=4, max_size=7))
def test_each_session_moves_as_a_stream_of_its_own(ticks: list[tuple[str, ...]]):
    """Four people want three places, come, pause, go, and come again: bit by bit the motion of a stream of three
    sessions that has theirs in the same row, and up to rounding of one alone (other sizes are summed otherwise).
    """
    pool, rows, made, visits = StreamPool(MODEL, SAMPLER, BATCH), {}, {}, []
    free = [0, 1, 2]
    for tick in ticks:
        stepping = []
        for key, act in zip("abcd", tick, strict=True):
            if act == "leave" and key in pool.keys:
                pool.leave(key)
                free.insert(0, rows[key])
                visits.append((key, rows[key], made.pop(key)))
            elif act == "step" and key not in pool.keys and len(pool.keys) < BATCH:
                pool.join(key, conditions(key)[3])
                rows[key], made[key] = free.pop(0), []
            if act == "step" and key in pool.keys:
                stepping.append(key)
        for key, motion in step(pool, *stepping).items():
            made[key].append(motion)
    visits += [(key, rows[key], blocks) for key, blocks in made.items()]
    for key, row, blocks in visits:
        if blocks:
            found = torch.cat(blocks)
            others = ["x", "y", "z"]
            others[row] = key
            assert torch.equal(found, streamed(others, len(blocks))[row])
            torch.testing.assert_close(found, streamed([key], len(blocks))[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("mask", ["block", "frame"])
def test_a_session_is_saved_out_of_a_pool_and_goes_on_alone_or_in_another_one(mask):
    model = small_model(mask)
    pool = StreamPool(model, SAMPLER, BATCH)
    for key in ("a", "b"):
        pool.join(key, conditions(key)[3])
    made = [step(pool, "a", "b")["b"], step(pool, "b")["b"]]
    kept = save_stream(pool.session("b"))
    pool.leave("b")
    torch.testing.assert_close(step(pool, "a")["a"], streamed(["a"], 2, model)[0, 5:], atol=1e-5, rtol=0)
    other = StreamPool(model, SAMPLER, BATCH)
    other.join("c", conditions("c")[3])
    step(other, "c")
    other.admit(load_stream(kept, model))
    made.append(step(other, "b", "c")["b"])
    alone = load_stream(save_stream(other.session("b")), model)
    made.append(alone.step(*(each[None] for each in part("b", alone.state.given, alone.needs)))[0])
    torch.testing.assert_close(torch.cat(made), streamed(["b"], 4, model)[0], atol=1e-5, rtol=0)
    assert alone.counts.evaluations == 4 * SAMPLER.steps


def test_a_session_that_was_saved_before_its_first_step_begins_as_any():
    pool = StreamPool(MODEL, SAMPLER, BATCH)
    pool.join("a", conditions("a")[3])
    stream = load_stream(save_stream(pool.session("a")), MODEL)
    motion = stream.step(*(each[None] for each in part("a", 0, stream.needs)))
    torch.testing.assert_close(motion, streamed(["a"], 1), atol=0, rtol=0)


def test_the_last_frames_of_a_session_are_made_by_a_stream_of_its_own():
    pool = StreamPool(MODEL, SAMPLER, BATCH)
    pool.join("a", conditions("a")[3])
    step(pool, "a")
    stream = pool.session("a")
    rest = stream.step(*(each[None] for each in part("a", stream.state.given, 1)), last=True)
    assert rest.shape == (1, 3, DIM)
    with pytest.raises(UsageError, match="session a was given its last conditions"):
        StreamPool(MODEL, SAMPLER, BATCH).admit(stream)


def test_what_a_pool_cannot_take_is_told_in_one_line():
    pool = StreamPool(MODEL, SAMPLER, 1)
    pool.join("a", conditions("a")[3])
    for key, why in (("a", "session a is in this pool already"), ("b", "all 1 places of this pool are taken")):
        with pytest.raises(UsageError, match=why):
            pool.join(key, conditions(key)[3])
    pool.leave("a")
    with pytest.raises(UsageError, match="reference motion of a session is not finite"):
        pool.join("a", conditions("a")[3] * float("inf"))
    others = {
        "other settings": Stream(MODEL, torch.zeros(1, DIM), SamplerConfig(steps=3), ["a"]),
        "one session that run on its own model": Stream(small_model(depth=2), torch.zeros(1, DIM), SAMPLER, ["a"]),
        "streams of one session": Stream(MODEL, torch.zeros(2, DIM), SAMPLER, ["a", "b"]),
    }
    for why, stream in others.items():
        with pytest.raises(UsageError, match=why):
            pool.admit(stream)
    assert pool.keys == ()
    with pytest.raises(UsageError, match="cannot stream"):
        StreamPool(small_model("full"), SAMPLER, 1)


def test_a_broken_frame_of_one_session_changes_nothing():
    pool = StreamPool(MODEL, SAMPLER, BATCH)
    for key in "ab":
        pool.join(key, conditions(key)[3])
    made = [step(pool, "a", "b")["a"]]
    broken = part("b", 7, 5)[:2] + (torch.full((5, DIM), float("nan")),)
    with pytest.raises(ValueError, match="session b: the user's motion is not finite in frame 7"):
        pool.step({"a": part("a", 7, 5), "b": broken})
    with pytest.raises(ValueError, match="session b: this step needs 5 new frames, got 4"):
        pool.step({"a": part("a", 7, 5), "b": part("b", 7, 4)})
    with pytest.raises(KeyError):
        pool.step({"nobody": part("b", 7, 5)})
    made.append(step(pool, "a")["a"])
    torch.testing.assert_close(torch.cat(made), streamed(["a"], 2)[0], atol=1e-5, rtol=0)


def test_a_pool_keeps_its_memory_and_its_places():
    pool = StreamPool(MODEL, SAMPLER, BATCH)
    caches = [pool._encoder, pool._codes, pool._blocks.past]
    places = [part.data_ptr() for cache in caches for layer in cache for part in layer]
    for key in "abcdef":
        pool.join(key, conditions(key)[3])
        step(pool, key)
        step(pool, *pool.keys)
        if len(pool.keys) == BATCH:
            pool.leave(pool.keys[0])
    assert places == [part.data_ptr() for cache in caches for layer in cache for part in layer]


@given(st.integers(0, 2**63), st.text(max_size=9), st.integers(0, 2**40), st.integers(1, 40))
@settings(max_examples=12)
def test_noise_is_that_of_a_generator_for_each_session_and_block(seed: int, key: str, block: int, frames: int):
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    source = np.random.Philox(key=int.from_bytes(digest[:16], "little"), counter=[0, 0, 0, block])
    expected = np.random.Generator(source).standard_normal((frames, 3), dtype=np.float32)
    assert (noise(seed, ["other", key], block, frames, 3)[1].numpy() == expected).all()
