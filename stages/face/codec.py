"""Motion codecs: a frame's landmarks as a short vector, and back.

Every codec is a linear map onto the face in canonical space, from a code of two parts:

    code = [ given, rest ]        features = code · basis + mean

`given` is what somebody else said of the frame, less what they usually say of the person: nothing (landmark-pca),
52 blendshape scores (blendshapes), the output of a network (network). `rest` are the first principal components of
what the given part leaves over of the landmarks; for landmark-pca, of all of them. So one decoder draws every codec's
motion, and rest keeps the round trip true where the given part says too little: scores alone missed by 1.7 % of the
distance between the irises in the mean over eight faces, with six components by 1.0 %.

The decoder of the given part is a ridge regression, the rest a PCA, both from the same sums over the corpus. The sums
are exact: codes and features are rounded to 1/4096, so no order of addition, number of workers or BLAS changes a bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from visavis.schemas.config import MotionConfig
from visavis.schemas.dyads import Codec, CodecStatistics
from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.face_rows import LANDMARKS
from visavis.schemas.manifest import MotionColumn, MotionSpec
from visavis.schemas.words import counted
from visavis.stages.face.heads import POSE_DIMS, canonical_face, head_rotation

CODE_LIMIT = 64.0
"""The largest value of a given code: rounded to 1/4096, its products stay exact."""

_QUANTUM = 4096.0  # steps per cm, and per unit of a given code
# float64 sums of products over a piece stay below 2^53 (codes: 2^17 frames, features: 2^25), int64 sums over a corpus
# below 2^63: exact.
_FEATURE_STEPS = 2**14 - 1
_CODE_STEPS = int(CODE_LIMIT * _QUANTUM)
_RIDGE = 0.01  # of the given code's mean variance

_POSE_COLUMNS = (("pitch", "rad"), ("yaw", "rad"), ("roll", "rad"))
_PLACE_COLUMNS = (("x", "face widths"), ("y", "face widths"), ("log_size", "log ratio"))
_BLENDSHAPES = """_neutral browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight cheekPuff
cheekSquintLeft cheekSquintRight eyeBlinkLeft eyeBlinkRight eyeLookDownLeft eyeLookDownRight eyeLookInLeft
eyeLookInRight eyeLookOutLeft eyeLookOutRight eyeLookUpLeft eyeLookUpRight eyeSquintLeft eyeSquintRight eyeWideLeft
eyeWideRight jawForward jawLeft jawOpen jawRight mouthClose mouthDimpleLeft mouthDimpleRight mouthFrownLeft
mouthFrownRight mouthFunnel mouthLeft mouthLowerDownLeft mouthLowerDownRight mouthPressLeft mouthPressRight mouthPucker
mouthRight mouthRollLower mouthRollUpper mouthShrugLower mouthShrugUpper mouthSmileLeft mouthSmileRight
mouthStretchLeft mouthStretchRight mouthUpperUpLeft mouthUpperUpRight noseSneerLeft noseSneerRight"""


def no_statistics(given: int) -> CodecStatistics:
    size = given + LANDMARKS * 3
    return CodecStatistics(given=given, frames=0, sum=np.zeros(size, np.int64), outer=np.zeros((size, size), np.int64))


def statistics_of(given_VG: np.ndarray, features_VK: np.ndarray) -> CodecStatistics:
    """The sums that a codec is fitted from, over one piece's frames. Both without the person's own neutral."""
    codes = np.clip(np.rint(given_VG * _QUANTUM), -_CODE_STEPS, _CODE_STEPS)
    features = np.clip(np.rint(features_VK * _QUANTUM), -_FEATURE_STEPS, _FEATURE_STEPS)
    steps = np.concatenate([codes, features], axis=1)
    return CodecStatistics(
        given=given_VG.shape[1],
        frames=len(steps),
        sum=steps.sum(0).astype(np.int64),
        outer=(steps.T @ steps).astype(np.int64),
    )


def merge_statistics(parts: Sequence[CodecStatistics]) -> CodecStatistics:
    """Sum of statistics; exact, so any grouping gives the same. Parts without frames do not count.

    Raises:
        ValueError: their given codes differ in size.
    """
    seen = [p for p in parts if p.frames] or list(parts[:1])
    if len({p.given for p in seen}) > 1:
        raise ValueError(f"given codes of {sorted({p.given for p in seen})} numbers do not add up")
    return CodecStatistics(
        given=seen[0].given,
        frames=sum(p.frames for p in seen),
        sum=np.sum([p.sum for p in seen], axis=0, dtype=np.int64),
        outer=np.sum([p.outer for p in seen], axis=0, dtype=np.int64),
    )


def fit_codec(statistics: CodecStatistics, config: MotionConfig, network: str = "") -> Codec:
    """The codec behind corpus statistics.

    Args:
        network: digest of the encoder that gave the codes.

    Raises:
        Rejected(NO_FACE): fewer frames than code dimensions.
    """
    given = statistics.given
    rest = config.expression_dims if config.kind == "landmark-pca" else config.rest_dims
    if statistics.frames <= given + rest:
        raise Rejected(Reason.NO_FACE, f"{counted(statistics.frames, 'frame')} cannot carry {given + rest} dimensions")
    mean = statistics.sum / statistics.frames
    covariance = statistics.outer / statistics.frames - np.outer(mean, mean)
    whole: np.ndarray = covariance[given:, given:]
    left: np.ndarray = whole
    with threadpool_limits(1):  # LAPACK's last bits depend on its threads
        decoder: np.ndarray = np.zeros((0, len(whole)))
        if given:
            codes, both = covariance[:given, :given], covariance[:given, given:]
            ridge = max(_RIDGE * float(np.trace(codes)) / given, 1.0)
            decoder = np.linalg.solve(codes + ridge * np.eye(given), both)
            crossed = both.T @ decoder
            left = whole - crossed - crossed.T + decoder.T @ codes @ decoder
        values, vectors = np.linalg.eigh(left)
    components = vectors[:, ::-1][:, :rest].T
    heaviest = np.abs(components).argmax(1)
    components *= np.sign(components[np.arange(rest), heaviest])[:, None]
    missed = float(np.clip(values[: len(values) - rest], 0, None).sum() / max(float(np.trace(whole)), 1e-12))
    offset = ((mean[given:] - mean[:given] @ decoder) / _QUANTUM).astype(np.float32)
    basis = np.ascontiguousarray(np.concatenate([decoder, components]), np.float32)
    digest = hashlib.sha256(offset.tobytes() + basis.tobytes() + network.encode()).hexdigest()[:12]
    return Codec(
        id=f"{config.kind}-{digest}",
        kind=config.kind,
        given=given,
        network=network,
        mean=offset,
        basis=basis,
        explained=round(1 - missed, 6),
    )


def encode_linear(codec: Codec, given_TG: np.ndarray, features_TK: np.ndarray) -> np.ndarray:
    """The code [T, E] float64 without the codec's mean: linear, so that a neutral can be taken away afterwards."""
    basis = codec.basis.astype(np.float64)
    rest = (features_TK - given_TG @ basis[: codec.given]) @ basis[codec.given :].T
    return np.concatenate([given_TG, rest], axis=1)


def decode_motion(codec: Codec, motion_TD: np.ndarray, neutral_L3: np.ndarray) -> np.ndarray:
    """Motion back to landmarks [T, 478, 3] float32 in face widths, y up, around the person's median place."""
    code = motion_TD[:, POSE_DIMS:].astype(np.float64)
    face = (code @ codec.basis + codec.mean).reshape(len(code), LANDMARKS, 3) + neutral_L3
    rotation = head_rotation(motion_TD[:, :3])
    scale = np.exp(motion_TD[:, 5]).astype(np.float64) / np.ptp(canonical_face()[:, 0])
    points = np.einsum("tij,tlj->tli", rotation, face) * scale[:, None, None]
    points[:, :, :2] += motion_TD[:, None, 3:5]
    return points.astype(np.float32)


def movement(codec: Codec, motion_TD: np.ndarray) -> float:
    """How much the expression moves the landmarks: the mean landmark's variance over time, cm²."""
    basis = codec.basis.astype(np.float64)
    code = motion_TD[:, POSE_DIMS:].astype(np.float64)
    code = code - code.mean(0)
    return float(np.einsum("te,ef,tf->", code, basis @ basis.T, code, optimize=True)) / len(code) / LANDMARKS


def motion_columns(dim: int) -> dict[str, tuple[int, int]]:
    """Column ranges of a motion of `dim` dimensions, as the manifest names them."""
    return {"rotation": (0, 3), "translation": (3, 6), "expression": (POSE_DIMS, dim)}


def named_columns(codec: Codec) -> tuple[MotionColumn, ...]:
    """What each column of a codec's motion is: the head's pose, what was given of the expression, components."""
    given = _BLENDSHAPES.split() if codec.kind == "blendshapes" else [f"code_{n}" for n in range(codec.given)]
    expression = [(name, "") for name in given]
    expression += [(f"component_{n}", "cm") for n in range(len(codec.basis) - codec.given)]
    return tuple(MotionColumn(name=name, unit=unit) for name, unit in (*_POSE_COLUMNS, *_PLACE_COLUMNS, *expression))


def motion_spec(codec: str, dim: int, mean: np.ndarray, std: np.ndarray) -> MotionSpec:
    """What the manifest says about the motion columns."""
    scale = {"mean": tuple(map(float, mean)), "std": tuple(map(float, std))}
    return MotionSpec(codec=codec, dim=dim, **motion_columns(dim), **scale)
