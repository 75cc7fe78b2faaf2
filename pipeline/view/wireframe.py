"""A face without a portrait: its mesh, lit from above, with lines for triangles, lids, brows and lips."""

from __future__ import annotations

import cv2
import numpy as np

from visavis.pipeline.view.mesh import (
    BROWS,
    IRISES,
    LIDS_BOTTOM,
    LIDS_TOP,
    LIPS_INNER_BOTTOM,
    LIPS_INNER_TOP,
    LIPS_OUTER_BOTTOM,
    LIPS_OUTER_TOP,
    canonical_mesh,
    ring_of,
)

Colour = tuple[int, int, int]
FACE = 0.6
"""Share of the picture's side that a face's width takes."""
_SHIFT = 4  # fractional bits of OpenCV's polygon coordinates
_LIGHT = np.array([-0.35, 0.5, 0.79])


def draw_wireframe(points_L3: np.ndarray, size: int, colour: Colour, paper: Colour) -> np.ndarray:
    """A face in face widths, y up, about the middle of a square picture: uint8 [size, size, 3]."""
    picture = np.full((size, size, 3), paper, np.uint8)
    places_L2 = size / 2 + points_L3[:, :2].astype(np.float64) * (1, -1) * FACE * size
    mesh = canonical_mesh()
    triangles_M3 = mesh.skin[facing(places_L2, mesh.skin)]
    order = np.argsort(points_L3[triangles_M3, 2].sum(axis=1), kind="stable")
    triangles_M3 = triangles_M3[order]
    corners_M32 = _fixed(places_L2[triangles_M3])
    for corners_32, shade in zip(corners_M32, _shades(points_L3, triangles_M3, colour, paper), strict=True):
        cv2.fillConvexPoly(picture, corners_32, shade, cv2.LINE_8, _SHIFT)
    cv2.polylines(picture, list(corners_M32), True, mixed(colour, paper, 0.62), 1, cv2.LINE_AA, _SHIFT)
    _draw_features(picture, places_L2, colour, paper)
    return picture


def facing(places_L2: np.ndarray, triangles_M3: np.ndarray) -> np.ndarray:
    """Which triangles look at the viewer, bool [M]; y down."""
    a, b, c = (places_L2[triangles_M3[:, i]] for i in range(3))
    area_M = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    return np.asarray(area_M < 0)


def mixed(colour: Colour, paper: Colour, share: float) -> Colour:
    r, g, b = (round(share * a + (1 - share) * p) for a, p in zip(colour, paper, strict=True))
    return r, g, b


def _shades(points_L3: np.ndarray, triangles_M3: np.ndarray, colour: Colour, paper: Colour) -> list[list[int]]:
    """How much colour each triangle has: less where it looks to the lamp."""
    a, b, c = (points_L3[triangles_M3[:, i]].astype(np.float64) for i in range(3))
    normal_M3 = np.cross(b - a, c - a)
    normal_M3 /= np.linalg.norm(normal_M3, axis=1, keepdims=True) + 1e-12
    share_M1 = 0.55 - 0.45 * np.clip(normal_M3 @ _LIGHT, 0, 1)[:, None]
    shades: list[list[int]] = np.rint(share_M1 * colour + (1 - share_M1) * paper).astype(int).tolist()
    return shades


def _draw_features(picture: np.ndarray, places_L2: np.ndarray, colour: Colour, paper: Colour) -> None:
    stroke = max(1, round(len(picture) / 256))
    dark = mixed(colour, (0, 0, 0), 0.55)
    mouth = [_fixed(places_L2[list(ring_of(LIPS_INNER_TOP, LIPS_INNER_BOTTOM))])]
    lips = [_fixed(places_L2[list(ring_of(LIPS_OUTER_TOP, LIPS_OUTER_BOTTOM))])]
    cv2.fillPoly(picture, lips, mixed(colour, paper, 0.75), cv2.LINE_AA, _SHIFT)
    cv2.fillPoly(picture, mouth, dark, cv2.LINE_AA, _SHIFT)
    cv2.polylines(picture, mouth, True, dark, stroke, cv2.LINE_AA, _SHIFT)
    for top, bottom, iris in zip(LIDS_TOP, LIDS_BOTTOM, IRISES, strict=True):
        _draw_eye(picture, _fixed(places_L2[list(ring_of(top, bottom))]), places_L2[list(iris)], dark)
        cv2.polylines(picture, [_fixed(places_L2[list(top)])], False, dark, 2 * stroke, cv2.LINE_AA, _SHIFT)
        cv2.polylines(picture, [_fixed(places_L2[list(bottom)])], False, dark, stroke, cv2.LINE_AA, _SHIFT)
    for brow in BROWS:
        cv2.fillPoly(picture, [_fixed(places_L2[list(brow)])], dark, cv2.LINE_AA, _SHIFT)


def _draw_eye(picture: np.ndarray, lids: np.ndarray, iris_52: np.ndarray, dark: Colour) -> None:
    """White, and of the iris what the lids leave open."""
    left, top, wide, high = cv2.boundingRect(lids >> _SHIFT)
    left, top = left - 1, top - 1
    rows, columns = slice(max(top, 0), max(top + high + 2, 0)), slice(max(left, 0), max(left + wide + 2, 0))
    view = picture[rows, columns]
    if not view.size:
        return
    offset_2 = np.array([columns.start, rows.start])
    eye, open_ = np.full_like(view, 250), np.zeros(view.shape[:2], np.uint8)
    cv2.fillPoly(open_, [(lids - (offset_2 << _SHIFT)).astype(np.int32)], 255, cv2.LINE_AA, _SHIFT)
    radius = float(np.linalg.norm(iris_52[1:] - iris_52[0], axis=1).mean())
    x, y = _fixed(iris_52[0] - offset_2).tolist()
    cv2.circle(eye, (x, y), round(radius * (1 << _SHIFT)), dark, -1, cv2.LINE_AA, _SHIFT)
    share = open_[..., None] / 255.0
    view[:] = np.rint(share * eye + (1 - share) * view)


def _fixed(places: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(places, -30_000, 30_000) * (1 << _SHIFT)).astype(np.int32)
