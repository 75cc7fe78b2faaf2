"""One conversation for a page: where its films lie, who speaks when, who was bound to whom, what is seen and kept.

Shape suffixes as in `schemas.rows`: T frames of the 25 fps grid, N samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from visavis.pipeline.page.packed import packed_bytes, packed_over_time
from visavis.pipeline.page.report_corpus import Entry, read_made
from visavis.pipeline.page.report_media import Copies, Place, picture
from visavis.pipeline.page.report_parts import packed_motion, peaks, put_faces
from visavis.schemas import FPS
from visavis.schemas.artifact import load_row
from visavis.schemas.dyads import Codec, Dyad, Motion, WindowClass
from visavis.schemas.face_rows import Cast, FaceTracks
from visavis.schemas.rows import Binding, Conversation, Diarization, Row
from visavis.schemas.sample import decode_audio
from visavis.schemas.storage.store import Store
from visavis.schemas.voice_rows import Transcript, Voices
from visavis.stages.base import Stage
from visavis.stages.bind import BindStage
from visavis.stages.cast import CastStage
from visavis.stages.diarize import DiarizeStage
from visavis.stages.faces import FacesStage
from visavis.stages.ingest import IngestStage
from visavis.stages.motion import MotionStage
from visavis.stages.separate import SeparateStage
from visavis.stages.transcribe import TranscribeStage
from visavis.stages.windows import WindowsStage
from visavis.training.runs import runs

_WORDS, _BOXES_EACH = 20_000, FPS // 5  # words that are shown of a transcript; frames between two boxes
_BOXED_FRAMES = 10 * 60 * FPS  # of longer conversations no boxes are drawn: their tracks are large
_LABELS = list(WindowClass)

R = TypeVar("R", bound=Row)


def conversation_of(store: Store, entry: Entry) -> Conversation | None:
    """None where it was left out before anything of it was kept."""
    return _row(store, IngestStage, entry, Conversation)


def conversation_data(store: Store, entry: Entry, conversation: Conversation, copies: Copies) -> dict[str, Any]:
    """What `report_conversation.js` shows, without `motion_data`; of stages that it did not reach, nothing."""
    copied = copies.begin()
    binding = _row(store, BindStage, entry, Binding)
    diarization = _row(store, DiarizeStage, entry, Diarization)
    cast = _row(store, CastStage, entry, Cast)
    voices = _row(store, SeparateStage, entry, Voices)
    said: dict[str, Any] = {
        "id": entry.id,
        "frames": conversation.frames,
        "layout": conversation.layout.value,
        "media": [],
        "people": _people(conversation, binding, cast, voices),
        "turns": _turns(binding.turns if binding else diarization.turns if diarization else ()),
        "bound": binding is not None,
        "corrected": binding.corrected if binding else 0.0,
        "method": diarization.method if diarization else "",
        "seen": [runs(np.isfinite(member.mouth).all(axis=1)) for member in cast.members] if cast else [],
        "boxes": _boxes(store, entry, conversation, cast),
        "words": _words(store, entry),
        "motion": [],
        "windows": _windows(store, entry),
    }
    for number, media in enumerate(conversation.media):
        name = f"{entry.id}-{number}"
        film = copies.place(media.uri, media.witness, name, copied=copied)
        sound = (
            copies.place(media.audio_uri, media.audio_witness, f"{name}-sound", copied=copied)
            if media.audio_uri
            else Place("")
        )
        facts = {"width": media.width, "height": media.height}
        said["media"].append(
            facts | {"source": film.source, "why": film.why, "sound": sound.source, "sound_why": sound.why}
        )
    said["voices"] = []
    if voices:
        said["peaks"] = [packed_bytes(peaks(decode_audio(audio.tobytes()))) for audio in voices.audio]
        if copied and not all(media["source"] for media in said["media"]):  # then it can be heard at least
            said["voices"] = [copies.write(f"{entry.id}-{n}.flac", a.tobytes()) for n, a in enumerate(voices.audio)]
    return said


def moment(store: Store, entry: Entry, conversation: Conversation) -> bytes | str:
    """A picture of it, in which both are seen if there is such a moment; or why there is none."""
    cast = _row(store, CastStage, entry, Cast)
    frame = conversation.frames // 2
    if cast:
        both_T = np.logical_and.reduce([np.isfinite(member.mouth).all(axis=1) for member in cast.members])
        there = np.flatnonzero(both_T)
        frame = int(there[len(there) // 2]) if len(there) else frame
    faces = []
    for data in read_made(store, FacesStage, entry):
        row = load_row(data, FaceTracks)
        here = row.piece.first <= frame < row.piece.last
        faces.append(row if here else row.model_copy(update={"tracks": ()}))
    faces.sort(key=lambda row: (row.piece.media, row.piece.first))
    return picture(conversation, faces, cast, frame)


def _row(store: Store, stage: type[Stage[Any, Any]], entry: Entry, kind: type[R]) -> R | None:
    found = read_made(store, stage, entry)
    return load_row(found[0], kind) if found else None


def _people(
    conversation: Conversation, binding: Binding | None, cast: Cast | None, voices: Voices | None
) -> list[dict[str, Any]]:
    people: list[dict[str, Any]] = []
    for number, name in enumerate(conversation.participants):
        one: dict[str, Any] = {"name": name}
        if binding:
            bound = binding.participants[number]
            one |= {"name": bound.name, "speaker": bound.speaker, "score": bound.score, "margin": bound.margin}
            one |= {"offset_ms": bound.offset_ms, "offset_confidence": bound.offset_confidence}
        if cast:
            member = cast.members[number]
            one |= {"media": member.media, "figures": dict(member.figures)}
        if voices:
            one["voice"] = dict(voices.figures[number])
        people.append(one)
    return people


def _turns(turns: Any) -> list[list[float]]:
    return [[turn.speaker, round(turn.start, 3), round(turn.end, 3), int(turn.backchannel)] for turn in turns]


def _words(store: Store, entry: Entry) -> dict[str, Any] | None:
    found = _row(store, TranscribeStage, entry, Transcript)
    if found is None:
        return None
    words = [[w.speaker, round(w.start, 2), round(w.end, 2), w.text] for w in found.words[:_WORDS]]
    left_out = max(0, len(found.words) - _WORDS)
    return {"language": found.language, "aligned": found.aligned, "words": words, "left_out": left_out}


def motion_data(
    store: Store, entry: Entry, folder: Path, codecs: Mapping[str, Codec], *, drawn: bool
) -> list[dict[str, Any]]:
    """Of each person where it is valid and, to be drawn, the motion; their faces are written beside."""
    rows = [load_row(data, Motion) for data in read_made(store, MotionStage, entry)]
    codec = codecs.get(rows[0].codec) if rows else None
    if drawn and codec:
        put_faces(folder, entry.id, codec, [row.neutral for row in rows])
    moved = [packed_motion(row.motion) if drawn and codec else None for row in rows]
    return [{"valid": runs(row.valid), "motion": motion} for row, motion in zip(rows, moved, strict=True)]


def _windows(store: Store, entry: Entry) -> list[dict[str, Any]]:
    """Of each avatar: how long its windows are, their first frames, and the numbers of their classes as digits."""
    dyad = _row(store, WindowsStage, entry, Dyad)
    found = []
    for avatar in (0, 1) if dyad and dyad.windows else ():
        mine = sorted((w for w in dyad.windows if w.avatar == avatar), key=lambda w: w.first) if dyad else []
        labels = "".join(str(_LABELS.index(w.label)) for w in mine)
        found.append({"length": mine[0].length if mine else 0, "first": [w.first for w in mine], "labels": labels})
    return found


def _boxes(store: Store, entry: Entry, conversation: Conversation, cast: Cast | None) -> list[dict[str, Any]]:
    """Every fifth of a second where each tracked face is; person: 0 or 1, −1 of others."""
    if conversation.frames > _BOXED_FRAMES:
        return []
    faces = [load_row(data, FaceTracks) for data in read_made(store, FacesStage, entry)]
    faces.sort(key=lambda row: (row.piece.media, row.piece.first))
    whose: dict[tuple[int, int], int] = {}
    for number, member in enumerate(cast.members if cast else ()):
        whose |= {(segment.piece, segment.track): number for segment in member.segments}
    found = []
    for p, row in enumerate(faces):
        for t, track in enumerate(row.tracks):
            box = track.box[::_BOXES_EACH]
            there = np.isfinite(box).all(axis=1)
            if there.any():
                found.append(
                    {
                        "media": row.piece.media,
                        "first": track.first,
                        "each": _BOXES_EACH,
                        "person": whose.get((p, t), -1),
                        "box": packed_over_time(np.where(there[:, None], box, 0)),
                        "there": runs(there),
                    }
                )
    return found
