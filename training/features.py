"""Causal log-mel features: what a frame of 40 ms sounds like, without hearing a sample of the next one.

Frame n is made of four hops of 10 ms. Each hop looks back over 25 ms that *end* with it, so frame n depends on
samples 640·n − 240 … 640·(n + 1) − 1: the stated look-ahead is 0 ms. (The paper's wav2vec2 is bidirectional and
hears a future in training that a stream does not have.)

Normalisation is by two fixed constants of `FeatureConfig`, the same for every band, hop and corpus: nothing to fit,
nothing to carry in a stream, and digital silence, which a turn mask leaves where the other person speaks, stays a
value of its own well below speech. They were chosen on twelve recordings of speech, whose ln(energy) spans −11.5
(silence) to about 5 with means of −9.3 to 0.4: normalised, that is −1.6 to 2.5.
"""

from __future__ import annotations

import torch
import torchaudio
from torch import Tensor, nn

from schemas import SAMPLE_RATE, SAMPLES_PER_FRAME
from schemas.train import FeatureConfig

HOP = 160
SPAN = 400
FFT = 512
HISTORY = SPAN - HOP
"""Samples before a frame that its first hop hears."""


class LogMel(nn.Module):
    """Audio to features; see the module's text for alignment and scale."""

    window: Tensor
    bank: Tensor

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        self.size = config.n_mels * (SAMPLES_PER_FRAME // HOP)
        bank = torchaudio.functional.melscale_fbanks(
            FFT // 2 + 1, 20.0, SAMPLE_RATE / 2, config.n_mels, SAMPLE_RATE, norm=None, mel_scale="htk"
        )
        self.register_buffer("window", torch.hann_window(SPAN), persistent=False)
        self.register_buffer("bank", bank, persistent=False)

    @torch.no_grad()
    def forward(self, audio_BN: Tensor, history_BH: Tensor | None = None) -> Tensor:
        """Features of whole frames.

        Args:
            audio_BN: float32 in −1…1 at 16 kHz, N = T · 640.
            history_BH: the `HISTORY` samples before it; none: silence.

        Returns: float32 [B, T, 4 · n_mels].

        Raises:
            ValueError: N is not a whole number of frames.
        """
        batch, samples = audio_BN.shape
        if samples % SAMPLES_PER_FRAME:
            raise ValueError(f"{samples} samples are not a whole number of frames of {SAMPLES_PER_FRAME}")
        if history_BH is None:
            history_BH = audio_BN.new_zeros(batch, HISTORY)
        hops_BJS = torch.cat([history_BH, audio_BN], dim=1).unfold(1, SPAN, HOP) * self.window
        spectrum_BJW = torch.fft.rfft(hops_BJS, FFT)
        power_BJW = spectrum_BJW.real.square() + spectrum_BJW.imag.square()
        with torch.autocast(audio_BN.device.type, enabled=False):  # energies span more than bfloat16 resolves
            mel_BJM = (power_BJW @ self.bank + self.config.floor).log()
        features_BJM: Tensor = (mel_BJM - self.config.mean) / self.config.std
        return features_BJM.reshape(batch, samples // SAMPLES_PER_FRAME, self.size)
