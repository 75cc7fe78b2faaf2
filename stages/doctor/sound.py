"""What is wrong with a track by itself: dead, clipped, without its upper band, with holes, faint, off its middle."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from visavis.schemas import FPS, SAMPLES_PER_FRAME
from visavis.stages.doctor.excerpt import Excerpt, Sums
from visavis.stages.doctor.findings import Sign, certainty
from visavis.stages.doctor.kinds import Kind
from visavis.stages.voice.sound import (
    CLIFF_DB,
    PILED,
    SILENT_DB,
    bands_of,
    cliff_of,
    levels_of,
    loudest,
    peaks_of,
    pile_of,
)

_ENOUGH = 8 * FPS  # frames
_DEAD = -62.0  # dB below which there is no voice in the loudest twentieth
_STEADY = 5.0  # dB by which a voice lifts the loudest twentieth over the tenth quietest
_CLIPPED_SHARE = 2e-4  # of all samples
_HOLES = 0.01  # share of the frames
_FAINT = 18.0  # dB below what is usual


def measure(excerpt: Excerpt) -> Sums:
    """Histograms of levels and samples, and the long-term spectrum, of both tracks."""
    audio_PN = excerpt.audio_PN
    flat_PT = np.ptp(audio_PN.reshape(2, -1, SAMPLES_PER_FRAME), axis=2) == 0
    levels = [levels_of(level_T) for level_T in excerpt.level_PT]
    holes = [_holes(flat_T, level_T) for flat_T, level_T in zip(flat_PT, excerpt.level_PT, strict=True)]
    return {
        "sound.frames": np.array(float(len(excerpt.state_T))),
        "sound.levels": np.stack(levels) * 1.0,
        "sound.peaks": np.stack([peaks_of(track_N) for track_N in audio_PN]),
        "sound.bands": np.stack([bands_of(track_N) for track_N in audio_PN]),
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
    return loudest(sums["sound.levels"][person], sums["sound.flat"][person], share)


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
    pile = pile_of(sums["sound.peaks"][person], float(sums["sound.frames"]) * SAMPLES_PER_FRAME)
    if pile is None or pile.share < _CLIPPED_SHARE:
        return None
    said = f"{100 * pile.share:.2g} % of the samples at {pile.level_db:.1f} dB"
    return Sign(Kind.CLIPPED, certainty(pile.ratio, PILED, 8), said, person)


def _band_limited(sums: Sums, person: int) -> Sign | None:
    cliff = cliff_of(sums["sound.bands"][person])
    if cliff is None:
        return None
    said = f"nothing above {cliff.hertz / 1000:.2g} kHz"
    return Sign(Kind.BAND_LIMITED, certainty(cliff.fall, CLIFF_DB, 30), said, person)


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


def _holes(flat_T: np.ndarray, level_T: np.ndarray) -> float:
    """Frames of digital silence between frames of sound, where the track has a floor of noise elsewhere."""
    if flat_T.all() or not flat_T.any():
        return 0.0
    heard = level_T[~flat_T]
    return float(flat_T.sum()) if np.percentile(heard, 5) > SILENT_DB + 3 else 0.0
