"""Sidecars: what a corpus says of a participant's video in files beside it, with the video's name and another suffix.

`.wav` holds the voice alone, `.json` when the person speaks, `.npz` where in the picture the person is. All are
optional. Form and keys are those of the Seamless Interaction corpus (arXiv 2506.22554); its files were described to us
by people who looked into many of them, so what is odd here (an empty list, a list that stops early, boxes of a few
pictures more or fewer than there are) does occur.

The trade-off: annotations are believed where they hold together and left out where they do not; only a file that
cannot be read at all rejects the conversation.
"""

from __future__ import annotations

import zipfile
import zlib

import numpy as np
from pydantic import BaseModel, Field, FiniteFloat, ValidationError

from schemas.errors import Reason, Rejected
from stages.media import open_bytes

SOUND, VAD, BOXES = ".wav", ".json", ".npz"
SUFFIXES = (SOUND, VAD, BOXES)

_BOX, _VALID = "boxes_and_keypoints:box", "boxes_and_keypoints:is_valid_box"
_LARGEST = 64 << 20  # bytes of a text or of an unpacked array: ten hours of boxes
_FEW, _NEAR = 10, 0.02  # boxes more or fewer than pictures, or that share
_USUAL = (10, 12.5, 15, 24, 25, 30, 50, 60, 120, 240)  # pictures per second
_USUAL_WITHIN = 0.01
_BEYOND = 1.1  # of the media's length
_SILENCE = 5.0  # seconds; a transcript that goes on for longer after this much more shows that the list stopped early


class _Span(BaseModel):
    start: FiniteFloat
    end: FiniteFloat


class _Sentence(BaseModel):
    start: float | None = None
    end: float | None = None


class _Annotations(BaseModel):
    vad: tuple[_Span, ...] | None = Field(None, alias="metadata:vad")
    transcript: tuple[_Sentence, ...] | None = Field(None, alias="metadata:transcript")


def read_vad(uri: str, end: float) -> tuple[tuple[float, float], ...] | None:
    """The spans (start, end) in which a person speaks, in seconds of media time, by start.

    None where the file does not tell: no list, an empty one (people are known to speak in some of those), one that
    ends while the transcript goes on, or one that goes on for a tenth and five seconds after the media's `end`:
    it counts milliseconds or samples, or belongs to another recording.

    Raises:
        Rejected: UNREADABLE.
    """
    with open_bytes(uri) as file:
        text = file.read(_LARGEST + 1)
    if len(text) > _LARGEST:
        raise Rejected(Reason.UNREADABLE, f"{uri}: more than {_LARGEST >> 20} MB")
    try:
        found = _Annotations.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Rejected(Reason.UNREADABLE, f"{uri}: {where}{where and ': '}{first['msg']}") from error
    spans = sorted((span.start, span.end) for span in found.vad or () if span.end > span.start)
    if not spans:
        return None
    last = max(stop for _, stop in spans)
    if last > _BEYOND * end + _SILENCE:
        return None
    said = ((s.start, s.end) for s in found.transcript or () if s.start is not None and s.end is not None)
    unheard = sum(end - start for start, end in said if start > last + _SILENCE)
    return None if unheard > _SILENCE else tuple(spans)


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
    with open_bytes(uri) as file:
        try:
            arrays = np.load(file, allow_pickle=False)
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise ValueError("not an archive of arrays")
            if _BOX not in arrays:
                return None
            boxes_P4, valid_P = (_array(arrays, name) for name in (_BOX, _VALID))
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
            if file.error is not None:  # zipfile takes a read that fails for the archive's fault
                raise file.error from error
            raise Rejected(Reason.UNREADABLE, f"{uri}: {_first_line(error)}") from error
    valid_P = valid_P.reshape(-1)
    if boxes_P4.shape != (len(valid_P), 4) or boxes_P4.dtype.kind not in "fiu" or valid_P.dtype.kind not in "bfiu":
        raise Rejected(Reason.UNREADABLE, f"{uri}: {_BOX} has shape {boxes_P4.shape}, {_VALID} {valid_P.shape}")
    usable_P = valid_P.astype(bool) & np.isfinite(boxes_P4).all(axis=1)
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


def _array(arrays: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    if arrays.zip is not None and arrays.zip.getinfo(f"{name}.npy").file_size > _LARGEST:
        raise ValueError(f"{name} unpacks to more than {_LARGEST >> 20} MB")
    array: np.ndarray = arrays[name]
    return array


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
