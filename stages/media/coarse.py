"""A picture in its coarsest strokes: the low frequencies of its grey levels, as perceptual hashes take them (Zauner
2010, "Implementation and benchmarking of perceptual image hash functions", cosine transform).

They stay nearly the same whatever the picture's size, encoder and number of bits. Without the mean, so that light tells
nothing. K strokes.
"""

from __future__ import annotations

import numpy as np

from visavis.stages.media.dissolves import thumbnail

_SIZE = (32, 18)
_HIGHEST = 6  # sum of both frequencies, in halves of a wave over the picture
_ROWS, _COLUMNS = 5, 6
_WHICH_K2 = np.array([(v, u) for v in range(_ROWS) for u in range(_COLUMNS) if 0 < u + v <= _HIGHEST])
STROKES = len(_WHICH_K2)


def coarse(rgb_HW3: np.ndarray) -> np.ndarray:
    """Of a picture, or its thumbnail: float16 [K], grey levels."""
    import cv2

    grey_HW = cv2.cvtColor(thumbnail(rgb_HW3), cv2.COLOR_RGB2GRAY)
    small_HW = cv2.resize(grey_HW, _SIZE, interpolation=cv2.INTER_AREA).astype(np.float32)
    waves_HW = cv2.dct(small_HW) / np.sqrt(small_HW.size)
    found: np.ndarray = waves_HW[_WHICH_K2[:, 0], _WHICH_K2[:, 1]].astype(np.float16)
    return found
