"""Files of a conversation beside a page: named where they lie, or copied; and pictures of it with the tracked faces.

Only files of this machine are looked at, and only while they are what was ingested: a run's folder may be of others'
making, and makes us call nobody.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np

from visavis.schemas.errors import Rejected
from visavis.schemas.face_rows import Cast, FaceTracks, Track
from visavis.schemas.rows import Conversation, Media
from visavis.schemas.storage.files import Reader, open_path
from visavis.schemas.uris import file_name, is_local, local_path, shown
from visavis.stages.media.file_identity import Unchanged
from visavis.stages.media.video import frames_on_grid

_HEIGHT, _QUALITY = 150, 72  # of a picture: pixels, of JPEG
_COLOURS = ((87, 171, 255), (111, 207, 111))  # of the two people, BGR: the page's
_GREY = (170, 170, 170)
_ENDINGS = frozenset(
    [".mp4", ".m4v", ".mov", ".webm", ".mkv", ".ogv", ".avi", ".ts", ".wav", ".flac", ".mp3", ".m4a", ".ogg"]
)


@dataclass
class Place:
    """Where a page finds a file; no source: `why` it does not."""

    source: str
    why: str = ""


class Copies:
    """Gives files to a page: by name, or, of the first `conversations`, as copies in its folder."""

    def __init__(self, folder: Path, out: Path, conversations: int) -> None:
        """folder: of the page while it is written. out: where it will lie."""
        self._folder, self._out, self.left = folder, out, conversations

    def begin(self) -> bool:
        """Of the next conversation: whether its files are copied."""
        self.left -= 1
        return self.left >= 0

    def place(self, uri: str, witness: str, name: str, *, copied: bool) -> Place:
        """Where a page finds a file of a conversation. name: of a copy, without its ending."""
        if not is_local(uri):
            return Place("", f"{shown(uri)} is not on this machine")
        if not witness:  # any file of this machine could be named by a run that somebody else made
            return Place("", f"{file_name(uri)}: this run does not say what the file was, so it is not shown")
        path = Path(local_path(uri))
        try:
            with open_path(str(path)) as reader:
                Unchanged(uri, witness).check(reader)
                return self._copy(reader, path, name) if copied else Place(self._named(path))
        except Rejected:
            return Place("", f"{file_name(uri)} is not the file any more that was ingested")
        except OSError as error:
            return Place("", f"{file_name(uri)} cannot be read: {error.strerror}")

    def write(self, name: str, data: bytes) -> str:
        """A file of the page's own; where the page finds it."""
        target = self._folder / "media" / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(data)
        return f"media/{name}"

    def _copy(self, reader: Reader, path: Path, name: str) -> Place:
        ending = path.suffix.lower() if path.suffix.lower() in _ENDINGS else ".bin"
        target = self._folder / "media" / (name + ending)
        target.parent.mkdir(exist_ok=True)
        with target.open("wb") as file:
            shutil.copyfileobj(reader, file, 1 << 20)
        return Place(f"media/{target.name}")

    def _named(self, path: Path) -> str:
        """Relative where the file lies beside or below the page's folder, so that both can be moved together."""
        beside = self._out.resolve().parent
        if path.is_relative_to(beside):
            return "../" + quote(os.fsencode(path.relative_to(beside)))
        return "file://" + quote(os.fsencode(path))


def picture(conversation: Conversation, faces: Sequence[FaceTracks], cast: Cast | None, frame: int) -> bytes | str:
    """A JPEG of a moment, the files side by side, with the boxes of the faces; or why there is none."""
    colours: dict[tuple[int, int], tuple[int, int, int]] = {}
    for member, colour in zip(cast.members if cast else (), _COLOURS, strict=False):
        colours |= {(segment.piece, segment.track): colour for segment in member.segments}
    parts = []
    for number, media in enumerate(conversation.media):
        if not is_local(media.uri):
            return f"{shown(media.uri)} is not on this machine"
        if not media.witness:
            return f"{file_name(media.uri)}: this run does not say what the file was, so it is not shown"
        try:
            found = _picture(media, frame, list(_seen(faces, number, frame, colours)))
        except Rejected as rejected:
            return str(rejected)
        except OSError as error:
            return f"{file_name(media.uri)} cannot be read: {error.strerror}"
        if found is None:
            return f"{file_name(media.uri)}: no picture at this moment"
        parts.append(found)
    done, data = cv2.imencode(".jpg", np.concatenate(parts, axis=1), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return data.tobytes() if done else "the picture cannot be written as JPEG"


def _picture(media: Media, frame: int, seen: Sequence[tuple[Track, int, tuple[int, int, int]]]) -> np.ndarray | None:
    rgb = next((rgb for _, rgb in frames_on_grid(media.uri, frame, frame + 1, witness=media.witness)), None)
    if rgb is None:
        return None
    scale = _HEIGHT / rgb.shape[0]
    width = max(1, min(4 * _HEIGHT, round(rgb.shape[1] * scale)))
    small = cv2.cvtColor(cv2.resize(rgb, (width, _HEIGHT), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR)
    for track, i, colour in seen:
        x0, y0, x1, y1 = (track.box[i] * scale).round().astype(int).tolist()
        cv2.rectangle(small, (x0, y0), (x1, y1), colour, 1, cv2.LINE_AA)
        if colour is not _GREY:
            for x, y in (track.landmarks[i, ::3, :2] * scale).round().astype(int).tolist():
                cv2.circle(small, (x, y), 0, colour, -1)
    return small


def _seen(
    faces: Sequence[FaceTracks], media: int, frame: int, colours: dict[tuple[int, int], tuple[int, int, int]]
) -> Iterator[tuple[Track, int, tuple[int, int, int]]]:
    for p, row in enumerate(faces):
        for t, track in enumerate(row.tracks):
            i = frame - track.first
            if row.piece.media == media and 0 <= i < len(track.valid) and track.valid[i]:
                yield track, i, colours.get((p, t), _GREY)
