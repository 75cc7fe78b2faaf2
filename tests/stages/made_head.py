"""A head like FLAME's, made here: the canonical face, longer and wider, with eyeballs and a neck that hang on joints.

Nothing of FLAME is in it but the names of its arrays, so tests and readers of the docs can try what takes a model.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from visavis.pipeline.view.mesh import (
    BROWS,
    LIDS_BOTTOM,
    LIDS_TOP,
    LIPS_INNER_BOTTOM,
    LIPS_INNER_TOP,
    LIPS_OUTER_BOTTOM,
    LIPS_OUTER_TOP,
    canonical_mesh,
)
from visavis.stages.face.flame_files import EMBEDDING, SHAPE
from visavis.stages.face.heads import canonical_face

NOSE = (168, 6, 197, 195, 5, 4, 129, 98, 97, 2, 326, 327, 358)
KNOWN = sorted(
    {*BROWS[0], *BROWS[1], *LIDS_TOP[0], *LIDS_TOP[1], *LIDS_BOTTOM[0], *LIDS_BOTTOM[1], *NOSE}
    | {*LIPS_INNER_TOP, *LIPS_INNER_BOTTOM, *LIPS_OUTER_TOP, *LIPS_OUTER_BOTTOM}
)
"""The 105 landmarks that MediaPipe's embedding of FLAME has: brows, eyes, nose and lips."""
EXPRESSIONS = 50
SMILE, BROWS_UP = 0, 1
_EYES_CM = ((3.15, 2.5, 2.3), (-3.15, 2.5, 2.3))  # middles of the eyeballs, the person's left one first
_BALL_CM, _RING = 1.25, 24


def true_landmarks() -> np.ndarray:
    """Where MediaPipe's landmarks of the skin lie on this head: [468, 3] m."""
    return _warped(canonical_face())


def made_head(seed: int = 0) -> dict[str, np.ndarray]:
    """FLAME's arrays, by its names."""
    random = np.random.default_rng(seed)
    face_V3, faces = canonical_face(), canonical_mesh().skin
    ring_V3 = _ring()
    balls = [_ball(np.array(middle)) for middle in _EYES_CM]
    places = [face_V3, ring_V3, *(ball for ball, _ in balls)]
    first = np.cumsum([0, *(len(part) for part in places)])
    ring_faces = [(i, (i + 1) % _RING, _RING + i) for i in range(_RING)]
    ring_faces += [((i + 1) % _RING, _RING + (i + 1) % _RING, _RING + i) for i in range(_RING)]
    triangles = [faces, np.array(ring_faces) + first[1], *(f + first[2 + i] for i, (_, f) in enumerate(balls))]
    cm_V3 = np.concatenate(places)
    weights_V5 = _weights(cm_V3, first)
    regressor_5V = np.zeros((5, len(cm_V3)))
    for joint, vertices in enumerate((range(first[1], first[2]), (234, 454), (172, 397), *_spans(first[2:]))):
        regressor_5V[joint, list(vertices)] = 1 / len(vertices)
    shapes = np.zeros((len(cm_V3), 3, SHAPE + EXPRESSIONS))
    shapes[:, :, SHAPE:] = _expressions(cm_V3, first[1], random)
    return {
        "v_template": _warped(cm_V3).astype(np.float32),
        "shapedirs": shapes.astype(np.float32),
        "posedirs": random.normal(0, 2e-4, (len(cm_V3), 3, 36)).astype(np.float32),
        "J_regressor": regressor_5V,
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], range(5)], np.uint32),
        "weights": weights_V5,
        "f": np.concatenate(triangles).astype(np.uint32),
    }


def made_embedding(model: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The landmarks of `KNOWN`, each a corner of a triangle."""
    faces, shares = [], []
    for number in KNOWN:
        face, corner = np.argwhere(model["f"] == number)[0]
        faces.append(face)
        shares.append(np.eye(3)[corner])
    return {"lmk_face_idx": np.array(faces), "lmk_b_coords": np.array(shares), "landmark_indices": np.array(KNOWN)}


def write_head(folder: Path, seed: int = 0, **other: np.ndarray) -> Path:
    """Both files in a folder; the model's. other: in place of its arrays, or beside them."""
    model = made_head(seed)
    np.savez(folder / "head.npz", **(model | other))
    np.savez(folder / EMBEDDING, **made_embedding(model))
    return folder / "head.npz"


def _warped(cm_V3: np.ndarray) -> np.ndarray:
    """Of another head than the canonical one, and in another place: wider above, longer below, deeper; m."""
    x, y, z = cm_V3.T
    made = np.stack(
        [x * (1.06 + 0.004 * y), y * (1.05 - 0.006 * np.minimum(y, 0)) + 0.3, 1.1 * z - 0.01 * y * y], axis=1
    )
    return (made + (0, -3.0, 1.0)) / 100


def _ring() -> np.ndarray:
    """A neck of two rings, below and behind the face."""
    angle = np.linspace(0, 2 * np.pi, _RING, endpoint=False)
    rings = [np.stack([5 * np.cos(angle), np.full(_RING, y), 5 * np.sin(angle) - 4], axis=1) for y in (-16.0, -10.0)]
    return np.concatenate(rings)


def _ball(middle_3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A sphere of 10 by 16 places, and its triangles."""
    up, around = np.meshgrid(
        np.linspace(0.05, np.pi - 0.05, 10), np.linspace(0, 2 * np.pi, 16, endpoint=False), indexing="ij"
    )
    points = np.stack(
        [np.sin(up) * np.cos(around), np.cos(up) + 0 * around, np.sin(up) * np.sin(around)], axis=-1
    ).reshape(-1, 3)
    faces = []
    for i in range(9):
        for j in range(16):
            a, b = 16 * i + j, 16 * i + (j + 1) % 16
            faces += [(a, b, a + 16), (b, b + 16, a + 16)]
    return middle_3 + _BALL_CM * points, np.array(faces)


def _spans(ends: np.ndarray) -> list[range]:
    return [range(a, b) for a, b in pairwise(ends.tolist())]


def _weights(cm_V3: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Of skinning: root, neck, jaw, eyes."""
    x, y, _ = cm_V3.T
    lip = -4.0 - 0.05 * x * x  # the mouth's line, lower at its corners
    jaw = np.clip((lip - y) / 1.5, 0, 1) * np.clip((7.5 - np.abs(x)) / 3, 0, 1)
    jaw[list(LIPS_INNER_BOTTOM[1:-1])] = 1.0
    jaw[list(LIPS_INNER_TOP)] = 0.0
    weights = np.zeros((len(cm_V3), 5))
    weights[:, 2], weights[:, 1] = jaw, 1 - jaw
    weights[first[1] : first[2]] = (0.8, 0.2, 0, 0, 0)
    weights[first[1] + _RING : first[2]] = (1, 0, 0, 0, 0)
    for eye, span in enumerate(_spans(first[2:])):
        weights[span] = np.eye(5)[3 + eye]
    return weights


def _expressions(cm_V3: np.ndarray, skin: int, random: np.random.Generator) -> np.ndarray:
    """m a unit: a smile, brows that go up, and smooth ones that mean nothing; eyeballs and neck stay."""
    shapes = np.zeros((len(cm_V3), 3, EXPRESSIONS))
    face = cm_V3[:skin]
    for corner in (61, 291):
        near = np.exp(-((face - face[corner]) ** 2).sum(axis=1) / 4)
        shapes[:skin, :, SMILE] += near[:, None] * (0.004 * np.sign(face[corner, 0]), 0.003, -0.001)
    for brow in BROWS:
        near = np.exp(-((face - face[list(brow)].mean(axis=0)) ** 2).sum(axis=1) / 8)
        shapes[:skin, 1, BROWS_UP] += 0.004 * near
    for k in range(2, EXPRESSIONS):
        middle = face[random.integers(skin)]
        near = np.exp(-((face - middle) ** 2).sum(axis=1) / 9)
        shapes[:skin, :, k] = 0.001 * near[:, None] * random.normal(size=3)
    return shapes
