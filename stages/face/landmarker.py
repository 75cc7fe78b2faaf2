"""MediaPipe's FaceLandmarker: 478 landmarks and 52 blendshape scores a face ("Blendshapes GHUM", arXiv 2309.05782).

Its graph is run bare, as FaceMesh's is: the Tasks API around it does not work with protobuf 6. Each picture is looked
at by itself, so nothing depends on where a piece begins.

The trade-off: a file that is not part of any wheel, about twice FaceMesh's time, and a detector for near faces only.
Scoring FaceMesh's landmarks with the bundle's blendshape network alone would save both; on two real people those scores
correlated by 0.3 to 0.99 with the bundle's own, eyes worst: the two landmark networks place eyes and lips differently.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from visavis.schemas.config import FacesConfig
from visavis.schemas.errors import UsageError
from visavis.schemas.rows import BLENDSHAPES, LANDMARKS
from visavis.schemas.storage.user_files import read_given
from visavis.stages.models.native import prepare_mediapipe, silent_stderr

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
        self._frame, self._settled = 0, False
        self._out: dict[str, list[Any]] = {}
        with silent_stderr():
            from mediapipe.python import CalculatorGraph, packet_getter

            self._graph = CalculatorGraph(graph_config=_graph(model, max_faces, min_confidence))
            for stream in (_FACES, _SCORES):
                self._graph.observe_output_stream(
                    stream, lambda name, packet: self._out.update({name: packet_getter.get_proto_list(packet)})
                )
            self._graph.start_run()
            self.landmarks(np.zeros((64, 64, 3), np.uint8), new_shot=True)  # its threads speak up only now

    def landmarks(self, rgb_HW3: np.ndarray, *, new_shot: bool) -> np.ndarray:
        """See `stages.faces.FaceTracker`. It follows nothing, so shots make no difference."""
        from mediapipe.python import ImageFormat, packet_creator

        self._out = {}
        with contextlib.nullcontext() if self._settled else silent_stderr():
            image = packet_creator.create_image(data=rgb_HW3, image_format=ImageFormat.SRGB)
            self._graph.add_packet_to_input_stream(_IMAGE, image.at(self._frame * _FRAME))
            self._graph.wait_until_idle()
        self._frame += 1
        faces = [[(p.x, p.y, p.z) for p in face.landmark] for face in self._out.get(_FACES, ())]
        scores = [[c.score for c in face.classification] for face in self._out.get(_SCORES, ())]
        self._settled |= bool(faces)
        self.blendshapes = np.array(scores, np.float32).reshape(len(faces), BLENDSHAPES)
        return np.array(faces, np.float32).reshape(-1, LANDMARKS, 3)


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


def check_landmarker(config: FacesConfig) -> None:
    """Tell about a missing or wrong file before any work starts. Raises as `read_landmarker`."""
    if config.model == "face-landmarker":
        read_landmarker(config)
