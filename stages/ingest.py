"""Ingest: is this a conversation that can be worked on, and which one?

What a header says of duration is not believed: every packet is demuxed, none but the first decoded, so a file that
was cut off has the length that is left of it. That costs a second reading of the file beside the one for its hash.

The packets also tell where the picture's key frames are. An encoder puts one at a scene change, before its group of
pictures is full (x264's scenecut), so they are where `stages.faces` likes to cut a long video into pieces: nothing is
decoded twice there, and often a shot ends. The trade-off: a hint that costs nothing; fades and soft changes are missed,
and the cuts themselves are found in the pictures. Only the best key frame of each 20 s is kept (180 an hour at most).

The id is a hash of content: moving or renaming files changes nothing, and the same bytes listed twice collide. It is
that of the videos; what lies beside them or is given for them (`stages.media.sidecars`, `stages.media.given`) is read
here, once, and is a part of the row.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from typing import ClassVar

from av.container import InputContainer
from av.video.stream import VideoStream

from visavis.schemas import FPS
from visavis.schemas.artifact import dump_rows
from visavis.schemas.config import IngestConfig
from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.rows import KEYFRAME_SLOT, Address, Conversation, Layout, Media, Outline, Source
from visavis.schemas.uris import shown
from visavis.stages.base import Stage
from visavis.stages.media.file_identity import Unchanged, Witness
from visavis.stages.media.given import with_given
from visavis.stages.media.limits import Limits
from visavis.stages.media.opening import absent, open_bytes, open_container
from visavis.stages.media.sidecars import BOXES, SOUND, VAD, read_boxes, read_vad
from visavis.stages.media.soundtrack import choose
from visavis.stages.media.spans import Span, timed_packets
from visavis.stages.media.video import decoded, displayed, main_video

_MIN_PICTURES_PER_SECOND = 2.0  # fewer is a slide show
_EARLY = 0.9  # of the longest group of pictures; a key frame after less than that is early


class IngestStage(Stage[Source, Conversation]):
    """A listed conversation → its probed files, common grid and id.

    One file holds both people (`one_frame`); two files hold one each, on one timeline (`per_participant`).
    """

    name: ClassVar[str] = "ingest"
    version: ClassVar[int] = 7
    config: IngestConfig

    def __init__(self, config: IngestConfig) -> None:
        super().__init__(config)

    def process(self, item: Source) -> Iterator[Conversation]:
        names = names_of(item)
        media = tuple(self._looked_at(item, n) for n in range(len(item.uris)))
        if len({m.sha256 for m in media}) < len(media):
            raise Rejected(
                Reason.DUPLICATE_CONTENT, f"{shown(item.uris[0])} and {shown(item.uris[1])} hold the same bytes"
            )
        layout = Layout.ONE_FRAME if len(media) == 1 else Layout.PER_PARTICIPANT
        end = min(min(_end_of_video(m), _end_of_audio(m)) for m in media)
        frames = math.floor(end * FPS + 1e-3)  # time stamps in milliseconds must not cost a frame
        if frames < self.config.min_duration * FPS:
            raise Rejected(Reason.TOO_SHORT, f"{frames / FPS:.2f} s, at least {self.config.min_duration:g} s needed")
        identity = _conversation_id(layout, media)
        yield Conversation(
            id=identity,
            layout=layout,
            media=media,
            participants=(names[0] or f"{identity}-0", names[1] or f"{identity}-1"),
            frames=frames,
        )

    def facts(self, rows: Sequence[Conversation]) -> str:
        """An `Outline`."""
        return outline_of(rows[0]).model_dump_json()

    def _looked_at(self, item: Source, n: int) -> Media:
        """A file, with what lies beside it and what is given for it."""
        media = self._checked(probe(item.uris[n], item.sidecars[n] if item.sidecars else (), self.config))
        if not item.given:
            return media
        name = item.participants[n] if item.participants else None
        return with_given(media, item.uris[n], item.given[n], name, alone=len(item.uris) > 1)

    def _checked(self, media: Media) -> Media:
        """The file, if its picture and sound cover the same span but for an end that is cut off.

        What is missing at the start shifts all that follows, or hides a shift; what is missing at the end does not.
        """
        start = abs(media.video_start - media.audio_start)
        ends = _end_of_video(media), _end_of_audio(media)
        allowed = max(self.config.max_length_mismatch, self.config.max_missing * max(ends))
        if start > self.config.max_length_mismatch or abs(ends[0] - ends[1]) > allowed:
            raise Rejected(
                Reason.AV_LENGTH_MISMATCH,
                f"{shown(media.uri)}: video {media.video_start:.2f}…{ends[0]:.2f} s, "
                f"audio {media.audio_start:.2f}…{ends[1]:.2f} s",
            )
        return media


def outline_of(conversation: Conversation) -> Outline:
    """What the plan needs to know of a conversation."""
    place = {"uri": "", "witness": "", "audio_witness": ""}
    nowhere = tuple(
        m.model_copy(update=place | {"audio_uri": None if m.audio_uri is None else ""}) for m in conversation.media
    )
    data = dump_rows([conversation.model_copy(update={"media": nowhere})])
    return Outline(
        id=conversation.id,
        identity=hashlib.sha256(data).hexdigest()[:16],
        frames=conversation.frames,
        keyframes=tuple(m.keyframes for m in conversation.media),
        early_keyframes=tuple(m.early_keyframes for m in conversation.media),
        witnesses=tuple(m.witness for m in conversation.media),
    )


def addresses_of(source: Source) -> tuple[Address, ...]:
    """Where a conversation's files lie, as its list says: what a folder says of it may be anybody's word."""
    sidecars = source.sidecars or ((),) * len(source.uris)
    return tuple(Address(uri, _beside(names).get(SOUND)) for uri, names in zip(source.uris, sidecars, strict=True))


def _beside(sidecars: Sequence[str]) -> dict[str, str]:
    """Names of what lies beside a file, by their ending."""
    return {name[name.rfind(".") :].lower(): name for name in sidecars}


def probe(uri: str, sidecars: Sequence[str] = (), config: IngestConfig | None = None) -> Media:
    """What there is to know of a file, and of what lies beside it, without decoding it.

    Args:
        config: for its limits.

    Raises:
        Rejected: UNREADABLE, NO_VIDEO (none, cover art only, or a slide show), NO_AUDIO; TOO_LONG, TOO_LARGE,
            TOO_HEAVY, TOO_BUSY; CHANGED while it was read.
    """
    limits = Limits(config or IngestConfig())
    beside = _beside(sidecars)
    audio_uri, same = beside.get(SOUND), Unchanged(uri)
    with open_container(uri, same, lambda claimed: limits.check(uri, claimed, same.size)) as container:
        limits.check(uri, container, same.size)
        video = main_video(container)
        if video is None:
            raise absent(Reason.NO_VIDEO, uri, container.streams.video)
        if audio_uri is None and not container.streams.audio:
            raise Rejected(Reason.NO_AUDIO, shown(uri))
        picture = video.index
        width, height = _displayed_size(container, video, uri)
    spans, groups = _read_through(uri, same, picture, limits, sounds=audio_uri is None)
    pictures = spans[picture].checked(uri)
    if pictures.count < 2 or pictures.duration <= 0 or pictures.count < _MIN_PICTURES_PER_SECOND * pictures.duration:
        raise Rejected(Reason.NO_VIDEO, f"{shown(uri)}: {pictures.count} pictures in {pictures.duration:.1f} s")
    beside_it = Unchanged(audio_uri) if audio_uri else same
    heard = choose(audio_uri or uri, None if audio_uri else spans, same=beside_it, limits=limits)
    sha256, size, witness = _hash(uri, same)
    audio_sha256, _, audio_witness = _hash(audio_uri, beside_it) if audio_uri else (None, 0, "")
    keyframes, early_keyframes = _thinned(groups)
    fps = pictures.count / pictures.duration
    return Media(
        uri=shown(uri),
        sha256=sha256,
        bytes=size,
        width=width,
        height=height,
        fps=fps,
        video_start=pictures.start,
        video_duration=pictures.duration,
        audio_start=heard.start,
        audio_duration=heard.duration,
        audio_streams=heard.streams,
        audio_rate=heard.rate,
        audio_channels=heard.channels,
        audio_left_out=heard.left_out,
        keyframes=keyframes,
        early_keyframes=early_keyframes,
        audio_uri=shown(audio_uri) if audio_uri else None,
        audio_sha256=audio_sha256,
        vad=read_vad(beside[VAD], pictures.end) if VAD in beside else None,
        boxes=read_boxes(beside[BOXES], pictures.start, pictures.duration, fps) if BOXES in beside else None,
        witness=witness,
        audio_witness=audio_witness,
    )


def _read_through(
    uri: str, same: Unchanged, picture: int, limits: Limits, *, sounds: bool
) -> tuple[dict[int, Span], dict[int, int]]:
    """Spans of the pictures and all sound, if wanted; the grid frame of each key frame → pictures since the last."""
    groups: dict[int, int] = {}
    since_key = 0
    with open_container(uri, same) as container:  # anew: not every demuxer can rewind
        streams = [picture, *(stream.index for stream in container.streams.audio if sounds)]
        spans = {index: Span() for index in streams}
        for index, time, packet in timed_packets(container, spans):
            limits.check_span(uri, spans[index])
            if index == picture:
                if packet.is_keyframe:
                    groups[_first_shown(time)] = since_key
                    since_key = 0
                since_key += 1
    return spans, groups


def _first_shown(time: float) -> int:
    """The first grid frame on which a picture with this PTS may be seen (see `stages.media.video`)."""
    return math.ceil(time * FPS - 0.5 - 1e-6)


def _thinned(groups: dict[int, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The best key frame of each slot, as (regular, early) ones: the shorter the group that it ends, the better."""
    groups = {frame: group for frame, group in groups.items() if frame > 0}
    longest = max(groups.values(), default=0)
    best: dict[int, int] = {}
    for frame, group in sorted(groups.items()):
        slot = frame // KEYFRAME_SLOT
        if slot not in best or group < groups[best[slot]]:
            best[slot] = frame
    early = tuple(frame for frame in best.values() if groups[frame] < _EARLY * longest)
    return tuple(frame for frame in best.values() if frame not in early), early


def _displayed_size(container: InputContainer, stream: VideoStream, uri: str) -> tuple[int, int]:
    for _, frame in decoded(container, stream):
        return displayed(frame, stream)
    raise Rejected(Reason.UNREADABLE, f"{shown(uri)}: no picture decodes")


def _hash(uri: str, same: Unchanged) -> tuple[str, int, str]:
    """sha256, bytes and witness of a file that was opened before."""
    digest, size, witness = hashlib.sha256(), 0, Witness(same.size)
    with open_bytes(uri) as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            witness.add(chunk)
            size += len(chunk)
            if size > same.size:  # it grows
                break
    same.check_witness(str(witness) if size == same.size else "")
    return digest.hexdigest(), size, str(witness)


def _end_of_video(media: Media) -> float:
    return media.video_start + media.video_duration


def _end_of_audio(media: Media) -> float:
    return media.audio_start + media.audio_duration


def names_of(source: Source) -> tuple[str | None, str | None]:
    """Who takes part, as the list says; None: it does not.

    Raises:
        Rejected: INCOMPLETE_DYAD, not one file of both or one of each.
    """
    names = source.participants or (None,) * len(source.uris)
    if len(names) != len(source.uris):
        raise ValueError(f"{len(source.uris)} files but {len(names)} participants")
    if len(source.uris) == 1 and names[0] is None:
        return None, None
    if len(source.uris) != 2 or (names[0] is not None and names[0] == names[1]):
        listed = ", ".join(f"{name or '?'}: {shown(uri)}" for name, uri in zip(names, source.uris, strict=True))
        raise Rejected(Reason.INCOMPLETE_DYAD, f"two participants with one file each are needed, listed: {listed}")
    return names[0], names[1]


def _conversation_id(layout: Layout, media: tuple[Media, ...]) -> str:
    """Of content alone: the same bytes under any names, in either order, are one conversation."""
    content = json.dumps([layout.value, sorted(m.sha256 for m in media)])
    return hashlib.sha256(content.encode()).hexdigest()[:16]
