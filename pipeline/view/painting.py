"""Textured triangles: a picture of triangle numbers, painted back to front, then one `cv2.remap` of the texture.

Texture coordinates follow per pixel from each triangle's affine map. On the CPU, one core.
"""

from __future__ import annotations

import cv2
import numpy as np

_SHIFT = 4  # fractional bits of OpenCV's polygon coordinates
_JUMP = 3.0  # pixels of the texture from one pixel to the next
_LEAST = 0.05  # pixels²; triangles with less are not painted


def paint(picture_HW3: np.ndarray, texture: np.ndarray, places_M32: np.ndarray, shown_M32: np.ndarray) -> np.ndarray:
    """A copy of the picture with triangles painted over it, in this order.

    Args:
        places_M32, shown_M32: corners in the picture and in the texture, pixels; the middle of the first one is at 0.
    """
    edge_a, edge_b = places_M32[:, 1] - places_M32[:, 0], places_M32[:, 2] - places_M32[:, 0]
    area_M = edge_a[:, 0] * edge_b[:, 1] - edge_a[:, 1] * edge_b[:, 0]
    wanted = np.abs(area_M) > _LEAST
    places_M32, shown_M32, area_M = places_M32[wanted], shown_M32[wanted], area_M[wanted]
    edge_a, edge_b = edge_a[wanted], edge_b[wanted]
    height, width = picture_HW3.shape[:2]
    numbers = np.zeros((height, width), np.int32)
    fixed = np.rint(np.clip(places_M32, -8 * width, 8 * width) * (1 << _SHIFT)).astype(np.int32)
    for number, corners in enumerate(fixed, start=1):
        cv2.fillConvexPoly(numbers, corners, number, cv2.LINE_8, _SHIFT)
    x0, y0, wide, high = cv2.boundingRect((numbers > 0).astype(np.uint8))
    rows, columns = slice(y0, y0 + high), slice(x0, x0 + wide)
    which = numbers[rows, columns].astype(np.intp)
    xs = np.arange(x0, x0 + wide, dtype=np.float32)
    ys = np.arange(y0, y0 + high, dtype=np.float32)[:, None]
    u, v = (
        by_x.take(which) * xs + by_y.take(which) * ys + start.take(which)
        for by_x, by_y, start in _affine(places_M32, edge_a, edge_b, area_M, shown_M32)
    )
    painted = picture_HW3.copy()
    if wide and high:
        view = painted[rows, columns]
        colours = cv2.remap(texture, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        cv2.copyTo(colours, (which > 0).astype(np.uint8), view)
        u, v = np.where(which > 0, u, xs), np.where(which > 0, v, ys)
        cv2.copyTo(cv2.GaussianBlur(view, (3, 3), 0), _jumps(u, v), view)
    return painted


def _jumps(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Pixels beside which the texture goes on elsewhere, uint8 0 or 1: edges that lie over something."""
    jumps = np.zeros(u.shape, np.uint8)
    for map_ in (u, v):
        across, down = (np.abs(np.diff(map_, axis=axis)) > _JUMP for axis in (1, 0))
        jumps[:, 1:] |= across
        jumps[:, :-1] |= across
        jumps[1:] |= down
        jumps[:-1] |= down
    return jumps


def _affine(
    places_M32: np.ndarray, edge_a: np.ndarray, edge_b: np.ndarray, area_M: np.ndarray, shown_M32: np.ndarray
) -> np.ndarray:
    """Of both texture coordinates, ∂/∂x, ∂/∂y and value at 0 in each triangle: float32 [2, 3, M + 1]; 0 is none."""
    rise_a, rise_b = shown_M32[:, 1] - shown_M32[:, 0], shown_M32[:, 2] - shown_M32[:, 0]
    by_x = (rise_a * edge_b[:, 1:] - rise_b * edge_a[:, 1:]) / area_M[:, None]
    by_y = (rise_b * edge_a[:, :1] - rise_a * edge_b[:, :1]) / area_M[:, None]
    start = shown_M32[:, 0] - by_x * places_M32[:, 0, :1] - by_y * places_M32[:, 0, 1:]
    maps = np.stack([by_x, by_y, start]).transpose(2, 0, 1)
    return np.pad(maps, ((0, 0), (0, 0), (1, 0))).astype(np.float32)
