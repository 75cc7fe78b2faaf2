"""Who is on screen: skin, hair, clothes and the shape of the head, and the texture painted from them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from visavis.pipeline.demo.head import FACE, Head, Shape, make_head
from visavis.pipeline.view.mesh import (
    BROWS,
    LIDS_BOTTOM,
    LIDS_TOP,
    LIPS_INNER_BOTTOM,
    LIPS_INNER_TOP,
    LIPS_OUTER_BOTTOM,
    LIPS_OUTER_TOP,
    OVAL,
)

Colour = tuple[int, int, int]  # RGB

TEXTURE = 448
"""Side of a texture in pixels; about twice a face on screen, so that bilinear sampling does not shimmer."""

SKINS: tuple[Colour, ...] = ((236, 196, 172), (224, 178, 148), (198, 146, 112), (150, 102, 74), (244, 208, 188))
HAIRS: tuple[Colour, ...] = ((58, 40, 30), (28, 24, 24), (112, 74, 42), (150, 112, 66), (96, 50, 32))
IRISES: tuple[Colour, ...] = ((84, 58, 38), (70, 96, 120), (78, 96, 62))
SHIRTS: tuple[Colour, ...] = ((52, 84, 120), (128, 52, 60), (66, 100, 76), (96, 84, 128), (170, 150, 116), (60, 64, 72))
WALLS: tuple[Colour, ...] = ((196, 200, 198), (176, 188, 200), (206, 196, 180), (182, 196, 184))

NAMES: tuple[str, ...] = ("alex", "robin", "sam", "kim", "jo", "noa", "kai", "remi", "toni", "lou", "max", "jules")


@dataclass(frozen=True)
class Person:
    """Everything that stays the same while someone talks. texture: uint8 [S, S, 3] RGB."""

    head: Head
    texture: np.ndarray
    skin: Colour
    hair: Colour
    iris: Colour
    shirt: Colour
    wall: Colour
    long_hair: bool


def person_name(index: int) -> str:
    """Names repeat with a number after the list is used up, so that they stay unique."""
    turn, i = divmod(index, len(NAMES))
    return NAMES[i] + (str(turn + 1) if turn else "")


def make_person(index: int, *, long_hair: bool) -> Person:
    """The person of that number; the same number gives the same person."""
    rng = np.random.default_rng([index, 2])
    width, jaw, nose, length = rng.uniform([0.95, 0.90, 0.90, 0.97], [1.04, 1.06, 1.12, 1.04])
    head = make_head(Shape(width, jaw - 0.05 * long_hair, nose, length))
    skin = SKINS[(index + int(rng.integers(2))) % len(SKINS)]
    hair = HAIRS[int(rng.integers(len(HAIRS)))]
    beard = not long_hair and bool(rng.random() < 0.5)
    texture = _paint(head, skin, hair, rng, feminine=long_hair, beard=beard)
    return Person(
        head=head,
        texture=texture,
        skin=skin,
        hair=hair,
        iris=IRISES[int(rng.integers(len(IRISES)))],
        shirt=SHIRTS[index % len(SHIRTS)],
        wall=WALLS[index // 2 % len(WALLS)],
        long_hair=long_hair,
    )


def _paint(
    head: Head, skin: Colour, hair: Colour, rng: np.random.Generator, *, feminine: bool, beard: bool
) -> np.ndarray:
    """Albedo in texture space, drawn at twice its size."""
    size = 2 * TEXTURE
    uv = head.uv * size
    base = np.array(skin, np.float32)
    canvas = np.broadcast_to(base, (size, size, 3)) + _noise(size, 6, rng) * 2.5
    paint = _Painter(canvas.astype(np.float32), uv)
    for side, cheek in ((0, 50), (1, 280)):
        paint.spot(cheek, 62, (214, 110, 100), 0.22)
        paint.polygon((*LIDS_TOP[side], *BROWS[side][5:]), _mix(skin, (96, 60, 60), 0.35), 0.7, 9)
        paint.stroke(LIDS_BOTTOM[side], _mix(skin, (110, 64, 60), 0.6), 5, 0.5, 4)
        paint.stroke(LIDS_TOP[side], (34, 22, 20), 7 if feminine else 5, 0.9, 1)
        paint.polygon(
            BROWS[side], _mix(hair, (20, 16, 14), 0.35), 0.85, 3 if feminine else 4, grow=0 if feminine else 3
        )
    paint.stroke((168, 6, 197, 195, 5), _mix(skin, (255, 250, 240), 0.6), 10, 0.35, 8)
    paint.stroke((129, 98, 97, 2, 326, 327, 358), _mix(skin, (90, 44, 38), 0.7), 6, 0.7, 5)
    for nostril in (240, 460):
        paint.spot(nostril, 9, (50, 24, 22), 0.8)
    if beard:
        paint.stroke((*OVAL[10:27],), _mix(hair, skin, 0.25), 50, 0.55, 18)
        paint.stroke((57, 186, 165, 167, 164, 393, 391, 410, 287), _mix(hair, skin, 0.25), 18, 0.5, 7)
    lips = (176, 74, 78) if feminine else _mix(skin, (150, 70, 70), 0.6)
    paint.polygon((*LIPS_OUTER_TOP, *LIPS_INNER_TOP[::-1]), lips, 0.9, 3)
    paint.polygon((*LIPS_OUTER_BOTTOM, *LIPS_INNER_BOTTOM[::-1]), _mix(lips, (255, 190, 180), 0.15), 0.9, 3)
    paint.stroke((*LIPS_INNER_TOP,), (70, 24, 28), 4, 0.6, 2)
    canvas = paint.canvas
    # Hair: beyond a line just inside the border of the forehead, down to the ears (long: to the jaw).
    inside = cv2.GaussianBlur(_hairline(uv, size, rng, low=feminine), (0, 0), 3)[..., None]
    yy, xx = np.mgrid[:size, :size].astype(np.float32) - size / 2
    strands = _strands(np.arctan2(xx, -yy), np.hypot(xx, yy) / size, rng)
    locks = np.array(hair, np.float32) * (1.0 + 0.42 * strands[..., None])
    canvas = inside * canvas + (1 - inside) * locks
    small = cv2.resize(np.clip(canvas, 0, 255), (TEXTURE, TEXTURE), interpolation=cv2.INTER_AREA)
    return np.asarray(np.round(small), np.uint8)


def _hairline(uv: np.ndarray, size: int, rng: np.random.Generator, *, low: bool) -> np.ndarray:
    """Mask [S, S] of skin: the face and, below the ears, the throat; float32 0…1."""
    centre = np.array([size / 2, size / 2])
    mask = np.zeros((size, size), np.float32)
    points = []
    part = rng.uniform(-0.4, 0.4)
    for i in OVAL:
        away = uv[i] - centre
        height = -away[1] / (0.5 * size * 0.56)  # 1 at the top of the forehead, −1 at the chin
        x = away[0] / (0.5 * size * 0.56)
        if height > 0.1:
            scale = 0.93 - 0.10 * abs(x - part) * height
        else:
            scale = 0.97 if (low and height > -0.55) else (1.12 if height > -0.25 else 3.0)
        points.append(centre + away * scale)
    cv2.fillPoly(mask, [np.round(np.array(points)).astype(np.int32)], 1.0)
    return mask


def _strands(angle: np.ndarray, radius: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Streaks that run outwards from the face, about −1…1."""
    line = cv2.GaussianBlur(rng.standard_normal((1, 720)).astype(np.float32), (0, 0), 1.5)[0]
    line /= np.abs(line).max()
    at = ((angle / (2 * np.pi) + 0.5 + 0.03 * np.sin(9 * radius)) * 719).astype(np.int32) % 720
    return np.asarray(line[at])


class _Painter:
    """Soft shapes on a float32 canvas, at landmarks' places in the texture."""

    def __init__(self, canvas: np.ndarray, uv: np.ndarray) -> None:
        self.canvas = canvas
        self._uv = uv[:FACE]

    def polygon(self, points: tuple[int, ...], colour: Colour, alpha: float, blur: float, grow: int = 0) -> None:
        mask = self._mask()
        outline = np.round(self._uv[list(points)]).astype(np.int32)
        cv2.fillPoly(mask, [outline], 1.0)
        if grow:
            cv2.polylines(mask, [outline], True, 1.0, 2 * grow)
        self._blend(mask, colour, alpha, blur)

    def stroke(self, points: tuple[int, ...], colour: Colour, width: int, alpha: float, blur: float) -> None:
        mask = self._mask()
        cv2.polylines(mask, [np.round(self._uv[list(points)]).astype(np.int32)], False, 1.0, width, cv2.LINE_AA)
        self._blend(mask, colour, alpha, blur)

    def spot(self, point: int, radius: int, colour: Colour, alpha: float) -> None:
        mask = self._mask()
        x, y = np.round(self._uv[point]).astype(int)
        cv2.circle(mask, (int(x), int(y)), radius, 1.0, -1)
        self._blend(mask, colour, alpha, radius / 2)

    def _mask(self) -> np.ndarray:
        return np.zeros(self.canvas.shape[:2], np.float32)

    def _blend(self, mask: np.ndarray, colour: Colour, alpha: float, blur: float) -> None:
        x, y, width, height = cv2.boundingRect((mask > 0).astype(np.uint8))
        margin = int(4 * blur) + 1
        around = np.s_[max(0, y - margin) : y + height + margin, max(0, x - margin) : x + width + margin]
        weight = alpha * cv2.GaussianBlur(mask[around], (0, 0), blur)[..., None]
        self.canvas[around] += weight * (np.array(colour, np.float32) - self.canvas[around])


def _noise(size: int, grain: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth grey noise [S, S, 1] of unit deviation."""
    noise = cv2.GaussianBlur(rng.standard_normal((size, size)).astype(np.float32), (0, 0), grain)
    return (noise / noise.std())[..., None]


def _mix(a: Colour, b: Colour, share: float) -> Colour:
    r, g, bl = (round((1 - share) * x + share * y) for x, y in zip(a, b, strict=True))
    return r, g, bl
