"""A small software renderer of talking heads: numpy and OpenCV, one core, no GPU.

Triangles are painted back to front into a picture of triangle numbers (painter's algorithm); texture coordinates and
light follow per pixel from each triangle's affine map, and one `cv2.remap` samples the texture. Edges of the face,
the eyes and the mouth come from anti-aliased polygons, so nothing is rendered larger than it is shown.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from visavis.pipeline.demo.head import rotation
from visavis.pipeline.demo.people import TEXTURE, Colour, Person
from visavis.pipeline.view.mesh import LIDS_BOTTOM, LIDS_TOP, LIPS_INNER_BOTTOM, LIPS_INNER_TOP

CAMERA = 75.0
"""Distance of the camera from the head's origin, cm."""

LIGHT = np.array([-0.42, 0.50, 0.76])
AMBIENT, DIFFUSE = 0.46, 0.66
SHIFT = 4  # fractional bits of OpenCV's polygon coordinates


@dataclass(frozen=True)
class Pose:
    """One frame of a person: angles in rad, translation in cm, expressions 0…1."""

    pitch: float
    yaw: float
    roll: float
    x: float
    y: float
    z: float
    mouth: float
    smile: float
    blink: float


class Renderer:
    """Draws one person in a picture of fixed size.

    width, height: pixels. scale: pixels per cm at the head's distance (a face is about 18 cm high). light: the way to
    the lamp; x right, y up, z to the camera.
    """

    def __init__(self, person: Person, width: int, height: int, scale: float, light: np.ndarray = LIGHT) -> None:
        self._person = person
        self._light = light
        self._size = (width, height)
        self._focal = scale * CAMERA
        self._centre = np.array([width / 2, 0.47 * height])
        self._backdrop = self._draw_backdrop()

    def frame(self, pose: Pose) -> np.ndarray:
        """A picture, uint8 [H, W, 3] RGB."""
        head = self._person.head
        turn = rotation(pose.pitch, pose.yaw, pose.roll)
        shift = np.array([pose.x, pose.y, pose.z])
        local = head.vertices + pose.mouth * head.mouth + pose.smile * head.smile + pose.blink * head.blink
        world = local @ turn.T + shift
        points = self._project(world)
        picture = self._backdrop.copy()
        self._draw_behind(picture, points, turn, shift)
        self._draw_mouth(picture, points, local, turn, shift)
        self._draw_eyes(picture, points, turn, shift, pose)
        self._draw_skin(picture, points, world, turn)
        self._draw_lashes(picture, points)
        return picture

    def _project(self, world_V3: np.ndarray) -> np.ndarray:
        depth = self._focal / (CAMERA - world_V3[:, 2])
        return np.stack([world_V3[:, 0] * depth, -world_V3[:, 1] * depth], axis=1) + self._centre

    def _place(self, local_V3: np.ndarray, turn: np.ndarray, shift: np.ndarray) -> np.ndarray:
        return self._project(np.asarray(local_V3, np.float64) @ turn.T + shift)

    def _draw_skin(self, picture: np.ndarray, points: np.ndarray, world: np.ndarray, turn: np.ndarray) -> None:
        head = self._person.head
        x0, y0 = np.maximum(np.floor(points.min(axis=0)).astype(int) - 1, 0)
        x1, y1 = np.minimum(np.ceil(points.max(axis=0)).astype(int) + 2, self._size)
        corners = points[head.triangles]
        edge_a, edge_b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        area = edge_a[:, 0] * edge_b[:, 1] - edge_a[:, 1] * edge_b[:, 0]
        seen = np.flatnonzero(area < -0.2)  # counter-clockwise in space is clockwise on a y-down screen
        seen = seen[np.argsort(world[head.triangles[seen], 2].sum(axis=1), kind="stable")]
        numbers = np.zeros((y1 - y0, x1 - x0), np.int32)
        fixed = np.round((corners[seen] - (x0, y0)) * (1 << SHIFT)).astype(np.int32)
        for number, triangle in enumerate(fixed, start=1):
            cv2.fillConvexPoly(numbers, triangle, number, cv2.LINE_8, SHIFT)
        light = AMBIENT + DIFFUSE * np.clip(head.normals @ turn.T @ self._light, 0.0, 1.0)
        values = np.concatenate([head.uv * TEXTURE - 0.5, light[:, None]], axis=1)[head.triangles[seen]]
        maps = _affine(corners[seen] - (x0, y0), edge_a[seen], edge_b[seen], area[seen], values)
        xs = np.arange(numbers.shape[1], dtype=np.float32)
        ys = np.arange(numbers.shape[0], dtype=np.float32)[:, None]
        u, v, shade = (
            by_x.take(numbers) * xs + by_y.take(numbers) * ys + start.take(numbers) for by_x, by_y, start in maps
        )
        albedo = cv2.remap(self._person.texture, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        skin = cv2.multiply(albedo, cv2.merge([shade] * 3), dtype=cv2.CV_8U)
        cover = np.where(numbers > 0, np.uint8(255), np.uint8(0))
        for hole in (*self._eye_holes(points), self._mouth_hole(points)):
            cv2.fillPoly(cover, [_fixed(hole - (x0, y0))], 0, cv2.LINE_AA, SHIFT)
        alpha = cover.astype(np.float32) / 255.0
        view = picture[y0:y1, x0:x1]
        view[:] = cv2.blendLinear(skin, np.ascontiguousarray(view), alpha, 1.0 - alpha)

    def _eye_holes(self, points: np.ndarray) -> list[np.ndarray]:
        return [points[[*top, *bottom[-2:0:-1]]] for top, bottom in zip(LIDS_TOP, LIDS_BOTTOM, strict=True)]

    def _mouth_hole(self, points: np.ndarray) -> np.ndarray:
        return points[[*LIPS_INNER_TOP, *LIPS_INNER_BOTTOM[-2:0:-1]]]

    def _draw_mouth(
        self, picture: np.ndarray, points: np.ndarray, local: np.ndarray, turn: np.ndarray, shift: np.ndarray
    ) -> None:
        _fill(picture, self._mouth_hole(points), (58, 18, 22), grow=1)
        upper = local[list(LIPS_INNER_TOP[1:-1])]
        gap = max(0.0, float(local[13, 1] - local[14, 1]))
        teeth = np.concatenate([upper, upper[::-1] - [0.0, min(0.75, 0.6 * gap), 0.0]])
        _fill(picture, self._place(teeth, turn, shift), (226, 218, 208))
        lower = local[list(LIPS_INNER_BOTTOM[2:-2])]
        tongue = np.concatenate([lower, lower[::-1] + [0.0, 0.25 * gap, 0.0]])
        _fill(picture, self._place(tongue, turn, shift), (150, 66, 70))

    def _draw_eyes(
        self, picture: np.ndarray, points: np.ndarray, turn: np.ndarray, shift: np.ndarray, pose: Pose
    ) -> None:
        scale = self._focal / (CAMERA - pose.z)
        for hole, top, bottom in zip(self._eye_holes(points), LIDS_TOP, LIDS_BOTTOM, strict=True):
            rest = self._person.head.vertices[[*top, *bottom]].mean(axis=0)
            # Eyes keep looking at the camera: they turn back by part of the head's turn.
            gaze = np.array([-0.55 * np.sin(pose.yaw), 0.35 * np.sin(pose.pitch), 0.25])
            x, y = self._place((rest + gaze)[None], turn, shift)[0]
            _fill(picture, hole, (228, 224, 220), grow=1)
            _disc(picture, x, y, 0.60 * scale, tuple(c // 2 for c in self._person.iris))
            _disc(picture, x, y, 0.52 * scale, self._person.iris)
            _disc(picture, x, y, 0.25 * scale, (14, 12, 12))
            _disc(picture, x - 0.2 * scale, y - 0.2 * scale, 0.12 * scale, (250, 250, 250))
            cv2.polylines(picture, [_fixed(points[list(top)])], False, (120, 100, 96), 2, cv2.LINE_AA, SHIFT)

    def _draw_lashes(self, picture: np.ndarray, points: np.ndarray) -> None:
        for top in LIDS_TOP:
            cv2.polylines(picture, [_fixed(points[list(top)])], False, (38, 26, 24), 1, cv2.LINE_AA, SHIFT)

    def _draw_behind(self, picture: np.ndarray, points: np.ndarray, turn: np.ndarray, shift: np.ndarray) -> None:
        """Hair at the back, throat, ears and the outline of the skull."""
        person = self._person
        half = 0.5 * shift  # the body follows the head a little
        if person.long_hair:
            still = 0.5 * (turn + np.eye(3))
            _fill(picture, self._place(_BACK_HAIR, still, half), _scaled(person.hair, 0.62))
            _fill(picture, self._place(_BACK_HAIR * [0.93, 0.96, 1.0], still, half), _scaled(person.hair, 0.74))
        neck = self._place(_NECK, np.eye(3), half)
        _fill(picture, neck, _scaled(person.skin, 0.66))
        _fill(picture, self._place(_COLLAR, np.eye(3), half), _scaled(person.shirt, 0.7))
        _fill(picture, self._place(_NECKLINE, np.eye(3), half), _scaled(person.skin, 0.66))
        if not person.long_hair:
            for sign in (-1.0, 1.0):
                ear = self._place(_EAR * [sign * person.head.vertices[454, 0] / 7.66, 1.0, 1.0], turn, shift)
                _fill(picture, ear, _scaled(person.skin, 0.82))
                _fill(picture, ear.mean(axis=0) + 0.55 * (ear - ear.mean(axis=0)), _scaled(person.skin, 0.64))
        top = points[person.head.vertices[:, 1] > 0.0]
        _fill(picture, cv2.convexHull(top.astype(np.float32))[:, 0], _scaled(person.hair, 0.7))

    def _draw_backdrop(self) -> np.ndarray:
        """Wall, a blurred picture frame and a plant, shoulders."""
        width, height = self._size
        person = self._person
        ramp = np.linspace(1.06, 0.86, height, dtype=np.float32)[:, None, None]
        wall = np.clip(np.array(person.wall, np.float32) * ramp, 0, 255)
        picture = np.ascontiguousarray(np.broadcast_to(wall, (height, width, 3)).astype(np.uint8))
        x, y = 0.06 * width, 0.1 * height
        _fill(picture, np.array([[x, y], [x + 44, y], [x + 44, y + 60], [x, y + 60]]), _scaled(person.shirt, 1.2))
        _fill(picture, np.array([[x + 5, y + 5], [x + 39, y + 5], [x + 39, y + 55], [x + 5, y + 55]]), (214, 206, 190))
        for k in range(5):
            leaf = np.array([width * 0.95, height * 0.62]) + [[0, 0], [-26 + 13 * k, -46 + 4 * abs(k - 2)], [6, 0]]
            _fill(picture, leaf, (70, 104 + 6 * k, 66))
        picture = cv2.GaussianBlur(picture, (0, 0), 3)
        torso = self._place(_TORSO, np.eye(3), np.zeros(3))
        _fill(picture, torso, person.shirt)
        shade = np.clip(np.linspace(1.08, 0.8, width, dtype=np.float32), 0, 2)[None, :, None]
        lit = np.clip(picture * shade, 0, 255).astype(np.uint8)
        mask = np.zeros((height, width), np.uint8)
        cv2.fillPoly(mask, [_fixed(torso)], 255, cv2.LINE_AA, SHIFT)
        return np.where(mask[..., None] > 127, lit, picture)


def _outline(*points: tuple[float, float, float]) -> np.ndarray:
    """A closed outline, symmetric about x = 0, from its right half."""
    right = np.array(points)
    return np.concatenate([right, right[::-1] * [-1.0, 1.0, 1.0]])


_NECK = _outline((4.6, -3.0, -3.0), (4.5, -10.0, -3.0), (5.2, -12.6, -3.0), (5.6, -13.2, -3.0))
_COLLAR = _outline((5.1, -12.4, -2.5), (6.6, -13.0, -2.5), (4.6, -15.4, -2.5), (1.6, -16.6, -2.5))
_NECKLINE = _outline((4.7, -12.0, -2.5), (3.6, -14.4, -2.5), (1.4, -15.4, -2.5))
_TORSO = _outline(
    (4.0, -12.6, -3.0),
    (9.0, -14.0, -3.0),
    (15.0, -16.0, -3.0),
    (18.5, -19.5, -3.0),
    (20.0, -26.0, -3.0),
    (20.5, -40.0, -3.0),
)
_BACK_HAIR = _outline(
    (2.5, 11.4, -6.0),
    (5.6, 10.3, -6.0),
    (8.0, 7.6, -6.0),
    (9.4, 3.5, -6.0),
    (9.9, -2.0, -6.0),
    (10.0, -8.0, -6.0),
    (9.4, -13.0, -6.0),
    (7.4, -15.5, -6.0),
    (5.0, -15.8, -6.0),
)
_EAR = np.array(
    [
        (7.4, 2.6, -3.0),
        (8.5, 2.9, -3.8),
        (9.2, 1.8, -4.2),
        (9.0, 0.0, -4.0),
        (8.4, -1.8, -3.4),
        (7.7, -2.6, -2.8),
        (7.2, -1.5, -2.6),
    ]
)


def _affine(
    corners: np.ndarray, edge_a: np.ndarray, edge_b: np.ndarray, area: np.ndarray, values: np.ndarray
) -> np.ndarray:
    """Per attribute, its ∂/∂x, ∂/∂y and value at 0 in each triangle: float32 [3, 3, M + 1]; number 0 is no triangle."""
    rise_a, rise_b = values[:, 1] - values[:, 0], values[:, 2] - values[:, 0]
    by_x = (rise_a * edge_b[:, 1:] - rise_b * edge_a[:, 1:]) / area[:, None]
    by_y = (rise_b * edge_a[:, :1] - rise_a * edge_b[:, :1]) / area[:, None]
    start = values[:, 0] - by_x * corners[:, 0, :1] - by_y * corners[:, 0, 1:]
    maps = np.stack([by_x, by_y, start]).transpose(2, 0, 1)
    return np.pad(maps, ((0, 0), (0, 0), (1, 0))).astype(np.float32)


def _fixed(points: np.ndarray) -> np.ndarray:
    return np.round(points * (1 << SHIFT)).astype(np.int32)


def _fill(picture: np.ndarray, outline: np.ndarray, colour: Colour, grow: int = 0) -> None:
    polygon = [_fixed(outline)]
    cv2.fillPoly(picture, polygon, colour, cv2.LINE_AA, SHIFT)
    if grow:
        cv2.polylines(picture, polygon, True, colour, 2 * grow, cv2.LINE_AA, SHIFT)


def _disc(picture: np.ndarray, x: float, y: float, radius: float, colour: tuple[int, ...]) -> None:
    centre = (round(x * (1 << SHIFT)), round(y * (1 << SHIFT)))
    cv2.circle(picture, centre, round(radius * (1 << SHIFT)), colour, -1, cv2.LINE_AA, SHIFT)


def _scaled(colour: Colour, factor: float) -> Colour:
    r, g, b = (min(255, round(c * factor)) for c in colour)
    return r, g, b
