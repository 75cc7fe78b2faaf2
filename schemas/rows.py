"""Rows: what one stage hands to the next, from files to who is who and who speaks when.

What is seen is in `schemas.face_rows`, what is heard in `schemas.voice_rows`, what tells conversations and people again
in `schemas.print_rows`; `schemas.dyads` goes on from two people with a voice each.

A row is a frozen pydantic model. Its fields are plain values, other rows, tuples of rows, or numpy
arrays (`Array`). `schemas.artifact` writes any row to bytes and back without pickling.

Shape suffixes: W tenths of a second, E embedding.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Literal, NamedTuple

from pydantic import Field

from visavis.schemas.face_rows import Figures, Segment
from visavis.schemas.names import ItemId, Text
from visavis.schemas.row import Array as Array
from visavis.schemas.row import Head as Head
from visavis.schemas.row import Row as Row

KEYFRAME_SLOT = 500
"""Grid frames (20 s) of which `Media` keeps the best key frame."""


class Layout(StrEnum):
    ONE_FRAME = "one_frame"  # both people in one video
    PER_PARTICIPANT = "per_participant"  # one file each, on one timeline


class Given(Row):
    """What somebody else found out about one video, as paths or URLs of files (`stages.media.given`); empty: nothing.

    offset: seconds of the video's clock at which that of these files is zero.
    """

    turns: str = ""
    boxes: str = ""
    offset: float = 0.0


class Source(Row):
    """One conversation as listed by the user: one file, or one file per participant."""

    uris: tuple[str, ...]
    participants: tuple[str | None, ...] = ()  # names, aligned with uris where given
    conversation: str | None = None
    stamps: tuple[str, ...] = ()  # size and modification time of each file: a changed file is a new item
    sidecars: tuple[tuple[str, ...], ...] = ()  # what lies beside each file: its sound, annotations, boxes
    given: tuple[Given, ...] = ()  # aligned with uris where anything is given


class Address(NamedTuple):
    """Where one file and, if it has one, its sound's file lie: to be used and not to be kept (`schemas.uris.shown`)."""

    uri: str
    audio_uri: str | None = None


class Turn(Row):
    """A span in which one voice speaks, seconds of media time, end exclusive.

    backchannel: "mm-hmm", "yeah", a laugh: a sound of listening, which takes no turn (`stages.voice.backchannels`).
    """

    speaker: int
    start: float
    end: float
    backchannel: bool = False


class Media(Row):
    """One probed file. Times are in seconds of media time; video starts at `video_start`.

    Key frames are named by the first grid frame that shows them or what follows, one of each `KEYFRAME_SLOT` frames.
    `early_keyframes` came before a group of pictures was full, as encoders do at a scene change; `keyframes`: others.

    `witness` and `audio_witness` tell cheaply whether a file still is what was hashed (`stages.media.file_identity`).

    `audio_streams` are the streams of `sound` that are heard, by index: one, or several of one channel each that belong
    together (`stages.media.soundtrack`). `audio_left_out`: channels of the only stream that would drown the speech.

    `uri` and `audio_uri` are names as `schemas.uris.shown` has them: who opens the files needs their addresses
    (`Conversation.at`) where something was left out.

    What sidecars add, None without them: `audio_uri`, the participant's voice in a file of its own, on the clock of the
    pictures; `vad`, the spans in which the participant speaks, as the corpus says; boxes_S4: float32, where the
    participant is at second s, x0 y0 x1 y1 in pixels of the picture, NaN where nobody knows.

    What users' own files add (`stages.media.given`): boxes_PS4, a plane for each person; `vad`, or `turns` of two.
    """

    uri: str
    sha256: str
    bytes: int
    width: int  # as displayed: after rotation and pixel aspect
    height: int
    fps: float  # average of the source, for information only
    video_start: float
    video_duration: float
    audio_start: float
    audio_duration: float
    audio_rate: int
    audio_channels: int
    audio_streams: tuple[int, ...] = ()
    keyframes: tuple[int, ...] = ()
    early_keyframes: tuple[int, ...] = ()
    audio_uri: str | None = None
    audio_sha256: str | None = None
    vad: tuple[tuple[float, float], ...] | None = None
    boxes: Array | None = None
    witness: str = ""
    audio_witness: str = ""
    audio_left_out: tuple[int, ...] = ()
    turns: tuple[Turn, ...] = ()
    later: ClassVar[frozenset[str]] = frozenset(["witness", "audio_witness", "audio_left_out", "turns"])

    @property
    def sound_witness(self) -> str:
        return self.audio_witness if self.audio_uri else self.witness

    @property
    def sound(self) -> str:
        """The file that holds what is heard."""
        return self.audio_uri or self.uri


class Conversation(Row):
    """A conversation that can be worked on. `id` is derived from the content of its files."""

    id: ItemId
    layout: Layout
    media: tuple[Media, ...]  # 1 for one_frame, 2 for per_participant
    participants: tuple[Text, Text]  # names unique within the corpus unless the user says it is the same person
    frames: int  # length of the common 25 fps grid

    def at(self, addresses: tuple[Address, ...]) -> Conversation:
        """The same with its files where they are; as it is where nobody says."""
        if not addresses:
            return self
        media = (m.model_copy(update=place._asdict()) for m, place in zip(self.media, addresses, strict=True))
        return self.model_copy(update={"media": tuple(media)})


class Outline(Row):
    """What the plan needs to know of a conversation, small enough to keep a million of them.

    identity: digest of all there is to it but where its files lie. Key frames and witnesses as in `Media`, for each
    file; rows of earlier versions have no witnesses.
    """

    id: str = Field(pattern=r"^[0-9a-f]{16}$")
    identity: str = Field(pattern=r"^[0-9a-f]{16}$")
    frames: int
    keyframes: tuple[tuple[int, ...], ...]
    early_keyframes: tuple[tuple[int, ...], ...]
    witnesses: tuple[str, ...] = ()


class Diarization(Row):
    """Who speaks when. Turns are sorted by (start, speaker); overlap is kept.

    `per_participant`: speaker i is the person of media[i]. `one_frame`: speakers are voices without faces yet, and a
    guess. speakers: how many voices the diarizer believes in; the turns may be of two where that is one. voices:
    float16 [W, E], what a voice sounds like around each tenth of a second, in coordinates of this conversation's own,
    NaN where nobody speaks; None where nothing tells. odds: nats by which the diarizer hears two voices rather than
    one.
    """

    conversation: str
    method: Literal["embedded", "pyannote", "channels", "vad", "given"]
    speakers: int
    turns: tuple[Turn, ...]
    voices: Array | None = None
    odds: float = 0.0


class DiarizationFacts(Row):
    """What the ledger keeps of a diarization: `Diarization.speakers`."""

    speakers: int


class BoundParticipant(Row):
    """One person of a conversation: a face, and the voice that belongs to it.

    offset_ms: how late the voice is against the lips, None where they do not tell. offset_confidence:
    `stages.face.lip_sync`.
    """

    name: str
    media: int
    speaker: int
    segments: tuple[Segment, ...]
    score: float  # lip motion against this voice, -1…1
    margin: float  # score minus the score with the other voice (0 where each has an own file)
    figures: Figures
    offset_ms: float | None = None
    offset_confidence: float = 0.0

    @property
    def visible(self) -> float:
        """Share of the grid with a valid face."""
        return self.figures.visible


class Binding(Row):
    """Who is who, and who speaks when.

    turns: as in `Diarization`, but `Turn.speaker` is a participant's number, and what the diarizer confused is
    corrected by the lips. corrected: seconds of speech that this changed.
    """

    conversation: str
    participants: tuple[BoundParticipant, BoundParticipant]
    turns: tuple[Turn, ...]
    corrected: float = 0.0
