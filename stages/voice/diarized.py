"""What a diarizer makes of a track, whoever it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from visavis.schemas.rows import Turn


class Diarized(NamedTuple):
    """What a diarizer makes of a track.

    turns: sorted by (start, speaker). believed: how many voices it is sure of, 0 without speech. voices: float16
    [W, E], how the voice sounds around each tenth of a second, NaN where nobody speaks. odds: nats by which there are
    two voices rather than one.
    """

    turns: list[Turn]
    believed: int
    voices: np.ndarray
    odds: float


def as_given(turns: Sequence[Turn]) -> Diarized:
    """Turns of others, who do not say how sure they are: all speakers are believed in, and no voice is described."""
    return Diarized(list(turns), len({turn.speaker for turn in turns}), np.zeros((0, 0), np.float16), 0.0)
