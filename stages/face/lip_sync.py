"""Sync: how late a voice is against the lips that speak it.

At each lag, canonical correlation of what inner and outer lips do (distance, speed, how much they move) with what is
heard (energy in three bands, its change), as the mutual information of Gaussians: −½ log det(1 − MᵀM) of the whitened
cross-covariance M (Slaney and Covell 2000, "FaceSync"; Hershey and Movellan 1999, "Audio vision"). It adds up over a
recording, so a minute of weak evidence is strong. How much of it is chance is read off the recording itself: lips
against speech of quite other moments.

The trade-off: two numbers for each frame of lips and no learnt model, so it costs next to nothing and needs nobody's
weights; the price is that it takes 4 to 60 s of speech where a network that sees the mouth takes a few. Too little
evidence is no evidence: nothing is said then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from visavis.schemas import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME

_RATE = 100  # sound features a second: lags come in steps of 10 ms
_PER_FRAME = _RATE // FPS
_SEARCH = _RATE  # steps to either side: 1 s
_APART = 16  # steps; two lags further apart than this are two answers
_LEAD = 0.020  # seconds by which lips are ahead of the sound they make, and pictures of their own moment
_BANDS = ((100, 800), (800, 2500), (3000, 7500))  # Hz: voiced, open vowels, fricatives
_AROUND = 16  # frames beside speech: lips that begin and end with the sound say most
_LEAST = 2.0  # seconds of speech with lips in view; chance cannot be told from less
_SPECTRUM = 512  # samples
_BLOCK = 60 * _RATE
_RIDGE = 0.05
_OUTLIER = 4.0  # standard deviations, at which features are cut
_SURE = 12.0  # nats
_END = 60 * FPS  # frames of speech at either end of a recording, at most, that are asked whether its clocks agree
_FOLLOWS = 0.3  # correlation of a speaker's lips with the own sound, on five real speakers .1 to .8, mean .35 and .30
_FRAMES_ALIKE = 3.0  # neighbouring frames that say the same
_TRIED = range(-3, 7)  # frames by which sound may be late for lips, when asked who follows it


class Lag(NamedTuple):
    """What lips say, in nats: information_L at each lag of the search, chance_C at lags far from it.

    seconds: of speech with lips to it.
    """

    information: np.ndarray
    chance: np.ndarray
    seconds: float


class Offset(NamedTuple):
    """ms: positive where the sound is late. confidence: nats by which the lag beats all lags further than 160 ms from
    it, chance ones among them; negative where it does not."""

    ms: float
    confidence: float

    @property
    def sure(self) -> bool:
        return self.confidence >= _SURE


def lag_of(mouth_T2: np.ndarray, audio_N: np.ndarray, speaks_T: np.ndarray) -> Lag | None:
    """How well a voice fits a pair of lips at each lag within ±1 s.

    Args:
        mouth_T2: distances of the inner and of the outer lips on the 25 fps grid, NaN where not seen.
        audio_N: float32 at 16 kHz, on the same clock.
        speaks_T: bool, the frames in which this person is heard, by the sound's clock. What another says meanwhile
            fits no lips of this face and makes the evidence fainter, not wrong.

    Returns:
        None where less than 2 s of speech have lips to them.
    """
    from scipy.ndimage import binary_dilation

    seen_T = np.isfinite(mouth_T2).all(axis=1)
    seconds = (seen_T & speaks_T).sum() / FPS
    if seconds < _LEAST:
        return None
    speaks_T = np.asarray(binary_dilation(speaks_T, iterations=_AROUND))
    both_T = seen_T & speaks_T
    lips_TK = _whitened(_lip_features(mouth_T2), both_T) * both_T[:, None]
    heard_S = np.repeat(speaks_T, _PER_FRAME)
    sound_SK = _whitened(_sound_features(audio_N, len(heard_S)), heard_S) * heard_S[:, None]

    chance_C = _chance(lips_TK[both_T], sound_SK[::_PER_FRAME][both_T])
    count = int(both_T.sum())
    information_L = np.array([_at_lag(lips_TK, sound_SK, count, k) for k in range(-_SEARCH, _SEARCH + 1)])
    # Twice the information times the number of independent frames is chi-squared with one degree for each pair.
    independent = lips_TK.shape[1] * sound_SK.shape[1] / (2 * max(chance_C.mean(), 1e-9))
    return Lag(independent * information_L, independent * chance_C, float(seconds))


def offset_of(lags: Sequence[Lag]) -> Offset:
    """How late a sound is, by these lips together."""
    information_L = np.sum([lag.information for lag in lags], axis=0)
    chances = min(len(lag.chance) for lag in lags)
    chance_C = np.sum([lag.chance[:chances] for lag in lags], axis=0)
    best = int(information_L.argmax())
    elsewhere = np.abs(np.arange(len(information_L)) - best) > _APART
    rival = max(information_L[elsewhere].max(), chance_C.max())
    seconds = (best - _SEARCH + _vertex(information_L, best)) / _RATE - _LEAD
    return Offset(round(seconds * 1000, 1), round(float(information_L[best] - rival), 2))


def file_offset(lags: Sequence[Lag]) -> Offset | None:
    """`offset_of` all lips together, which one clock moves alike; where that is not sure, of the surest pair alone."""
    if not lags:
        return None
    together = offset_of(lags)
    alone = max((offset_of([lag]) for lag in lags), key=lambda offset: offset.confidence)
    return together if together.sure or not alone.sure else alone


def drift_of(voices: Sequence[tuple[np.ndarray, np.ndarray]], audio_N: np.ndarray) -> float | None:
    """Milliseconds by which a sound is later at the end of a recording than at its beginning.

    Asked are the first and the last third of what is said, at most a minute of each. Clocks so wrong that they part
    by some 0.2 s within a third are not told: no lag is sure there.

    Args:
        voices: mouth_T2 and speaks_T, as for `lag_of`, of everybody whose sound it is.

    Returns:
        None where one of the ends is not sure.
    """
    ends = [_offset_within(voices, audio_N, span) for span in _ends(np.any([said_T for _, said_T in voices], axis=0))]
    first, last = (offset.ms if offset and offset.sure else None for offset in ends)
    return None if first is None or last is None else last - first


def _ends(speech_T: np.ndarray) -> tuple[slice, slice]:
    so_far_T = np.cumsum(speech_T)
    part = min(int(so_far_T[-1]) // 3, _END)
    begin, end = (int(np.searchsorted(so_far_T, count, side="right")) for count in (part, so_far_T[-1] - part))
    return slice(0, begin), slice(end, len(speech_T))


def _offset_within(voices: Sequence[tuple[np.ndarray, np.ndarray]], audio_N: np.ndarray, span: slice) -> Offset | None:
    part_N = audio_N[span.start * SAMPLES_PER_FRAME : span.stop * SAMPLES_PER_FRAME]
    lags = [lag_of(mouth_T2[span], part_N, speaks_T[span]) for mouth_T2, speaks_T in voices]
    return file_offset([lag for lag in lags if lag])


def follows(mouths_PT2: np.ndarray, audio_N: np.ndarray, speech_T: np.ndarray) -> np.ndarray:
    """Nats [P, T] by which each person's lips are moved by what is heard, rather than by something else.

    Two things that hold for any speaker: lips are apart where the middle and high bands are loud, and they open where
    sound grows louder. Each pair is taken for Gaussian with a correlation of 0.3: what is summed is its pointwise
    mutual information. Lips that hardly move say little; that move otherwise than the sound, speak against their owner.

    Args:
        mouths_PT2: as `lag_of`, of everybody. speech_T: bool, frames in which anybody is heard.
    """
    frames = len(speech_T)
    if not speech_T.any():
        return np.zeros(mouths_PT2.shape[:2])
    sound_SK = _sound_features(audio_N, frames * _PER_FRAME)
    pairs_SK = np.stack([sound_SK[:, 1:3].mean(axis=1), sound_SK[:, 3]], axis=1)
    sound_TK = _standard(pairs_SK[::_PER_FRAME], speech_T)
    lips_PTK = np.stack([_moved(mouth_T2, speech_T) for mouth_T2 in mouths_PT2])
    found_DPT = np.stack([_told(lips_PTK, np.roll(sound_TK, -lag, axis=0)) * speech_T for lag in _TRIED])
    # One lag for everybody: the one at which, second by second, somebody's lips fit best.
    second_DPS = np.add.reduceat(found_DPT, np.arange(0, frames, FPS), axis=2)
    best: np.ndarray = found_DPT[int(second_DPS.max(axis=1).sum(axis=1).argmax())]
    return best


def _moved(mouth_T2: np.ndarray, speech_T: np.ndarray) -> np.ndarray:
    """[T, 2]: how far the lips are apart without the slow part, and their speed; in deviations, NaN where not seen."""
    seen_T = np.isfinite(mouth_T2).all(axis=1)
    if (seen_T & speech_T).sum() < FPS:
        return np.full((len(mouth_T2), 2), np.nan)
    features_TK = _lip_features(mouth_T2)
    both_TK = np.stack([features_TK[:, :2].mean(axis=1), features_TK[:, 2:4].mean(axis=1)], axis=1)
    return np.where(seen_T[:, None], _standard(both_TK, seen_T & speech_T), np.nan)


def _standard(values_TK: np.ndarray, where_T: np.ndarray) -> np.ndarray:
    sample = values_TK[where_T]
    scaled: np.ndarray = (values_TK - sample.mean(axis=0)) / np.maximum(sample.std(axis=0), 1e-9)
    return np.clip(scaled, -_OUTLIER, _OUTLIER)


def _told(lips_PTK: np.ndarray, sound_TK: np.ndarray) -> np.ndarray:
    """Pointwise mutual information of standard Gaussians with the correlation of speakers, [P, T] nats."""
    r = _FOLLOWS
    joint = (r * lips_PTK * sound_TK - 0.5 * r**2 * (lips_PTK**2 + sound_TK**2)) / (1 - r**2)
    nats_PT = (joint - 0.5 * np.log(1 - r**2)).sum(axis=2) / _FRAMES_ALIKE
    return np.nan_to_num(nats_PT)


def _at_lag(lips_TK: np.ndarray, sound_SK: np.ndarray, count: int, lag: int) -> float:
    """Information about the lips of a frame in the sound `lag` steps after it.

    Divided by all frames of speech instead of those that have a partner at this lag, which says less than there is
    where a short clip's ends hang over, and so never finds much in a few frames.
    """
    first = max(0, -(lag // _PER_FRAME))
    sound_TK = sound_SK[first * _PER_FRAME + lag :: _PER_FRAME]
    frames = min(len(lips_TK) - first, len(sound_TK))
    return float(_information(lips_TK[first : first + frames].T @ sound_TK[:frames] / count))


def _chance(lips_FK: np.ndarray, sound_FK: np.ndarray) -> np.ndarray:
    """Information in the sound of other moments: of all turns of the one against the other, those beyond the search."""
    frames = len(lips_FK)
    spectrum = np.fft.rfft(lips_FK, axis=0).conj()[:, :, None] * np.fft.rfft(sound_FK, axis=0)[:, None, :]
    turned_FKK = np.fft.irfft(spectrum, frames, axis=0) / frames
    nearest = min(_SEARCH // _PER_FRAME + _APART // _PER_FRAME, frames // 3)
    return _information(turned_FKK[nearest : frames - nearest])


def _information(cross_KK: np.ndarray) -> np.ndarray:
    """Of a whitened cross-covariance, or of many; nats."""
    gram = np.swapaxes(cross_KK, -1, -2) @ cross_KK
    result: np.ndarray = -0.5 * np.linalg.slogdet(np.eye(gram.shape[-1]) - 0.999 * gram)[1]
    return result


def _whitened(features_TK: np.ndarray, where_T: np.ndarray) -> np.ndarray:
    """Uncorrelated there, with unit variance."""
    sample = features_TK[where_T]
    scaled_TK = (features_TK - sample.mean(axis=0)) / np.maximum(sample.std(axis=0), 1e-9)
    np.clip(scaled_TK, -_OUTLIER, _OUTLIER, out=scaled_TK)
    sample = scaled_TK[where_T]
    covariance = sample.T @ sample / len(sample) + _RIDGE * np.eye(sample.shape[1])
    whitened: np.ndarray = scaled_TK @ np.linalg.inv(np.linalg.cholesky(covariance)).T
    return whitened


def _lip_features(mouth_T2: np.ndarray) -> np.ndarray:
    """[T, 5]: how far inner and outer lips are apart, the speed of both, and how much the inner ones move, each without
    its slow part."""
    from scipy.ndimage import gaussian_filter1d

    seen = np.flatnonzero(np.isfinite(mouth_T2).all(axis=1))
    apart_T2 = np.stack([np.interp(np.arange(len(mouth_T2)), seen, lips[seen]) for lips in mouth_T2.T], axis=1)
    speed_T2 = np.gradient(apart_T2, axis=0)
    moves_T1 = gaussian_filter1d(np.abs(speed_T2[:, :1]), 1.5, axis=0)
    high_T2, varying_T1 = (x - gaussian_filter1d(x, s, axis=0) for x, s in ((apart_T2, 12.0), (moves_T1, 25.0)))
    return np.concatenate([high_T2, speed_T2, varying_T1], axis=1)


def _sound_features(audio_N: np.ndarray, steps: int) -> np.ndarray:
    """[S, 4]: compressed energy in three bands without its slow part, and the change of their mean."""
    from scipy.ndimage import gaussian_filter1d

    energy_SB = _band_energy(audio_N, steps)
    loud = energy_SB[energy_SB.sum(axis=1) >= np.median(energy_SB.sum(axis=1))]
    # The fourth root is the square root of the amplitude: close to loudness, and at rest in silence.
    level_SB = gaussian_filter1d((energy_SB / np.maximum(np.median(loud, axis=0), 1e-12)) ** 0.25, 2.0, axis=0)
    change_S = np.gradient(gaussian_filter1d(level_SB.mean(axis=1), 2.0))
    return np.concatenate([level_SB - gaussian_filter1d(level_SB, 48.0, axis=0), change_S[:, None]], axis=1)


def _band_energy(audio_N: np.ndarray, steps: int) -> np.ndarray:
    """[S, 3] around the moments s / 100 s; a minute's spectra at a time."""
    hop = SAMPLE_RATE // _RATE
    pitch_F = np.fft.rfftfreq(_SPECTRUM, 1 / SAMPLE_RATE)
    bands = [(pitch_F >= low) & (pitch_F < high) for low, high in _BANDS]
    taper = np.hanning(_SPECTRUM).astype(np.float32)
    energy_SB = np.zeros((steps, len(bands)))
    for first in range(0, steps, _BLOCK):
        last = min(first + _BLOCK, steps)
        begin, end = first * hop - _SPECTRUM // 2, (last - 1) * hop + _SPECTRUM // 2
        part = audio_N[max(0, begin) : end]
        part = np.pad(part, (max(0, -begin), end - max(0, begin) - len(part)))
        pieces = np.lib.stride_tricks.sliding_window_view(part, _SPECTRUM)[::hop]
        power = np.abs(np.fft.rfft(pieces * taper, axis=1)) ** 2
        for b, band in enumerate(bands):
            energy_SB[first:last, b] = power[:, band].sum(axis=1)
    return energy_SB


def _vertex(values: np.ndarray, best: int) -> float:
    """Where between its neighbours the top of a parabola through three values lies."""
    if not 0 < best < len(values) - 1:
        return 0.0
    before, top, after = values[best - 1 : best + 2]
    bend = before - 2 * top + after
    return float(0.5 * (before - after) / bend) if bend < 0 else 0.0
