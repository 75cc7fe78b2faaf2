"""DNSMOS: how people would rate a stretch of speech, without the clean speech beside it.

    P.835   waveform of 9.01 s at 16 kHz      → speech (SIG), background (BAK), both together (OVRL)   Reddy 2022
    P.808   its mel spectrogram, 900 frames   → one rating                                             Reddy 2021

The weights are ONNX files inside the wheel of `speechmos` (MIT), whose code is not imported: it wants librosa. How they
are used are facts of that code: lengths, spectrogram and the polynomials by which raw ratings become those of people.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from visavis.schemas import SAMPLE_RATE
from visavis.stages.models.onnx_files import onnx_session
from visavis.stages.models.wheels import DNSMOS, DNSMOS_P808, wheel_file

WINDOW = 144_160
"""Samples that are rated at a time: 9.01 s."""
_FFT, _HOP, _MELS = 321, 160, 120
_LEFT_OUT = 160  # samples at the end of a window that P.808 does not hear
_LEAST, _RANGE_DB = 1e-10, 80.0  # power; below the loudest
_POLYNOMIALS = np.array(  # of SIG, BAK, OVRL, highest power first
    [
        [-0.08397278, 1.22083953, 0.0052439],
        [-0.13166888, 1.60915514, -0.39604546],
        [-0.06766283, 1.11546468, 0.04602535],
    ]
)


class Ratings(NamedTuple):
    """Each from about 1 to 5; 5 is best."""

    sig: float
    bak: float
    ovrl: float
    p808: float


class Dnsmos:
    """Both networks, on one core.

    Raises:
        UsageError: their wheel is missing.
    """

    def __init__(self) -> None:
        self._p835, self._p808 = (onnx_session(wheel_file(*where).read_bytes()) for where in (DNSMOS, DNSMOS_P808))
        self._filters = mel_filters()

    def __call__(self, audio_N: np.ndarray) -> Ratings:
        """Of float32 [WINDOW] in −1…1."""
        raw = self._p835.run(None, {"input_1": audio_N[None].astype(np.float32)})[0][0]
        sig, bak, ovrl = (float(np.polyval(fit, value)) for fit, value in zip(_POLYNOMIALS, raw, strict=True))
        mel_FM = log_mel(audio_N[:-_LEFT_OUT], self._filters)
        p808 = self._p808.run(None, {"input_1": mel_FM[None].astype(np.float32)})[0][0][0]
        return Ratings(sig, bak, ovrl, float(p808))


def log_mel(audio_N: np.ndarray, filters_KM: np.ndarray) -> np.ndarray:
    """Power on the mel scale, dB below the loudest, as (dB + 40) / 40 in −1…1: float64 [ceil(N / 160), 120].

    Frame f is centred on sample 160 f; beyond the ends there is silence.
    """
    from scipy.fft import rfft
    from scipy.signal import get_window

    padded = np.pad(audio_N.astype(np.float64), _FFT // 2)
    frames_FN = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[::_HOP]
    power_FM = np.abs(rfft(frames_FN * get_window("hann", _FFT))) ** 2 @ filters_KM
    db_FM = 10 * np.log10(np.maximum(_LEAST, power_FM))
    below_FM: np.ndarray = np.maximum(db_FM - db_FM.max(), -_RANGE_DB)
    return (below_FM + 40) / 40


def mel_filters() -> np.ndarray:
    """Slaney's triangles of equal area from 0 to 8 kHz: float64 [161, 120].

    torchaudio's take it that the spectrum's last bin is at 8 kHz; with 321 samples it is at 7,975 Hz.
    """
    hertz_K = np.fft.rfftfreq(_FFT, 1 / SAMPLE_RATE)
    edges = _hertz(np.linspace(0.0, _mel(SAMPLE_RATE / 2), _MELS + 2))
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (hertz_K[:, None] - low) / (middle - low), (high - hertz_K[:, None]) / (high - middle)
    filters: np.ndarray = np.maximum(0.0, np.minimum(rising, falling)) * 2 / (high - low)
    return filters


_LINEAR, _KNEE, _STEP = 200 / 3, 1000.0, np.log(6.4) / 27  # Hz a mel up to the knee; natural logarithm a mel above


def _mel(hertz: float) -> float:
    return hertz / _LINEAR if hertz < _KNEE else _KNEE / _LINEAR + float(np.log(hertz / _KNEE)) / _STEP


def _hertz(mel_M: np.ndarray) -> np.ndarray:
    above = mel_M - _KNEE / _LINEAR
    return np.where(above < 0, mel_M * _LINEAR, _KNEE * np.exp(_STEP * above))
