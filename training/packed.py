"""Weights packed once for products on a CPU, in place of once a call.

A product of a few rows, as a stream makes them, reads weights and does little else, and a library that is given them
row by row puts them into its own order first, in each call anew: half of the time of 10 rows. oneDNN can keep that
order. PyTorch has no public call for it (`torch.compile` packs so when it freezes a graph, and wants a C++ compiler and
minutes), so its operators are used here, and only here. Each kind of number is tried first, beside the plain product;
where that fails, or is far off, the plain product stays.

Packed copies are of a model that others go on using and may change, so they are packed again when weights are not those
that were packed: at another address, of another version (PyTorch counts changes in place, but not those of fused
optimisers), or with other numbers at some places.
"""

from __future__ import annotations

import copy
import weakref
from functools import cache
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visavis.training.model import Listener

ROWS = 32
"""The number of rows that the order of weights is chosen for. Any number is computed; for 10 to 120 it was as good."""
SMALLEST = 1 << 19
"""Weights of the smallest layer that is packed: each call of oneDNN costs some 90 µs more, which fewer do not save."""
PLACES = 64
"""Numbers of each layer that are looked at to see whether its weights changed."""
AGREES = 0.05
"""The largest difference in the trial product: bfloat16's rounding. A wrong order is off by far more."""


class Packed:
    """A model for inference whose blocks and encoder have packed weights, where a CPU gains by it.

    `model` shares everything with the one that was given (parameters, buffers, hooks) but the large linear layers,
    which hold copies of their weights: at preset `paper` 0.5 GB.
    """

    def __init__(self, model: Listener) -> None:
        self._layers: list[PackedLinear] = []
        self._seen: tuple[list[tuple[int, int]], Tensor] | None = None
        self.model = model
        if model.mean.device.type == "cpu" and _number_type(torch.float32) is not None:
            self.model = copy.copy(model)
            parts: dict[str, nn.Module | None] = {
                name: self._with_packed_layers(getattr(model, name)) for name in ("blocks", "encoder")
            }
            self.model._modules = dict(model._modules) | parts
            self.refresh()

    def refresh(self) -> None:
        """Pack the weights again if they changed."""
        if not self._layers:
            return
        weights = [layer.weight.detach() for layer in self._layers]
        where = [(each.data_ptr(), 0 if each.is_inference() else each._version) for each in weights]
        some = torch.cat([each.reshape(-1)[:: each.numel() // PLACES | 1].float() for each in weights])
        some = some.view(torch.int32)  # equal to itself even where it is no number
        if self._seen is None or self._seen[0] != where or not torch.equal(self._seen[1], some):
            for layer in self._layers:
                layer.pack()
            self._seen = where, some

    def _with_packed_layers(self, module: nn.Module) -> nn.Module:
        if isinstance(module, nn.Linear):
            if module.weight.numel() < SMALLEST:
                return module
            self._layers.append(PackedLinear(module))
            return self._layers[-1]
        face = copy.copy(module)
        face._modules = {name: child and self._with_packed_layers(child) for name, child in module._modules.items()}
        return face


_in_use: weakref.WeakKeyDictionary[Listener, weakref.ref[Packed]] = weakref.WeakKeyDictionary()


def packed(model: Listener) -> Packed:
    """All that ask for a model's at one time share it; it is freed with the last of them."""
    known = _in_use.get(model)
    found = known() if known is not None else None
    if found is None:
        found = Packed(model)
        _in_use[model] = weakref.ref(found)
    return found


class PackedLinear(nn.Module):
    """A linear layer's product, without gradient, from a packed copy of its weights."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self._packed: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        return self.layer.weight

    def pack(self) -> None:
        number = _number_type(self.weight.dtype)
        self._packed = None if number is None else _pack(self.weight.to(number))

    def forward(self, x: Tensor) -> Tensor:
        if self._packed is None:
            return cast(Tensor, self.layer(x))
        number = self._packed.dtype
        return _product(x.to(number), self._packed, self.layer.bias.to(number)).to(self.weight.dtype)


@cache
def _number_type(weights: torch.dtype) -> torch.dtype | None:
    """In which numbers products of such weights are computed here; None: not packed.

    A CPU without products in bfloat16 has its weights packed as float32.
    """
    return next((number for number in dict.fromkeys((weights, torch.float32)) if _agrees(number)), None)


def _agrees(number: torch.dtype) -> bool:
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(shape, generator=generator) for shape in ((1, 10, 64), (48, 64), (48,)))
    x, weight, bias = x.to(number), (weight / 8).to(number), bias.to(number)
    try:
        found = _product(x, _pack(weight), bias)
    except (AttributeError, RuntimeError):  # built without oneDNN, or not for such numbers on this CPU
        return False
    return bool((found.float() - F.linear(x.float(), weight.float(), bias.float())).abs().max() < AGREES)


@torch.no_grad()
def _pack(weight: Tensor) -> Tensor:
    return cast(Tensor, torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), ROWS))


@torch.no_grad()
def _product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], ""))
