"""A face's texture: what is painted on it, laid flat, whatever way the head is turned.

The canonical mesh has a place for each of its points in a flat picture (its UV map). Each texel of a small grid lies in
one triangle; three landmarks and fixed weights say where that texel is in a picture, and one `cv2.remap` fetches it.
How far a triangle faces the camera comes from its area in the picture against the canonical one's: a cheek that turns
away fades out, and what was not seen is not compared.

A track keeps the mean of what it showed for each of five ways in which the head was turned (`by_turn`): light, and
errors of the landmarks, depend on that more than on anything else.

The trade-off: 0.25 ms a face, of one frame in five, no network. Nothing but the mesh hides anything: a nose over the
far cheek does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import load as load_tensors

from visavis.stages.face.heads import flat_fit

TEXELS = 48
"""Of each side: 4 mm of a face."""

TURNS = (-40.0, -20.0, 0.0, 20.0, 40.0)
"""Degrees of yaw for which there is a texture each."""

EVERY = 5
"""Frames from one unwrapped face to the next."""

SEEN = 8.0
"""What a texel in a track counts for each time that it was seen in full."""

_FACING = (0.15, 0.6)  # cosines between line of sight and normal: from here on it counts, from there on in full
# Lids with eyes, and what lies between the lips: they show expressions.
_MOVING = (
    (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7),
    (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249),
    (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95),
)


class Unwrapped(NamedTuple):
    """rgb_SS3, seen_SS: uint8; seen is 255 where the face looks at the camera and 0 where it cannot be seen."""

    rgb_SS3: np.ndarray
    seen_SS: np.ndarray


class _Mesh(NamedTuple):
    triangle_3M: np.ndarray
    area_M: np.ndarray  # cm², twice
    owner_K: np.ndarray  # the triangle of each texel in use
    weight_KL: Any  # sparse: where a texel lies between the landmarks
    texel_K: np.ndarray  # index in the flat grid


def unwrap(rgb_HW3: np.ndarray, points_L2: np.ndarray) -> Unwrapped:
    """The texture of the face that has these landmarks (pixels of this picture)."""
    return unwrapped_at(rgb_HW3, points_L2, TEXELS)


def unwrapped_at(rgb_HW3: np.ndarray, points_L2: np.ndarray, side: int) -> Unwrapped:
    """`unwrap` with that many texels on each side."""
    import cv2

    mesh = _mesh(side)
    points_L2 = points_L2.astype(np.float32)
    place_K2 = mesh.weight_KL @ points_L2[: mesh.weight_KL.shape[1]]
    grid_S2 = np.full((side * side, 2), -1, np.float32)
    grid_S2[mesh.texel_K] = place_K2
    rgb = cv2.remap(rgb_HW3, grid_S2.reshape(side, side, 2), None, cv2.INTER_LINEAR)
    height, width = rgb_HW3.shape[:2]
    x_K, y_K = place_K2.T
    within_K = (x_K >= 0) & (y_K >= 0) & (x_K <= width - 1) & (y_K <= height - 1)
    seen = np.zeros(side * side, np.uint8)
    seen[mesh.texel_K] = 255 * _facing(mesh, points_L2)[mesh.owner_K] * within_K
    return Unwrapped(rgb, seen.reshape(side, side))


def by_turn(faces: Sequence[Unwrapped], yaw_N: np.ndarray) -> np.ndarray:
    """Mean textures for each of `TURNS`: uint8 [B, S, S, 4], RGB and how much was seen (`SEEN` for each time).

    yaw_N: degrees.
    """
    texture_BSS4 = np.zeros((len(TURNS), TEXELS, TEXELS, 4), np.uint8)
    nearest_N = np.abs(yaw_N[:, None] - TURNS).argmin(axis=1) if len(faces) else np.zeros(0, np.int64)
    for turn in set(nearest_N.tolist()):
        chosen = [face for face, nearest in zip(faces, nearest_N, strict=True) if nearest == turn]
        seen_NSS1 = np.stack([face.seen_SS for face in chosen])[..., None] / np.float32(255)
        seen_SS1 = seen_NSS1.sum(axis=0)
        mean_SS3 = (np.stack([face.rgb_SS3 for face in chosen]) * seen_NSS1).sum(axis=0) / np.maximum(seen_SS1, 1e-6)
        texture_BSS4[turn] = np.rint(np.concatenate([mean_SS3, np.minimum(SEEN * seen_SS1, 255)], axis=2))
    return texture_BSS4


def _facing(mesh: _Mesh, points_L2: np.ndarray) -> np.ndarray:
    """How far each triangle faces the camera, 0…1: by its area against the canonical one's at this size."""
    seen_L = points_L2.astype(np.float64) @ (1.0, 1.0j)
    start_M, second_M, third_M = seen_L[mesh.triangle_3M]
    # y down: a triangle that faces us runs clockwise
    seen_M = -(np.conj(second_M - start_M) * (third_M - start_M)).imag
    turn, _ = flat_fit(seen_L)
    cosine_M = seen_M / (abs(turn) ** 2 * mesh.area_M)
    faced: np.ndarray = np.clip((cosine_M - _FACING[0]) / (_FACING[1] - _FACING[0]), 0, 1)
    return faced


@cache
def _mesh(side: int) -> _Mesh:
    from scipy.sparse import csr_array

    data = load_tensors(resources.files("visavis.stages").joinpath("data", "canonical_face.safetensors").read_bytes())
    triangle_M3, uv_L2 = data["triangles"].astype(np.int64), data["uv"].astype(np.float64) * side - 0.5
    a, b = (data["vertices"][triangle_M3[:, k]] - data["vertices"][triangle_M3[:, 0]] for k in (1, 2))
    area_M = np.linalg.norm(np.cross(a, b), axis=1).astype(np.float32)
    still_M = ~np.any([np.isin(triangle_M3, part).all(axis=1) for part in _MOVING], axis=0)
    owner_K, weight_K3 = _owners(uv_L2[triangle_M3], still_M, side)
    texel_K = np.flatnonzero(owner_K >= 0)
    owner_K = owner_K[texel_K]
    place = np.repeat(np.arange(len(texel_K)), 3), triangle_M3[owner_K].ravel()
    shape = len(texel_K), len(uv_L2)
    weight_KL = csr_array((weight_K3[texel_K].astype(np.float32).ravel(), place), shape)
    return _Mesh(triangle_M3.T.copy(), area_M, owner_K, weight_KL, texel_K)


def _owners(corners_M32: np.ndarray, used_M: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The first used triangle in which each texel lies, −1 for none, and the weights [K, 3] of its corners."""
    owner_SS, weight_SS3 = np.full((side, side), -1), np.zeros((side, side, 3))
    for m in np.flatnonzero(used_M)[::-1].tolist():
        (x0, y0), (x1, y1) = (
            np.ceil(corners_M32[m].min(axis=0)).astype(int),
            np.floor(corners_M32[m].max(axis=0)).astype(int) + 1,
        )
        grid = np.stack(np.meshgrid(np.arange(x0, x1), np.arange(y0, y1)), axis=-1)
        weight_NN3 = _barycentric(grid.reshape(-1, 2).astype(np.float64), corners_M32[m]).reshape(*grid.shape[:2], 3)
        inside_NN = (weight_NN3 >= -1e-9).all(axis=2)
        part = np.s_[y0:y1, x0:x1]
        owner_SS[part][inside_NN], weight_SS3[part][inside_NN] = m, weight_NN3[inside_NN]
    return owner_SS.ravel(), weight_SS3.reshape(-1, 3)


def _barycentric(points_K2: np.ndarray, corners_32: np.ndarray) -> np.ndarray:
    """Weights [K, 3] of the corners of a triangle for each point."""
    origin, a, b = corners_32[0], corners_32[1] - corners_32[0], corners_32[2] - corners_32[0]
    away_K2 = points_K2 - origin
    area = a[0] * b[1] - a[1] * b[0]
    second_K = (away_K2[:, 0] * b[1] - away_K2[:, 1] * b[0]) / area
    third_K = (a[0] * away_K2[:, 1] - a[1] * away_K2[:, 0]) / area
    return np.stack([1 - second_K - third_K, second_K, third_K], axis=1)


def used_texels() -> int:
    """Texels that show a part of the face."""
    return len(_mesh(TEXELS).texel_K)
