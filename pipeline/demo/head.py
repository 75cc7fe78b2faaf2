"""Geometry of a talking head: the canonical face, closed to a skull, with three expressions.

The face is MediaPipe's canonical mesh (468 vertices, cm, x to the right in the picture, y up, z to the camera).
Expressions are displacement fields: fixed at a few named landmarks and harmonic in between (the solution of the
mesh's Laplace equation, as in Zayer et al. 2005, "Harmonic guidance for surface deformation"), which spreads a moved
lip smoothly over cheeks and chin without any sculpted shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from safetensors.numpy import load

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

FACE = 468
RINGS = 4
"""Rings of skull behind the border of the face."""

UV_FACE = 0.56
"""Share of the texture's side that the face takes; the skull's rings lie around it."""

JAW_ANGLE = np.deg2rad(14.0)
HINGE = np.array([0.0, 0.5, -2.0])


@dataclass(frozen=True)
class Head:
    """A person's neutral head and what expressions add to it.

    vertices_V3: float64, cm. mouth_V3, smile_V3, blink_V3: displacement at full strength. triangles_M3: int.
    uv_V2: float64, 0…1 in the texture. normals_V3: of the neutral head.
    """

    vertices: np.ndarray
    mouth: np.ndarray
    smile: np.ndarray
    blink: np.ndarray
    triangles: np.ndarray
    uv: np.ndarray
    normals: np.ndarray


@dataclass(frozen=True)
class Shape:
    """How a person's skull differs from the canonical one; factors about 1."""

    width: float = 1.0
    jaw: float = 1.0
    nose: float = 1.0
    length: float = 1.0


@cache
def canonical_face() -> dict[str, np.ndarray]:
    """`vertices` [468, 3] float32 in cm, `triangles` [898, 3] int32 and `uv` [468, 2] float32, v downwards."""
    return load(files("visavis.stages").joinpath("data/canonical_face.safetensors").read_bytes())


def make_head(shape: Shape) -> Head:
    """Build a person's head."""
    face = canonical_face()
    neutral = face["vertices"].astype(np.float64)
    mouth, smile, blink, closed = _expressions()
    skin = _personal(neutral + closed, shape)
    skull, skull_uv, skull_triangles = _skull(skin, face["uv"].astype(np.float64))
    vertices = np.concatenate([skin, skull])
    triangles = np.concatenate([face["triangles"], skull_triangles]).astype(np.int64)
    still = np.zeros_like(skull)
    # The chin's border moves with the jaw, and the first ring with it, or the jaw would tear off the throat.
    follow = still.copy()
    follow[: len(OVAL)] = 0.7 * mouth[list(OVAL)]
    return Head(
        vertices=vertices,
        mouth=np.concatenate([mouth, follow]),
        smile=np.concatenate([smile, still]),
        blink=np.concatenate([blink, still]),
        triangles=triangles,
        uv=np.concatenate([0.5 + UV_FACE * (face["uv"] - 0.5), skull_uv]),
        normals=_normals(vertices, triangles),
    )


def rotation(pitch: float, yaw: float, roll: float) -> np.ndarray:
    """Rotation matrix [3, 3] that turns a head by roll, then pitch, then yaw (rad, right-handed axes)."""
    (cp, sp), (cy, sy), (cr, sr) = ((np.cos(a), np.sin(a)) for a in (pitch, yaw, roll))
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return np.asarray(about_y @ about_x @ about_z)


@cache
def _expressions() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Displacements [468, 3] of jaw, smile and blink, and the one that closes the canonical, parted lips."""
    neutral = canonical_face()["vertices"].astype(np.float64)
    upper = {i for i in range(FACE) if neutral[i, 1] > -1.6}
    rigid_top = {*upper, *LIPS_INNER_TOP[1:-1], *LIPS_OUTER_TOP[1:-1], 164, 0, 2, 97, 326}
    chin = {
        152,
        148,
        377,
        176,
        400,
        149,
        378,
        199,
        175,
        200,
        18,
        17,
        *LIPS_OUTER_BOTTOM[1:-1],
        *LIPS_INNER_BOTTOM[1:-1],
    }
    corners = {61, 291, 78, 308}
    weight = _harmonic({**dict.fromkeys(rigid_top, 0.0), **dict.fromkeys(chin, 1.0), **dict.fromkeys(corners, 0.45)})
    mouth = weight * np.cross([JAW_ANGLE, 0.0, 0.0], neutral - HINGE)

    border = {*OVAL, 1, 4, 5, 6, 168, 9, 151, 152, 199, 175, *BROWS[0], *BROWS[1]}
    pull: dict[int, tuple[float, float, float]] = dict.fromkeys(border, (0.0, 0.0, 0.0))
    for side, sign in ((0, -1.0), (1, 1.0)):
        pull |= dict.fromkeys((*LIDS_TOP[side], *LIDS_BOTTOM[side]), (0.0, 0.0, 0.0))
        pull |= dict.fromkeys(((61, 78), (291, 308))[side], (sign * 1.0, 0.75, -0.4))
        pull |= dict.fromkeys(((50, 205), (280, 425))[side], (sign * 0.25, 0.4, 0.15))
    pull |= {0: (0.0, 0.1, 0.0), 13: (0.0, 0.08, 0.0), 14: (0.0, 0.02, 0.0), 17: (0.0, 0.0, 0.0)}
    smile = _harmonic(pull)

    lids: dict[int, tuple[float, float, float]] = dict.fromkeys({*OVAL, 6, 168, 1, 4, 50, 280}, (0.0, 0.0, 0.0))
    for top, bottom, brow in zip(LIDS_TOP, LIDS_BOTTOM, BROWS, strict=True):
        lids |= dict.fromkeys((*bottom, *brow), (0.0, 0.0, 0.0))
        for a, b in zip(top[1:-1], bottom[1:-1], strict=True):
            step = 0.97 * (neutral[b] - neutral[a])
            lids[a] = (float(step[0]), float(step[1]), float(step[2]) + 0.1)
    blink = _harmonic(lids)

    lips: dict[int, tuple[float, float, float]] = dict.fromkeys({*OVAL, *upper, 61, 291, 78, 308, 199}, (0.0, 0.0, 0.0))
    for a, b in zip(LIPS_INNER_TOP[1:-1], LIPS_INNER_BOTTOM[1:-1], strict=True):
        gap = float(neutral[a, 1] - neutral[b, 1])
        lips |= {a: (0.0, -0.40 * gap, 0.0), b: (0.0, 0.50 * gap, 0.0)}
    return mouth, smile, blink, _harmonic(lips)


def _harmonic(fixed: dict[int, float] | dict[int, tuple[float, float, float]]) -> np.ndarray:
    """Values [468, C] that equal `fixed` where given and the mean of their neighbours elsewhere."""
    known = np.array(sorted(fixed))
    values = np.array([np.atleast_1d(fixed[int(i)]) for i in known], np.float64)
    adjacency = np.zeros((FACE, FACE))
    for a, b in ((0, 1), (1, 2), (2, 0)):
        edges = canonical_face()["triangles"][:, [a, b]]
        adjacency[edges[:, 0], edges[:, 1]] = adjacency[edges[:, 1], edges[:, 0]] = 1.0
    laplacian = np.diag(adjacency.sum(axis=1)) - adjacency
    free = np.setdiff1d(np.arange(FACE), known)
    out = np.zeros((FACE, values.shape[1]))
    out[known] = values
    out[free] = np.linalg.solve(laplacian[np.ix_(free, free)], -laplacian[np.ix_(free, known)] @ values)
    return out


def _personal(vertices: np.ndarray, shape: Shape) -> np.ndarray:
    out = vertices * [shape.width, shape.length, 1.0]
    low = np.clip((-vertices[:, 1] - 1.0) / 7.0, 0.0, 1.0)
    out[:, 0] *= 1.0 + (shape.jaw - 1.0) * low
    tip = np.exp(-np.sum(((vertices - vertices[4]) / [1.8, 2.6, 3.0]) ** 2, axis=1))
    out[:, :2] += (shape.nose - 1.0) * tip[:, None] * (vertices - vertices[4])[:, :2]
    out[:, 2] += 2.0 * (shape.nose - 1.0) * tip
    return np.asarray(out)


def _skull(face: np.ndarray, uv: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rings behind the face's border: cranium above, ears' level at the sides, throat below."""
    border, border_uv = face[list(OVAL)], uv[list(OVAL)]
    up = np.clip((border[:, 1] + 1.0) / 8.0, 0.0, 1.0)[:, None]
    down = np.clip((-border[:, 1] - 3.0) / 5.0, 0.0, 1.0)[:, None]
    rings, ring_uv = [], []
    for k in range(1, RINGS + 1):
        t = k / RINGS
        back = np.array([0.0, 0.0, -8.5 * t]) * (1.0 - 0.35 * down)
        bulge = np.sin(0.5 * np.pi * min(1.0, 1.6 * t))
        grown = border * [1.0 + 0.06 * bulge, 1.0, 1.0] + up * np.array([0.0, 2.6 * bulge, 0.0])
        throat = down * t * (np.array([0.0, 2.2, 0.0]) - 0.3 * border * [1.0, 0.0, 0.0])
        rings.append(grown + back + throat)
        ring_uv.append(0.5 + (border_uv - 0.5) * (UV_FACE + (1.0 - UV_FACE) * 0.97 * t))
    n = len(OVAL)
    triangles = []
    for k in range(RINGS):
        inner = np.array(OVAL) if k == 0 else FACE + (k - 1) * n + np.arange(n)
        outer = FACE + k * n + np.arange(n)
        inner_next, outer_next = np.roll(inner, -1), np.roll(outer, -1)
        triangles += [np.stack([inner, inner_next, outer], 1), np.stack([inner_next, outer_next, outer], 1)]
    return np.concatenate(rings), np.concatenate(ring_uv), np.concatenate(triangles)


def _normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    facing = np.cross(b - a, c - a)
    out = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(out, triangles[:, k], facing)
    return np.asarray(out / np.linalg.norm(out, axis=1, keepdims=True))
