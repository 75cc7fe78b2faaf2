"""The user's own FLAME model, and where MediaPipe's landmarks lie on it: plain arrays, read as a stranger's files.

FLAME is handed out as a pickle, which runs what it holds when it is opened. It is not opened here: the user makes an
.npz of it once, where the file is trusted (docs, public corpora). FLAME's names stay:

    v_template [V, 3] m, shapedirs [V, 3, 300 + E], posedirs [V, 3, 36], J_regressor [5, V], kintree_table [2, 5],
    weights [V, 5], f [F, 3]; and, if it is there, upper_face [U]: vertices of the upper face, by their numbers

`mediapipe_landmark_embedding.npz`, of FLAME's site, has lmk_face_idx [N] (triangles), lmk_b_coords [N, 3] (where in
them) and landmark_indices [N] (MediaPipe's numbers); N is 105.

Letters as in `stages.face.flame`; N landmarks that lie on the model.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from visavis.schemas.errors import UsageError
from visavis.schemas.sample import decode_array
from visavis.schemas.storage.user_files import read_given
from visavis.schemas.untrusted import bounded, parsing
from visavis.stages.face.flame import PARENTS, Flame
from visavis.stages.face.heads import canonical_face
from visavis.stages.media.npz import read_members

SHAPE = 300
"""Columns of `shapedirs` that are of shape; those of expression are behind them."""
EMBEDDING = "mediapipe_landmark_embedding.npz"
_NAMES = ("v_template", "shapedirs", "posedirs", "J_regressor", "kintree_table", "weights", "f")
_VERTICES, _TRIANGLES, _LARGEST = 50_000, 200_000, 1 << 27  # the last: bytes of an array; shapedirs of FLAME: 48 MB
_FEWEST = 50  # landmarks that carry the others
_TALLEST, _LOWEST = 2.0, 0.05  # m
_PICKLE = "a pickle is not opened here: the page `Public corpora` has the lines that make an .npz of FLAME's file"


@dataclass(frozen=True)
class Embedding:
    """Landmarks that lie on a model: number_N, MediaPipe's; corners_N3, vertices; share_N3, which sum to 1."""

    number_N: np.ndarray
    corners_N3: np.ndarray
    share_N3: np.ndarray


def read_flame(path: Path) -> tuple[Flame, np.ndarray | None]:
    """A model, and the numbers of its vertices of the upper face where it names them.

    Raises:
        UsageError: no such file, a pickle, or arrays that are no model.
    """
    data = _archive("--flame", path)
    with parsing(lambda why: UsageError(f"--flame: {path} is no FLAME model: {why}")):
        found = read_members(io.BytesIO(data), _NAMES, _LARGEST)
        if found is None:
            raise ValueError("no v_template in it")
        arrays = dict(zip(_NAMES, found, strict=True))
        model = _model(arrays)
        upper = read_members(io.BytesIO(data), ("upper_face",), _LARGEST)
        return model, None if upper is None else _vertices("upper_face", upper[0], len(model.template_V3))


def read_upper_face(path: Path, vertices: int) -> np.ndarray:
    """Numbers of vertices from an .npy; a number that occurs twice counts twice.

    Raises:
        UsageError: no such file, or no such numbers.
    """
    data = read_given("--upper-face", str(path), most=_LARGEST)
    with parsing(lambda why: UsageError(f"--upper-face: {path}: {why}")):
        return _vertices("the array", decode_array(data), vertices)


def read_embedding(path: Path, model: Flame) -> Embedding:
    """Where landmarks lie on a model.

    Raises:
        UsageError: no such file, a pickle, or arrays that do not fit the model.
    """
    remedy = f"FLAME's site has {EMBEDDING}; --flame-landmarks names it where it does not lie beside the model"
    data = _archive("--flame-landmarks", path, remedy)
    with parsing(lambda why: UsageError(f"--flame-landmarks: {path} does not fit: {why}")):
        found = read_members(io.BytesIO(data), ("lmk_face_idx", "lmk_b_coords", "landmark_indices"), _LARGEST)
        if found is None:
            raise ValueError("no lmk_face_idx in it")
        count = len(canonical_face())
        number_N = _numbers("landmark_indices", found[2].reshape(-1), count)
        if not _FEWEST <= len(number_N) == len(set(number_N.tolist())):
            raise ValueError(f"{len(number_N)} landmark_indices; {_FEWEST} or more are expected, each once")
        face_N = _numbers("lmk_face_idx", found[0].reshape(-1), len(model.faces_F3))
        share_N3 = _floats("lmk_b_coords", found[1], (len(number_N), 3))
        if len(face_N) != len(number_N):
            raise ValueError(f"{len(face_N)} lmk_face_idx beside {len(number_N)} landmark_indices")
        if np.abs(share_N3.sum(axis=1) - 1).max() > 1e-2 or np.abs(share_N3).max() > 2:
            raise ValueError("lmk_b_coords do not sum to 1")
        return Embedding(number_N, model.faces_F3[face_N], share_N3)


def _archive(option: str, path: Path, remedy: str = "") -> bytes:
    data = read_given(option, str(path), remedy=remedy)
    if not data.startswith(b"PK"):
        raise UsageError(f"{option}: {path} is no .npz; {_PICKLE}")
    return data


def _model(arrays: dict[str, np.ndarray]) -> Flame:
    vertices = len(arrays["v_template"])
    bounded(vertices, _VERTICES, "vertices")
    shapes = arrays["shapedirs"].shape
    if len(shapes) != 3 or shapes[:2] != (vertices, 3) or shapes[2] <= SHAPE:
        raise ValueError(f"shapedirs {shapes}, [{vertices}, 3, {SHAPE} of shape and more of expression] is expected")
    template_V3 = _floats("v_template", arrays["v_template"], (vertices, 3))
    height = float(np.ptp(template_V3[:, 1])) if vertices else 0.0
    if not _LOWEST < height < _TALLEST:
        raise ValueError(f"v_template is {height:.3g} high, metres are expected")
    expression_V3E = _floats("shapedirs", arrays["shapedirs"], shapes)[:, :, SHAPE:].copy()
    regressor_JV = _floats("J_regressor", arrays["J_regressor"], (5, vertices))
    weights_VJ = _floats("weights", arrays["weights"], (vertices, 5))
    if np.abs(weights_VJ.sum(axis=1) - 1).max() > 1e-3:
        raise ValueError("rows of weights do not sum to 1")
    parents = arrays["kintree_table"]
    if parents.shape != (2, 5) or tuple(parents[0, 1:].tolist()) != PARENTS[1:]:
        raise ValueError("kintree_table is not FLAME's: root, neck, jaw and both eyes")
    faces = arrays["f"]
    bounded(len(faces), _TRIANGLES, "triangles")
    if faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(f"f is {faces.shape}, triangles are expected")
    return Flame(
        template_V3=template_V3,
        expression_V3E=expression_V3E,
        correctives_V3P=_floats("posedirs", arrays["posedirs"], (vertices, 3, 36)),
        weights_VJ=weights_VJ,
        joints_J3=regressor_JV @ template_V3,
        joint_expression_J3E=np.einsum("jv,vce->jce", regressor_JV, expression_V3E, optimize=True),
        faces_F3=_numbers("f", faces, vertices),
    )


def _floats(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """float64 of a shape, each within ±1000."""
    if array.shape != shape:
        raise ValueError(f"{name} is {array.shape}, {shape} is expected")
    array = np.asarray(array, np.float64)
    if not (np.abs(array) < 1e3).all():  # NaN is not, either
        raise ValueError(f"{name} has numbers that are not finite, or beyond 1000")
    return array


def _numbers(name: str, array: np.ndarray, count: int) -> np.ndarray:
    """int64 in 0 … count − 1, none of them empty."""
    if not array.size or not np.isfinite(array).all() or (array != np.floor(array)).any():
        raise ValueError(f"{name} is {array.dtype} {array.shape}, whole numbers are expected")
    if array.min() < 0 or array.max() >= count:
        raise ValueError(f"{name} has {array.min():.0f} to {array.max():.0f}, 0 to {count - 1} are there")
    return array.astype(np.int64)


def _vertices(name: str, array: np.ndarray, vertices: int) -> np.ndarray:
    """Numbers of vertices, or a mask of them."""
    if array.dtype == bool:
        if array.shape != (vertices,):
            raise ValueError(f"{name} is a mask of {array.shape}, and {vertices} vertices are there")
        array = np.flatnonzero(array)
    if array.ndim != 1:
        raise ValueError(f"{name} is {array.shape}, numbers of vertices are expected")
    bounded(array.size, _VERTICES, "vertices")
    return _numbers(name, array, vertices)
