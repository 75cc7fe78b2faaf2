"""The named masks, written out and as formulas."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from visavis.schemas.train import ModelConfig
from visavis.training.masks import cross_mask, encoder_mask, last_condition, last_motion, self_mask, visible


def rows(mask: torch.Tensor) -> list[str]:
    return ["".join("x" if seen else "." for seen in row) for row in mask.tolist()]


def test_block_mask_is_bidirectional_inside_a_block_and_sees_the_look_ahead():
    frames = torch.arange(6)
    assert rows(visible("block", frames, frames, block=3, look_ahead=1)) == [
        "xxxx..",
        "xxxx..",
        "xxxx..",
        "xxxxxx",
        "xxxxxx",
        "xxxxxx",
    ]


def test_frame_mask_is_causal_but_for_the_look_ahead():
    frames = torch.arange(4)
    assert rows(visible("frame", frames, frames, block=2, look_ahead=1)) == ["xx..", "xxx.", "xxxx", "xxxx"]
    assert rows(visible("frame", frames, frames, block=2, look_ahead=0)) == ["x...", "xx..", "xxx.", "xxxx"]


def test_full_mask_sees_everything():
    frames = torch.arange(3)
    assert visible("full", frames, frames, block=2, look_ahead=0, context=0).all()


def test_context_is_counted_from_the_start_of_the_block():
    frames = torch.arange(6)
    assert rows(visible("block", frames, frames, block=2, look_ahead=0, context=1)) == [
        "xx....",
        "xx....",
        ".xxx..",
        ".xxx..",
        "...xxx",
        "...xxx",
    ]


@given(q=st.integers(0, 500), k=st.integers(0, 500), block=st.integers(1, 25), ahead=st.integers(0, 5))
def test_masks_equal_their_formulas(q: int, k: int, block: int, ahead: int):
    one, other = torch.tensor([q]), torch.tensor([k])
    assert visible("block", one, other, block=block, look_ahead=ahead).item() == (k < (q // block + 1) * block + ahead)
    assert visible("frame", one, other, block=block, look_ahead=ahead).item() == (k <= q + ahead)


@given(
    mask=st.sampled_from(["block", "frame", "full"]),
    block=st.integers(1, 10),
    context=st.integers(0, 40),
    data=st.data(),
)
def test_every_query_sees_its_own_frame(mask, block: int, context: int, data):
    ahead = data.draw(st.integers(0, block))
    config = ModelConfig(mask=mask, block=block, look_ahead=ahead, context=context)
    frames = torch.arange(60)
    for kind in (encoder_mask, self_mask, cross_mask):
        assert kind(config, frames, frames).diagonal().all()


def test_bounds_follow_from_the_masks():
    block = ModelConfig(mask="block", block=10, look_ahead=2)
    assert [last_condition(block, n) for n in (0, 9, 10)] == [11, 11, 21]
    assert [last_motion(block, n) for n in (0, 9, 10)] == [9, 9, 19]
    frame = ModelConfig(mask="frame", block=10, look_ahead=2)
    assert (last_condition(frame, 7), last_motion(frame, 7)) == (9, 7)
    assert last_condition(ModelConfig(mask="full"), 7) is None
    narrow = ModelConfig(mask="block", block=10, look_ahead=5, cross_window=2)
    assert last_condition(narrow, 0) == 11  # cross-attention does not reach further


def test_look_ahead_longer_than_a_block_is_refused():
    with pytest.raises(ValidationError, match="longer than a block"):
        ModelConfig(block=3, look_ahead=4)
