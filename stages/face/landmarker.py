"""MediaPipe's FaceLandmarker: 478 landmarks and 52 blendshape scores a face ("Blendshapes GHUM", arXiv 2309.05782).

MediaPipe 0.10.21, which a checkout has, runs the graph bare, as it does FaceMesh's: its Tasks API does not work with
protobuf 6. Later ones have nothing but the Tasks API, around the same graph. Each picture is looked at by itself, so
nothing depends on where a piece begins.

The trade-off: a file that is not part of any wheel, about twice FaceMesh's time, and a detector for near faces only.
Scoring FaceMesh's landmarks with the bundle's blendshape network alone would save both; on two real people those scores
correlated by 0.3 to 0.99 with the bundle's own, eyes worst: the two landmark networks place eyes and lips differently.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from visavis.schemas.config import FacesConfig
from visavis.schemas.errors import UsageError
from visavis.schemas.face_rows import BLENDSHAPES, LANDMARKS
from visavis.schemas.storage.user_files import read_given
from visavis.stages.models.native import has_graphs, prepare_mediapipe, report_no_use, silent_stderr
from visavis.stages.models.wheels import FACE_MESH, is_inside

_IMAGE, _FACES, _SCORES = "image", "faces", "scores"
_MOST_BYTES = 256 << 20
_FRAME = 40_000  # microseconds; only their order counts


class FaceLandmarkerTracker:
    """See `stages.faces.FaceTracker`.

    Args:
        model: the bundle's bytes.
    """

    blendshapes: np.ndarray | None

    def __init__(self, model: bytes, max_faces: int, min_confidence: float) -> None:
        prepare_mediapipe()
        self._settled = False
        with silent_stderr():
            detector = _Graph if has_graphs() else _Task
            self._detect: Detector = detector(model, max_faces, min_confidence)
            self.landmarks(np.zeros((64, 64, 3), np.uint8), new_shot=True)  # its threads speak up only now

    def landmarks(self, rgb_HW3: np.ndarray, *, new_shot: bool) -> np.ndarray:
        """See `stages.faces.FaceTracker`. It follows nothing, so shots make no difference."""
        with contextlib.nullcontext() if self._settled else silent_stderr():
            faces, scores = self._detect(rgb_HW3)
        self._settled |= bool(faces)
        self.blendshapes = np.array(scores, np.float32).reshape(len(faces), BLENDSHAPES)
        return np.array(faces, np.float32).reshape(-1, LANDMARKS, 3)


Detector = Callable[[np.ndarray], tuple[list[list[tuple[float, float, float]]], list[list[float]]]]
"""A picture, uint8 [H, W, 3] → landmarks and blendshape scores of each face."""


class _Task:
    """The Tasks API."""

    def __init__(self, model: bytes, max_faces: int, min_confidence: float) -> None:
        report_no_use()
        import mediapipe
        from mediapipe.tasks.python.core.base_options import BaseOptions
        from mediapipe.tasks.python.vision import FaceLandmarker, FaceLandmarkerOptions

        options = FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_buffer=model),
            num_faces=max_faces,
            min_face_detection_confidence=min_confidence,
            min_face_presence_confidence=min_confidence,
            output_face_blendshapes=True,
        )
        self._mediapipe, self._task = mediapipe, FaceLandmarker.create_from_options(options)
        # It closes itself by threads that Python has ended by then, and complains: it is left to the process's end.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._task))

    def __call__(self, rgb_HW3: np.ndarray) -> tuple[Any, Any]:
        pixels = np.ascontiguousarray(rgb_HW3)
        image = self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=pixels)
        found = self._task.detect(image)
        faces = [[(p.x, p.y, p.z) for p in face] for face in found.face_landmarks]
        return faces, [[category.score for category in face] for face in found.face_blendshapes]


class _Graph:
    """The graph alone."""

    def __init__(self, model: bytes, max_faces: int, min_confidence: float) -> None:
        from mediapipe.python import CalculatorGraph, packet_getter

        self._frame = 0
        self._out: dict[str, list[Any]] = {}
        self._graph = CalculatorGraph(graph_config=_graph(model, max_faces, min_confidence))
        for stream in (_FACES, _SCORES):
            self._graph.observe_output_stream(
                stream, lambda name, packet: self._out.update({name: packet_getter.get_proto_list(packet)})
            )
        self._graph.start_run()

    def __call__(self, rgb_HW3: np.ndarray) -> tuple[Any, Any]:
        from mediapipe.python import ImageFormat, packet_creator

        self._out = {}
        image = packet_creator.create_image(data=rgb_HW3, image_format=ImageFormat.SRGB)
        self._graph.add_packet_to_input_stream(_IMAGE, image.at(self._frame * _FRAME))
        self._graph.wait_until_idle()
        self._frame += 1
        faces = [[(p.x, p.y, p.z) for p in face.landmark] for face in self._out.get(_FACES, ())]
        return faces, [[c.score for c in face.classification] for face in self._out.get(_SCORES, ())]


def _graph(model: bytes, max_faces: int, min_confidence: float) -> Any:
    from mediapipe.framework import calculator_pb2
    from mediapipe.tasks.cc.vision.face_landmarker.proto.face_landmarker_graph_options_pb2 import (
        FaceLandmarkerGraphOptions,
    )

    config = calculator_pb2.CalculatorGraphConfig(input_stream=[_IMAGE], output_stream=[_FACES, _SCORES])
    node = config.node.add(
        calculator="mediapipe.tasks.vision.face_landmarker.FaceLandmarkerGraph",
        input_stream=[f"IMAGE:{_IMAGE}"],
        output_stream=[f"NORM_LANDMARKS:{_FACES}", f"BLENDSHAPES:{_SCORES}"],
    )
    options = node.options.Extensions[FaceLandmarkerGraphOptions.ext]
    options.base_options.model_asset.file_content = model
    options.face_detector_graph_options.num_faces = max_faces
    options.face_detector_graph_options.min_detection_confidence = min_confidence
    options.face_landmarks_detector_graph_options.min_detection_confidence = min_confidence
    return config


def read_landmarker(config: FacesConfig) -> bytes:
    """The configured bundle.

    Raises:
        UsageError: none is named, it is not there, or it is another file.
    """
    if config.landmarker is None:
        raise UsageError(
            "faces.model=face-landmarker needs faces.landmarker, the path of its .task file;"
            " `visavis assets fetch face-landmarker` gets it"
        )
    remedy = "`visavis assets fetch face-landmarker` gets it"
    return read_given("faces.landmarker", config.landmarker, config.landmarker_sha256, remedy, most=_MOST_BYTES)


def check_faces(config: FacesConfig) -> None:
    """Tell about a missing face model before any work starts.

    Raises:
        UsageError: as `read_landmarker`; or the MediaPipe that is installed has no FaceMesh.
    """
    if config.model == "face-landmarker":
        read_landmarker(config)
    elif not is_inside(*FACE_MESH):
        raise UsageError(
            "faces.model=facemesh needs MediaPipe 0.10.21, which only a checkout has (`make setup`); here, run `visavis"
            " assets fetch face-landmarker` once and add what it prints: --set faces.model=face-landmarker"
            " --set faces.landmarker=FILE"
        )
