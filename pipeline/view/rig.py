"""A portrait made ready to move: its picture as a texture, and a mesh over it that reaches beyond the face.

Vertices: 468 of the skin; six rings about the face, which carry hair, ears and neck along and fade into the background;
then those of the eyes and of the mouth once more, for what is seen in these holes does not move as their edges do: lids
close over an eyeball that stays, and lips open before teeth that hang with the upper one. What lies behind lips that
are closed in the picture is painted here.

The browser's renderer is fed with `Rig.json`, so that both show the same. Coordinates are shares of the picture's side
there, and pixels of the drawn size here.
"""

from __future__ import annotations

import base64
from functools import cached_property
from typing import Any

import cv2
import numpy as np

from visavis.pipeline.view.mesh import (
    IRISES,
    LIDS_BOTTOM,
    LIDS_TOP,
    LIPS_INNER_BOTTOM,
    LIPS_INNER_TOP,
    OVAL,
    SKIN,
    canonical_mesh,
)
from visavis.pipeline.view.mouth import mouth_texture
from visavis.pipeline.view.packed import packed_rows
from visavis.pipeline.view.portrait import Portrait

RINGS = np.array([0.1, 0.25, 0.45, 0.75, 1.15, 1.7])
"""How far beyond the border of the face they lie, in its distances from the middle."""
_BEHIND = np.array([0.1, 0.2, 0.3, 0.35, 0.35, 0.35])  # face widths behind the border of the face
_WITH_HEAD = 0.3  # share of the rings' reach that moves as the head does
_NECK = 0.05  # the same below the chin
_OPEN = 0.035  # face widths between the lips, from which on the picture shows a mouth's inside
DEEPEST = 0.22  # face widths between the lips at which all of the painted mouth is seen
FURTHEST = 0.45  # face widths that a head is moved, at most
SMALLEST, LARGEST = 0.75, 1.35  # of the portrait's size
GAZE = 0.22  # of the eye's width, how far an iris is moved
_SKULL = np.array(
    [10, 338, 297, 332, 284, 251, 389, 127, 162, 21, 54, 103, 67, 109, 151, 9, 8, 168, 6, 197, 195, 33, 133, 362, 263]
    + [356, 454, 323, 234, 93, 127]
)

EYES_AT = SKIN + len(RINGS) * len(OVAL)
HOLES = (*zip(LIDS_TOP, LIDS_BOTTOM, strict=True), (LIPS_INNER_TOP, LIPS_INNER_BOTTOM))


class Rig:
    """What draws a portrait: see above. points_L3 are in face widths, as `Puppet.points` gives them."""

    def __init__(self, portrait: Portrait) -> None:
        self.portrait = portrait
        side, unit, origin_2 = len(portrait.picture_SS3), portrait.unit, portrait.origin_2
        skin_2 = portrait.points_L3[:, :2]
        rest_L3 = np.concatenate([(skin_2 - origin_2) * (1, -1), -portrait.points_L3[:, 2:]], axis=1) / unit
        ring_R2, self.weight_R = _rings(skin_2[list(OVAL)], side)
        depth_R = (rest_L3[list(OVAL), 2] - _BEHIND[:, None]).ravel()
        self.ring_R3 = np.concatenate([(ring_R2 - origin_2) * (1, -1) / unit, depth_R[:, None]], axis=1)
        self.unit, self.origin_2 = unit / side, (origin_2 + 0.5) / side
        self.rest_L3 = rest_L3
        self.still_V2 = (np.concatenate([skin_2[:SKIN], ring_R2]) + 0.5) / side
        self.middle_3 = rest_L3[_SKULL].mean(axis=0)
        self.fit_4N = np.linalg.pinv(np.concatenate([rest_L3[_SKULL], np.ones((len(_SKULL), 1))], axis=1))
        top, bottom = (rest_L3[list(edge), :2] for edge in (LIPS_INNER_TOP, LIPS_INNER_BOTTOM))
        self.is_open = bool(np.linalg.norm(top - bottom, axis=1).max() > _OPEN)

    @cached_property
    def mouth(self) -> np.ndarray:
        """The painted inside of a mouth, uint8 RGB, as light as the face is."""
        return mouth_texture(self.portrait.picture_SS3, self.portrait.points_L3)

    def placed(self, points_L3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the vertices are and which place of the texture they show: shares of the side, [V, 2] both; the mouth's
        are of the painted mouth, unless `is_open`."""
        points_L3, head_43 = self._within(points_L3.astype(np.float64))
        ring_R3 = np.concatenate([self.ring_R3, np.ones((len(self.ring_R3), 1))], axis=1) @ head_43
        ring_R2 = self.still_V2[SKIN:] * (1 - self.weight_R[:, None]) + self._seen(ring_R3) * self.weight_R[:, None]
        seen_L2, still_L2 = self._seen(points_L3), self._seen(self.rest_L3)
        shown = [
            _eye(seen_L2, still_L2, top, bottom, iris[0]) for (top, bottom), iris in zip(HOLES[:2], IRISES, strict=True)
        ]
        shown.append(self._mouth(seen_L2, still_L2))
        doubled = [seen_L2[[*top, *bottom[1:-1]]] for top, bottom in HOLES]
        places_V2 = np.concatenate([seen_L2[:SKIN], ring_R2, *doubled])
        return places_V2, np.concatenate([self.still_V2, *shown])

    def _within(self, points_L3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The face, no further from its place and no larger or smaller than the picture can carry; and how the head
        moves, affine [4, 3]."""
        head_43 = self.fit_4N @ points_L3[_SKULL]
        middle_3 = np.append(self.middle_3, 1) @ head_43
        moved_2 = middle_3[:2] - self.middle_3[:2]
        size = float(np.sqrt(np.square(points_L3[_SKULL] - points_L3[_SKULL].mean(axis=0)).sum()))
        size /= float(np.sqrt(np.square(self.rest_L3[_SKULL] - self.middle_3).sum()))
        scale = np.clip(size, SMALLEST, LARGEST) / max(size, 1e-9)
        far = float(np.hypot(*moved_2)) / FURTHEST
        place_3 = middle_3.copy()
        place_3[:2] = self.middle_3[:2] + moved_2 * (np.tanh(far) / far if far > 1e-9 else 1.0)
        points_L3 = (points_L3 - middle_3) * scale + place_3
        return points_L3, self.fit_4N @ points_L3[_SKULL]

    def _seen(self, points_N3: np.ndarray) -> np.ndarray:
        return np.asarray(self.origin_2 + points_N3[:, :2] * (self.unit, -self.unit))

    def _mouth(self, seen_L2: np.ndarray, still_L2: np.ndarray) -> np.ndarray:
        top, bottom = list(LIPS_INNER_TOP), list(LIPS_INNER_BOTTOM)
        gap_11 = np.linalg.norm(seen_L2[bottom] - seen_L2[top], axis=1)
        if self.is_open:  # teeth hang with the upper lip
            down_112 = still_L2[bottom] - still_L2[top]
            share_11 = np.minimum(gap_11 / np.maximum(np.linalg.norm(down_112, axis=1), 1e-6), 1)
            return np.concatenate([still_L2[top], (still_L2[top] + down_112 * share_11[:, None])[1:-1]])
        across_11 = np.linspace(0, 1, len(top))
        down_11 = np.minimum(gap_11 / (DEEPEST * self.unit), 1)
        upper, lower = np.stack([across_11, 0 * across_11], axis=1), np.stack([across_11, down_11], axis=1)
        return np.concatenate([upper, lower[1:-1]])

    def json(self) -> dict[str, Any]:
        """For a page: everything that `placed` needs."""
        return {
            "picture": jpeg_address(self.portrait.picture_SS3),
            "mouth": jpeg_address(self.mouth),
            "still": packed_rows(self.still_V2.reshape(1, -1), bits=16),
            "rest": packed_rows(self.rest_L3.reshape(1, -1), bits=16),
            "ring": packed_rows(self.ring_R3.reshape(1, -1), bits=16),
            "weight": packed_rows(self.weight_R[None], bits=16),
            "fit": packed_rows(self.fit_4N, bits=16),
            "skull": _SKULL.tolist(),
            "origin": self.origin_2.round(6).tolist(),
            "unit": round(self.unit, 6),
            "open": self.is_open,
            "limits": {
                "furthest": FURTHEST,
                "smallest": SMALLEST,
                "largest": LARGEST,
                "gaze": GAZE,
                "deepest": DEEPEST,
            },
        }


def ring_triangles() -> np.ndarray:
    """Of the rings, the outer ones first: int32 [M, 3]."""
    count = len(OVAL)
    inner = np.array(OVAL)
    quads = []
    for ring in range(len(RINGS)):
        outer = SKIN + ring * count + np.arange(count)
        a, b, c, d = inner, np.roll(inner, -1), outer, np.roll(outer, -1)
        quads.append(np.concatenate([np.stack([a, b, c], axis=1), np.stack([b, d, c], axis=1)]))
        inner = outer
    return np.concatenate(quads[::-1]).astype(np.int32)


def hole_triangles() -> tuple[np.ndarray, np.ndarray]:
    """Of both eyes and of the mouth, with their own vertices: int32 [M, 3] each."""
    number: dict[int, int] = {}
    at = EYES_AT
    for top, bottom in HOLES:
        number |= {landmark: at + i for i, landmark in enumerate((*top, *bottom[1:-1]))}
        at += len(top) + len(bottom) - 2
    mesh = canonical_mesh()
    eyes, mouth = (
        np.array([[number[i] for i in row] for row in part.tolist()], np.int32) for part in (mesh.eyes, mesh.mouth)
    )
    return eyes, mouth


def jpeg_address(rgb_HW3: np.ndarray, quality: int = 88) -> str:
    """A picture as a data address."""
    jpeg = cv2.imencode(".jpg", cv2.cvtColor(rgb_HW3, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()


def _rings(oval_N2: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Places [R, 2] in pixels and how much of the head's movement each has [R]. None lies outside the picture, unless
    the face itself comes close to its edge."""
    middle_2 = oval_N2.mean(axis=0)
    way_N2 = oval_N2 - middle_2
    with np.errstate(divide="ignore", invalid="ignore"):
        room_N = np.nanmin(np.where(way_N2 > 0, (side - 1 - oval_N2) / way_N2, -oval_N2 / way_N2), axis=1)
    reach_N = np.clip(room_N / RINGS[-1], 0.15, 1.0)
    beyond_JN = RINGS[:, None] * reach_N
    below_N = np.clip(way_N2[:, 1] / np.linalg.norm(way_N2, axis=1), 0, 1) ** 2
    start_N = _WITH_HEAD + (_NECK - _WITH_HEAD) * below_N
    share_JN = np.clip((RINGS[:, None] / RINGS[-1] - start_N) / (1 - start_N), 0, 1)
    weight_JN = 1 - share_JN**2 * (3 - 2 * share_JN)
    ring_JN2 = oval_N2 + way_N2 * beyond_JN[..., None]
    return ring_JN2.reshape(-1, 2), weight_JN.ravel()


def _eye(
    seen_L2: np.ndarray, still_L2: np.ndarray, top: tuple[int, ...], bottom: tuple[int, ...], iris: int
) -> np.ndarray:
    """What of the picture's eye is seen between the lids [16, 2]: the eyeball keeps its place between the corners, and
    lids that open wider than in the picture stretch it."""
    z_L, rest_L = (places_L2 @ (1, 1j) for places_L2 in (seen_L2, still_L2))
    across_seen, across = z_L[top[-1]] - z_L[top[0]], rest_L[top[-1]] - rest_L[top[0]]
    back = across / across_seen if abs(across_seen) > 1e-6 else 0.0
    upper_9, lower_9, seen_upper_9, seen_lower_9 = (
        z[list(edge)] for z, edge in ((rest_L, top), (rest_L, bottom), (z_L, top), (z_L, bottom))
    )
    down_9 = lower_9 - upper_9
    a_9, b_9 = (
        np.clip(
            ((rest_L[top[0]] + back * (seen_9 - z_L[top[0]]) - upper_9) * down_9.conj()).real
            / np.maximum(np.abs(down_9) ** 2, 1e-12),
            0,
            1,
        )
        for seen_9 in (seen_upper_9, seen_lower_9)
    )
    turned = (rest_L[top[0]] + back * (z_L[iris] - z_L[top[0]]) - rest_L[iris]) / across if across else 0.0
    gaze_9 = np.clip(np.real(turned), -GAZE, GAZE) * across * np.sin(np.linspace(0, np.pi, len(top)))
    shown_upper, shown_lower = upper_9 + a_9 * down_9 - gaze_9, upper_9 + np.maximum(a_9, b_9) * down_9 - gaze_9
    shown = np.concatenate([shown_upper, shown_lower[1:-1]])
    return np.stack([shown.real, shown.imag], axis=1)
