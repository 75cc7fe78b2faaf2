"""A picture of what was seen in a conversation: moments of its video with every tracked face, and its motion.

Participants are drawn in colours of their own with all landmarks, other faces in grey with a box. Below, each
participant's motion, decoded: what a model will know of that face. Also for conversations that were rejected, as far as
they came.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from visavis.pipeline.engine.progress import command
from visavis.pipeline.plan.outputs import codecs_of, read_outputs
from visavis.pipeline.plan.run_folder import read_settings
from visavis.pipeline.view.avatar import WHITE
from visavis.pipeline.view.puppet import WIDEST
from visavis.pipeline.view.timeline import AVATAR, USER
from visavis.pipeline.view.wireframe import Colour, draw_wireframe
from visavis.schemas import FPS
from visavis.schemas.dyads import Codec, Motion
from visavis.schemas.errors import DatasetError, UsageError
from visavis.schemas.face_rows import Cast, FaceTracks, Track
from visavis.schemas.rows import Address, Conversation, Media
from visavis.schemas.storage.store import Store
from visavis.schemas.untrusted import parsing
from visavis.schemas.uris import file_name, is_local, is_shortened, printable, shown
from visavis.schemas.words import candidates
from visavis.stages.cast import CastStage
from visavis.stages.face.codec import decode_motion
from visavis.stages.faces import FacesStage
from visavis.stages.ingest import IngestStage
from visavis.stages.media.video import frames_on_grid
from visavis.stages.motion import MotionStage

_HEIGHT = 270  # pixels of a row
_COLOURS = USER, AVATAR  # of the two participants
_BRIGHT = ((255, 140, 30), (60, 220, 60))  # the same where they lie on video, RGB
GREY = (170, 170, 170)
_LARGER = 2  # drawn larger and made smaller, for fine lines


def draw(root: str, item: str, moments: int, addresses: Sequence[str] = ()) -> tuple[np.ndarray, str]:
    """A sheet, uint8 [H, W, 3] RGB: a column for each moment, a row for each file and each participant; and which
    conversation it is of.

    Args:
        item: beginning of a conversation's id, or part of its file's name.
        addresses: of its files, where a run keeps only a part of them (`schemas.uris.shown`).

    Raises:
        UsageError: no such conversation in this run, none of its faces is tracked yet, or an address is missing.
    """
    conversation = with_addresses(find_conversation(root, item), addresses)
    with parsing(lambda why: DatasetError(f"{root}: what is there of {item} does not fit together ({why})")):
        faces = [row for _, row in read_outputs(root, FacesStage, conversation.id)]
        if not faces:
            raise UsageError(
                f"{item}: no face of {name_of(conversation)} is tracked yet, or it was left out before that; "
                f"`{command('status', root)}` says more"
            )
        faces.sort(key=lambda row: (row.piece.media, row.piece.first))
        casts = [row for _, row in read_outputs(root, CastStage, conversation.id, left_out=True)]
        motions = [row for _, row in read_outputs(root, MotionStage, conversation.id)]
        when = np.linspace(0, conversation.frames - 1, moments + 2).astype(int)[1:-1]
        sheets = [
            list(_moments(media, number, when, faces, casts[0] if casts else None))
            for number, media in enumerate(conversation.media)
        ]
        codecs = codecs_of(Store(root))
        sheets += [list(_decoded(codecs[motion.codec], motion, when)) for motion in motions if motion.codec in codecs]
        width = max(picture.shape[1] for row in sheets for picture in row)
        sheet = np.concatenate([np.concatenate([_centred(p, width) for p in row], axis=1) for row in sheets])
        return sheet, f"{name_of(conversation)} ({conversation.id})"


def save_sheet(sheet: np.ndarray, out: Path) -> None:
    """Write a PNG or JPEG.

    Raises:
        UsageError: another ending, or a folder that is not there.
    """
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg") or not out.parent.is_dir():
        raise UsageError(f"--out {out}: a .png or .jpg in a folder that exists")
    out.write_bytes(cv2.imencode(out.suffix.lower(), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1].tobytes())


def find_conversation(root: str, item: str) -> Conversation:
    seen: list[str] = []
    for _, conversation in read_outputs(root, IngestStage):
        names = (file_name(media.uri) for media in conversation.media)
        if conversation.id.startswith(item) or any(printable(item) in name for name in names):
            return conversation
        seen.append(name_of(conversation))
    if "layout" in read_settings(Store(root))["config"]:
        raise UsageError(
            f"{root} is an import, which looks at no pictures; name a window's KEY to `visavis render`, or"
            " see its motion as curves: `visavis generate`, then `visavis report`"
        )
    raise UsageError(f"{item}: no such conversation in {root}; {candidates(item, seen, 'conversation')}")


def with_addresses(conversation: Conversation, given: Sequence[str]) -> Conversation:
    """The conversation with the whole addresses of its files, of those that were given."""
    known: dict[str, list[str]] = {}
    for address in given:
        known.setdefault(shown(address), []).append(address)
    places = []
    for media in conversation.media:
        found = known.get(media.uri, [])
        if not found and not is_local(media.uri):  # a folder makes us call nobody
            why = "is kept without its keys" if is_shortened(media.uri) else "is but what this folder says"
            raise UsageError(f"{media.uri} {why}, so it is not opened: name the whole address with --media")
        places.append(Address(found.pop(0) if found else media.uri, media.audio_uri))
    return conversation.at(tuple(places))


def name_of(conversation: Conversation) -> str:
    """What a person would call it."""
    return " + ".join(file_name(media.uri) for media in conversation.media)


def _moments(
    file: Media, media: int, when: np.ndarray, faces: Sequence[FaceTracks], cast: Cast | None
) -> Iterator[np.ndarray]:
    """The picture at each moment, with its faces."""
    colours: dict[tuple[int, int], Colour] = {}
    for member, colour in zip(cast.members if cast else (), _BRIGHT, strict=False):
        colours |= {(segment.piece, segment.track): colour for segment in member.segments}
    for n in when.tolist():
        ((_, rgb),) = frames_on_grid(file.uri, n, n + 1, witness=file.witness)
        picture = rgb.copy()
        for p, row in enumerate(faces):
            for t, track in enumerate(row.tracks):
                i = n - track.first
                if row.piece.media == media and 0 <= i < len(track.valid) and track.valid[i]:
                    _draw_face(picture, track, i, f"{p}/{t}", colours.get((p, t)))
        _write(picture, f"{n / FPS:.2f} s", (8, 30), (255, 255, 255))
        yield cv2.resize(
            picture, (round(picture.shape[1] * _HEIGHT / picture.shape[0]), _HEIGHT), interpolation=cv2.INTER_AREA
        )


def _draw_face(picture: np.ndarray, track: Track, i: int, name: str, colour: Colour | None) -> None:
    """Landmarks of a participant, the box of anybody else."""
    x0, y0, x1, y1 = track.box[i].astype(int).tolist()
    size = _stroke(picture)
    if colour is None:
        cv2.rectangle(picture, (x0, y0), (x1, y1), GREY, size)
    else:
        for x, y in track.landmarks[i, :, :2].astype(int).tolist():
            cv2.circle(picture, (x, y), size, colour, -1)
    _write(picture, f"track {name}, {track.confidence[i]:.2f}", (x0, y0 - 5), colour or GREY)


def _write(picture: np.ndarray, text: str, place: tuple[int, int], colour: Colour) -> None:
    size = _stroke(picture)
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.55 * size, colour, size, cv2.LINE_AA)


def _stroke(picture: np.ndarray) -> int:
    """Thickness that is still seen when the picture is made smaller."""
    return max(1, round(max(picture.shape) / 640))


def _decoded(codec: Codec, motion: Motion, when: np.ndarray) -> Iterator[np.ndarray]:
    """The face that the motion says, at each moment, on white."""
    colour = _COLOURS[motion.participant]
    colours = [colour if valid else GREY for valid in motion.valid[when]]
    yield from draw_faces(decode_motion(codec, motion.motion[when], motion.neutral), colours, _HEIGHT)


def draw_faces(points_TL3: np.ndarray, colours: Sequence[Colour], height: int) -> Iterator[np.ndarray]:
    """Decoded landmarks as meshes seen from the front, on white squares with one view for all.

    Raises:
        ValueError: numbers that are not finite.
    """
    if not np.isfinite(points_TL3).all():
        raise ValueError("landmarks that are not finite")
    centre_3 = np.append(points_TL3[:, :, :2].mean(axis=(0, 1)), 0)
    for face_L3, colour in zip(points_TL3, colours, strict=True):
        large = draw_wireframe(np.clip(face_L3 - centre_3, -WIDEST, WIDEST), _LARGER * height, colour, WHITE)
        yield cv2.resize(large, (height, height), interpolation=cv2.INTER_AREA)


def _centred(picture: np.ndarray, width: int) -> np.ndarray:
    left = (width - picture.shape[1]) // 2
    edges = ((0, 0), (left, width - picture.shape[1] - left), (0, 0))
    return np.pad(picture, edges, constant_values=255)
