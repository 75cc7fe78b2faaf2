"""CAM++: a speaker embedding from a densely connected time-delay network with context-aware masks (Wang et al. 2023).

The layers follow 3D-Speaker's published state dict, so that its weights load. Two halves: the costly one, `hidden`,
runs once over a stretch of sound and gives a vector per 20 ms; `pooled` embeds any weighting of those, so that a window
every tenth of a second, or all that one turn or one local voice holds, costs next to nothing more. Windows pooled from
a common stretch also tell voices apart better than windows heard by themselves (`voice_windows`).

Shape suffixes: N samples, B batch, T spectrogram frames of 10 ms, H hidden frames of 20 ms, W weightings or windows.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from visavis.schemas import SAMPLE_RATE

MELS = 80
DIMENSIONS = 192
HIDDEN_STEP = 320  # samples between hidden frames
STRETCH = 6 * SAMPLE_RATE  # samples heard at once
_CHANNELS = 32  # of the front, and what each layer of a block adds
_BOTTLENECK = 128
_BLOCKS = ((12, 1), (24, 2), (16, 2))  # layers, dilation
_SEGMENT = 100  # hidden frames over which a layer takes its local context


class CAMPlusPlus(nn.Module):
    """Log-mel spectrograms of speech, any length from half a second → unit embeddings."""

    window = 25_600  # samples that a voice window takes
    frames = 160  # spectrogram frames of it, 10 ms apart

    def __init__(self) -> None:
        super().__init__()
        self.head = _Front()
        self.xvector = _named(
            tdnn=_named(
                linear=nn.Conv1d(_CHANNELS * MELS // 8, _BOTTLENECK, 5, stride=2, padding=2, bias=False),
                nonlinear=_named(batchnorm=nn.BatchNorm1d(_BOTTLENECK), relu=nn.ReLU()),
            )
        )
        width = _BOTTLENECK
        for i, (layers, dilation) in enumerate(_BLOCKS, start=1):
            self.xvector.add_module(f"block{i}", _Block(width, layers, dilation))
            width += layers * _CHANNELS
            self.xvector.add_module(f"transit{i}", _rectified(width, width // 2))
            width //= 2
        self.xvector.add_module("out_nonlinear", _named(batchnorm=nn.BatchNorm1d(width), relu=nn.ReLU()))
        self.dense = _named(  # its place in the state dict is xvector.dense: `load_published`
            linear=nn.Conv1d(2 * width, DIMENSIONS, 1, bias=False),
            nonlinear=_named(batchnorm=nn.BatchNorm1d(DIMENSIONS, affine=False)),
        )

    def load_published(self, weights: dict[str, Tensor]) -> None:
        """Take 3D-Speaker's state dict."""
        self.load_state_dict({name.replace("xvector.dense.", "dense."): w for name, w in weights.items()})

    def mel(self, audio_N: Tensor) -> Tensor:
        """Kaldi's log-mel filter bank [T, 80]: frame t covers samples [160 t, 160 t + 400)."""
        from torchaudio.compliance import kaldi

        spectrum: Tensor = kaldi.fbank(audio_N[None], num_mel_bins=MELS, sample_frequency=SAMPLE_RATE, dither=0.0)
        return spectrum

    def hidden(self, mel_BT80: Tensor) -> Tensor:
        """What is pooled: [B, 512, ceil(T / 2)], frame h centred on sample 320 h + 200. Gain and timbre of the line go
        with the mean over all that is given at once.
        """
        centred = mel_BT80 - mel_BT80.mean(dim=1, keepdim=True)
        hidden: Tensor = self.xvector(self.head(centred.transpose(1, 2)))
        return hidden

    def pooled(self, hidden_BCH: Tensor, weight_BWH: Tensor) -> Tensor:
        """Unit embeddings [B, W, 192] of weighted means and deviations. Weights ≥ 0; zeros where all of them are 0."""
        share = weight_BWH / weight_BWH.sum(dim=2, keepdim=True).clamp(min=1e-9)
        mean = share @ hidden_BCH.transpose(1, 2)
        square = share @ hidden_BCH.square().transpose(1, 2)
        bessel = 1 / (1 - share.square().sum(dim=2, keepdim=True)).clamp(min=1e-3)
        deviation = ((square - mean.square()).clamp(min=1e-10) * bessel).sqrt()
        embedding: Tensor = self.dense(torch.cat([mean, deviation], dim=2).transpose(1, 2)).transpose(1, 2)
        return functional.normalize(embedding, dim=2) * (weight_BWH.amax(dim=2, keepdim=True) > 0)

    def forward(self, mel_BT80: Tensor) -> Tensor:
        """Unit embeddings [B, 192]."""
        hidden = self.hidden(mel_BT80)
        return self.pooled(hidden, torch.ones_like(hidden[:, :1]))[:, 0]


@torch.inference_mode()
def voice_windows(
    encoder: CAMPlusPlus,
    audio_N: np.ndarray,
    hop: int = 1600,
    window: int = CAMPlusPlus.window,
    weight_H: np.ndarray | None = None,
    gain: float = 1.0,
) -> np.ndarray:
    """What the voice sounds like around each multiple of `hop` samples: unit embeddings float32 [N // hop + 1, 192].

    Each window is pooled from the stretch of six seconds that holds it nearest to the middle. weight_H: how much each
    20 ms counts, all alike by default (leave silence and overlap out); a window in which nothing counts is all zeros.
    gain: the spectrogram has a floor, under which quiet speech would be lost.
    Memory beyond the audio: one stretch.
    """
    device = next(encoder.parameters()).device
    size, windows = min(STRETCH, len(audio_N)), len(audio_N) // hop + 1
    embeddings = np.zeros((windows, DIMENSIONS), np.float32)
    if size < 2 * HIDDEN_STEP + 400:
        return embeddings
    centre_W = np.arange(windows) * hop
    begin_W = np.clip((centre_W // (STRETCH // 2)) * (STRETCH // 2) - STRETCH // 4, 0, len(audio_N) - size)
    begin_W = begin_W // HIDDEN_STEP * HIDDEN_STEP
    for begin in np.unique(begin_W):
        which = begin_W == begin
        stretch = torch.from_numpy(np.asarray(audio_N[begin : begin + size] * gain, np.float32)).to(device)
        hidden = encoder.hidden(encoder.mel(stretch)[None])
        at_H = begin + np.arange(hidden.shape[2]) * HIDDEN_STEP + 200
        weight_WH = (np.abs(at_H - centre_W[which, None]) <= window / 2).astype(np.float32)
        if weight_H is not None:
            weight_WH *= weight_H[np.minimum(at_H // HIDDEN_STEP, len(weight_H) - 1)]
        embeddings[which] = encoder.pooled(hidden, torch.from_numpy(weight_WH).to(device)[None])[0].cpu().numpy()
    return embeddings


class _Front(nn.Module):
    """[B, 80, T] → [B, 320, T]: convolutions over time and pitch, which thin out pitch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(1, 1), nn.BatchNorm2d(_CHANNELS)
        self.layer1 = nn.Sequential(_Residual(2), _Residual(1))
        self.layer2 = nn.Sequential(_Residual(2), _Residual(1))
        self.conv2, self.bn2 = _conv(_CHANNELS, 2), nn.BatchNorm2d(_CHANNELS)

    def forward(self, mel: Tensor) -> Tensor:
        first = functional.relu(self.bn1(self.conv1(mel[:, None])))
        return functional.relu(self.bn2(self.conv2(self.layer2(self.layer1(first))))).flatten(1, 2)


class _Residual(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(_CHANNELS, stride), nn.BatchNorm2d(_CHANNELS)
        self.conv2, self.bn2 = _conv(_CHANNELS, 1), nn.BatchNorm2d(_CHANNELS)
        through = nn.Conv2d(_CHANNELS, _CHANNELS, 1, stride=(stride, 1), bias=False)
        self.shortcut = nn.Sequential(through, nn.BatchNorm2d(_CHANNELS)) if stride > 1 else nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(inner + self.shortcut(x))


class _Block(nn.Module):
    """Layers each of which hears all before it."""

    def __init__(self, width: int, layers: int, dilation: int) -> None:
        super().__init__()
        for i in range(layers):
            self.add_module(f"tdnnd{i + 1}", _Layer(width + i * _CHANNELS, dilation))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = torch.cat([x, layer(x)], dim=1)
        return x


class _Layer(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.nonlinear1 = _named(batchnorm=nn.BatchNorm1d(width), relu=nn.ReLU())
        self.linear1 = nn.Conv1d(width, _BOTTLENECK, 1, bias=False)
        self.nonlinear2 = _named(batchnorm=nn.BatchNorm1d(_BOTTLENECK), relu=nn.ReLU())
        self.cam_layer = _ContextAwareMask(dilation)

    def forward(self, x: Tensor) -> Tensor:
        masked: Tensor = self.cam_layer(self.nonlinear2(self.linear1(self.nonlinear1(x))))
        return masked


class _ContextAwareMask(nn.Module):
    """A convolution, damped by what is heard around it: over all, and over segments of two seconds."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.linear_local = nn.Conv1d(_BOTTLENECK, _CHANNELS, 3, padding=dilation, dilation=dilation, bias=False)
        self.linear1 = nn.Conv1d(_BOTTLENECK, _BOTTLENECK // 2, 1)
        self.linear2 = nn.Conv1d(_BOTTLENECK // 2, _CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        segments = functional.avg_pool1d(x, _SEGMENT, stride=_SEGMENT, ceil_mode=True)
        context = x.mean(dim=2, keepdim=True) + segments
        mask = torch.sigmoid(self.linear2(functional.relu(self.linear1(context))))
        local: Tensor = self.linear_local(x) * mask.repeat_interleave(_SEGMENT, dim=2)[:, :, : x.shape[2]]
        return local


def _conv(inputs: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, _CHANNELS, 3, stride=(stride, 1), padding=1, bias=False)


def _rectified(inputs: int, outputs: int) -> nn.Sequential:
    rectify = _named(batchnorm=nn.BatchNorm1d(inputs), relu=nn.ReLU())
    return _named(nonlinear=rectify, linear=nn.Conv1d(inputs, outputs, 1, bias=False))


def _named(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))
