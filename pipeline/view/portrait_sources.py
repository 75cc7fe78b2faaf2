"""Where portraits come from: any picture with a face, or a frame of the person's own video in a run."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from visavis.pipeline.plan.outputs import Outputs
from visavis.pipeline.view.mesh import LIDS_BOTTOM, LIDS_TOP, LIPS_INNER_BOTTOM, LIPS_INNER_TOP
from visavis.pipeline.view.portrait import Portrait
from visavis.schemas.config import MOST_PIXELS, FacesConfig
from visavis.schemas.dyads import Motion
from visavis.schemas.errors import UsageError
from visavis.schemas.face_rows import FaceTracks
from visavis.schemas.rows import Binding, Conversation
from visavis.schemas.storage.user_files import read_given
from visavis.schemas.untrusted import bounded, parsing
from visavis.schemas.uris import is_local, printable
from visavis.stages.bind import BindStage, seen_by_piece
from visavis.stages.face.heads import Heads
from visavis.stages.faces import FacesStage, FaceTracker, box_of, tracker_of
from visavis.stages.media.video import frames_on_grid
from visavis.stages.motion import MotionStage

_MOST_BYTES = 64 << 20
_LARGEST = 1920  # pixels of a side; larger pictures are made smaller first
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
_SKETCH = 0.3  # cm, rad … that count as one in the choice of a frame


def read_portrait(path: Path, tracker: FaceTracker | None = None) -> Portrait:
    """The portrait of a picture's largest face.

    Args:
        tracker: finds faces; none: the embedded FaceMesh, loaded here.

    Raises:
        UsageError: not a picture, or no face is found in it.
    """
    rgb_HW3 = read_picture(path)
    return portrait_in(rgb_HW3, str(path), tracker)


def portrait_in(rgb_HW3: np.ndarray, name: str, tracker: FaceTracker | None = None) -> Portrait:
    """The same of a picture that is at hand; `name` is what a refusal calls it."""
    tracker = tracker or tracker_of(FacesConfig())
    faces_FL3 = tracker.landmarks(rgb_HW3, new_shot=True)
    if not len(faces_FL3):
        raise UsageError(f"{printable(name)}: no face is found in it; take a picture that shows one from the front")
    height, width = rgb_HW3.shape[:2]
    faces_FL3 = faces_FL3 * np.array([width, height, width], np.float32)
    boxes_F4 = box_of(faces_FL3)
    largest = int(np.prod(boxes_F4[:, 2:] - boxes_F4[:, :2], axis=1).argmax())
    return Portrait.of(rgb_HW3, faces_FL3[largest])


def read_picture(path: Path) -> np.ndarray:
    """A picture as it is meant to be seen, uint8 [H, W, 3] RGB, no side over 1920 pixels.

    Raises:
        UsageError: not there, or not a picture (PNG, JPEG, WebP, BMP) of at most 35 million pixels.
    """
    data = read_given("portrait", str(path), most=_MOST_BYTES)
    with parsing(lambda why: UsageError(f"{path}: not a picture that is read: PNG, JPEG, WebP or BMP ({why})")):
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            bounded(image.width * image.height, MOST_PIXELS, "pixels")
            upright = ImageOps.exif_transpose(image).convert("RGB")
        upright.thumbnail((_LARGEST, _LARGEST), Image.Resampling.LANCZOS)
        return np.array(upright)


def portrait_of(made: Outputs, conversation: str, participant: int, uri: str | None = None) -> Portrait:
    """A frame of a participant's own video: sharp, from the front, mouth closed, eyes open, as near to rest as can be.

    Args:
        made: of a build. conversation: its id. participant: 0 or 1.
        uri: address of the file, where the run keeps only a part of it.

    Raises:
        UsageError: no such conversation, its motion is not there yet, or its file must be named.
        Rejected: the file is not there any more, or is another one.
    """
    talk, binding, motion = _outputs_of(made, conversation, participant)
    faces = [row for _, row in made.read(FacesStage, conversation)]
    faces.sort(key=lambda row: (row.piece.media, row.piece.first))
    media, n, landmarks_L3 = _best_frame(binding, faces, participant, motion)
    file = talk.media[media]
    if uri is None and not is_local(file.uri):  # a folder makes us call nobody
        raise UsageError(f"{file.uri} is but what {made.root} says, so it is not opened: name the whole address")
    ((_, rgb_HW3),) = frames_on_grid(uri or file.uri, n, n + 1, witness=file.witness)
    height, width = rgb_HW3.shape[:2]
    if (width, height) != (faces[0].width, faces[0].height):
        row = next(row for row in faces if row.piece.media == media)
        landmarks_L3 = landmarks_L3 * (width / row.width)
    return Portrait.of(rgb_HW3, landmarks_L3, motion.motion[n])


def _outputs_of(made: Outputs, conversation: str, participant: int) -> tuple[Conversation, Binding, Motion]:
    talk = made.conversation(conversation)
    binding = next((row for _, row in made.read(BindStage, conversation)), None)
    motions = (row for _, row in made.read(MotionStage, conversation))
    motion = next((row for row in motions if row.participant == participant), None)
    if talk is None or binding is None or motion is None:
        raise UsageError(f"{conversation}: {made.root} has no motion of its participant {participant} (yet)")
    return talk, binding, motion


def _best_frame(
    binding: Binding, faces: list[FaceTracks], participant: int, motion: Motion
) -> tuple[int, int, np.ndarray]:
    """Which file, which frame of the grid, and the landmarks in it."""
    best: tuple[float, int, int, np.ndarray] | None = None
    for media, where_V, landmarks_VL3, sharpness_V in _seen(binding, faces, participant, motion):
        cost_V = unrest(landmarks_VL3, motion.neutral, sharpness_V)
        i = int(cost_V.argmin())
        if best is None or cost_V[i] < best[0]:
            best = float(cost_V[i]), media, int(where_V[i]), landmarks_VL3[i]
    if best is None:
        raise UsageError(f"{binding.conversation}: participant {participant} is seen in no frame")
    return best[1:]


def _seen(
    binding: Binding, faces: list[FaceTracks], participant: int, motion: Motion
) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """File, frames, landmarks and sharpness of those frames whose motion is valid, piece by piece."""
    for seen in seen_by_piece(binding, faces, participant):
        kept = np.flatnonzero(motion.valid[seen.where_V])
        if len(kept):
            sharpness_V = np.array([track.sharpness[i] for track, i in seen.places])
            yield seen.row.piece.media, seen.where_V[kept], seen.landmarks()[kept], sharpness_V[kept]


def unrest(landmarks_VL3: np.ndarray, neutral_L3: np.ndarray, sharpness_V: np.ndarray) -> np.ndarray:
    """How far each frame is from a portrait, [V]: the face from its neutral one, the head from facing the camera, lips
    from each other, lids from open, the picture from sharp."""
    heads = Heads.of(landmarks_VL3)
    face_VL3 = heads.faces(landmarks_VL3)
    moved_V = np.sqrt(np.square(face_VL3 - neutral_L3).mean(axis=(1, 2)))
    turned_V = np.abs(heads.angles() * (0.5, 1.0, 0.5)).sum(axis=1)  # cameras stand high or low; that may stay
    lips_V = _apart(face_VL3, (LIPS_INNER_TOP, LIPS_INNER_BOTTOM))
    lids_V = np.mean([_apart(face_VL3, edges) for edges in zip(LIDS_TOP, LIDS_BOTTOM, strict=True)], axis=0)
    shut_V = np.clip(np.median(lids_V) - lids_V, 0, None)
    sharp_V = sharpness_V / max(float(np.nanquantile(sharpness_V, 0.9)), 1e-6)
    return np.asarray((moved_V + turned_V + lips_V + 2 * shut_V) / _SKETCH - np.clip(np.nan_to_num(sharp_V), 0, 1))


def _apart(face_VL3: np.ndarray, edges: tuple[tuple[int, ...], tuple[int, ...]]) -> np.ndarray:
    """The largest distance between two edges, cm, [V]."""
    top, bottom = edges
    return np.asarray(np.linalg.norm(face_VL3[:, top] - face_VL3[:, bottom], axis=2).max(axis=1))
