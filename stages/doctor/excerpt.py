"""A stretch of a conversation with all that a build keeps of both people, and sums of what is measured in it.

P = 2 people, T frames of 25 a second, D columns of motion, N = T · 640 samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from visavis.schemas import SAMPLES_PER_FRAME
from visavis.stages.voice.sound import SILENT_DB

Sums = dict[str, np.ndarray]
"""Figures that add up over the stretches of a conversation: float64 arrays by name, of shapes that are the same for all
stretches of a corpus."""


@dataclass(frozen=True)
class Excerpt:
    """audio_PN: float32 at 16 kHz. state_T: uint8, bit i: person i has a turn, bit 2 + i: makes a back-channel.

    first: frame of the conversation's grid. frames: length of the whole conversation. whole_state_T: its state, with
    its first stretch; None with others, and where nobody knows. own_tracks: each has a track of their own; False: a mix
    was shared out. motion_PTD: float32, and valid_PT, or no columns where nobody knows.
    """

    audio_PN: np.ndarray
    state_T: np.ndarray
    motion_PTD: np.ndarray
    valid_PT: np.ndarray
    first: int
    frames: int
    own_tracks: bool
    whole_state_T: np.ndarray | None = None

    @cached_property
    def power_PT(self) -> np.ndarray:
        """Mean square of each frame without its mean, float64 [2, T]."""
        frames_PTS = self.audio_PN.reshape(2, -1, SAMPLES_PER_FRAME).astype(np.float64)
        return frames_PTS.var(axis=2)

    @cached_property
    def level_PT(self) -> np.ndarray:
        """dB of full scale, float64 [2, T], `SILENT_DB` and more."""
        return np.maximum(SILENT_DB, 10 * np.log10(self.power_PT + 1e-12))

    @property
    def speaks_PT(self) -> np.ndarray:
        """Who has a turn, bool [2, T]."""
        return np.stack([self.state_T & 1, self.state_T >> 1 & 1]).astype(bool)


def added(one: Sums, other: Sums) -> Sums:
    return {name: one[name] + other[name] for name in one} if one else other


def moved_by(values_T: np.ndarray, others_T: np.ndarray, most: int) -> np.ndarray:
    """Σ values[t] · others[t + lag] for lags −most … most, [2 · most + 1]."""
    from scipy.signal import correlate

    whole = correlate(others_T, values_T, mode="full", method="auto")
    middle = len(values_T) - 1
    found = np.zeros(2 * most + 1)
    first, last = max(0, middle - most), min(len(whole), middle + most + 1)
    found[first - middle + most : last - middle + most] = whole[first:last]
    return found
