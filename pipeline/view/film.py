"""Films: pictures side by side, with sound, and beneath them who speaks, what reactions there are and where we are.

    scene = Scene(
        panels=(Panel("user", user_pictures), Panel("avatar", avatar_pictures)),
        frames=50,
        sound=[voices_2N],
        timeline=Timeline(lanes=(Lane("user", ORANGE, spans), Lane("avatar", GREEN, more))),
    )
    write_film(Path("window.mp4"), [scene])

Pictures and sound are taken as they are needed, one frame at a time, so that hours need no more memory than seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import cv2
import numpy as np

from visavis.pipeline.view.encoding import film_writer
from visavis.pipeline.view.timeline import (
    INK,
    PAPER,
    Colour,
    Timeline,
    TimelineDrawing,
    timeline_height,
    write,
)
from visavis.schemas import FPS, SAMPLES_PER_FRAME

_TITLE, _GAP = 24, 8  # pixels: height of a row of text, room between panels
_WIDEST, _NARROWEST = 2.0, 0.5  # width of a panel over its height
_CARD = FPS  # frames of a title before each of several scenes


@dataclass(frozen=True)
class Panel:
    """What is seen under one title. pictures: uint8 [H, W, 3] RGB, one for each frame, of any size; they are fitted
    into the panel. An array may come several times."""

    title: str
    pictures: Iterable[np.ndarray]
    colour: Colour = INK


@dataclass(frozen=True)
class Scene:
    """What is seen and heard at once, from a first frame to a last one.

    title: above the panels, and on a card of its own where a film has several scenes; none: neither.
    sound: pieces of any length in order, float32 [2, N] in −1…1 at 16 kHz, left and right (the user, the avatar), or
        [1, N]; silence where they end before the pictures.
    """

    panels: Sequence[Panel]
    frames: int
    sound: Iterable[np.ndarray] = ()
    timeline: Timeline = field(default_factory=Timeline)
    title: str = ""


def write_film(
    path: Path, scenes: Iterable[Scene], *, side: int = 320, advance: Callable[[], object] | None = None
) -> int:
    """Write a film by the ending of its name: .mp4, .webm, or without sound .webp, .gif.

    The file appears when it is whole; one that was there before is replaced then. All scenes get the size of the first.

    Args:
        side: height of a panel, pixels.
        advance: is called after every frame of a scene (not of its card).

    Returns:
        frames written, at 25 a second.

    Raises:
        UsageError: an ending or folder that does not do (before any picture is asked for), an animation that is too
            long, no scene.
        ValueError: a panel with fewer pictures than its scene has frames.
    """
    several = iter(scenes)
    first, second = next(several, None), next(several, None)
    if first is None:
        raise ValueError("a film needs at least one scene")
    canvas: _Canvas | None = None
    written = 0
    with film_writer(path) as put:
        for scene in chain([first], [] if second is None else [second], several):
            pictures = zip(*(iter(panel.pictures) for panel in scene.panels), strict=False)
            drawing = None
            sound = _by_frame(scene.sound)
            for number in range(scene.frames):
                shown = next(pictures, None)
                if shown is None:
                    raise ValueError(f"{number} pictures for {scene.frames} frames of {scene.title or 'a scene'}")
                if canvas is None:
                    canvas = _Canvas.of(scene, shown, side)
                if drawing is None:
                    drawing = _Drawing(canvas, scene)
                    for _ in range(_CARD if second is not None and scene.title else 0):
                        put(drawing.card, _SILENCE)
                        written += 1
                put(drawing.draw(number, shown), next(sound))
                written += 1
                if advance:
                    advance()
    return written


_SILENCE = np.zeros((2, SAMPLES_PER_FRAME), np.float32)


def _by_frame(pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Sound cut into frames, [2, 640], without end."""
    held: list[np.ndarray] = []
    count = 0
    for piece in pieces:
        two = np.broadcast_to(piece, (2, piece.shape[1])).astype(np.float32, copy=False)
        held.append(two)
        count += two.shape[1]
        if count < SAMPLES_PER_FRAME:
            continue
        whole = held[0] if len(held) == 1 else np.concatenate(held, axis=1)
        cut = count // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME
        for begin in range(0, cut, SAMPLES_PER_FRAME):
            yield whole[:, begin : begin + SAMPLES_PER_FRAME]
        held, count = [whole[:, cut:]], count - cut
    if count:
        rest = np.concatenate(held, axis=1)
        yield np.pad(rest, ((0, 0), (0, SAMPLES_PER_FRAME - count)))
    while True:
        yield _SILENCE


@dataclass(frozen=True)
class _Canvas:
    """Where things lie in the picture. boxes: x, y, width, height of each panel."""

    width: int
    height: int
    boxes: tuple[tuple[int, int, int, int], ...]
    top: int  # of the titles
    beneath: int  # where the timeline begins

    @classmethod
    def of(cls, scene: Scene, shown: Sequence[np.ndarray], side: int) -> _Canvas:
        heading = _TITLE if scene.title else 0
        titles = _TITLE if any(panel.title for panel in scene.panels) else 0
        boxes, x = [], 0
        for picture in shown:
            shape = min(max(picture.shape[1] / picture.shape[0], _NARROWEST), _WIDEST)
            boxes.append((x, heading + titles, round(side * shape), side))
            x += round(side * shape) + _GAP
        beneath = heading + titles + side + _GAP
        height = beneath + timeline_height(len(scene.timeline.lanes))
        return cls(_even(x - _GAP), _even(height), tuple(boxes), heading, beneath)


def _even(length: int) -> int:
    return length + length % 2  # yuv420p has a colour for two pixels by two


class _Drawing:
    """Draws the frames of one scene on one picture, again and again."""

    def __init__(self, canvas: _Canvas, scene: Scene) -> None:
        if len(scene.panels) != len(canvas.boxes):
            raise ValueError(f"{len(scene.panels)} panels where the first scene has {len(canvas.boxes)}")
        self._canvas = canvas
        self._picture = np.full((canvas.height, canvas.width, 3), PAPER, np.uint8)
        if scene.title:
            write(self._picture, scene.title, (8, 17), INK)
        for panel, (x, _, width, _) in zip(scene.panels, canvas.boxes, strict=True):
            write(self._picture, panel.title, (x + 8, canvas.top + 17), panel.colour, width - 12)
        self._timeline = TimelineDrawing(scene.timeline, scene.frames, canvas.width) if scene.timeline.lanes else None
        self.card = np.full_like(self._picture, PAPER)
        write(self.card, scene.title, (16, canvas.height // 2))

    def draw(self, number: int, shown: Sequence[np.ndarray]) -> np.ndarray:
        """The whole picture of a frame: one array, written over by the next."""
        for picture, (x, y, width, height) in zip(shown, self._canvas.boxes, strict=True):
            self._picture[y : y + height, x : x + width] = fitted(picture, width, height)
        if self._timeline:
            drawn = self._timeline.draw(number)
            room = self._picture[self._canvas.beneath :][: len(drawn)]
            room[:] = drawn[: len(room)]
        return self._picture


def fitted(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """A picture as large as it can be in the middle of a black one, uint8 [height, width, 3]."""
    rows, columns = picture.shape[:2]
    if (columns, rows) == (width, height):
        return picture
    scale = min(width / columns, height / rows)
    size = min(width, max(1, round(columns * scale))), min(height, max(1, round(rows * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    inner = cv2.resize(picture, size, interpolation=how)
    if size == (width, height):
        return np.asarray(inner)
    whole = np.zeros((height, width, 3), np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    whole[top : top + size[1], left : left + size[0]] = inner
    return whole
