"""Landmarks of pictures: moments at which a coarse stroke of the picture changes most, hashed in groups as of sound.

What stands still says nothing: two conversations in one room look alike, and a hash of a picture would take them for
one. So it is the change that is hashed: of each stroke (`stages.media.coarse`) the difference over 0.4 s, up and down
as two bands; its peaks are the landmarks' peaks. Robust to another encoder, size, light, a few per cent cropped or
faster. Around a cut nothing is taken: a film goes back and forth between the same two cameras, and so do other films.
Pictures that hardly change have no landmarks.

T frames of 25 a second, K strokes, P peaks.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from visavis.schemas import FPS
from visavis.stages.duplicates.landmarks import FRAMES_PER_SECOND, Grouping, Landmarks, grouped

_HALF = 5  # frames to either side, between which a change is taken
_SMOOTH = 3  # frames
_NEAR = 5  # frames to either side of which a peak is the highest
_FLOOR = 0.3  # grey levels of a stroke's change: what an encoder's noise does not make
_USUAL = 0.5  # times a stroke's root mean square
_GROUPING = Grouping(peaks=5, following=8, soonest=3, latest=100, step=4, kept=16)
_RASTER = round(FRAMES_PER_SECOND / FPS)


def picture_landmarks(coarse_TK: np.ndarray, cuts: Iterable[int] = ()) -> Landmarks:
    """Of all pictures of a film, as `stages.media.coarse` draws them; cuts: first frames of shots. Frames of the result
    are those of sound."""
    hash_M, frame_M = grouped(*_peaks(_changes(coarse_TK.astype(np.float32), cuts)), _GROUPING)
    return Landmarks(hash_M, frame_M * np.int32(_RASTER))


def together(parts: Iterable[Landmarks]) -> Landmarks:
    """Landmarks of several films on one timeline, by time."""
    hashes, frames = [np.zeros(0, np.uint32)], [np.zeros(0, np.int32)]
    for part in parts:
        hashes.append(part.hash_M)
        frames.append(part.frame_M)
    hash_M, frame_M = np.concatenate(hashes), np.concatenate(frames)
    order = np.lexsort((hash_M, frame_M))
    return Landmarks(hash_M[order], frame_M[order])


def _changes(coarse_TK: np.ndarray, cuts: Iterable[int]) -> np.ndarray:
    """Grey levels by which each stroke changes around each frame, 0 near cuts and ends, float32 [T, K]."""
    from scipy.ndimage import uniform_filter1d

    change_TK = np.zeros_like(coarse_TK)
    if len(coarse_TK) > 2 * _HALF:
        smooth_TK = uniform_filter1d(coarse_TK, _SMOOTH, axis=0)
        change_TK[_HALF:-_HALF] = smooth_TK[2 * _HALF :] - smooth_TK[: -2 * _HALF]
    reach = _HALF + _SMOOTH // 2
    for cut in cuts:
        change_TK[max(0, cut - reach) : cut + reach] = 0
    return change_TK


def _peaks(change_TK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frame and band of each peak, by time: int64 [P]. Bands: strokes that rise, strokes that fall."""
    from scipy.ndimage import maximum_filter1d

    usual_K = np.sqrt((change_TK**2).mean(axis=0)) if len(change_TK) else np.zeros(change_TK.shape[1])
    bound_TB = np.tile(np.maximum(_FLOOR, _USUAL * usual_K), 2)
    change_TB = np.concatenate([change_TK, -change_TK], axis=1)
    highest_TB = maximum_filter1d(change_TB, 2 * _NEAR + 1, axis=0, mode="nearest")
    frame_P, band_P = np.nonzero((change_TB == highest_TB) & (change_TB > bound_TB))
    return frame_P, band_P
