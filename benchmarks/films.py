"""Films of one room, and what happens to films on their way (`benchmarks.near_duplicates --films`).

All made films show the same two people (a rendered head each) before the same walls, so nothing but when and how they
move tells one from another: they sway, nod, turn and speak. T frames of 25 a second.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np

from visavis.pipeline.demo.dialogue import cast
from visavis.pipeline.demo.render import Pose, Renderer
from visavis.schemas import FPS
from visavis.stages.media.coarse import coarse
from visavis.stages.media.video import frames_on_grid

SIDE = 320
_PANEL = 160, 180
_NOISE = 1.5  # grey levels of the camera
_STILL = Pose(0, 0, 0, 0, 0, 0, 0, 0, 0)

Pictures = list[np.ndarray]
"""uint8 [H, W, 3], RGB."""

FilmCopy = Callable[[Pictures, np.random.Generator], tuple[Pictures, int]]
"""Makes a copy before it is encoded; and the encoder's constant rate factor."""


class Room:
    """The two people, and films of them by number."""

    def __init__(self, seconds: float) -> None:
        self._frames = round(seconds * FPS)
        self._faces = [Renderer(p, *_PANEL, 4.6).frame(_STILL) for p in cast(0)]
        width, height = _PANEL
        y, x = np.mgrid[:height, :width]
        ellipse = ((x - width / 2) / 42) ** 2 + ((y - 0.47 * height) / 58) ** 2
        self._mask_HW = np.clip(3 * (1.15 - ellipse), 0, 1).astype(np.float32)
        holes = (self._mask_HW > 0).astype(np.uint8)
        self._walls = [cv2.inpaint(face, holes, 5, cv2.INPAINT_TELEA) for face in self._faces]

    def film(self, seed: int, number: int) -> Iterator[np.ndarray]:
        random = np.random.default_rng([seed, number])
        moves = [_moves(self._frames, random) for _ in self._faces]
        noise = random.normal(0, _NOISE, (2 * _PANEL[1], SIDE, 3)).astype(np.int16)
        for n in range(self._frames):
            panels = [self._panel(person, moves[person][n]) for person in (0, 1)]
            grain = noise[(first := int(random.integers(_PANEL[1]))) : first + _PANEL[1]]
            yield np.clip(np.hstack(panels) + grain, 0, 255).astype(np.uint8)

    def _panel(self, person: int, move_6: np.ndarray) -> np.ndarray:
        x, y, turn, size, wide, mouth = move_6.tolist()
        centre = _PANEL[0] / 2, 0.47 * _PANEL[1]
        face = self._faces[person].copy()
        lips = round(centre[0]), round(centre[1] + 22)
        cv2.ellipse(face, lips, (9, round(1 + 6 * mouth)), 0, 0, 360, (60, 20, 24), -1, cv2.LINE_AA)
        way = cv2.getRotationMatrix2D(centre, turn, 1 + size)
        way[:, 0] *= 1 + wide
        way[:, 2] += x - wide * centre[0], y
        moved, mask_HW = (cv2.warpAffine(each, way, _PANEL) for each in (face, self._mask_HW))
        return np.asarray(cv2.blendLinear(moved, self._walls[person], mask_HW, 1 - mask_HW))


def _moves(frames: int, random: np.random.Generator) -> np.ndarray:
    """Of a head: pixels right and down, degrees, sizes, widths; and how far the mouth is open: float64 [T, 6]."""
    t_T1 = np.arange(frames)[:, None] / FPS
    sway_T6 = np.zeros((frames, 6))
    for _ in range(4):
        hertz_6, phase_6 = random.uniform(0.05, 0.6, 6), random.uniform(0, 2 * np.pi, 6)
        sway_T6 += 0.5 * np.sin(2 * np.pi * hertz_6 * t_T1 + phase_6)
    sway_T6 *= (2.0, 1.5, 1.5, 0.015, 0.015, 0.0)
    for at in np.cumsum(random.uniform(0.5, 6.0, frames // FPS)):
        first, length = int(at * FPS), int(random.integers(8, 20))
        wave = np.sin(np.pi * np.arange(length) / length) ** 2
        kick_6 = random.choice([(0, 6, 0, 0.02, 0, 0), (0, 0, 0, 0, 0.12, 0), (0, 0, 6, 0, 0, 0), (7, 0, 2, 0, 0, 0)])
        span_T6 = sway_T6[first : first + length]
        span_T6 += (random.choice([-1, 1]) * random.uniform(0.5, 1) * kick_6 * wave[:, None])[: len(span_T6)]
    speaks_T = np.sin(2 * np.pi * random.uniform(0.08, 0.2) * t_T1[:, 0] + random.uniform(0, 6)) > 0
    open_T = np.abs(np.convolve(random.normal(size=frames), np.ones(4) / 2, "same"))
    sway_T6[:, 5] = speaks_T * np.clip(open_T, 0, 1)
    return sway_T6


def coarse_film(pictures: Iterable[np.ndarray]) -> np.ndarray:
    """float16 [T, K]."""
    return np.stack([coarse(picture) for picture in pictures])


def pictures_of(path: Path, most: float) -> Pictures:
    """Of a recorded film, its first seconds, small; without the last picture's repeats that fill the grid."""
    shown = [rgb for _, rgb in frames_on_grid(str(path), 0, round(most * FPS), max_side=SIDE)]
    while len(shown) > 1 and shown[-1] is shown[-2]:
        shown.pop()
    return shown


def encoded(pictures: Sequence[np.ndarray], factor: int) -> Iterator[np.ndarray]:
    """Encoded as H.264 and decoded again."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as writer:
        stream = writer.add_stream("libx264", rate=FPS, options={"crf": str(factor), "preset": "ultrafast"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.codec_context.thread_count = "yuv420p", 1
        for picture in pictures:
            writer.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        writer.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as reader:
        for frame in islice(reader.decode(video=0), len(pictures)):
            yield frame.to_ndarray(format="rgb24")


def re_encoded(pictures: Pictures, random: np.random.Generator) -> tuple[Pictures, int]:
    return pictures, int(random.integers(30, 38))


def cropped(pictures: Pictures, random: np.random.Generator) -> tuple[Pictures, int]:
    """By five per cent of the width and the height, anywhere."""
    height, width = pictures[0].shape[:2]
    y, x = (random.random(2) * (0.05 * height, 0.05 * width)).astype(int)
    return [_sized(p[y : y + int(0.95 * height), x : x + int(0.95 * width)], 1.0) for p in pictures], 23


def resized(pictures: Pictures, random: np.random.Generator) -> tuple[Pictures, int]:
    share = random.uniform(0.4, 0.8)
    return [_sized(p, share) for p in pictures], 23


def trimmed(pictures: Pictures, random: np.random.Generator) -> tuple[Pictures, int]:
    """Of five to twenty per cent at either end."""
    first, last = (random.uniform(0.05, 0.2, 2) * len(pictures)).astype(int)
    return pictures[first : len(pictures) - last], 23


def faster(pictures: Pictures, random: np.random.Generator) -> tuple[Pictures, int]:
    """By one per cent: now and then a picture is left out."""
    return [pictures[int(1.01 * n)] for n in range(int(len(pictures) / 1.01))], 23


def other_light(pictures: Pictures, random: np.random.Generator) -> tuple[Pictures, int]:
    gain, more = random.uniform(0.7, 1.2), random.uniform(-20, 20)
    return [np.clip(gain * p + more, 0, 255).astype(np.uint8) for p in pictures], 23


def everything(pictures: Pictures, random: np.random.Generator) -> tuple[Pictures, int]:
    for change in (trimmed, faster, cropped, resized, other_light):
        pictures, _ = change(pictures, random)
    return pictures, 32


FILM_COPIES: dict[str, FilmCopy] = {
    "re-encoded": re_encoded, "cropped": cropped, "resized": resized, "trimmed": trimmed, "faster": faster,
    "other light": other_light, "everything": everything,
}  # fmt: skip


def _sized(picture: np.ndarray, share: float) -> np.ndarray:
    """Scaled, to even sides as encoders want them."""
    height, width = (max(2, round(share * side / 2) * 2) for side in picture.shape[:2])
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))
