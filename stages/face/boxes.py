"""Which of the faces in a participant's file is the participant's, where the corpus says in what box the person is.

The boxes hold whole bodies, so a face belongs to one if its middle lies in it. One look a second is enough: people do
not change places faster.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from visavis.schemas import FPS
from visavis.stages.face.people import Person


def by_boxes(people: Sequence[Person], boxes_S4: np.ndarray | None) -> list[Person]:
    """Those first who lie in the boxes most of the time; without boxes, or with nobody in them, in their order."""
    if boxes_S4 is None:
        return list(people)
    return sorted(people, key=lambda person: -share_inside(person, boxes_S4))


def share_inside(person: Person, boxes_S4: np.ndarray) -> float:
    """Share of the seconds with a box at which the middle of the person's face lies in it, 0…1.

    boxes_S4: x0 y0 x1 y1 in pixels at second s, NaN where unknown.
    """
    inside_S = np.zeros(len(boxes_S4), np.bool_)
    for track in person.tracks:
        frame_V = np.flatnonzero(track.data.valid_T) + track.data.first
        looked_V = (frame_V % FPS == 0) & (frame_V // FPS < len(boxes_S4))
        middle_K2 = (track.data.box_V4[looked_V, :2] + track.data.box_V4[looked_V, 2:]) / 2
        second_K = frame_V[looked_V] // FPS
        box_K4 = boxes_S4[second_K]
        within_K = ((middle_K2 >= box_K4[:, :2]) & (middle_K2 <= box_K4[:, 2:])).all(axis=1)  # NaN: never
        inside_S[second_K] |= within_K
    known = np.count_nonzero(np.isfinite(boxes_S4).all(axis=1))
    return float(np.count_nonzero(inside_S) / known) if known else 0.0
