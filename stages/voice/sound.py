"""How a track sounds by itself. Sums over stretches, and figures made of them.

    level_db       dB of full scale that one frame of twenty exceeds, where there is any sound
    clipped        share of the samples that pile up at the top, where those of sound become rare
    bandwidth_hz   a cliff in the long-term spectrum with nothing above it; 8,000: there is none
    snr_db         power of the voice, without the noise, over the noise's, which is heard while nobody speaks

A build keeps them of each participant's track (`stages.separate`); `visavis doctor` judges by the same
(`stages.doctor`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from visavis.schemas import SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.schemas.voice_rows import VoiceFigures
from visavis.stages.voice.leakage import Pair, frame_power, noise_power, overlapped, voice_power

SILENT_DB = -80.0
"""Nothing is told apart below."""

_LEVELS = np.arange(SILENT_DB - 1, 2.0, 2.0)  # dB, edges of bins for levels of frames
_PEAKS = np.arange(-40.0, 0.3, 0.25)  # dB, … for samples
_FULL = 32_767
_VALUES_DB = 20 * np.log10((np.arange(_FULL + 1) + 0.5) / _FULL)
_FFT = 512
_BANDS = 32  # of 250 Hz
PILED = 2.5
"""Times as many samples in a quarter of a dB at the top as in those below."""
CLIFF_DB = 14.0
"""By so much a spectrum falls within 500 Hz where it ends, …"""
_FLOOR = 30.0  # dB … and by so much all above lies below the loudest band
_FEWEST = 40  # samples up there
_WIDEBAND = 27  # the band at 6.75 kHz: what telephony calls wideband goes up to 7, and harms nothing
_STRETCH = 1500 * SAMPLES_PER_FRAME  # samples measured at a time: a minute


LEAST_SNR, MOST_SNR = -20.0, 80.0
"""dB; nothing is told apart beyond."""


class Sound(NamedTuple):
    """Figures of a track by itself, as above."""

    level_db: float
    clipped: float
    bandwidth_hz: float


class Pile(NamedTuple):
    """Of all samples the share in the fullest quarter of a dB at the top, how often as many these are as those just
    below, and the level of the top."""

    share: float
    ratio: float
    level_db: float


class Cliff(NamedTuple):
    """Where a spectrum ends, and by how many dB it falls there within 500 Hz."""

    hertz: float
    fall: float


def figures_of(
    method: Literal["own_track", "mask", "network"],
    sounds: Sequence[Sound],
    powers: Sequence[np.ndarray],
    residuals: Pair,
    state_T: np.ndarray,
) -> tuple[VoiceFigures, VoiceFigures]:
    """What is known of both participants' tracks.

    Args:
        sounds: `track_sound` of each.
        powers: `frame_power` of what each was made of, pauses included: its own track, or the mix.
        state_T: uint8, bit i: participant i speaks.
    """
    one, other = (
        VoiceFigures(
            method=method,
            residual_db=residuals[i],
            overlapped=overlapped(state_T, i),
            snr_db=snr_of(powers[i], state_T, i),
            **sounds[i]._asdict(),
        )
        for i in (0, 1)
    )
    return one, other


def snr_of(power_T: np.ndarray, state_T: np.ndarray, participant: int) -> float | None:
    """dB; None where the participant is never heard alone for half a second."""
    voice, noise = voice_power(power_T, state_T, participant), noise_power(power_T, state_T)
    if voice is None:
        return None
    return round(min(MOST_SNR, max(LEAST_SNR, 10 * float(np.log10(voice / max(noise, 1e-30))))), 1)


def track_sound(audio_N: np.ndarray) -> Sound:
    """Figures of a track of whole frames, float32 [N]."""
    peaks, bands = np.zeros(len(_PEAKS) - 1), np.zeros(_BANDS)
    for first in range(0, len(audio_N), _STRETCH):
        stretch = audio_N[first : first + _STRETCH]
        peaks += peaks_of(stretch)
        bands += bands_of(stretch)
    power_T = frame_power(audio_N)
    counts = levels_of(10 * np.log10(power_T.astype(np.float64) + 1e-12))
    pile, cliff = pile_of(peaks, len(audio_N)), cliff_of(bands)
    return Sound(
        level_db=loudest(counts, float((power_T == 0).sum())),
        clipped=round(pile.share, 6) if pile else 0.0,
        bandwidth_hz=cliff.hertz if cliff else SAMPLE_RATE / 2,
    )


def levels_of(level_T: np.ndarray) -> np.ndarray:
    """How many frames there are of each level (dB): [40]."""
    counts: np.ndarray = np.histogram(np.clip(level_T, _LEVELS[0], 0), _LEVELS)[0]
    return counts


def loudest(counts: np.ndarray, silent: float, share: float = 0.95) -> float:
    """dB of frames that so many are fainter than.

    Args:
        counts: `levels_of`.
        silent: frames of digital silence among them, of which nothing is counted.
    """
    counts = counts.astype(np.float64)
    counts[0] -= min(counts[0], silent)
    if counts.sum() < 1:
        return SILENT_DB
    return float(_LEVELS[np.searchsorted(np.cumsum(counts), share * counts.sum())] + 1)


def peaks_of(audio_N: np.ndarray) -> np.ndarray:
    """How many samples there are of each loudness, by 16-bit values, which is ten times as fast as by logarithms."""
    counts = np.bincount((np.minimum(np.abs(audio_N), 1.0) * _FULL).astype(np.uint16), minlength=_FULL + 1)
    found: np.ndarray = np.histogram(_VALUES_DB, _PEAKS, weights=counts)[0]
    return found


def pile_of(peaks: np.ndarray, samples: float) -> Pile | None:
    """Samples that pile up below the highest one, where those of sound become rare; None: they do not.

    Args:
        peaks: sums of `peaks_of`.
        samples: how many were counted, the fainter ones included.
    """
    (there,) = np.nonzero(peaks)
    if not len(there) or there[-1] < 8:
        return None
    top = int(there[-1])
    piled, below = peaks[top - 1 : top + 1].max(), peaks[top - 4 : top - 1].mean()
    ratio = float(piled / (below + 1))
    if piled < _FEWEST or ratio < PILED:
        return None
    return Pile(float(piled / samples), ratio, float(_PEAKS[top]))


def bands_of(audio_N: np.ndarray) -> np.ndarray:
    """Mean power in each band over stretches of 32 ms, summed over them: float64 [32]."""
    from scipy.fft import rfft

    blocks = audio_N[: len(audio_N) // _FFT * _FFT].reshape(-1, _FFT)
    blocks = blocks - blocks.mean(axis=1, keepdims=True)  # an offset would leak into the lowest band
    spectra = rfft(blocks * np.hanning(_FFT).astype(np.float32))
    power = (spectra.real**2 + spectra.imag**2).sum(axis=0, dtype=np.float64)
    found: np.ndarray = power[1:].reshape(_BANDS, -1).mean(axis=1) / _FFT
    return found


def cliff_of(bands: np.ndarray) -> Cliff | None:
    """Where a long-term spectrum ends, with nothing above it; None: nowhere below `_WIDEBAND`.

    Args:
        bands: sums of `bands_of`.
    """
    bands_db = 10 * np.log10(bands + 1e-14)
    top = float(bands_db.max())
    for edge in range(8, _WIDEBAND):
        fall = float(bands_db[edge - 1] - bands_db[edge + 1])
        above = top - float(bands_db[edge + 1 :].max())
        if fall > CLIFF_DB and above > _FLOOR and bands_db[edge - 1] > top - 45:
            return Cliff(edge * SAMPLE_RATE / 2 / _BANDS, fall)
    return None
