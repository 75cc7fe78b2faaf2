"""Rows: what one stage hands to the next, from files to two people with a voice each (`schemas.dyads` goes on).

A row is a frozen pydantic model. Its fields are plain values, other rows, tuples of rows, or numpy
arrays (`Array`). `schemas.artifact` writes any row to bytes and back without pickling.

Shape suffixes: T frames of the 25 fps grid, L landmarks, D motion dimensions, N audio samples.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from visavis.schemas.names import ItemId, Text
from visavis.schemas.row import Array as Array
from visavis.schemas.row import Head as Head
from visavis.schemas.row import Row as Row

LANDMARKS = 478
"""FaceMesh with refined irises."""

BLENDSHAPES = 52
"""Scores of MediaPipe's FaceLandmarker, in its order; the first, `_neutral`, hardly moves."""

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


class Soundprint(Row):
    """Hashes of groups of spectral peaks and the frames of 20 ms in which they begin: uint32 and int32 [M], by time."""

    conversation: ItemId
    hashes: Array
    frames: Array


class Filmprint(Row):
    """Hashes of groups of changes of the pictures, and when they begin: as `Soundprint`. pictures: of how many."""

    conversation: ItemId
    hashes: Array
    frames: Array
    pictures: int


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


class Glance(Row):
    """What a few pictures show: live, how many faces that move are seen at once, in `pictures` pictures."""

    conversation: str
    live: int
    pictures: int


class Piece(Row):
    """Up to 60 s of one video: frames [first, last) of the 25 fps grid. witness: of its file, see `Media`."""

    conversation: str
    media: int
    uri: str
    first: int
    last: int
    witness: str = ""


class Track(Row):
    """One face followed without a gap in identity. Frame i is grid frame `first + i`.

    landmarks_TL3: float32, x and y in pixels of the displayed picture, z in the same scale; NaN where invalid.
    box_T4: float32, x0 y0 x1 y1 of the landmarks in pixels; NaN where invalid.
    valid_T: bool.
    confidence_T, sharpness_T, luminance_T: float32, NaN where the face was not found. Confidence is 0…1: how much the
    face looks as it usually does in this track, times the share of it that lies within the picture; it is known of
    frames, too, that are invalid because it is low. Sharpness and luminance: see `stages.face.crops`.
    portrait_SS3: uint8 RGB, 32 × 32, the mean of the upright faces.
    texture_BSS4: uint8, 5 × 48 × 48, the mean face laid flat, RGB and how much was seen, for each of five turns of the
    head (`stages.face.texture`); None where it was never unwrapped.
    blendshapes_TB: float32, 0…1, NaN where invalid; None where the face model has none.
    fresh_T: bool, False where the face is seen but in an old picture once more (`stages.face.freshness`); None: nobody
    looked.
    """

    first: int
    landmarks: Array
    box: Array
    valid: Array
    confidence: Array
    sharpness: Array
    luminance: Array
    portrait: Array
    texture: Array | None = None
    blendshapes: Array | None = None
    fresh: Array | None = None


class FaceTracks(Row):
    """All faces of a piece, whose `uri` is left empty. `cuts` are grid frames at which a new shot begins.

    camera: float32 [frames + 1, 4], of the piece's frames and the one after: how the picture has moved as a whole since
    the shot, or the piece, began (`stages.face.camera`): real and imaginary part of turn and shift. What was at
    z = x + i y (pixels, y down) is at turn · z + shift. None: it has not.
    coarse: float16 [frames, 23], each picture in its coarsest strokes (`stages.media.coarse`); None: nobody drew them.
    """

    piece: Piece
    width: int
    height: int
    cuts: tuple[int, ...]
    tracks: tuple[Track, ...]
    camera: Array | None = None
    coarse: Array | None = None


class Segment(Row):
    """A part of a participant: track `track` of the conversation's piece number `piece` (sorted order)."""

    piece: int
    track: int


class Figures(Row):
    """How well one participant can be seen. Medians over the frames in which the face is seen, unless said otherwise.

    visible: share of the grid in which it is. face_size: side of the face's box, pixels. sharpness: variance of the
    Laplacian of the upright face (96 px), grey levels². luminance: 0…255. confidence: 0…1. yaw, pitch: degrees that the
    head exceeds in one frame of ten, to either side. jitter: percent of the face's height by which gestures leave a
    smooth course, root mean square.
    """

    visible: float
    face_size: float
    sharpness: float
    luminance: float
    confidence: float
    yaw: float
    pitch: float
    jitter: float


class Member(Row):
    """One of the two people of a conversation, without a voice yet.

    mouth_T2: float32, distances of the inner and of the outer lips in face heights, NaN where the face is not seen.
    box: x0 y0 x1 y1 of the face, pixels, mean of the whole conversation. fresh: share of the frames in which the face
    is seen and has not frozen that show it in a new picture (`stages.face.freshness`).
    """

    media: int
    segments: tuple[Segment, ...]
    mouth: Array
    box: tuple[float, float, float, float]
    figures: Figures
    fresh: float = 1.0


class Cast(Row):
    """Who takes part in a conversation: `one_frame` from left to right, `per_participant` as the files.

    crowd: share of the frames in which somebody else is seen whose face is half as large as a participant's or larger.
    cuts: of the picture while both are in view, per minute of that. together: seconds in which both are in view for
    2 s and more. uncut: the same, without a cut in it.
    """

    conversation: str
    members: tuple[Member, Member]
    crowd: float
    cuts: float
    together: float
    uncut: float


class CastFacts(Row):
    """What the ledger keeps of a cast. members: `Figures` in the order of their fields; fresh: of each."""

    crowd: float
    cuts: float
    together: float
    uncut: float
    fresh: tuple[float, float]
    members: tuple[tuple[float, ...], tuple[float, ...]]


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


class VoiceFigures(Row):
    """How one participant's track was had, how much of the other voice is left in it, and how it sounds.

    method: the participant's own track; the mix in the participant's turns; or that, with a network where both speak.
    residual_db: power of the other's voice in this track while the other speaks, against the own voice's while its
    owner speaks; -60 and less count as -60, None where nobody can tell (`stages.voice.leakage`). overlapped: share of
    the time in which the participant speaks that the other speaks, too.

    `stages.voice.sound` says what the others are; None where nobody measured. snr_db also where its owner is never
    heard alone for half a second.
    """

    method: Literal["own_track", "mask", "network"]
    residual_db: float | None
    overlapped: float
    level_db: float | None = None
    clipped: float | None = None
    bandwidth_hz: float | None = None
    snr_db: float | None = None


class Voices(Row):
    """What each participant says, one track each. audio: FLAC bytes as uint8 arrays, 16 kHz mono, T × 640 samples."""

    conversation: str
    audio: tuple[Array, Array]
    figures: tuple[VoiceFigures, VoiceFigures]


OfBoth = tuple[float | None, float | None]
"""A figure of both participants; None where it is not known."""


class VoicesFacts(Row):
    """What the ledger keeps of both voices: of `VoiceFigures` what thresholds bound."""

    level_db: OfBoth
    clipped: OfBoth
    bandwidth_hz: OfBoth
    snr_db: OfBoth
    residual_db: OfBoth


class Mos(Row):
    """DNSMOS P.835 of what one participant says alone: speech, background and both together, and P.808's, as people
    would rate them from 1 to 5. seconds: that the participant says alone; of too little there is no score.
    """

    sig: float | None
    bak: float | None
    ovrl: float | None
    p808: float | None
    seconds: float


class SpeechQuality(Row):
    """DNSMOS of both participants."""

    conversation: str
    people: tuple[Mos, Mos]


class SpeechQualityFacts(Row):
    """What the ledger keeps of it."""

    sig: OfBoth
    bak: OfBoth
    ovrl: OfBoth
    p808: OfBoth


def _check_prints(prints: np.ndarray, ndim: int) -> None:
    """Unit vectors or zeros: float16 [2, E], or [N, 2, E]."""
    if prints.dtype != np.float16 or prints.ndim != ndim or prints.shape[-2] != 2:
        raise ValueError(f"prints is {prints.dtype} {prints.shape}, expected float16 of two people")
    if not np.isfinite(prints).all() or (np.abs(prints) > 1).any():
        raise ValueError("prints are no unit vectors")


class Voiceprints(Row):
    """What both participants sound like. Biometric data: it stays in a run's folder.

    prints_PE: float16, unit embeddings of a speaker encoder, zeros of who is hardly heard. seconds: of speech heard.
    """

    conversation: str
    prints: Array
    seconds: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _check_prints(self.prints, 2)
        return self


_Cosine = Annotated[float, Field(ge=-1.001, le=1.001)]


class Faceprints(Row):
    """What both participants look like. Biometric data: it stays in a run's folder.

    prints_PE: float16, unit embeddings of a face recognition network, zeros of who is hardly seen well. pictures: of
    which each is the mean. agreement: cosine of what their first and second half give; None where there are too few.
    """

    conversation: str
    prints: Array
    pictures: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]
    agreement: tuple[_Cosine | None, _Cosine | None]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _check_prints(self.prints, 2)
        return self


class Prints(Row):
    """Of one kind, of some conversations. prints: float16 [N, 2, E]. weight: float32 [N, 2], seconds or pictures.

    agreement: float32 [N, 2], as `Faceprints`, NaN where there is none; None of voices.
    """

    prints: Array
    weight: Array
    agreement: Array | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _check_prints(self.prints, 3)
        return self


class Crowd(Row):
    """The prints of some conversations [N], of whichever kinds there are."""

    conversations: tuple[ItemId, ...]
    voices: Prints | None = None
    faces: Prints | None = None


class Word(Row):
    """Seconds of media time, end exclusive. turn: index into the turns of the `Binding`, one of `speaker`'s."""

    speaker: int
    turn: int
    start: float
    end: float
    text: str


class Transcript(Row):
    """What was said. Words are sorted by (start, speaker).

    aligned: False where there is no alignment model for the language; times and turns of words are rough then.
    """

    conversation: str
    language: str
    aligned: bool
    words: tuple[Word, ...]
