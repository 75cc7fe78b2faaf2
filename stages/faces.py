"""Faces: shot boundaries and face tracks of a piece of video, in one decoding pass.

Per grid frame: PySceneDetect's ContentDetector (change of hue, saturation and brightness against the frame before)
on a thumbnail, dissolves (`stages.media.dissolves`) and the camera's motion (`stages.face.camera`), then MediaPipe
FaceMesh with refined irises, 478 landmarks (Kartynnik et al. 2019, arXiv 1907.06724; Grishchenko et al. 2020, arXiv
2006.10962). FaceMesh returns faces in no lasting order, so identity over time is ours: an optimal assignment of faces
to tracks by landmark distance (Hungarian method, as in SORT, arXiv 1602.00763). Frames that repeat an old picture of a
face are invalid where there are many (`stages.face.freshness`).

A long video is worked on in pieces. They begin at key frames, at early ones where there are any: an encoder puts
those at scene changes. Nothing is then decoded twice but the frame after a piece, which tells if a shot ends with it.

The trade-off: tracks are short and pure. One ends at every cut and wherever continuity is in doubt;
`stages.face.people` joins them again. FaceMesh finds faces of about a twentieth of the picture's width and more.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np

from visavis.schemas import FPS
from visavis.schemas.config import FacesConfig
from visavis.schemas.face_rows import BLENDSHAPES, LANDMARKS, FaceTracks, Piece, Track
from visavis.schemas.rows import Outline
from visavis.stages.base import Stage
from visavis.stages.face.camera import CameraPath
from visavis.stages.face.crops import FaceCrop, crop_face, likeness, luminance
from visavis.stages.face.facemesh import FaceMeshTracker
from visavis.stages.face.freshness import change_of, harmful, repeated
from visavis.stages.face.heads import Heads
from visavis.stages.face.jump_cuts import jumps_of, picture_change
from visavis.stages.face.landmarker import FaceLandmarkerTracker, read_landmarker
from visavis.stages.face.texture import EVERY, by_turn
from visavis.stages.media.coarse import coarse
from visavis.stages.media.dissolves import DissolveDetector, thumbnail
from visavis.stages.media.video import display_size, frames_on_grid

MAX_SIDE = 1280  # pixels; FaceMesh works on 192² crops, more resolution only costs time
_MAX_JUMP = 0.5  # mean landmark movement between two frames, in face sizes; real heads stay under 0.2
_MAX_DRIFT = 0.05  # further allowance for each frame without the face
_MAX_ZOOM = 1.6  # change of size
_SAME_FACE = 0.6  # of the smaller box inside the other: two detections of one face


class FaceTracker(Protocol):
    """The seam to the face model.

    blendshapes: float32 [F, 52], of the faces that `landmarks` gave last; None where the model has none.
    """

    blendshapes: np.ndarray | None

    def landmarks(self, rgb_HW3: np.ndarray, *, new_shot: bool) -> np.ndarray:
        """Faces in a picture.

        Args:
            rgb_HW3: uint8.
            new_shot: the picture does not continue the one before: forget where faces were.

        Returns:
            float32 [F, 478, 3]: x and y in shares of width and height, z in shares of the width. Any order.
        """


class FacesStage(Stage[Piece, FaceTracks]):
    """A piece of video → its cuts and face tracks. A picture without faces is a fact, not a rejection.

    A cut exactly between two pieces is found by the first of them.

    Args:
        tracker: the face model; none: the configured one, loaded by `setup`.
    """

    name: ClassVar[str] = "faces"
    version: ClassVar[int] = 10
    config: FacesConfig

    def __init__(self, config: FacesConfig, tracker: FaceTracker | None = None) -> None:
        super().__init__(config)
        self._tracker = tracker

    def setup(self) -> None:
        import cv2

        cv2.setNumThreads(1)  # a worker has one core; threads for pictures this small cost a third more
        if self._tracker is None:
            self._tracker = tracker_of(self.config)

    def process(self, item: Piece) -> Iterator[FaceTracks]:
        assert self._tracker is not None, "call setup() first"
        width, height = display_size(item.uri, item.witness)
        scale_3 = np.array([width, height, width], np.float32)
        is_cut = CutDetector(self.config.cut_threshold)
        follow, camera = Association(round(self.config.max_gap * FPS)), CameraPath()
        dissolves, before, small_before = DissolveDetector(), None, None
        cuts, picture, strokes = list[int](), list[float](), list[np.ndarray]()
        # One frame more than asked for, so that a cut exactly between two pieces is seen. (One frame earlier would be
        # a whole group of pictures earlier where a piece begins at a key frame.)
        for n, rgb in frames_on_grid(
            item.uri,
            item.first,
            item.last + 1,
            decoder=self.config.decoder,
            max_side=MAX_SIDE,
            witness=item.witness,
        ):
            small = thumbnail(rgb)
            cut = is_cut(n, small)
            if cut:
                cuts.append(n)
                follow.end_all()
            new_shot = cut or n == item.first
            if n == item.last:
                camera.add(n, rgb, np.zeros((0, 4)), new_shot=new_shot, last=True)
                break
            dissolves.add(n, small, new_shot=new_shot)
            picture.append(picture_change(small, small_before))
            strokes.append(coarse(small))
            faces_FL3 = self._tracker.landmarks(rgb, new_shot=new_shot)
            camera.add(n, rgb, box_of(faces_FL3), new_shot=new_shot)
            size_2 = np.array(rgb.shape[1::-1], np.float32)
            crops = [crop_face(rgb, face_L3[:, :2] * size_2, flat=n % EVERY == 0) for face_L3 in faces_FL3]
            changes = [change_of(rgb, before, box_4 * np.tile(size_2, 2)) for box_4 in box_of(faces_FL3)]
            follow.add(n, faces_FL3 * scale_3, crops, self._tracker.blendshapes, changes)
            before, small_before = rgb, small
        follow.leave_out(dissolves.spans())
        tracks = follow.tracks(round(self.config.min_track * FPS), self.config.min_likeness)
        dissolved = (n for span in dissolves.spans() for n in span)
        cuts = sorted({*cuts, *dissolved, *jumps_of(np.array(picture), tracks, item.first)} - {item.first})
        piece = item.model_copy(update={"uri": ""})  # what was seen does not depend on where the file lay
        path = camera.path(item.first, item.last, width)
        shown = {"camera": path, "coarse": np.stack(strokes)}
        yield FaceTracks(piece=piece, width=width, height=height, cuts=tuple(cuts), tracks=tracks, **shown)


def tracker_of(config: FacesConfig) -> FaceTracker:
    if config.model == "facemesh":
        return FaceMeshTracker(config.max_faces, config.min_confidence)
    return FaceLandmarkerTracker(read_landmarker(config), config.max_faces, config.min_confidence)


def pieces_of(outline: Outline, uris: Sequence[str], config: FacesConfig) -> tuple[Piece, ...]:
    """The grid of each of a conversation's files in pieces, with edges of its own.

    None is longer than `piece_seconds` nor, where there are several, shorter than half of that.
    """
    longest = int(config.piece_seconds * FPS)
    witnesses = outline.witnesses or ("",) * len(uris)
    files = zip(uris, witnesses, outline.keyframes, outline.early_keyframes, strict=True)
    return tuple(
        Piece(conversation=outline.id, media=index, uri=uri, first=first, last=last, witness=witness)
        for index, (uri, witness, keyframes, early) in enumerate(files)
        for first, last in itertools.pairwise(_edges(outline.frames, longest, keyframes, early))
    )


def _edges(frames: int, longest: int, keyframes: Sequence[int], early: Sequence[int]) -> list[int]:
    """0 … frames, by way of early key frames: the last one in reach, else the next one after."""
    shortest = longest // 2  # anything longer than `longest` can be split into parts of this and more
    early = [n for n in early if n <= frames - shortest]
    edges = [0]
    while frames - edges[-1] > longest:
        here = edges[-1]
        after = bisect.bisect_right(early, here + longest)
        in_reach = after > 0 and early[after - 1] >= here + shortest
        goal = early[after - 1] if in_reach else early[after] if after < len(early) else frames
        edges += _steps(here, goal, shortest, longest, keyframes)
    if frames > edges[-1]:
        edges.append(frames)
    return edges


def _steps(here: int, goal: int, shortest: int, longest: int, keyframes: Sequence[int]) -> Iterator[int]:
    """Edges after `here` up to and with `goal`: at the last key frame in reach, else evenly."""
    while (left := goal - here) > longest:
        reach = bisect.bisect_right(keyframes, min(here + longest, goal - shortest))
        even = here + math.ceil(left / math.ceil(left / longest))
        here = keyframes[reach - 1] if reach > 0 and keyframes[reach - 1] >= here + shortest else even
        yield here
    yield goal


class CutDetector:
    """Tells, frame by frame, where a new shot begins."""

    def __init__(self, threshold: float) -> None:
        import cv2
        from scenedetect import ContentDetector, FrameTimecode

        self._cv2, self._timecode = cv2, FrameTimecode
        self._detector = ContentDetector(threshold=threshold, min_scene_len=0)  # 0: answers at once

    def __call__(self, n: int, rgb_HW3: np.ndarray) -> bool:
        bgr = self._cv2.cvtColor(thumbnail(rgb_HW3), self._cv2.COLOR_RGB2BGR)
        return bool(self._detector.process_frame(self._timecode(n, fps=float(FPS)), bgr))


@dataclass(frozen=True)
class _Face:
    """A detected face, and what is asked of it again and again."""

    landmarks_L3: np.ndarray
    look: FaceCrop
    box_4: np.ndarray
    centre_2: np.ndarray  # mean of the landmarks
    size: float
    blendshapes_B: np.ndarray | None
    change: float  # since the frame before, see `stages.face.freshness`

    @classmethod
    def of(cls, landmarks_L3: np.ndarray, look: FaceCrop, blendshapes_B: np.ndarray | None, change: float) -> _Face:
        box = box_of(landmarks_L3)
        return cls(landmarks_L3, look, box, landmarks_L3[:, :2].mean(axis=0), _size(box), blendshapes_B, change)


@dataclass(eq=False)  # two that come and go together are still two
class _Open:
    first: int
    last: int  # frame in which the face was seen last
    seen: dict[int, _Face] = field(default_factory=dict)  # by frame


class Association:
    """Gives faces an identity over time: feed frames in order, collect the tracks.

    Args:
        max_gap: frames without the face that a track survives.
    """

    def __init__(self, max_gap: int) -> None:
        self._max_gap = max_gap
        self._open: list[_Open] = []
        self._done: list[_Open] = []

    def add(
        self,
        n: int,
        faces_FL3: np.ndarray,
        crops: Sequence[FaceCrop],
        blendshapes_FB: np.ndarray | None = None,
        changes: Sequence[float] | None = None,
    ) -> None:
        """Continue tracks with the faces of frame n (pixels); faces that fit none begin new ones.

        changes: of each face since the frame before (`stages.face.freshness.change_of`).
        """
        gone = [t for t in self._open if n - t.last > self._max_gap + 1]
        self._done += gone
        self._open = [t for t in self._open if t not in gone]
        scores = blendshapes_FB if blendshapes_FB is not None else [None] * len(crops)
        changed = changes if changes is not None else [math.nan] * len(crops)
        faces = [_Face.of(*face) for face in zip(faces_FL3, crops, scores, changed, strict=True)]
        owner = self._match(n, faces)
        # Of two detections of one face, the one that continues the longest track stays.
        order = sorted(range(len(faces)), key=lambda f: owner[f].first if f in owner else n)
        kept: list[_Face] = []
        for f in order:
            face = faces[f]
            if any(_overlap(face, other) > _SAME_FACE for other in kept):
                continue
            kept.append(face)
            track = owner.get(f)
            if track is None:
                track = _Open(first=n, last=n)
                self._open.append(track)
            track.last = n
            track.seen[n] = face

    def end_all(self) -> None:
        """A cut: no face continues."""
        self._done += self._open
        self._open = []

    def leave_out(self, spans: Sequence[tuple[int, int]]) -> None:
        """No track reaches into any of these spans of frames, first … last − 1, nor over it."""
        self.end_all()
        for first, last in spans:
            parts = [part for track in self._done for part in (_part(track, 0, first), _part(track, last))]
            self._done = [part for part in parts if part is not None]

    def tracks(self, min_frames: int, min_likeness: float = 0.0) -> tuple[Track, ...]:
        """All tracks in which the face is seen in at least `min_frames` frames, by first frame, then left to right.

        Args:
            min_likeness: frames in which the face looks less as usual are invalid; so are those that repeat an old
            picture, where there are many of them.
        """
        self.end_all()
        long = [t for t in self._done if len(t.seen) >= max(1, min_frames)]
        long.sort(key=lambda t: (t.first, float(t.seen[t.first].centre_2[0])))
        return tuple(_track(t, min_likeness) for t in long)

    def _match(self, n: int, faces: Sequence[_Face]) -> dict[int, _Open]:
        from scipy.optimize import linear_sum_assignment

        impossible = 1e6
        cost = np.full((len(self._open), len(faces)), impossible)
        for i, track in enumerate(self._open):
            limit = _MAX_JUMP + _MAX_DRIFT * (n - track.last - 1)
            for f, face in enumerate(faces):
                cost[i, f] = _movement(track.seen[track.last], face, limit, impossible)
        rows, columns = linear_sum_assignment(cost)
        return {int(f): self._open[i] for i, f in zip(rows, columns, strict=True) if cost[i, f] < impossible}


def _part(track: _Open, first: int, last: int | None = None) -> _Open | None:
    seen = {n: face for n, face in track.seen.items() if first <= n and (last is None or n < last)}
    return _Open(min(seen), max(seen), seen) if seen else None


def box_of(landmarks_L3: np.ndarray) -> np.ndarray:
    """x0 y0 x1 y1 of landmarks; leading axes are kept."""
    xy = landmarks_L3[..., :2]
    return np.concatenate([xy.min(axis=-2), xy.max(axis=-2)], axis=-1)


def _size(box_4: np.ndarray) -> float:
    return float(np.sqrt(max(box_4[2] - box_4[0], 1e-6) * max(box_4[3] - box_4[1], 1e-6)))


def _movement(before: _Face, after: _Face, limit: float, impossible: float) -> float:
    """Mean landmark movement in face sizes, or `impossible`: further than `limit`, or another size."""
    if not 1 / _MAX_ZOOM <= after.size / before.size <= _MAX_ZOOM:
        return impossible
    shift_2 = after.centre_2 - before.centre_2  # the mean of the movements: never longer than their mean length
    if math.hypot(shift_2[0], shift_2[1]) > limit * before.size:
        return impossible
    moved_L2 = after.landmarks_L3[:, :2] - before.landmarks_L3[:, :2]
    jump = float(np.sqrt(np.einsum("li,li->l", moved_L2, moved_L2)).mean()) / before.size
    return jump if jump <= limit else impossible


def _overlap(a: _Face, b: _Face) -> float:
    """Shared area as a part of the smaller box."""
    sides = np.minimum(a.box_4[2:], b.box_4[2:]) - np.maximum(a.box_4[:2], b.box_4[:2])
    return float(max(sides[0], 0.0) * max(sides[1], 0.0) / min(a.size, b.size) ** 2)


def _track(track: _Open, min_likeness: float) -> Track:
    length = track.last - track.first + 1
    where_V = np.array(sorted(track.seen), np.int64) - track.first
    faces = [track.seen[n] for n in sorted(track.seen)]
    thumbs_VSS3 = np.stack([face.look.thumb_SS3 for face in faces])
    portrait_SS3 = np.rint(thumbs_VSS3.mean(axis=0)).astype(np.uint8)
    inside_V = np.array([face.look.inside for face in faces], np.float32)
    confidence_V = np.maximum(likeness(thumbs_VSS3, portrait_SS3), 0) * inside_V

    def over_time(values_V: np.ndarray) -> np.ndarray:
        values_T = np.full(length, np.nan, np.float32)
        values_T[where_V] = values_V
        return values_T

    repeated_T = repeated(over_time(np.array([face.change for face in faces], np.float32)))
    taken_V = (confidence_V >= min_likeness) & ~harmful(repeated_T)[where_V]
    landmarks_TL3 = np.full((length, LANDMARKS, 3), np.nan, np.float32)
    landmarks_TL3[where_V[taken_V]] = np.stack([face.landmarks_L3 for face in faces])[taken_V]

    scores = [face.blendshapes_B for face in faces if face.blendshapes_B is not None]
    blendshapes_TB = None
    if scores:
        blendshapes_TB = np.full((length, BLENDSHAPES), np.nan, np.float32)
        blendshapes_TB[where_V[taken_V]] = np.stack(scores)[taken_V]
    return Track(
        first=track.first,
        landmarks=landmarks_TL3,
        box=box_of(landmarks_TL3),
        valid=np.isin(np.arange(length), where_V[taken_V]),
        confidence=over_time(confidence_V),
        sharpness=over_time(np.array([face.look.sharpness for face in faces])),
        luminance=over_time(luminance(thumbs_VSS3)),
        portrait=portrait_SS3,
        texture=_texture([face for face, taken in zip(faces, taken_V, strict=True) if taken]),
        blendshapes=blendshapes_TB,
        fresh=~repeated_T,
    )


def _texture(faces: Sequence[_Face]) -> np.ndarray | None:
    """`Track.texture` of a track's faces."""
    flat = [(face.landmarks_L3, face.look.flat) for face in faces if face.look.flat is not None]
    if not flat:
        return None
    yaw_N = np.degrees(Heads.of(np.stack([landmarks for landmarks, _ in flat])).angles()[:, 1])
    return by_turn([texture for _, texture in flat], yaw_N)
