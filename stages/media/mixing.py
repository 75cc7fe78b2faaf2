"""Many channels to one, as people hear them, and without the offset of a converter.

    layout     channels count as in ITU-R BS.775: centre 1, left and right 0.71, surround 0.5, low frequencies 0, by
               their sum; of ambisonics the omnidirectional one; channels without names count alike. Stereo is the
               mean. (swresample's own matrix divides or not by the sample format, and knows nothing of the rest.)
    polarity   A channel that is the inverse of the loudest one would cancel it; people hear both, one by each ear.
               It is turned over where its correlation with the loudest is below −0.7.
    echo       A channel that is a delayed copy of the first one (of a microphone further away, or sent through another
               converter) would make a comb filter of the mean. The fainter of the two is left out, and the other
               counts for both, where their correlation at a lag of 0.5 to 40 ms exceeds 0.8, in size.
    noise      A channel that holds nothing but a steady noise (hum of an open input, time code, a broken converter) is
               left out where another one is alive and the noise is not far below it.
    offset     What is left of the mean over a fifth of a second is subtracted: no phase changes, nothing above 20 Hz by
               more than 5 % (at 80 Hz 0.2 %).

Polarity and noise are judged over five seconds before and after each half second, so what changes in the course of a
recording is followed, and memory holds ten seconds of all channels, whatever the length. Levels are never adapted:
a gain that moves would be taken for somebody who speaks up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.layout import AudioLayout
from av.audio.resampler import AudioResampler
from scipy.fft import next_fast_len

_BLOCK = 0.5  # seconds judged at a time
_AROUND = 10  # blocks before and after that have a say
_FADE = 0.02  # seconds in which a channel is turned over
_INVERSE, _NO_LONGER = -0.7, -0.3  # correlation with the loudest channel
_COPY, _NO_COPY = 0.8, 0.6  # correlation with the first channel at the best lag, …
_CLEARER = 0.2  # … and how much more than at none: a tone is like itself at many
_LEAST_LAG, _MOST_LAG = 2, 160  # samples of the judged rate: 0.5 ms … 40 ms
_JUDGED_RATE = 4_000  # Hz; polarity is a matter of voices, not of hum or hiss
_LEVEL = 0.02  # seconds of a level; a whole number of periods of 50 Hz
_STEADY, _LIVELY = 2.0, 10.0  # power exceeded 5 % of the time over that exceeded 95 %: 3 dB, 10 dB
_LOUD = 1e-3  # of the liveliest channel's power: 30 dB below, noise does no harm
_LEAST_LEVELS = 100  # two seconds, without which nothing is called steady
_SILENT = 1e-10  # power: −100 dB
_OFFSET = 0.1  # seconds averaged, twice

_SAFE_PLANES = 7  # channels; PyAV 18 reads the plane after the last of eight and more, and the process dies

_WEIGHTS = {"FC": 1.0, "FL": 0.5**0.5, "FR": 0.5**0.5, "DL": 0.5**0.5, "DR": 0.5**0.5, "NONE": 0.5}
_NOT_HEARD = ("LFE", "AMBI")

Piece = np.ndarray | int
"""Sound, or so many samples of silence."""


class Samples:
    """A decoded frame's samples as they are stored, [C, N]; for frames of one form."""

    def __init__(self) -> None:
        self._packer: AudioResampler | None = None

    def __call__(self, frame: AudioFrame) -> np.ndarray:
        channels = frame.layout.nb_channels
        wide = frame.format.name.startswith("s64")  # the one format that does not become an array
        if wide or (frame.format.is_planar and channels > _SAFE_PLANES):
            self._packer = self._packer or AudioResampler(format="dbl" if wide else frame.format.packed)
            return np.concatenate([part.to_ndarray().reshape(-1, channels).T for part in self._packer.resample(frame)])
        samples = frame.to_ndarray()
        return samples if frame.format.is_planar else samples.reshape(-1, channels).T


def as_floats(samples: np.ndarray) -> np.ndarray:
    """Samples of any type as float32 in −1…1: louder ones are clipped, as players do; NaN and infinite ones are 0."""
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if np.issubdtype(samples.dtype, np.integer):
        return (samples / 2.0 ** (8 * samples.itemsize - 1)).astype(np.float32)
    return np.clip(np.nan_to_num(samples, posinf=0.0, neginf=0.0), -1, 1).astype(np.float32)


def weights_of(layout: AudioLayout, left_out: Sequence[int] = ()) -> np.ndarray:
    """How much each channel counts, float32 [C], sum 1. left_out: channels that do not, unless that leaves none."""
    names = [channel.name for channel in layout.channels] or ["NONE"] * layout.nb_channels
    weights = [0.0 if name.startswith(_NOT_HEARD) and name != "AMBI0" else _WEIGHTS.get(name, 0.5) for name in names]
    heard = np.array(weights if any(weights) else [1.0] * len(weights))
    fewer = np.where(np.isin(np.arange(len(heard)), left_out), 0.0, heard)
    heard = fewer if fewer.any() else heard
    return (heard / heard.sum()).astype(np.float32)


def blocks(pieces: Iterable[Piece], size: int) -> Iterator[Piece]:
    """The same sound in pieces [C, size]; shorter ones only before silence and at the end."""
    for silent, run in groupby(pieces, lambda piece: isinstance(piece, int)):
        if silent:
            yield from run
            continue
        held: list[np.ndarray] = []
        for piece in run:
            held.append(piece)  # type: ignore[arg-type]
            if sum(part.shape[1] for part in held) >= size:
                whole = np.concatenate(held, axis=1)
                full = whole.shape[1] // size * size
                yield from np.split(whole[:, :full], full // size, axis=1)
                held = [whole[:, full:]]
        if rest := sum(part.shape[1] for part in held):
            yield np.concatenate(held, axis=1)[:, -rest:]


def mixed(pieces: Iterable[Piece], rate: int, weights: np.ndarray) -> Iterator[Piece]:
    """One channel of many.

    Args:
        pieces: [C, N] each, of any sample type.
        weights: of the channels, `weights_of`.

    Yields:
        float32 [N]; silence as it was.
    """
    inputs = (p if isinstance(p, int) else as_floats(p) for p in blocks(pieces, round(_BLOCK * rate)))
    if np.count_nonzero(weights) == 1:
        channel = int(weights.argmax())
        yield from (piece if isinstance(piece, int) else piece[channel] for piece in inputs)
        return
    gains: np.ndarray | None = None
    for piece, around in _with_surroundings(inputs, rate, _first(weights)):
        if isinstance(piece, int):
            yield piece
            continue
        before = gains
        gains = _gains(around, weights if before is None else before, weights)
        yield _faded(piece, gains if before is None else before, gains, round(_FADE * rate))


class _Judged(NamedTuple):
    """What a block has to say about its channels."""

    products_CC: np.ndarray  # sums of products, at 4 kHz and pre-emphasised
    levels_CK: np.ndarray  # power in each 20 ms
    echoes_CL: np.ndarray  # sums of products with the first channel at each lag


def _with_surroundings(inputs: Iterable[Piece], rate: int, first: int) -> Iterator[tuple[Piece, list[_Judged]]]:
    """Each piece, with what it and its neighbours on both sides say."""
    waiting: deque[Piece] = deque()
    said: deque[_Judged | None] = deque(maxlen=2 * _AROUND + 1)
    said.extend([None] * _AROUND)  # before the beginning
    for piece in inputs:
        waiting.append(piece)
        said.append(None if isinstance(piece, int) else _judge(piece, rate, first))
        if len(waiting) > _AROUND:
            yield waiting.popleft(), [j for j in said if j]
    while waiting:
        said.append(None)  # after the end
        yield waiting.popleft(), [j for j in said if j]


def _judge(piece: np.ndarray, rate: int, first: int) -> _Judged:
    step, level = max(1, rate // _JUDGED_RATE), round(_LEVEL * rate)
    channels, count = piece.shape
    coarse = piece[:, : count // step * step].reshape(channels, -1, step).mean(axis=2, dtype=np.float64)
    rise = np.diff(coarse, axis=1)
    parts = piece[:, : count // level * level].reshape(channels, -1, level).astype(np.float64)
    return _Judged(np.einsum("an,bn->ab", rise, rise), parts.var(axis=2), _echoes(rise, first))


def _echoes(rise_CN: np.ndarray, first: int) -> np.ndarray:
    size = next_fast_len(max(rise_CN.shape[1] + _MOST_LAG, 2 * _MOST_LAG + 1), real=True)
    spectra = np.fft.rfft(rise_CN, size)
    products = np.fft.irfft(spectra * np.conj(spectra[first]), size)
    return np.concatenate([products[:, -_MOST_LAG:], products[:, : _MOST_LAG + 1]], axis=1)


def _gains(around: list[_Judged], before: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The gain of each channel, float32 [C], from what a block and its neighbours say and the gains before it."""
    products_CC = np.sum([judged.products_CC for judged in around], axis=0)
    disturbing = _disturbing(np.concatenate([judged.levels_CK for judged in around], axis=1), weights)
    echoes_CL = np.sum([judged.echoes_CL for judged in around], axis=0)
    counted = np.where(disturbing, 0, weights)
    counted = _without_echoes(echoes_CL, np.diag(products_CC), before, counted, _first(weights))
    return (counted * _signs(products_CC, before, weights)).astype(np.float32)


def _without_echoes(
    echoes_CL: np.ndarray, power_C: np.ndarray, before: np.ndarray, counted: np.ndarray, first: int
) -> np.ndarray:
    """Weights, of which those of the first channel and its delayed copies are all given to the loudest of them."""
    middle = echoes_CL.shape[1] // 2
    alike_CL = np.abs(echoes_CL) / np.sqrt(np.maximum(power_C * power_C[first], 1e-30))[:, None]
    at_once_C = alike_CL[:, middle - _LEAST_LAG + 1 : middle + _LEAST_LAG].max(axis=1)
    best_C = alike_CL.max(axis=1)
    copies_C = (best_C >= np.where(before == 0, _NO_COPY, _COPY)) & (best_C > at_once_C + _CLEARER) & (counted > 0)
    if not copies_C.any() or not counted[first]:
        return counted
    copies_C[first] = True
    loudest = int(np.where(copies_C, power_C, -1).argmax())
    alone = np.where(copies_C, 0, counted)
    alone[loudest] = counted[copies_C].sum()
    return alone


def _signs(products_CC: np.ndarray, before: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """−1 for each channel that is the inverse of the others."""
    power = np.diag(products_CC) * (weights > 0)
    loudest = int(power.argmax())
    then = np.where(before < 0, -1, 1)
    if power[loudest] <= _SILENT:
        return then
    alike = products_CC[loudest] / np.sqrt(np.maximum(power * power[loudest], 1e-30))
    inverse = alike < np.where(then * then[loudest] < 0, _NO_LONGER, _INVERSE)
    signs = np.where(inverse & (power > 1e-6 * power[loudest]), -1, 1)
    return signs * signs[_first(weights)]


def _disturbing(levels_CK: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """True for each channel of steady noise beside one that is alive."""
    if levels_CK.shape[1] < _LEAST_LEVELS:
        return np.zeros(len(weights), bool)
    low, high = np.percentile(levels_CK, [5, 95], axis=1)
    lively = (high > _LIVELY * low) & (high > _SILENT) & (weights > 0)
    if not lively.any():
        return np.zeros(len(weights), bool)
    return (high < _STEADY * low) & (low > _LOUD * high[lively].max())


def _first(weights: np.ndarray) -> int:
    return int(np.flatnonzero(weights)[0])


def _faded(piece: np.ndarray, before: np.ndarray, gains: np.ndarray, fade: int) -> np.ndarray:
    out: np.ndarray = np.einsum("c,cn->n", gains, piece)
    if not np.array_equal(before, gains):
        ramp = (np.arange(1, fade + 1, dtype=np.float32) / fade)[: len(out)]
        out[: len(ramp)] += (1 - ramp) * np.einsum("c,cn->n", before - gains, piece[:, : len(ramp)])
    return out


def without_offset(pieces: Iterable[Piece], rate: int) -> Iterator[Piece]:
    """Mono pieces less what is constant in them, or changes more slowly than five times a second."""
    window = round(_OFFSET * rate)
    for silent, run in groupby(pieces, lambda piece: isinstance(piece, int)):
        if silent:
            yield from run
        else:
            yield from _centred(run, window)  # type: ignore[arg-type]


def _centred(run: Iterable[np.ndarray], window: int) -> Iterator[np.ndarray]:
    """A stretch of sound less its mean, mirrored at both ends; the mean is of `window` − 1 samples on each side."""
    halo, held, begun = window - 1, np.zeros(0, np.float32), False
    for piece in run:
        held = np.concatenate([held, piece])
        if not begun and len(held) > halo:
            held, begun = np.pad(held, (halo, 0), mode="symmetric"), True
        if begun and len(held) > 2 * halo:
            yield _less_mean(held, window)
            held = held[len(held) - 2 * halo :]
    if len(held):
        yield _less_mean(np.pad(held, (0 if begun else halo, halo), mode="symmetric"), window)


def _less_mean(held: np.ndarray, window: int) -> np.ndarray:
    mean = held.astype(np.float64)
    for _ in range(2):
        total = np.cumsum(mean)
        total = np.concatenate([total[window - 1 : window], total[window:] - total[:-window]])
        mean = total / window
    inner: np.ndarray = held[window - 1 : len(held) - window + 1] - mean
    return inner.astype(np.float32)
