"""What is wrong with a track by itself: dead, clipped, without its upper band, with holes, faint, off its middle."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from visavis.schemas import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.stages.doctor.excerpt import SILENT_DB, Excerpt, Sums
from visavis.stages.doctor.findings import Sign, certainty
from visavis.stages.doctor.kinds import Kind

_LEVELS = np.arange(SILENT_DB - 1, 2.0, 2.0)  # dB, edges of bins for levels of frames
_PEAKS = np.arange(-40.0, 0.3, 0.25)  # dB, … for samples
_FULL = 32_767
_VALUES_DB = 20 * np.log10((np.arange(_FULL + 1) + 0.5) / _FULL)
_FFT = 512
_BANDS = 32  # of 250 Hz
_ENOUGH = 8 * FPS  # frames
_DEAD = -62.0  # dB below which there is no voice in the loudest twentieth
_STEADY = 5.0  # dB by which a voice lifts the loudest twentieth over the tenth quietest
_PILED = 2.5  # times as many samples in a quarter of a dB at the top as in those below
_CLIPPED = 40  # samples up there at least …
_CLIPPED_SHARE = 2e-4  # … and of all
_WIDEBAND = 27  # the band at 6.75 kHz: what telephony calls wideband goes up to 7, and harms nothing
_CLIFF, _FLOOR = 14.0, 30.0  # dB of fall within 500 Hz, and of all above against the loudest band
_HOLES = 0.01  # share of the frames
_FAINT = 18.0  # dB below what is usual


def measure(excerpt: Excerpt) -> Sums:
    """Histograms of levels and samples, and the long-term spectrum, of both tracks."""
    audio_PN = excerpt.audio_PN
    flat_PT = np.ptp(audio_PN.reshape(2, -1, SAMPLES_PER_FRAME), axis=2) == 0
    levels = [np.histogram(np.clip(level_T, _LEVELS[0], 0), _LEVELS)[0] for level_T in excerpt.level_PT]
    holes = [_holes(flat_T, level_T) for flat_T, level_T in zip(flat_PT, excerpt.level_PT, strict=True)]
    return {
        "sound.frames": np.array(float(len(excerpt.state_T))),
        "sound.levels": np.stack(levels) * 1.0,
        "sound.peaks": np.stack([_peaks(track_N) for track_N in audio_PN]),
        "sound.bands": np.stack([_bands(track_N) for track_N in audio_PN]),
        "sound.flat": flat_PT.sum(axis=1) * 1.0,
        "sound.holes": np.array(holes),
        "sound.mean": audio_PN.sum(axis=1, dtype=np.float64) / SAMPLES_PER_FRAME,
        "sound.own": np.array(float(excerpt.own_tracks) * len(excerpt.state_T)),
    }  # fmt: skip


def judge(sums: Sums, usual_db: float) -> Iterator[Sign]:
    """usual_db: level of the loudest twentieth that is usual in the corpus."""
    if sums["sound.frames"] < _ENOUGH:
        return
    own = sums["sound.own"] > 0
    for person in (0, 1):
        if dead := _dead(sums, person):
            yield dead
            continue
        yield from filter(None, (_clipped(sums, person), _band_limited(sums, person)))
        if own:
            yield from filter(None, (_dropouts(sums, person),))
        yield from filter(None, (_quiet(sums, person, usual_db), _offset(sums, person)))


def loudness(sums: Sums, person: int, share: float = 0.95) -> float:
    """dB of frames that so many are fainter than; of digital silence nothing is counted."""
    counts = sums["sound.levels"][person].copy()
    counts[0] -= min(counts[0], sums["sound.flat"][person])
    if counts.sum() < 1:
        return SILENT_DB
    return float(_LEVELS[np.searchsorted(np.cumsum(counts), share * counts.sum())] + 1)


def _dead(sums: Sums, person: int) -> Sign | None:
    loud, quiet = loudness(sums, person), loudness(sums, person, 0.1)
    if loud <= _DEAD:
        said = "digital silence" if loud <= SILENT_DB else f"nothing louder than {loud:.0f} dB"
        return Sign(Kind.DEAD_TRACK, certainty(-loud, -_DEAD, 75), said, person)
    if sums["sound.own"] > 0 and loud - quiet < _STEADY:
        return Sign(
            Kind.DEAD_TRACK,
            certainty(-(loud - quiet), -_STEADY, -2),
            f"steady noise at {loud:.0f} dB and no voice",
            person,
        )
    return None


def _clipped(sums: Sums, person: int) -> Sign | None:
    """Samples pile up below the highest one, where those of sound become rare."""
    counts = sums["sound.peaks"][person]
    (there,) = np.nonzero(counts)
    if not len(there) or there[-1] < 8:
        return None
    top = int(there[-1])
    piled, below = counts[top - 1 : top + 1].max(), counts[top - 4 : top - 1].mean()
    share = piled / (sums["sound.frames"] * SAMPLES_PER_FRAME)
    ratio = float(piled / (below + 1))
    if piled < _CLIPPED or share < _CLIPPED_SHARE or ratio < _PILED:
        return None
    said = f"{100 * share:.2g} % of the samples at {_PEAKS[top]:.1f} dB"
    return Sign(Kind.CLIPPED, certainty(ratio, _PILED, 8), said, person)


def _band_limited(sums: Sums, person: int) -> Sign | None:
    """A cliff in the long-term spectrum, with nothing above it."""
    bands_db = 10 * np.log10(sums["sound.bands"][person] + 1e-14)
    top = float(bands_db.max())
    for edge in range(8, _WIDEBAND):
        fall = bands_db[edge - 1] - bands_db[edge + 1]
        above = top - float(bands_db[edge + 1 :].max())
        if fall > _CLIFF and above > _FLOOR and bands_db[edge - 1] > top - 45:
            hertz = edge * SAMPLE_RATE / 2 / _BANDS
            return Sign(Kind.BAND_LIMITED, certainty(fall, _CLIFF, 30), f"nothing above {hertz / 1000:.2g} kHz", person)
    return None


def _dropouts(sums: Sums, person: int) -> Sign | None:
    share = float(sums["sound.holes"][person] / sums["sound.frames"])
    if share < _HOLES:
        return None
    return Sign(Kind.DROPOUTS, certainty(share, _HOLES, 0.05), f"{100 * share:.0f} % of it are holes", person)


def _quiet(sums: Sums, person: int, usual_db: float) -> Sign | None:
    below = usual_db - loudness(sums, person)
    if below < _FAINT:
        return None
    return Sign(Kind.QUIET, certainty(below, _FAINT, 30), f"{below:.0f} dB below what is usual here", person)


def _offset(sums: Sums, person: int) -> Sign | None:
    mean = float(sums["sound.mean"][person] / sums["sound.frames"])
    if abs(mean) < 0.02:
        return None
    return Sign(Kind.DC_OFFSET, certainty(abs(mean), 0.02, 0.05), f"its mean is {mean:+.2f} of full scale", person)


def _peaks(track_N: np.ndarray) -> np.ndarray:
    """How many samples there are of each loudness, by 16-bit values, which is ten times as fast as by logarithms."""
    counts = np.bincount((np.minimum(np.abs(track_N), 1.0) * _FULL).astype(np.uint16), minlength=_FULL + 1)
    found: np.ndarray = np.histogram(_VALUES_DB, _PEAKS, weights=counts)[0]
    return found


def _bands(track_N: np.ndarray) -> np.ndarray:
    """Mean power in each band over stretches of 32 ms, summed over them: float64 [32]."""
    from scipy.fft import rfft

    blocks = track_N[: len(track_N) // _FFT * _FFT].reshape(-1, _FFT)
    blocks = blocks - blocks.mean(axis=1, keepdims=True)  # an offset would leak into the lowest band
    spectra = rfft(blocks * np.hanning(_FFT).astype(np.float32))
    power = (spectra.real**2 + spectra.imag**2).sum(axis=0, dtype=np.float64)
    found: np.ndarray = power[1:].reshape(_BANDS, -1).mean(axis=1) / _FFT
    return found


def _holes(flat_T: np.ndarray, level_T: np.ndarray) -> float:
    """Frames of digital silence between frames of sound, where the track has a floor of noise elsewhere."""
    if flat_T.all() or not flat_T.any():
        return 0.0
    heard = level_T[~flat_T]
    return float(flat_T.sum()) if np.percentile(heard, 5) > SILENT_DB + 3 else 0.0
