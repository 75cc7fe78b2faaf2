"""Motion as a face: a portrait that it moves, or a mesh where there is none.

    avatar = Avatar(Puppet.of(codec, neutral_L3))
    pictures = [avatar.draw(points_L3, 512) for points_L3 in avatar.puppet.points(motion_TD)]

The same in the browser: `page/static/avatar.js`, fed with `puppet_json`.
"""

from __future__ import annotations

import numpy as np

from visavis.pipeline.view.portrait_drawing import PortraitDrawing
from visavis.pipeline.view.puppet import WIDEST, Puppet
from visavis.pipeline.view.rig import Rig
from visavis.pipeline.view.wireframe import Colour, draw_wireframe
from visavis.schemas.face_rows import LANDMARKS

BLUE: Colour = (47, 79, 192)
WHITE: Colour = (255, 255, 255)


class Avatar:
    """Draws one face.

    colour, paper: RGB of a mesh and of what is behind it; a portrait has its own.
    """

    def __init__(self, puppet: Puppet, colour: Colour = BLUE, paper: Colour = WHITE) -> None:
        self.puppet, self._colour, self._paper = puppet, colour, paper
        self._rig = None if puppet.portrait is None else Rig(puppet.portrait)
        self._drawing: PortraitDrawing | None = None

    def draw(self, points_L3: np.ndarray, size: int) -> np.ndarray:
        """A picture, uint8 [size, size, 3] RGB.

        Args:
            points_L3: of `Puppet.points`.

        Raises:
            ValueError: other than 478 points, or numbers that are not finite.
        """
        if points_L3.shape != (LANDMARKS, 3) or not np.isfinite(points_L3).all() or size < 1:
            raise ValueError(f"{points_L3.shape} are not [{LANDMARKS}, 3] finite numbers for a picture")
        points_L3 = np.clip(points_L3, -WIDEST, WIDEST)
        if self._rig is None:
            return draw_wireframe(points_L3, size, self._colour, self._paper)
        if self._drawing is None or self._drawing.size != size:
            self._drawing = PortraitDrawing(self._rig, size)
        return self._drawing.draw(points_L3)
