"""What page and server say to each other: binary messages over one websocket, little-endian, a header of fixed layout.

To the server, 16 bytes and what follows them:

    kind u8 | 0 u8 | 0 u16 | number u32 | time f64      time: ms since the session began, on the page's clock
    PICTURE  a JPEG, taken at `time`; at most 960 × 960
    SOUND    16 kHz mono, signed 16 bit; its first sample was heard at `time`
    PING     nothing
    SPEAK    nothing: the avatar is to speak its file, from here on

To the page, 16 bytes and what follows them, all numbers 4 bytes so that the page reads them in place:

    kind u8 | flags u8 | count u16 | number u32 | time f64
    BLOCK    motion of `count` frames in the codec's units; `time`: of the picture that frame `number` was seen in
    SEEN     landmarks of what was seen in picture `number`; none where there is no face
    PONG     the ping's number; `time`: of the server's clock

What is not of this form ends the session that sent it (`Malformed`), and nothing else.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from visavis.schemas import SAMPLE_RATE

HEADER = struct.Struct("<BBHId")
BLOCK, SEEN, PONG = 1, 2, 3
TIMES = ("received", "seen", "began", "done", "sent")
"""When, on the server's clock in ms, the last that a block needed had come and its face was known, and the model began
and ended; and when the answer was sent: the first float64 behind a block's header."""

MOST_BYTES = 512 << 10
"""Of a message; the websocket ends on more before it is read."""

MOST_SIDE = 960
_MOST_SAMPLES = SAMPLE_RATE  # one second
_MOST_MS = 7 * 24 * 3600 * 1000.0  # a week
_KINDS: dict[int, Literal["picture", "sound", "ping", "speak"]] = {1: "picture", 2: "sound", 3: "ping", 4: "speak"}
_NO_SIZE = {0xC4, 0xC8, 0xCC}  # markers among those of frame headers that are something else
_BASELINE = {0xC0, 0xC1}  # what canvases write; a progressive picture of 8 kB can take a decoder seconds, scan by scan


class Malformed(Exception):
    """A message that no page of ours sends. One line."""


class Message(NamedTuple):
    kind: Literal["picture", "sound", "ping", "speak"]
    number: int
    time: float  # ms since the session began
    payload: bytes

    def samples(self) -> np.ndarray:
        """Of sound: float32, −1…1."""
        return np.frombuffer(self.payload, "<i2").astype(np.float32) / 32768


def parse_message(data: bytes) -> Message:
    """A message from the page.

    Raises:
        Malformed: not one. Whatever the bytes are, nothing else is raised.
    """
    if len(data) < HEADER.size:
        raise Malformed("shorter than a header")
    if len(data) > MOST_BYTES:
        raise Malformed("too long")
    number_of_kind, flags, reserved, number, time = HEADER.unpack_from(data)
    kind = _KINDS.get(number_of_kind)
    if kind is None or flags or reserved:
        raise Malformed("no message of this protocol")
    if not (math.isfinite(time) and 0 <= time <= _MOST_MS):
        raise Malformed("a time that is none of this session")
    payload = data[HEADER.size :]
    if kind == "picture":
        _check_jpeg(payload)
    elif kind == "sound":
        if not payload or len(payload) % 2 or len(payload) > 2 * _MOST_SAMPLES:
            raise Malformed("no sound of a second or less")
    elif payload:
        raise Malformed(f"a {kind} says nothing")
    return Message(kind, number, time, payload)


def _check_jpeg(data: bytes) -> None:
    """That it begins and ends as one, and claims a size for which a decoder may allocate."""
    if not (data.startswith(b"\xff\xd8") and data.endswith(b"\xff\xd9")):
        raise Malformed("no whole JPEG")
    width, height = _jpeg_size(data)
    if not (0 < width <= MOST_SIDE and 0 < height <= MOST_SIDE):
        raise Malformed(f"a picture of {width} × {height}, at most {MOST_SIDE} × {MOST_SIDE} is looked at")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height, of its one frame header; a second one could claim anything."""
    at, found = 2, list[tuple[int, int]]()
    while at + 4 <= len(data):
        marker = data[at + 1]
        if data[at] != 0xFF or marker in (0xFF, 0x00) or 0xD0 <= marker <= 0xD9:
            break
        (length,) = struct.unpack_from(">H", data, at + 2)
        if 0xC0 <= marker <= 0xCF and marker not in _NO_SIZE:
            if at + 9 > len(data):
                break
            if marker not in _BASELINE:
                raise Malformed("a JPEG that is not baseline")
            height, width = struct.unpack_from(">HH", data, at + 5)
            found.append((width, height))
        if marker == 0xDA:  # the picture itself begins
            if len(found) == 1:
                return found[0]
            break
        at += 2 + max(length, 2)
    raise Malformed("no JPEG with one size")


def pack_block(
    first: int, captured: float, times: Sequence[float], speech: int, skipped: int, motion_TD: np.ndarray
) -> bytes:
    """A block for the page.

    Args:
        first: number of its first frame on the session's grid.
        captured: time of the picture that this frame was seen in, ms; NaN where none was.
        times: as `TIMES`.
        speech: sample of the avatar's file at the first frame, may be negative; −2³¹: it does not speak.
        skipped: frames that were left out since the session began, as the machine was too slow.
        motion_TD: float32.
    """
    head = HEADER.pack(BLOCK, 0, len(motion_TD), first, captured)
    return head + struct.pack("<5dii", *times, speech, skipped) + _floats(motion_TD)


def pack_seen(number: int, time: float, took: float, points_L3: np.ndarray | None, level: float) -> bytes:
    """What was seen in a picture. took: ms of work. level: of the sound around then, 0…1."""
    head = HEADER.pack(SEEN, 0, int(points_L3 is not None), number, time)
    return head + struct.pack("<ff", took, level) + (b"" if points_L3 is None else _floats(points_L3))


def pack_pong(number: int, now: float) -> bytes:
    return HEADER.pack(PONG, 0, 0, number, now)


def _floats(points: np.ndarray) -> bytes:
    return np.ascontiguousarray(points, "<f4").tobytes()
