"""Where speech begins and ends: roughly by Silero VAD, exactly by the level of the sound.

Silero hears the soft beginnings of real voices 0.07 to 0.10 s late (median of four labelled recordings) and those of
synthetic ones at once, so no constant would mend it; the sound itself tells.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from visavis.schemas import SAMPLE_RATE
from visavis.training.runs import runs

VAD_STEP = 512
"""Samples between probabilities of `stages.models.networks.load_voice_activity`."""
HEARD = 0.5  # activity above which a voice, or speech, is present
LATE = 0.15  # seconds by which the VAD may hear speech begin too late, …
EARLY = 0.10  # … and end too early
FAINT = -30.0  # dB beside the loud part of a stretch of speech: what is fainter is silence

BAND = (200.0, 4000.0)  # Hz that carry a voice; bass, drums and cymbals lie mostly outside
_PART = VAD_STEP * 18_750  # samples filtered together: ten minutes


def speech_probability(activity: Callable[[np.ndarray], np.ndarray], audio_N: np.ndarray) -> np.ndarray:
    """`load_voice_activity`'s function under music: the larger of what it hears in all the sound and in `BAND`."""
    from scipy.signal import butter, sosfilt

    band = butter(4, BAND, "bandpass", fs=SAMPLE_RATE, output="sos")
    heard = activity(audio_N)
    for first in range(0, len(audio_N), _PART):
        within = activity(sosfilt(band, audio_N[first : first + _PART]).astype(np.float32))
        part = heard[first // VAD_STEP : first // VAD_STEP + len(within)]
        np.maximum(part, within, out=part)
    return heard


def heard_spans(vad: np.ndarray, audio_N: np.ndarray) -> np.ndarray:
    """Start and end of speech in seconds, float64 [S, 2], from the probabilities of `load_voice_activity`.

    Ends are moved back by one step: the VAD's memory lets go about 50 ms after the last sound. Then edges move
    outwards as long as the sound goes on: soft beginnings of real voices are heard late, those of synthetic ones not.
    """
    spans = (np.array(runs(vad > HEARD), np.float64).reshape(-1, 2) - [0, 1]) * (VAD_STEP / SAMPLE_RATE)
    hop = SAMPLE_RATE // 100
    hops = audio_N[: len(audio_N) // hop * hop].reshape(-1, hop)
    power = np.einsum("ij,ij->i", hops, hops)  # no copy of an hour of sound
    for span in spans:
        first, last = (min(round(edge * 100), len(power)) for edge in span)
        if last <= first:
            continue
        silent = power <= np.percentile(power[first:last], 75) * 10 ** (FAINT / 10)
        span[0] -= _until(silent[:first][::-1], round(LATE * 100)) / 100
        span[1] += _until(silent[last:], round(EARLY * 100)) / 100
    return spans


def _until(silent: np.ndarray, most: int) -> int:
    """How many hops of sound come before the first silent one, `most` at most."""
    found = np.flatnonzero(silent[:most])
    return int(found[0]) if len(found) else min(most, len(silent))
