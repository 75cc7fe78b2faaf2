"""Landmarks of sound: groups of spectral peaks, hashed (Wang 2003, "An industrial-strength audio search algorithm").

Wang hashes pairs of peaks, which a few thousand hours of speech fill up. Here five peaks are a group: chance makes two
groups equal once in 2³⁰ (measured between recordings of speech), and of the many groups that an anchor has some last
where others are lost. Bands of a semitone and steps of 80 ms are coarse enough for a speed that is 1 or 2 % off, with
pitch or without. Of all hashes one in 16 is kept, by its own value, so of two copies the same are.

T frames of 20 ms, B bands, P peaks, M landmarks, N samples.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import numpy as np

from visavis.schemas import SAMPLE_RATE

FRAME = 320
"""Samples between two frames. It divides a frame of the 25 fps grid, so pieces of a conversation have one raster."""
FRAMES_PER_SECOND = SAMPLE_RATE / FRAME

_FFT = 1024
_LOWEST, _BANDS = 250.0, 46  # Hz, and semitones from there on: up to 3.4 kHz, which telephones carry, too
_NEAR_BANDS, _NEAR_FRAMES = 2, 4  # around a peak, of which it is the highest
_BELOW, _AROUND = 20.0, 50  # dB that a peak may be below the loudest, within so many frames
_FLOOR_DB = -60.0  # of a band's power; white noise of −86 dB of full scale
_BLOCK = 3000  # frames whose spectra are held at once
_MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)


class Grouping(NamedTuple):
    """peaks: of a group, all but the anchor among as many as `following` it. soonest, latest: frames from the anchor to
    the first and the last of them; step: frames to which that is rounded (latest / step < 32). kept: one hash of so
    many."""

    peaks: int
    following: int
    soonest: int
    latest: int
    step: int
    kept: int


_SOUND = Grouping(peaks=5, following=7, soonest=2, latest=80, step=4, kept=16)


class Landmarks(NamedTuple):
    """hash_M: uint32. frame_M: int32, when its first peak is."""

    hash_M: np.ndarray
    frame_M: np.ndarray

    @staticmethod
    def checked(hash_M: np.ndarray, frame_M: np.ndarray) -> Landmarks:
        """Of a file.

        Raises:
            ValueError: it holds something else.
        """
        if hash_M.dtype != np.uint32 or frame_M.dtype != np.int32 or hash_M.shape != frame_M.shape or frame_M.ndim != 1:
            raise ValueError("no landmarks")
        return Landmarks(hash_M, frame_M)

    @property
    def seconds(self) -> float:
        """From the first to the last: without the silence before and after."""
        return float(np.ptp(self.frame_M)) / FRAMES_PER_SECOND if len(self.frame_M) else 0.0


def landmarks(audio_N: np.ndarray, first: int = 0) -> Landmarks:
    """Of sound at 16 kHz, float [N]; first: the sample of its recording at which it begins. Silence has none."""
    if len(audio_N) < _FFT:
        return Landmarks(np.zeros(0, np.uint32), np.zeros(0, np.int32))
    hash_M, frame_M = grouped(*_peaks(_levels(audio_N)), _SOUND)
    return Landmarks(hash_M, frame_M + round(first / FRAME))


def _levels(audio_N: np.ndarray) -> np.ndarray:
    """dB in each band, float32 [T, B]."""
    from scipy.fft import rfft

    window = np.hanning(_FFT).astype(np.float32)
    frames_TF = np.lib.stride_tricks.sliding_window_view(np.asarray(audio_N, np.float32), _FFT)[::FRAME]
    level_TB = np.empty((len(frames_TF), _BANDS), np.float32)
    for begin in range(0, len(frames_TF), _BLOCK):
        spectra = rfft(frames_TF[begin : begin + _BLOCK] * window)
        power_TB = (spectra.real**2 + spectra.imag**2) @ _filters()
        level_TB[begin : begin + _BLOCK] = 10 * np.log10(power_TB + 1e-12)
    return level_TB


@lru_cache(maxsize=1)
def _filters() -> np.ndarray:
    """Triangles a semitone wide to both sides, or one bin where that is less: float32 [bins, B], sums 1."""
    hertz_F1 = np.arange(_FFT // 2 + 1)[:, None] * SAMPLE_RATE / _FFT
    middle_B = _LOWEST * 2 ** (np.arange(_BANDS) / 12)
    wide_B = np.maximum(middle_B * (2 ** (1 / 12) - 1), SAMPLE_RATE / _FFT)
    weight_FB = np.clip(1 - np.abs(hertz_F1 - middle_B) / wide_B, 0, 1)
    found: np.ndarray = (weight_FB / weight_FB.sum(axis=0)).astype(np.float32)
    return found


def _peaks(level_TB: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frame and band of each peak, by time: int64 [P]. None at the borders: what lies beyond may be higher."""
    from scipy.ndimage import maximum_filter

    near_TB = maximum_filter(level_TB, (2 * _NEAR_FRAMES + 1, 2 * _NEAR_BANDS + 1), mode="nearest")
    loudest_T = maximum_filter(level_TB.max(axis=1), 2 * _AROUND + 1, mode="nearest")
    is_peak_TB = (level_TB == near_TB) & (level_TB > np.maximum(loudest_T - _BELOW, _FLOOR_DB)[:, None])
    is_peak_TB[:, [0, -1]] = False
    frame_P, band_P = np.nonzero(is_peak_TB)
    return frame_P, band_P


def grouped(frame_P: np.ndarray, band_P: np.ndarray, how: Grouping) -> Landmarks:
    """Hashes that are kept, and the frames of their anchors, by time. Of peaks by time; bands: fewer than 64."""
    after_P = np.searchsorted(frame_P, frame_P + how.soonest)
    hashes, frames = [np.zeros(0, np.uint32)], [np.zeros(0, np.int32)]
    for steps in combinations(range(how.following), how.peaks - 1):
        anchor = np.flatnonzero(after_P + steps[-1] < len(frame_P))
        anchor = anchor[frame_P[after_P[anchor] + steps[-1]] - frame_P[anchor] <= how.latest]
        code = band_P[anchor].astype(np.uint64)
        for step in steps:
            other = after_P[anchor] + step
            late = (frame_P[other] - frame_P[anchor]) // how.step
            code = (code << np.uint64(11)) + (band_P[other] << 5).astype(np.uint64) + late.astype(np.uint64)
        mixed = _mixed(code)
        kept = mixed % np.uint64(how.kept) == 0
        hashes.append((mixed[kept] >> np.uint64(32)).astype(np.uint32))
        frames.append(frame_P[anchor[kept]].astype(np.int32))
    hash_M, frame_M = np.concatenate(hashes), np.concatenate(frames)
    order = np.lexsort((hash_M, frame_M))
    return Landmarks(hash_M[order], frame_M[order])


def _mixed(code: np.ndarray) -> np.ndarray:
    """Each bit of the result depends on all of the code (a finaliser as of SplitMix64)."""
    for factor in _MIX:
        code = (code ^ (code >> np.uint64(32))) * factor
    mixed: np.ndarray = code ^ (code >> np.uint64(29))
    return mixed
