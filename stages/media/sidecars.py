"""Sidecars: what a corpus says of a participant's video in files beside it, with the video's name and another suffix.

`.wav` holds the voice alone, `.json` when the person speaks, `.npz` where in the picture the person is. All are
optional. Form and keys are those of the Seamless Interaction corpus (arXiv 2506.22554); its files were described to us
by people who looked into many of them, so what is odd here (an empty list, a list that stops early, boxes of a few
pictures more or fewer than there are) does occur.

The trade-off: annotations are believed where they hold together and left out where they do not; only a file that
cannot be read at all rejects the conversation.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.untrusted import bounded
from visavis.schemas.uris import shown
from visavis.stages.media.file_identity import size_of
from visavis.stages.media.npz import read_members
from visavis.stages.media.opening import judged, open_bytes

SOUND, VAD, BOXES = ".wav", ".json", ".npz"
SUFFIXES = (SOUND, VAD, BOXES)

_BOX, _VALID = "boxes_and_keypoints:box", "boxes_and_keypoints:is_valid_box"
LARGEST_ARRAY = 64 << 20  # bytes of an unpacked array: ten hours of boxes
LARGEST_TEXT, _PARTS, _VALUES = (
    32 << 20,
    400_000,
    4_000_000,
)  # bytes, lists and objects, and commas of a text: 300 MB when read
_FARTHEST = 1e12  # of any clock: also one that counts samples
BIGGEST = 1e6  # pixels
_FEW, _NEAR = 10, 0.02  # boxes more or fewer than pictures, or that share
_USUAL = (10, 12.5, 15, 24, 25, 30, 50, 60, 120, 240)  # pictures per second
_USUAL_WITHIN = 0.01
_BEYOND = 1.1  # of the media's length
_SILENCE = 5.0  # seconds; a transcript that goes on for longer after this much more shows that the list stopped early

M = TypeVar("M", bound=BaseModel)

Moment = Annotated[float, Field(ge=-_FARTHEST, le=_FARTHEST)]


class _Span(BaseModel):
    start: Moment
    end: Moment


class _Sentence(BaseModel):
    start: float | None = None
    end: float | None = None


class _Annotations(BaseModel):
    vad: tuple[_Span, ...] | None = Field(None, alias="metadata:vad")
    transcript: tuple[_Sentence, ...] | None = Field(None, alias="metadata:transcript")


def read_vad(uri: str, end: float) -> tuple[tuple[float, float], ...] | None:
    """The spans (start, end) in which a person speaks, in seconds of media time, by start.

    None where the file does not tell: no list, an empty one (people are known to speak in some of those), one that
    ends while the transcript goes on, or one that goes on for a tenth and five seconds after the media's `end`, or
    begins as long before it: it counts milliseconds or samples, or belongs to another recording.

    Raises:
        Rejected: UNREADABLE.
    """
    with open_bytes(uri) as file, judged(uri, file):
        bounded(size_of(file), LARGEST_TEXT, "bytes of a text")
        found = parsed_json(_Annotations, file.read(LARGEST_TEXT))
    spans = sorted((span.start, span.end) for span in found.vad or () if span.end > span.start)
    if not spans:
        return None
    last = max(stop for _, stop in spans)
    slack = (_BEYOND - 1) * end + _SILENCE
    if last > end + slack or spans[0][0] < -slack:
        return None
    said = ((s.start, s.end) for s in found.transcript or () if s.start is not None and s.end is not None)
    unheard = sum(end - start for start, end in said if start > last + _SILENCE)
    return None if unheard > _SILENCE else tuple(spans)


def parsed_json(kind: type[M], text: bytes) -> M:
    """JSON as a model. ValueError: it does not fit, or has more values than are read."""
    bounded(text.count(b"[") + text.count(b"{"), _PARTS, "lists and objects")
    bounded(text.count(b","), _VALUES, "values")
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{where}{where and ': '}{first['msg']}") from error


def read_boxes(uri: str, start: float, duration: float, fps: float) -> np.ndarray | None:
    """Where the participant is at each full second.

    Args:
        start, duration: seconds of media time that the pictures cover. fps: pictures per second. The file has a box for
            each picture; or, where their number is off by more than 2 %, as many a second as they are over the
            duration, if that is within 1 % of a usual rate: the annotation was made on a copy at that rate. Other
            lists that are too short stopped early; those that are too long are not believed.

    Returns:
        float32 [S, 4]: x0 y0 x1 y1 in pixels, NaN where the file says that there is none. None: no boxes at all, or
        too many.

    Raises:
        Rejected: UNREADABLE.
    """
    with open_bytes(uri) as file, judged(uri, file):
        arrays = read_members(file, (_BOX, _VALID), LARGEST_ARRAY)
    if arrays is None:
        return None
    boxes_P4, valid_P = arrays[0], arrays[1].reshape(-1)
    if boxes_P4.shape != (len(valid_P), 4) or boxes_P4.dtype.kind == "b":
        raise Rejected(Reason.UNREADABLE, f"{shown(uri)}: {_BOX} has shape {boxes_P4.shape}, {_VALID} {valid_P.shape}")
    boxes_P4 = boxes_P4.astype(np.float64)
    usable_P = valid_P.astype(bool) & (np.abs(boxes_P4) <= BIGGEST).all(axis=1)
    if not usable_P.any():
        return None
    rate = _rate(len(usable_P), duration, fps)
    if rate is None:
        return None
    second_S = np.arange(int(start + duration) + 1)
    picture_S = np.round((second_S - start) * rate).astype(np.int64)
    known_S = (picture_S >= 0) & (picture_S < len(usable_P))
    known_S[known_S] &= usable_P[picture_S[known_S]]
    boxes_S4 = np.full((len(second_S), 4), np.nan, np.float32)
    boxes_S4[known_S] = boxes_P4[picture_S[known_S]]
    return boxes_S4


def _rate(boxes: int, duration: float, fps: float) -> float | None:
    """Boxes per second."""
    if abs(boxes - fps * duration) <= max(_FEW, _NEAR * fps * duration):
        return fps
    found = boxes / duration
    if any(abs(found - usual) <= _USUAL_WITHIN * usual for usual in _USUAL):
        return found
    return fps if found < fps else None
