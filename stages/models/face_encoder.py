"""Face recognition by a network of the user's own, in ONNX: an aligned face → where it lies on a unit sphere.

Any network of the ArcFace kind serves (SFace of OpenCV's zoo, InsightFace's, AdaFace): the face on five places of a
square (`stages.face.alignment`), one vector out. onnxruntime runs it on one core. The trade-off: .03 s a face for a
network of MobileFaceNet's size, .2 s for a ResNet-50, on a core that was shared; no GPU.
"""

from __future__ import annotations

import importlib.util
from typing import Protocol

import numpy as np

from visavis.schemas.errors import UsageError
from visavis.schemas.extras import install
from visavis.schemas.people_config import FaceprintsConfig
from visavis.schemas.storage.user_files import GB, read_given, short_digest
from visavis.schemas.untrusted import parsing
from visavis.schemas.uris import shown
from visavis.stages.models.onnx_files import check_onnx, onnx_session

_SIDES = (32, 512)  # pixels of the input
_SIZES = (8, 4096)  # of the embedding


class FaceEncoder(Protocol):
    """The seam to face recognition. side: pixels S of a face's side. size: numbers E of an embedding."""

    side: int
    size: int

    def __call__(self, face_SS3: np.ndarray, /) -> np.ndarray:
        """An aligned face, uint8 [S, S, 3] RGB → its embedding, float32 [E], of unit length."""


class OnnxFaceEncoder:
    """A network [1, 3, S, S] → [1, E] (either 1 may be free), see `FaceEncoder`.

    Args:
        network: an ONNX file's bytes, which `check_onnx` has let through.

    Raises:
        ValueError: it does not load, or takes or gives something else.
    """

    def __init__(self, network: bytes, config: FaceprintsConfig) -> None:
        self._session = onnx_session(network)
        self._config = config
        takes, gives = self._session.get_inputs(), self._session.get_outputs()
        if len(takes) != 1 or takes[0].type != "tensor(float)" or not gives:
            raise ValueError(f"takes {', '.join(each.type for each in takes)}, expected one tensor(float)")
        shape = list(takes[0].shape)
        fixed = isinstance(shape[0], int) if shape else False
        if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or (fixed and shape[0] != 1):
            raise ValueError(f"takes {shape}, expected [1, 3, S, S]")
        if not isinstance(shape[2], int) or not _SIDES[0] <= shape[2] <= _SIDES[1]:
            raise ValueError(f"takes faces of {shape[2]} pixels, expected {_SIDES[0]} to {_SIDES[1]}")
        self.side, self._input, self._output = shape[2], takes[0].name, gives[0].name
        grey_S = np.linspace(0, 255, self.side).astype(np.uint8)
        self.size = len(self(np.tile(grey_S[:, None, None], (1, self.side, 3))))

    def __call__(self, face_SS3: np.ndarray) -> np.ndarray:
        """See `FaceEncoder`. Raises ValueError: not one finite vector other than zero."""
        channels_SS3 = face_SS3 if self._config.colour == "rgb" else face_SS3[..., ::-1]
        pixels = (channels_SS3.transpose(2, 0, 1)[None].astype(np.float32) - self._config.mean) / self._config.std
        (code,) = self._session.run([self._output], {self._input: np.ascontiguousarray(pixels, np.float32)})
        if not isinstance(code, np.ndarray) or code.ndim != 2 or len(code) != 1:
            found = list(code.shape) if isinstance(code, np.ndarray) else type(code).__name__
            raise ValueError(f"gives {found}, expected [1, E]")
        if not _SIZES[0] <= code.shape[1] <= _SIZES[1]:
            raise ValueError(f"gives {code.shape[1]} numbers for a face, expected {_SIZES[0]} to {_SIZES[1]}")
        length = float(np.linalg.norm(code.astype(np.float64)))
        if not np.isfinite(length) or length == 0:
            raise ValueError("gives numbers that are not finite, or nothing but zeros")
        return (code[0] / length).astype(np.float32)


def load_face_encoder(config: FaceprintsConfig) -> OnnxFaceEncoder:
    """The configured network.

    Raises:
        UsageError: as `read_face_network`, or it is not of this kind; onnxruntime is not installed.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise UsageError(f"faceprints need onnxruntime; {install('build')}")
    network = read_face_network(config)
    with parsing(lambda why: UsageError(f"faceprints.weights: {shown(str(config.weights))} {why}")):
        return OnnxFaceEncoder(network, config)


def read_face_network(config: FaceprintsConfig) -> bytes:
    """The configured file.

    Raises:
        UsageError: none is named, it is not there, is another one, or no ONNX file of plain layers.
    """
    if config.weights is None:
        raise UsageError("faceprints need faceprints.weights, a face recognition network in ONNX")
    data = read_given("faceprints.weights", config.weights, config.weights_sha256, most=GB)
    with parsing(lambda why: UsageError(f"faceprints.weights: {shown(str(config.weights))} {why}")):
        check_onnx(data)
    return data


def face_network_digest(config: FaceprintsConfig) -> str:
    """What the network is, wherever its file lies. Raises as `read_face_network`."""
    return short_digest(read_face_network(config))
