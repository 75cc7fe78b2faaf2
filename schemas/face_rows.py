"""Rows of what is seen: faces followed through pictures, and the two people that they are.

Shape suffixes: T frames of the 25 fps grid, L landmarks.
"""

from __future__ import annotations

from visavis.schemas.row import Array, Row

LANDMARKS = 478
"""FaceMesh with refined irises."""


BLENDSHAPES = 52
"""Scores of MediaPipe's FaceLandmarker, in its order; the first, `_neutral`, hardly moves."""


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
