"""Weights packed for a CPU: the same motion, whatever happens to the weights, and memory that is given back."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable

import pytest
import torch

from tests.training.conftest import blocks, small_model
from tests.training.test_causality import inputs
from visavis.schemas import SAMPLES_PER_FRAME
from visavis.schemas.train import SamplerConfig
from visavis.training import packed as packing
from visavis.training.model import Listener
from visavis.training.packed import Packed, PackedLinear
from visavis.training.pool import StreamPool
from visavis.training.sampler import Stream
from visavis.training.session import load_stream, save_stream

SAMPLER = SamplerConfig(steps=2, guidance="none")
PACKS = packing._number_type(torch.float32) is not None
needs_packing = pytest.mark.skipif(not PACKS, reason="this PyTorch packs no weights on this CPU")


@pytest.fixture(autouse=True)
def _small_layers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "SMALLEST", 0)


def stream_of(model: Listener, **how: bool) -> Stream:
    return Stream(model, inputs(1)["reference"], SAMPLER, ["a", "b"], **how)


def moves(model: Listener, **how: bool) -> torch.Tensor:
    return blocks(stream_of(model, **how), inputs(12), 2)


@needs_packing
def test_a_product_of_packed_weights_is_the_product():
    torch.manual_seed(0)
    for rows in (1, 10, 33, 480):
        layer, x = torch.nn.Linear(96, 130), torch.randn(2, rows, 96)
        with torch.no_grad():
            product = PackedLinear(layer)
            product.pack()
            torch.testing.assert_close(product(x), layer(x), atol=1e-5, rtol=0)
            apart = x.transpose(1, 2).contiguous().transpose(1, 2)  # not one row after the other
            torch.testing.assert_close(product(apart), layer(x), atol=1e-5, rtol=0)


def test_small_layers_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packing, "SMALLEST", 32 * 128)  # the MLP's two in each block
    model = small_model()
    layers = [part for part in Packed(model).model.modules() if isinstance(part, PackedLinear)]
    assert len(layers) == (2 * model.config.depth if PACKS else 0)


def test_packed_weights_give_the_motion_that_weights_give():
    model = small_model()
    assert (Packed(model).model is not model) == PACKS
    found, plain = moves(model), moves(model, pack=False)
    assert plain.std() > 0.1
    torch.testing.assert_close(found, plain, atol=2e-5, rtol=0)


def test_bfloat16_weights_give_the_same_motion_packed_up_to_their_rounding():
    exact, model = moves(small_model()), small_model().use_bfloat16()
    found, plain = moves(model), moves(model, pack=False)
    for motion in (found, plain):
        assert 0 < (motion - exact).square().mean().sqrt() < 0.05 * exact.std()


def an_optimizer(kind: type[torch.optim.Optimizer], **how: bool) -> Callable[[Listener], None]:
    def steps(model: Listener) -> None:
        with torch.enable_grad():
            optimizer = kind(model.parameters(), lr=0.02, **how)
            sum(weight.square().sum() for weight in model.parameters()).backward()
            optimizer.step()

    return steps


def loads(assign: bool) -> Callable[[Listener], None]:
    def load(model: Listener) -> None:
        model.load_state_dict(small_model(seed=1).state_dict(), assign=assign)

    return load


@torch.no_grad()
def one_number(model: Listener) -> None:
    model.blocks[-1].mlp[0].weight[3, 4] += 3.0


@torch.no_grad()
def averages(model: Listener) -> None:
    torch._foreach_lerp_(list(model.parameters()), list(small_model(seed=1).parameters()), 0.5)


def other_parameters(model: Listener) -> None:
    for layer in model.blocks.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.weight = torch.nn.Parameter(-layer.weight.detach())


def past_the_count(model: Listener) -> None:
    for weight in model.parameters():
        weight.data.mul_(1.1)


def half_precision_and_back(model: Listener) -> None:
    model.bfloat16().float()


CHANGES: dict[str, Callable[[Listener], None]] = {
    "AdamW": an_optimizer(torch.optim.AdamW),
    "fused AdamW": an_optimizer(torch.optim.AdamW, fused=True),
    "SGD by foreach": an_optimizer(torch.optim.SGD, foreach=True),
    "load": loads(False),
    "load by assignment": loads(True),
    "one number": one_number,
    "averages": averages,
    "other parameters": other_parameters,
    "past the count of versions": past_the_count,
    "bfloat16": Listener.use_bfloat16,  # type: ignore[dict-item]
    "bfloat16 and back": half_precision_and_back,
}


@pytest.mark.parametrize("change", CHANGES)
def test_weights_that_change_are_packed_anew(change: str):
    """In a stream that goes on, beside one with plain weights, and in one that begins while packed copies are there."""
    x, made = inputs(17), []
    before = blocks(stream_of(small_model(), pack=False), x, 3)
    for pack in (True, False):
        model = small_model()
        stream = stream_of(model, pack=pack)
        blocks(stream, x, 1)
        CHANGES[change](model)
        made.append(blocks(stream, x, 2))
        assert torch.equal(moves(model, pack=pack), moves(copy.deepcopy(model), pack=pack))
    close = {"atol": 0.2, "rtol": 0.0} if change == "bfloat16" else {"atol": 1e-4, "rtol": 0.0}
    torch.testing.assert_close(made[0], made[1], **close)
    assert change == "bfloat16 and back" or (before[:, 5:] - made[0]).abs().max() > 0.01


def test_a_restored_session_and_one_of_a_pool_go_on_bit_by_bit():
    model, x = small_model(), inputs(17)
    stream, whole = stream_of(model), blocks(stream_of(model), x, 3)
    made = [blocks(stream, x, 1)]
    stream = load_stream(save_stream(stream), model)
    made.append(blocks(stream, x, 1))
    assert torch.equal(torch.cat(made, dim=1), whole[:, :10])
    pool = StreamPool(model, SAMPLER, 2)
    for key, reference in zip("ba", inputs(1)["reference"].flip(0), strict=True):
        pool.join(key, reference)
    first = {"a": 0, "b": 1}
    motion = pool.step({key: tuple(x[name][row, :end] for name, end in _ends(7)) for key, row in first.items()})
    together = Stream(model, inputs(1)["reference"].flip(0), SAMPLER, ["b", "a"])
    beside = blocks(together, {name: value.flip(0) for name, value in x.items()}, 1)
    assert torch.equal(torch.stack([motion["b"], motion["a"]]), beside)


def _ends(frames: int) -> list[tuple[str, int]]:
    samples = frames * SAMPLES_PER_FRAME
    return [("avatar_audio", samples), ("user_audio", samples), ("user_motion", frames)]


@needs_packing
def test_streams_of_a_model_share_what_is_packed_and_the_last_frees_it():
    model = small_model()
    names = list(model.state_dict())
    one, two = stream_of(model), stream_of(model)
    shared = weakref.ref(one._blocks._packed)
    assert two._blocks._packed is shared()
    assert stream_of(small_model())._blocks._packed is not shared()
    del one
    gc.collect()
    assert shared() is not None
    del two
    gc.collect()
    assert shared() is None
    assert list(model.state_dict()) == names
    assert not any(isinstance(part, PackedLinear) for part in model.modules())
    copy.deepcopy(model)  # packed weights cannot be copied; none are in it


@pytest.mark.parametrize("error", [AttributeError, RuntimeError, None])
def test_without_products_of_packed_weights_a_stream_takes_plain_ones(
    error: type[Exception] | None, monkeypatch: pytest.MonkeyPatch
):
    """Operators that are missing, refuse, or return something else."""

    def broken(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        if error is not None:
            raise error("not here")
        return torch.zeros(*x.shape[:-1], len(bias))

    monkeypatch.setattr(packing, "_product", broken)
    packing._number_type.cache_clear()
    try:
        model = small_model()
        assert Packed(model).model is model
        assert torch.equal(moves(model), moves(model, pack=False))
    finally:
        packing._number_type.cache_clear()
