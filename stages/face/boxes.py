"""Which faces are the participants', where the corpus or the user's tracker says in what box each person is.

The boxes hold faces or whole bodies, so a face belongs to one if its middle lies in it. One look a second is
enough: people do not change places faster.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from visavis.schemas import FPS
from visavis.stages.face.people import Person


def by_boxes(people: Sequence[Person], boxes: np.ndarray | None, wanted: int) -> list[Person]:
    """Those first who lie in the boxes most of the time; without boxes, or with nobody in them, in their order.

    Where two are wanted and there are boxes of several people, only those who are in them: of each box, the face that
    is inside most of the time. Whoever is in none is no participant, however large. Where that leaves fewer than two,
    and where there are boxes of one person only, they do not say who the two are.

    Args:
        boxes: boxes_S4, or boxes_PS4.
    """
    if boxes is None:
        return list(people)
    planes_PS4 = boxes.reshape(-1, *boxes.shape[-2:])
    shares = [[share_inside(person, boxes_S4) for person in people] for boxes_S4 in planes_PS4]
    if wanted == 1:
        return [people[n] for n in sorted(range(len(people)), key=lambda n: -max(own[n] for own in shares))]
    inside = {int(np.argmax(own)) for own in shares if max(own, default=0.0) > 0}
    return [people[n] for n in sorted(inside)] if len(inside) >= wanted else list(people)


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
