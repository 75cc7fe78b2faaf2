"""Blocks as a graph: replayed work gives what computed work gives, at every block, and never what was there before.

There is no GPU here: `tests.training.recorded` imitates a graph, and the first two tests show that it would be noticed.
"""

from __future__ import annotations

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.conftest import blocks, small_model
from tests.training.recorded import recorded
from tests.training.test_causality import inputs
from visavis.schemas import SAMPLES_PER_FRAME
from visavis.schemas.train import SamplerConfig
from visavis.training import graphs
from visavis.training.pool import StreamPool
from visavis.training.sampler import Stream
from visavis.training.session import load_stream, save_stream

SAMPLER = SamplerConfig(steps=2, anchor=0.5, anchor_seconds=1.0)
CPU = torch.device("cpu")


@pytest.fixture
def imitated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Graphs are imitated on the CPU; a list of how many were captured and replayed."""
    counts = [0, 0]

    def capture(work, device):
        counts[0] += 1
        replay = recorded(work, device)

        def counted() -> None:
            counts[1] += 1
            replay()

        return counted

    monkeypatch.setattr(graphs, "capture", capture)
    return counts


def test_the_imitation_keeps_stale_inputs_and_numbers_as_a_graph_does():
    given, result, other = {"x": torch.tensor([1.0]), "n": 2}, torch.zeros(1), torch.tensor([5.0])
    first = given["x"]
    replay = recorded(lambda: result.copy_(given["x"] * given["n"]), CPU)
    given["x"], given["n"] = other, 7
    replay()
    assert result.item() == 2.0  # neither the other tensor nor the other number is seen
    first.fill_(10.0)
    replay()
    assert result.item() == 20.0


def test_the_imitation_refuses_what_makes_the_host_wait():
    flag = torch.tensor([1.0])
    with pytest.raises(RuntimeError, match="the host waits"):
        recorded(lambda: flag.mul_(2 if flag.item() else 3), CPU)


@pytest.mark.slow
@settings(max_examples=5)
@given(
    batch=st.integers(1, 3),
    mask=st.sampled_from(["block", "frame"]),
    guidance=st.sampled_from(["paper", "none"]),
    half=st.booleans(),
    frames=st.integers(8, 60),
    remember=st.booleans(),
)
def test_a_graph_never_gives_stale_motion(batch, mask, guidance, half, frames, remember):
    """Bit by bit what is computed, over many blocks and to the very end, whose short block is computed as it comes."""
    model = small_model(mask, depth=2)
    model = model.use_bfloat16() if half else model
    x, sampler = inputs(frames, batch), SAMPLER.model_copy(update={"guidance": guidance})
    keys = [f"session-{i}" for i in range(batch)]
    count = -(-frames // 5)
    with pytest.MonkeyPatch.context() as patched:
        made = []
        for graph in (False, True):
            patched.setattr(graphs, "capture", recorded)
            made.append(blocks(Stream(model, x["reference"], sampler, keys, graph=graph), x, count, remember=remember))
    assert made[0].shape[1] == frames
    assert torch.equal(*made)


def test_all_but_short_blocks_are_replayed(imitated):
    x = inputs(23)
    stream = Stream(small_model(depth=2), x["reference"], SAMPLER, ["a", "b"], graph=True)
    blocks(stream, x, 5)
    assert imitated == [2, 8]  # four blocks and their writing; the fifth has three frames


@pytest.mark.parametrize(("before", "after"), [(True, False), (False, True), (True, True)])
def test_a_stream_is_saved_and_restored_with_a_graph_and_without(imitated, before, after):
    model, x = small_model(depth=2), inputs(60)
    whole = blocks(Stream(model, x["reference"], SAMPLER, ["a", "b"]), x, 8)
    stream = Stream(model, x["reference"], SAMPLER, ["a", "b"], graph=before)
    blocks(stream, x, 3)
    kept = save_stream(stream)
    restored = load_stream(kept, model, graph=after)
    assert torch.equal(blocks(restored, x, 5), whole[:, 15:])
    assert torch.equal(blocks(stream, x, 5), whole[:, 15:])  # the one that was saved goes on, too


def test_two_streams_have_graphs_of_their_own(imitated):
    model, x = small_model(depth=2), inputs(60)
    y = {name: value.flip(0) for name, value in x.items()}
    alone = [blocks(Stream(model, each["reference"], SAMPLER, ["a", "b"]), each, 4) for each in (x, y)]
    streams = [Stream(model, each["reference"], SAMPLER, ["a", "b"], graph=True) for each in (x, y)]
    made = [[blocks(stream, each, 1) for stream, each in zip(streams, (x, y), strict=True)] for _ in range(4)]
    for i in range(2):
        assert torch.equal(torch.cat([both[i] for both in made], dim=1), alone[i])


def test_nothing_is_captured_again_when_sessions_come_and_go(imitated):
    model, x = small_model(depth=2), inputs(60, batch=1)
    made = []
    for graph in (False, True):
        pool, found = StreamPool(model, SAMPLER, 2, graph=graph), []
        for turn in range(6):
            pool.join(f"s{turn}", x["reference"][0])
            for key in pool.keys:
                first = pool.done(key) and pool.done(key) + 2
                samples = slice(first * SAMPLES_PER_FRAME, (first + pool.needs(key)) * SAMPLES_PER_FRAME)
                voices = x["avatar_audio"][0, samples], x["user_audio"][0, samples]
                given = {key: (*voices, x["user_motion"][0, first : first + pool.needs(key)])}
                found.append(pool.step(given)[key])
            if len(pool.keys) == 2:
                pool.leave(pool.keys[turn % 2])
        made.append(torch.stack(found))
    assert imitated[0] == 2
    assert torch.equal(*made)


def test_where_no_graph_can_be_captured_blocks_are_computed_and_it_is_said(caplog: pytest.LogCaptureFixture):
    model, x = small_model(depth=2), inputs(20)
    expected = blocks(Stream(model, x["reference"], SAMPLER, ["a", "b"]), x, 3)
    with caplog.at_level(logging.WARNING):
        stream = Stream(model, x["reference"], SAMPLER, ["a", "b"], graph=True)
        assert torch.equal(blocks(stream, x, 3), expected)
    assert [record.message for record in caplog.records] == [
        "blocks are not captured as a graph, and slower: device cpu has no graphs"
    ]


def test_a_capture_that_fails_half_way_leaves_the_stream_as_it_was(monkeypatch: pytest.MonkeyPatch):
    model, x = small_model(depth=2), inputs(20)
    expected = blocks(Stream(model, x["reference"], SAMPLER, ["a", "b"]), x, 3)

    def failing(work, device):
        work()
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    stream = Stream(model, x["reference"], SAMPLER, ["a", "b"], graph=True)
    blocks_before = blocks(stream, x, 1)
    monkeypatch.setattr(graphs, "capture", failing)
    again = Stream(model, x["reference"], SAMPLER, ["a", "b"], graph=True)
    assert torch.equal(blocks(again, x, 3), expected)
    assert torch.equal(blocks_before, expected[:, :5])


def test_a_graph_is_tried_on_a_gpu_only_unless_asked_for(imitated):
    x = inputs(20)
    blocks(Stream(small_model(depth=2), x["reference"], SAMPLER, ["a", "b"]), x, 2)
    assert imitated == [0, 0]
