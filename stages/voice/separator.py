"""Separation of two voices that speak at once: the seam, and torchaudio's Conv-TasNet behind it.

Conv-TasNet (Luo & Mesgarani 2019, arXiv 1809.07454) learns a filter bank in place of the Fourier transform and a mask
for each voice in it. torchaudio's `CONVTASNET_BASE_LIBRI2MIX` works at 8 kHz: what lies above 4 kHz is shared out by
`stages.voice.overlaps.settle`. Its outputs are right up to their scale and their order; both are settled there, too.

The trade-off: 5 million parameters, 1.0 s of one CPU core for 4 s of sound, weights that ship in no wheel (20 MB; they
are fetched on purpose, by `visavis assets`, never by a build), and training on read English speech in full overlap.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from visavis.schemas import SAMPLE_RATE
from visavis.schemas.config import SeparateConfig
from visavis.schemas.errors import UsageError
from visavis.schemas.storage.user_files import read_given, short_digest
from visavis.schemas.untrusted import parsing
from visavis.schemas.uris import shown

if TYPE_CHECKING:
    from torch import nn

_BUNDLE = "CONVTASNET_BASE_LIBRI2MIX"
_MOST_BYTES = 1 << 30


class Separator(Protocol):
    """Two voices of each mix: float32 [B, N] at 16 kHz → float32 [B, 2, N]. Order and scale of the two are free."""

    def __call__(self, mixes_BN: np.ndarray, /) -> np.ndarray: ...


class ConvTasNetSeparator:
    """A network on [B, 1, N] → [B, 2, N], at a sampling rate of its own."""

    def __init__(self, network: nn.Module, device: str = "cpu", rate: int = 8_000) -> None:
        self._network = network.eval().to(device)
        self._device, self._rate = device, rate

    def __call__(self, mixes_BN: np.ndarray) -> np.ndarray:
        import torch
        from torchaudio.functional import resample

        with torch.inference_mode():
            mixes = torch.from_numpy(mixes_BN).to(self._device)
            voices = self._network(resample(mixes, SAMPLE_RATE, self._rate)[:, None])
            found: np.ndarray = resample(voices, self._rate, SAMPLE_RATE)[..., : mixes.shape[1]].cpu().numpy()
        return found


def load_separator(config: SeparateConfig, device: str) -> Separator:
    """torchaudio's Conv-TasNet for two voices, with the configured weights.

    Raises:
        UsageError: as `read_weights`, or they are not those of this network.
    """
    import torch
    from torchaudio.models import conv_tasnet_base

    from visavis.training.tensors import fit, read_head, read_tensors

    network = conv_tasnet_base(num_sources=2)
    file = io.BytesIO(read_weights(config))
    with parsing(lambda why: UsageError(f"separate.weights: not torchaudio's conv_tasnet_base(2): {why}")):
        head = read_head(file)
        fit(network.state_dict(), head.tensors)
        state = read_tensors(file, head, head.tensors)
        if not all(torch.isfinite(value).all() for value in state.values()):
            raise ValueError("weights that are not finite")
        network.load_state_dict(state)
    return ConvTasNetSeparator(network, device)


def read_weights(config: SeparateConfig) -> bytes:
    """The configured file.

    Raises:
        UsageError: none is named, it is not there, or is another file.
    """
    remedy = "`visavis assets` says where it comes from"
    if config.weights is None:
        raise UsageError(
            f"separate.backend=convtasnet needs separate.weights, torchaudio's {_BUNDLE}; {remedy};"
            " or set separate.backend=mask"
        )
    where = config.weights
    return read_given("separate.weights", where, config.weights_sha256, remedy, most=_MOST_BYTES, look=_look(where))


def _look(where: str) -> Callable[[Any], None]:
    """Refuses what is no safetensors file, once its beginning was read."""
    from visavis.training.tensors import looks_pickled, read_head

    def look(file: Any) -> None:
        if looks_pickled(file):
            raise UsageError(
                f"separate.weights: {shown(where)} is pickled, and only safetensors are read; `visavis convert FILE`"
                " makes one of it"
            )
        with parsing(lambda why: UsageError(f"separate.weights: {shown(where)} is no whole file of tensors: {why}")):
            read_head(file)

    return look


def weights_digest(config: SeparateConfig) -> str:
    """What the weights are, wherever their file lies. Raises as `read_weights`."""
    return short_digest(read_weights(config))


def check_separator(config: SeparateConfig) -> None:
    """Tell about missing or wrong weights before any work starts.

    Raises:
        UsageError: as `read_weights`; or a wheel is missing.
    """
    if config.backend == "convtasnet":
        from visavis.stages.models.wheels import SPEAKER_ENCODER, wheel_file

        wheel_file(*SPEAKER_ENCODER)
        read_weights(config)
