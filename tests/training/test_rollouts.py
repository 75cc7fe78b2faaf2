"""Rollouts in one setting: on a CPU as always; captured and filled up nothing else; a card's memory chooses the batch.

There is no GPU here: graphs are imitated (`tests.training.recorded`), and what torch says of a card is made up.
"""

from __future__ import annotations

from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.conftest import small_model
from tests.training.recorded import recorded
from tests.training.test_causality import inputs
from visavis.schemas.errors import UsageError
from visavis.schemas.sampling import Sampling, SamplingConfig
from visavis.schemas.train import SamplerConfig
from visavis.training import graphs
from visavis.training.precision import LARGEST, TRIED, fitting, products, settle
from visavis.training.rollouts import Rollouts
from visavis.training.sampler import rollout

SAMPLER = SamplerConfig(steps=2, anchor=0.5, anchor_seconds=1.0)
CPU, CARD = torch.device("cpu"), torch.device("cuda", 0)
PLAIN = Sampling(device="cpu", precision="float32", batch=64, graphs=False)


def windows(count: int, frames: int = 20) -> tuple[torch.Tensor, ...]:
    x = inputs(frames, count)
    return x["avatar_audio"], x["user_audio"], x["user_motion"], x["reference"]


def keys(count: int) -> list[str]:
    return [f"window-{i}" for i in range(count)]


def test_in_float32_on_a_cpu_it_is_what_it_always_was():
    model, given = small_model(depth=2), windows(5)
    rollouts = Rollouts(model, PLAIN)
    for drop in ("full", "no_user"):
        assert torch.equal(rollouts(*given, SAMPLER, keys(5), drop), rollout(model, *given, SAMPLER, keys(5), drop))


@pytest.mark.slow
@settings(max_examples=3)
@given(
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=2),
    batch=st.integers(1, 4),
    frames=st.integers(3, 17),
    half=st.booleans(),
)
def test_captured_blocks_of_other_windows_leave_no_trace(counts, batch, frames, half):
    """Bit by bit what is computed as it comes, of the same batches, whatever was sampled in the same blocks before."""
    model = small_model(depth=2)
    model = model.use_bfloat16() if half else model
    sampling = PLAIN.model_copy(update={"batch": batch, "graphs": True, "precision": "bfloat16" if half else "float32"})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(graphs, "capture", recorded)
        rollouts = Rollouts(model, sampling)
        for count in counts:
            for drop in ("full", "no_user"):
                given = windows(count, frames)
                made = rollouts(*given, SAMPLER, keys(count), drop)
                first = 0
                while first < count:
                    some = slice(first, first + batch)
                    rows = len(keys(count)[some])
                    size = min(batch, 1 << (rows - 1).bit_length())
                    filled = [i % rows for i in range(size)]
                    parts = [part[some][filled] for part in given]
                    names = [keys(count)[some][i] for i in filled]
                    assert torch.equal(made[some], rollout(model, *parts, SAMPLER, names, drop)[:rows])
                    first += batch


def test_batches_are_captured_once_and_filled_up(monkeypatch: pytest.MonkeyPatch):
    captured, replayed = [], []

    def capture(work, device):
        captured.append(work)
        replay = recorded(work, device)
        return lambda: (replayed.append(work), replay())[1]

    monkeypatch.setattr(graphs, "capture", capture)
    model, sampling = small_model(depth=2), PLAIN.model_copy(update={"batch": 4, "graphs": True})
    rollouts, given = Rollouts(model, sampling), windows(11)
    made = rollouts(*given, SAMPLER, keys(11))  # 4, 4 and 3 windows of four blocks, the last without its look-ahead
    assert len(captured) == 4  # a block and its writing, of the usual size and of the last one, that came again
    assert len(replayed) == 3 * 3 * 2 + 2  # the last block is computed once, then replayed, and not written
    rollouts(*given, SAMPLER.model_copy(update={"seed": 7}), keys(11))
    assert len(captured) == 4  # noise is no part of a graph
    assert torch.allclose(made, rollout(model, *given, SAMPLER, keys(11)), atol=1e-4)
    assert made.shape[0] == 11


def test_where_nothing_can_be_captured_windows_are_sampled_all_the_same(caplog: pytest.LogCaptureFixture):
    model, given = small_model(depth=2), windows(4)
    rollouts = Rollouts(model, PLAIN.model_copy(update={"graphs": True}))
    assert torch.equal(rollouts(*given, SAMPLER, keys(4)), rollout(model, *given, SAMPLER, keys(4)))
    assert "not captured as a graph" in caplog.text


def test_a_model_that_sees_the_future_has_no_blocks_to_capture():
    model, given = small_model("full", depth=2), windows(2)
    rollouts = Rollouts(model, PLAIN.model_copy(update={"graphs": True}))
    assert torch.equal(rollouts(*given, SAMPLER, keys(2)), rollout(model, *given, SAMPLER, keys(2)))


def test_bfloat16_is_near_float32_and_not_the_same():
    given = windows(3)
    exact = Rollouts(small_model(depth=2), PLAIN)(*given, SAMPLER, keys(3))
    rounded = Rollouts(small_model(depth=2), PLAIN.model_copy(update={"precision": "bfloat16"}))(
        *given, SAMPLER, keys(3)
    )
    assert not torch.equal(exact, rounded)
    assert (exact - rounded).std() < 0.02 * exact.std()


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What torch says of a card that is not there."""
    card = SimpleNamespace(free=80 << 30, capability=(9, 0))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (card.free, 141 << 30))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: card.capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Card 9")
    return card


def settled(config: SamplingConfig, device: torch.device = CARD, need: float = 40 << 20) -> Sampling:
    def measured(trial: Sampling) -> float:
        assert trial.batch == TRIED
        assert config.batch is None
        return need

    return settle(config, device, on_gpu="bfloat16", usual=64, need=measured)


def test_a_cards_free_memory_chooses_the_batch(card: SimpleNamespace):
    assert settled(SamplingConfig()) == Sampling(device="Card 9", precision="bfloat16", batch=LARGEST, graphs=True)
    card.free = 8 << 30
    assert settled(SamplingConfig()).batch == 64  # 102 would fit into half of it
    card.free = 1 << 20
    assert settled(SamplingConfig()).batch == 1


def test_what_is_said_goes_before_what_is_free(card: SimpleNamespace):
    said = SamplingConfig(batch=100, precision="tf32", graph=False)
    assert settled(said) == Sampling(device="Card 9", precision="tf32", batch=100, graphs=False)


def test_a_card_without_bfloat16_and_a_cpu_sample_in_float32(card: SimpleNamespace):
    card.capability = (7, 5)
    assert settled(SamplingConfig()).precision == "float32"
    assert settled(SamplingConfig(), CPU) == PLAIN
    for device in (CARD, CPU):
        with pytest.raises(UsageError, match="precision tf32 needs a GPU that has it, and this is"):
            settled(SamplingConfig(precision="tf32"), device)


@given(need=st.floats(0, 1e12), free=st.integers(0, 1 << 40))
def test_a_batch_fits_or_is_one_window(need, free):
    batch = fitting(need, free)
    assert batch & (batch - 1) == 0
    assert batch == 1 or batch * need <= free
    assert 1 <= batch <= LARGEST


@pytest.mark.parametrize(("precision", "expected"), [("float32", "ieee"), ("tf32", "tf32"), ("bfloat16", "tf32")])
def test_products_are_in_tf32_for_a_while_only(precision, expected):
    def said() -> tuple[str, str, str]:
        matmul, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv
        return matmul.fp32_precision, conv.fp32_precision, torch.get_float32_matmul_precision()

    before = said()
    with products(precision, CPU):
        assert said() == before
    with suppress(KeyError), products(precision, CARD):
        assert torch.backends.cuda.matmul.fp32_precision == expected
        assert torch.backends.cudnn.conv.fp32_precision == expected
        raise KeyError
    assert said() == before
