"""Small networks made for tests: encoders of face crops, as files."""

from __future__ import annotations

import io
import warnings

import torch
from torch import Tensor, nn

SIZE, CODES = 32, 5


class Patches(nn.Module):
    """Brightness of parts of the crop, through a fixed random layer: a code that follows what moves in it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.pool = nn.AvgPool2d(SIZE // 8)
        self.mix = nn.Linear(64, CODES)

    def forward(self, crops_B3SS: Tensor) -> Tensor:
        code: Tensor = self.mix(self.pool(crops_B3SS.mean(1)).flatten(1))
        return code


def scripted(network: nn.Module | None = None) -> bytes:
    """A TorchScript archive."""
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script((network or Patches()).eval()), buffer)
    return buffer.getvalue()


def exported(batch: int, network: nn.Module | None = None, *, dynamic: bool = False) -> bytes:
    """A torch.export archive of a network for exactly `batch` crops; dynamic: for any number."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = {0: torch.export.Dim.AUTO} if dynamic else None
        crops = torch.zeros(batch, 3, SIZE, SIZE)
        program = torch.export.export((network or Patches()).eval(), (crops,), dynamic_shapes=shapes and (shapes,))
        torch.export.save(program, buffer)
    return buffer.getvalue()
