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
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load as load_tensors

from stages.heads import flat_fit

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
    triangle_M3: np.ndarray
    area_M: np.ndarray  # cm², twice
    owner_K: np.ndarray  # the triangle of each texel in use
    weight_K3: np.ndarray
    texel_K: np.ndarray  # index in the flat grid


def unwrap(rgb_HW3: np.ndarray, points_L2: np.ndarray) -> Unwrapped:
    """The texture of the face that has these landmarks (pixels of this picture)."""
    return unwrapped_at(rgb_HW3, points_L2, TEXELS)


def unwrapped_at(rgb_HW3: np.ndarray, points_L2: np.ndarray, side: int) -> Unwrapped:
    """`unwrap` with that many texels on each side."""
    import cv2

    mesh = _mesh(side)
    points_L2 = points_L2.astype(np.float32)
    corners_M32 = points_L2[mesh.triangle_M3]
    place_K2 = np.einsum("kci,kc->ki", corners_M32[mesh.owner_K], mesh.weight_K3)
    grid_S2 = np.full((side * side, 2), -1, np.float32)
    grid_S2[mesh.texel_K] = place_K2
    rgb = cv2.remap(rgb_HW3, grid_S2.reshape(side, side, 2), None, cv2.INTER_LINEAR)
    height, width = rgb_HW3.shape[:2]
    within_K = ((place_K2 >= 0) & (place_K2 <= (width - 1, height - 1))).all(axis=1)
    seen = np.zeros(side * side, np.uint8)
    seen[mesh.texel_K] = 255 * _facing(corners_M32, mesh.area_M, points_L2)[mesh.owner_K] * within_K
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


def _facing(corners_M32: np.ndarray, area_M: np.ndarray, points_L2: np.ndarray) -> np.ndarray:
    """How far each triangle faces the camera, 0…1: by its area against the canonical one's at this size."""
    a_M2, b_M2 = corners_M32[:, 1] - corners_M32[:, 0], corners_M32[:, 2] - corners_M32[:, 0]
    seen_M = a_M2[:, 1] * b_M2[:, 0] - a_M2[:, 0] * b_M2[:, 1]  # y down: a triangle that faces us runs clockwise
    turn, _ = flat_fit(points_L2.astype(np.float64) @ (1.0, 1.0j))
    cosine_M = seen_M / (abs(turn) ** 2 * area_M)
    faced: np.ndarray = np.clip((cosine_M - _FACING[0]) / (_FACING[1] - _FACING[0]), 0, 1)
    return faced


@cache
def _mesh(side: int) -> _Mesh:
    data = load_tensors(resources.files("stages").joinpath("data", "canonical_face.safetensors").read_bytes())
    triangle_M3, uv_L2 = data["triangles"].astype(np.int64), data["uv"].astype(np.float64) * side - 0.5
    a, b = (data["vertices"][triangle_M3[:, k]] - data["vertices"][triangle_M3[:, 0]] for k in (1, 2))
    area_M = np.linalg.norm(np.cross(a, b), axis=1).astype(np.float32)
    texels_K2 = np.stack(np.meshgrid(*[np.arange(side)] * 2), axis=-1).reshape(-1, 2)
    weight_KM3 = _barycentric(texels_K2.astype(np.float64), uv_L2[triangle_M3])
    still_M = ~np.any([np.isin(triangle_M3, part).all(axis=1) for part in _MOVING], axis=0)
    inside_KM = (weight_KM3 >= -1e-9).all(axis=2) & still_M
    used_K = inside_KM.any(axis=1)
    owner_K = inside_KM[used_K].argmax(axis=1)
    weight_K3 = weight_KM3[used_K, owner_K].astype(np.float32)
    return _Mesh(triangle_M3, area_M, owner_K, weight_K3, np.flatnonzero(used_K))


def _barycentric(points_K2: np.ndarray, corners_M32: np.ndarray) -> np.ndarray:
    """Weights [K, M, 3] of the corners of each triangle for each point."""
    origin_M2 = corners_M32[:, 0]
    a, b = corners_M32[:, 1] - origin_M2, corners_M32[:, 2] - origin_M2
    away = points_K2[:, None] - origin_M2
    area = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    second = (away[..., 0] * b[:, 1] - away[..., 1] * b[:, 0]) / area
    third = (a[:, 0] * away[..., 1] - a[:, 1] * away[..., 0]) / area
    return np.stack([1 - second - third, second, third], axis=-1)


def used_texels() -> int:
    """Texels that show a part of the face."""
    return len(_mesh(TEXELS).texel_K)
