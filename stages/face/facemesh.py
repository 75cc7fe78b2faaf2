"""FaceMesh, fed with faces from a search of our own.

MediaPipe's FaceMesh graph (Kartynnik et al. 2019, arXiv 1907.06724; Grishchenko et al. 2020, arXiv 2006.10962) looks
for faces with a detector for selfies whenever it follows fewer than it may: in most frames of a dialogue, for nothing,
and it misses faces of less than a tenth of the picture. So its own graph is taken without that part. New faces are
searched for here: at once after a cut, then every 0.2 s (every frame while there is none) with the quick detector,
and every 2 s thoroughly, with MediaPipe's detector for far faces, on square tiles of the picture; both a third as often
once no face has come or gone for 2 s. A face that was lost is looked for where it was last: in the next frame, and then
again and again, each time after a quarter of the time that it has been away, with the quick detector on a part of the
picture in which it is as large as a near one.

Faces that it follows are handed to it from here, too: as boxes that its detector would have found, put on the face of
the frame before by a similarity transform. Its own way, the landmarks' bounding box, moves with chin and nod, and takes
a third of a nod away with it: of ±3° rendered on four people it showed 0.65 to 0.73, this way 0.88 to 0.99.

The trade-off: a face that appears in a steady shot is found up to 0.6 s late (6 s if it is small), one that comes back
to its place after a time away, by a quarter of that. In return two faces
in 720p cost about as much as FaceMesh alone (`python -m benchmarks.faces`), and faces of 1/20 of the picture's longer
side are found.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from visavis.schemas.face_rows import LANDMARKS
from visavis.stages.face.heads import flat_face, flat_fit
from visavis.stages.models.native import prepare_mediapipe, silent_stderr

QUICK_EVERY, THOROUGH_EVERY = 5, 50  # frames
STEADY_AFTER = 50  # frames without a face that comes or goes …
RARER = 3  # … are followed by so many times fewer searches
_AWAY = 250  # frames for which a lost face is looked for where it was; at growing distances, so some 25 times
_LATE = 4  # it is found late by this part of the time for which it was away
_ABOUT = 3.0  # sizes of a face: the part of the picture in which a lost one is looked for
_NOBODY = np.zeros((0, LANDMARKS, 3), np.float32)
_SAME_FACE = 0.3  # shared area over the area of both
_IMAGE, _FOUND, _FACES = "image", "found", "multi_face_landmarks"  # streams
_BOX_CENTRE, _BOX_SIDE = -1.2, 16.1  # cm on the canonical face: where the detector put its box on four rendered people
_EYES = (33, 263)
# Streams that MediaPipe's graph makes to search and to follow by itself, and what stands for those that are used.
_NOT_NEEDED = {
    "gated_prev_face_rects_from_landmarks", "prev_has_enough_faces", "gated_image", "all_face_detections", "face_rects",
    "face_detections", "face_rect_from_landmarks", "face_rects_from_landmarks", "prev_face_rects_from_landmarks",
}  # fmt: skip
_INSTEAD = {"gated_image": _IMAGE, "face_detections": _FOUND, "face_rects": "face_rects_from_detections"}
_TAGS = {"point": 0x0F0A, "of_x": 0x0D, "of_y": 0x15, "of_z": 0x1D}  # field 1 with 15 bytes; floats 1, 2 and 3
_POINT = np.dtype(
    [("point", "<u2"), ("of_x", "u1"), ("x", "<f4"), ("of_y", "u1"), ("y", "<f4"), ("of_z", "u1"), ("z", "<f4")]
)


@dataclass
class _Lost:
    """A face that was followed and is no more: what the detector would have said of it, and frames since then."""

    where: Any
    away: int = 0
    next: int = 1

    def is_due(self) -> bool:
        """Whether it is time to look; call once a frame."""
        self.away += 1
        if self.away < self.next:
            return False
        self.next = self.away + max(1, self.away // _LATE)
        return True


class FaceMeshTracker:
    """MediaPipe FaceMesh with refined irises, on the CPU; all weights lie in its wheel."""

    blendshapes: np.ndarray | None = None

    def __init__(self, max_faces: int, min_confidence: float) -> None:
        prepare_mediapipe()
        self._max_faces, self._settled = max_faces, False
        self._pictures = 0  # that the graph has seen
        self._since = 0  # frames of this shot
        self._steady = 0  # frames since a face came or went
        self._seen_FL3: np.ndarray = _NOBODY
        self._lost: list[_Lost] = []
        with silent_stderr():
            from mediapipe.python import CalculatorGraph, packet_creator, packet_getter
            from mediapipe.python.solutions.face_detection import FaceDetection

            self._near, self._far = (FaceDetection(min_confidence, model) for model in (0, 1))
            self._graph = CalculatorGraph(graph_config=_graph(max_faces, min_confidence))
            self._graph.observe_output_stream(_FACES, lambda _, p: self._faces.extend(packet_getter.get_proto_list(p)))
            self._graph.start_run({"with_attention": packet_creator.create_bool(True)})
            self.landmarks(np.zeros((64, 64, 3), np.uint8), new_shot=True)  # its threads speak up only now

    def landmarks(self, rgb_HW3: np.ndarray, *, new_shot: bool) -> np.ndarray:
        """See `stages.faces.FaceTracker`."""
        if new_shot:
            self._since = self._steady = 0
            self._seen_FL3, self._lost = _NOBODY, []
        # Each part of the graph has something to say when it first sees a face.
        with contextlib.nullcontext() if self._settled else silent_stderr():
            known = _distinct([_where(points_L3, rgb_HW3.shape[:2]) for points_L3 in self._seen_FL3])
            faces = self._look(rgb_HW3, [*known, *self._search(rgb_HW3, known)])
        self._settled |= bool(faces)
        self._since += 1
        self._steady = self._steady + 1 if len(faces) == len(self._seen_FL3) else 0
        self._seen_FL3 = np.array([points_of(face) for face in faces], np.float32).reshape(-1, LANDMARKS, 3)
        if len(faces) < len(known) or self._lost:
            self._remember(known, [_where(points_L3, rgb_HW3.shape[:2]) for points_L3 in self._seen_FL3])
        return self._seen_FL3

    def _look(self, rgb_HW3: np.ndarray, found: Sequence[Any]) -> list[Any]:
        """The faces at these detections, without those that turn out to be none."""
        from mediapipe.python import ImageFormat, Packet, packet_creator

        self._faces: list[Any] = []
        packets = {_IMAGE: packet_creator.create_image_frame(data=rgb_HW3, image_format=ImageFormat.SRGB)}
        packets |= {f"{_FOUND}_{i}": Packet() for i in range(self._max_faces)}
        packets |= {f"{_FOUND}_{i}": packet_creator.create_proto(face) for i, face in enumerate(found)}
        for stream, packet in packets.items():
            self._graph.add_packet_to_input_stream(stream, packet.at(self._pictures))
        self._graph.wait_until_idle()
        self._pictures += 1
        return self._faces

    def _search(self, rgb_HW3: np.ndarray, known: Sequence[Any]) -> list[Any]:
        """New faces, in the whole picture's coordinates, the surest first, each once."""
        if len(known) >= self._max_faces:
            return []
        rarer = RARER if self._steady >= STEADY_AFTER else 1
        found: list[Any] = []
        for lost in self._lost:
            if lost.is_due():
                found += self._detections(self._near, rgb_HW3, _about(lost.where, rgb_HW3.shape[:2]))
        if not known or self._since % (QUICK_EVERY * rarer) == 0:
            found += self._detections(self._near, rgb_HW3)
        if self._since % (THOROUGH_EVERY * rarer) == 0:
            for tile in _tiles(*rgb_HW3.shape[:2]):
                found += self._detections(self._far, rgb_HW3, tile)
        found.sort(key=lambda detection: -detection.score[0])
        return _distinct([*known, *found])[len(known) : self._max_faces]

    def _remember(self, known: Sequence[Any], here: Sequence[Any]) -> None:
        """Which faces are lost: those that were and are in none of the places in which there are faces now."""
        gone = [*(_Lost(where) for where in known), *(lost for lost in self._lost if lost.away < _AWAY)]
        missing = [lost for lost in gone if all(_shared(lost.where, face) < _SAME_FACE for face in here)]
        self._lost = missing[: self._max_faces]

    def _detections(self, detector: Any, rgb_HW3: np.ndarray, tile: tuple[slice, slice] | None = None) -> Iterator[Any]:
        rows, columns = tile or (slice(0, rgb_HW3.shape[0]), slice(0, rgb_HW3.shape[1]))
        scale = np.array([columns.stop - columns.start, rows.stop - rows.start]) / rgb_HW3.shape[1::-1]
        start = np.array([columns.start, rows.start]) / rgb_HW3.shape[1::-1]
        for detection in detector.process(np.ascontiguousarray(rgb_HW3[rows, columns])).detections or ():
            box = detection.location_data.relative_bounding_box
            box.xmin, box.ymin = start + scale * (box.xmin, box.ymin)
            box.width, box.height = scale * (box.width, box.height)
            for point in detection.location_data.relative_keypoints:
                point.x, point.y = start + scale * (point.x, point.y)
            yield detection


def _where(points_L3: np.ndarray, size: tuple[int, int]) -> Any:
    """What the detector would say of a face that has these landmarks: a box about it, and its eyes.

    size: height and width of the picture. A head that turns away grows narrower; its height tells the size then.
    """
    from mediapipe.framework.formats import detection_pb2, location_data_pb2

    seen_L = points_L3[:, :2].astype(np.float64) * size[::-1] @ (1.0, 1.0j)
    turn, place = flat_fit(seen_L)
    arms_L, middle = flat_face()
    upright = turn / abs(turn)
    height = float(arms_L.imag @ (seen_L[: len(arms_L)] / upright).imag / (arms_L.imag @ arms_L.imag))
    scale = max(abs(turn), height)
    centre = place + upright * scale * (complex(0, -_BOX_CENTRE) - middle)
    wide, high = _BOX_SIDE * scale / size[1], _BOX_SIDE * scale / size[0]
    detection = detection_pb2.Detection(score=[1.0])
    location = detection.location_data
    location.format = location_data_pb2.LocationData.RELATIVE_BOUNDING_BOX
    box = location.relative_bounding_box
    box.xmin, box.ymin = centre.real / size[1] - wide / 2, centre.imag / size[0] - high / 2
    box.width, box.height = wide, high
    for corner in _EYES:
        location.relative_keypoints.add(x=float(points_L3[corner, 0]), y=float(points_L3[corner, 1]))
    return detection


def points_of(face: Any) -> np.ndarray:
    """x, y, z of a NormalizedLandmarkList: float32 [L, 3].

    Read off its encoded form, in which a point with these three fields and no other takes 17 bytes: 0.03 ms, where
    asking each point for each field takes 0.28.
    """
    data = face.SerializeToString()
    if len(data) == len(face.landmark) * _POINT.itemsize:
        points = np.frombuffer(data, _POINT)
        if all((points[name] == tag).all() for name, tag in _TAGS.items()):
            return np.stack([points["x"], points["y"], points["z"]], axis=1)
    return np.array([(p.x, p.y, p.z) for p in face.landmark], np.float32).reshape(-1, 3)


def _graph(max_faces: int, min_confidence: float) -> Any:
    """FaceMesh's own graph, with detections as an input instead of a detector."""
    import mediapipe
    from mediapipe.calculators.util import thresholding_calculator_pb2
    from mediapipe.framework import calculator_pb2
    from mediapipe.python._framework_bindings import resource_util, validated_graph_config

    root = Path(mediapipe.__file__).parents[1]
    resource_util.set_resource_dir(str(root))
    data = (root / "mediapipe" / "modules" / "face_landmark" / "face_landmark_front_cpu.binarypb").read_bytes()
    graph = calculator_pb2.CalculatorGraphConfig.FromString(data)
    graph.ClearField("type")
    for node in reversed([node for node in graph.node if _NOT_NEEDED & set(_streams(node.output_stream))]):
        graph.node.remove(node)
    for node in graph.node:
        for i, stream in enumerate(node.input_stream):
            tag, colon, name = stream.rpartition(":")
            node.input_stream[i] = f"{tag}{colon}{_INSTEAD.get(name, name)}"
    streams = [f"{_FOUND}_{i}" for i in range(max_faces)]  # Python can make no packet of a list
    graph.node.add(calculator="MergeDetectionsToVectorCalculator", input_stream=streams, output_stream=[_FOUND])
    for field, names in (("input_stream", [_IMAGE, *streams]), ("output_stream", [_FACES])):
        graph.ClearField(field)
        getattr(graph, field).extend(names)
    graph.ClearField("input_side_packet")
    graph.input_side_packet.append("with_attention")
    validated = validated_graph_config.ValidatedGraphConfig()
    validated.initialize(graph_config=graph)
    expanded = calculator_pb2.CalculatorGraphConfig.FromString(validated.binary_config)
    (presence,) = (node for node in expanded.node if node.calculator == "ThresholdingCalculator")
    presence.options.Extensions[
        thresholding_calculator_pb2.ThresholdingCalculatorOptions.ext
    ].threshold = min_confidence
    return expanded


def _streams(tagged: Sequence[str]) -> Iterator[str]:
    return (stream.rpartition(":")[2] for stream in tagged)


def _tiles(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Squares that cover a picture, with half of each, or more, shared with the next."""
    side = min(height, width)
    steps = math.ceil((max(height, width) - side) / (side / 2))
    for i in range(steps + 1):
        start = round(i * (max(height, width) - side) / max(1, steps))
        along, across = slice(start, start + side), slice(0, side)
        yield (along, across) if height > width else (across, along)


def _about(where: Any, size: tuple[int, int]) -> tuple[slice, slice]:
    """A square about a detected face, within a picture of this height and width."""
    box = where.location_data.relative_bounding_box
    height, width = size
    side = min(height, width, max(32, round(_ABOUT * max(box.width * width, box.height * height))))
    left, top = (box.xmin + box.width / 2) * width - side / 2, (box.ymin + box.height / 2) * height - side / 2
    x, y = round(min(max(left, 0), width - side)), round(min(max(top, 0), height - side))
    return slice(y, y + side), slice(x, x + side)


def _distinct(detections: Sequence[Any]) -> list[Any]:
    """Of several detections of one face, the first."""
    kept: list[Any] = []
    for detection in detections:
        if all(_shared(detection, other) < _SAME_FACE for other in kept):
            kept.append(detection)
    return kept


def _shared(a: Any, b: Any) -> float:
    """Intersection over union of two detections' boxes."""
    first, second = (detection.location_data.relative_bounding_box for detection in (a, b))
    wide = min(first.xmin + first.width, second.xmin + second.width) - max(first.xmin, second.xmin)
    high = min(first.ymin + first.height, second.ymin + second.height) - max(first.ymin, second.ymin)
    both = max(wide, 0.0) * max(high, 0.0)
    return both / max(first.width * first.height + second.width * second.height - both, 1e-9)
