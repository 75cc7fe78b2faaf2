"""A person's motion as pictures of a face, one after the other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from visavis.pipeline.view.avatar import Avatar
from visavis.pipeline.view.puppet import Puppet
from visavis.pipeline.view.timeline import Colour

_CHUNK = 250  # frames whose landmarks are held at once: 1.4 MB


def face_pictures(
    puppet: Puppet, motion_TD: np.ndarray, valid_T: np.ndarray, size: int, colour: Colour
) -> Iterator[np.ndarray]:
    """uint8 [size, size, 3] RGB, one for each frame, paler where the face was not seen. colour: of a mesh."""
    avatar = Avatar(puppet, colour)
    for first in range(0, len(motion_TD), _CHUNK):
        points_TL3 = puppet.points(motion_TD[first : first + _CHUNK])
        for points_L3, valid in zip(points_TL3, valid_T[first : first + _CHUNK].tolist(), strict=True):
            picture = avatar.draw(points_L3, size)
            yield picture if valid else 255 - (255 - picture) // 3
