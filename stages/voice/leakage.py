"""How much of the other voice is left in a participant's track, in dB.

    residual = power of the other's voice in this track, mean over the time in which the other speaks
             / power of the own voice in it,             mean over the time in which its owner speaks

One definition for all ways to a track, and it does not depend on how much either of them talks. Powers are of voices:
the noise floor, which is the median of frames in which nobody speaks, is subtracted. Nobody hands out the two voices
apart, so the numerator is put together from what can be measured:

    own track   While only the other speaks, its power here over its power on its own track, in 0.2 s each: the median
                over the louder half is the leak's gain. A median, because the listener breathes, laughs and says "mhm"
                there, which is no leak; of a track in which that fills most of the time nothing better is known.
    mask        Inside a mask the other is there in full: the mix's power, times the mask's squared gain; where both
                speak, the share of it that the two have by their powers while alone. Right as far as the turns are.
    network     Masks outside of overlaps as above. Inside, the network is put to the test on the very same voices: what
                each says alone is added up, two seconds of overlap at a time, and taken apart as real overlaps are;
                the truth is known there. Both tracks sum to the mix, so they share one error, and half of its power is
                the other's voice and half what is missing of the own one: exact for equal leaks, else 3 dB at most too
                low for the track that leaks more. It is taken in relation to the mix's power. (Correlation of the two
                outputs, in blocks and bands, finds linear leaks to 1 dB, but sees −39 dB where an ideal ratio mask
                leaves −15: masks leave no correlation.)

Below −60 dB nothing is told apart from nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import uniform_filter1d

from visavis.schemas import FPS, SAMPLES_PER_FRAME

LEAST_DB = -60.0
_ENOUGH = FPS // 2  # frames without which a power is not known: half a second
_BLOCK = 5  # frames (0.2 s) over which a leak may come late or reverberate

Pair = tuple[float | None, float | None]


def frame_power(audio_N: np.ndarray) -> np.ndarray:
    """Mean square of each frame, float32 [T]; N = T · 640."""
    frames_TS = audio_N.reshape(-1, SAMPLES_PER_FRAME)
    power_T: np.ndarray = np.einsum("ts,ts->t", frames_TS, frames_TS) / SAMPLES_PER_FRAME
    return power_T


def residual_of_tracks(powers: Sequence[np.ndarray], state_T: np.ndarray) -> Pair:
    """Of a track each.

    Args:
        powers: of the two tracks, `frame_power`.
        state_T: uint8, bit i: participant i speaks.
    """
    voices = [voice_power(power_T, state_T, i) for i, power_T in enumerate(powers)]
    found = []
    for i, (own_T, other_T) in enumerate((tuple(powers), tuple(powers)[::-1])):
        gain = _leak(own_T, other_T, state_T, 1 - i)
        other = voices[1 - i]
        found.append(_decibels(None if gain is None or other is None else gain * other, voices[i]))
    return found[0], found[1]


def residual_of_mix(
    power_T: np.ndarray,
    gains: Sequence[np.ndarray],
    state_T: np.ndarray,
    *,
    patched_T: np.ndarray | None = None,
    crosstalk: float | None = None,
) -> Pair:
    """Of two tracks that are made of one mix.

    Args:
        power_T: of the mix, `frame_power`.
        gains: of each participant's mask, without what a network's patches replace, its mean square in each frame.
        patched_T: of the patches' weight, its mean square in each frame; none without a network.
        crosstalk: power of the other's voice in a patch over the mix's there, None where it is not known.
    """
    one, other = (voice_power(power_T, state_T, i) for i in (0, 1))
    if one is None or other is None:
        return None, None
    alone = (one, other)
    speech_T = np.maximum(0.0, power_T.astype(np.float64) - noise_power(power_T, state_T))
    found = []
    for i in (0, 1):
        own_T, other_T = (_share(speech_T, state_T, alone, person) for person in (i, 1 - i))
        heard_T = other_T * gains[i]
        if patched_T is not None and crosstalk is not None:
            heard_T += crosstalk * speech_T * patched_T
        heard = float(heard_T[state_T >> (1 - i) & 1 == 1].mean())
        unknown = patched_T is not None and crosstalk is None
        found.append(_decibels(None if unknown else heard, float(own_T[state_T >> i & 1 == 1].mean())))
    return found[0], found[1]


def overlapped(state_T: np.ndarray, participant: int) -> float:
    """Share of the time in which a participant speaks that the other speaks, too."""
    own = int((state_T >> participant & 1).sum())
    return round(int((state_T == 3).sum()) / own, 4) if own else 0.0


def voice_power(power_T: np.ndarray, state_T: np.ndarray, participant: int) -> float | None:
    """Mean power of a voice where it is alone, without the noise."""
    alone_T = state_T == 1 << participant
    if alone_T.sum() < _ENOUGH:
        return None
    power = float(power_T[alone_T].mean(dtype=np.float64)) - noise_power(power_T, state_T)
    return power if power > 0 else None


def _share(speech_T: np.ndarray, state_T: np.ndarray, alone: tuple[float, float], participant: int) -> np.ndarray:
    """Power of a voice in a mix: all that is heard where it is alone, its usual share where both speak."""
    share = alone[participant] / (alone[0] + alone[1])
    share_T: np.ndarray = np.array([0, 0, 0, share])[state_T]
    share_T[state_T == 1 << participant] = 1
    return speech_T * share_T


def noise_power(power_T: np.ndarray, state_T: np.ndarray) -> float:
    """Power of the noise; where somebody speaks all the time, of the quietest twentieth."""
    quiet = power_T[state_T == 0]
    return float(np.median(quiet) if len(quiet) >= _ENOUGH else np.percentile(power_T, 5))


def _leak(own_T: np.ndarray, other_T: np.ndarray, state_T: np.ndarray, other: int) -> float | None:
    """Power gain with which the other's voice gets from its track into this one."""
    alone_T = uniform_filter1d((state_T == 1 << other).astype(np.float64), _BLOCK) > 1 - 1e-9
    if alone_T.sum() < _ENOUGH:
        return None
    own, louder = (uniform_filter1d(p.astype(np.float64), _BLOCK)[alone_T] for p in (own_T, other_T))
    loud = (louder >= np.median(louder)) & (louder > 0)
    if not loud.any():
        return None
    return max(0.0, float(np.median((own[loud] - noise_power(own_T, state_T)) / louder[loud])))


def _decibels(other: float | None, own: float | None) -> float | None:
    if other is None or own is None:
        return None
    return round(max(LEAST_DB, 10 * float(np.log10(max(other, 1e-30) / own))), 2)
