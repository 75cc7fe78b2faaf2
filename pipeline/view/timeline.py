"""What is drawn beneath the pictures of a film: who speaks, what was seen of reactions, and where we are.

A lane for each person, or for each version of one. Turns are bars, back-channels thinner ones; a nod is a small
triangle that points down, a smile an arc; frames in which the face was not seen are hatched out in grey. What is
longer than `VIEW` scrolls past the cursor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from visavis.schemas import FPS
from visavis.schemas.uris import printable

Colour = tuple[int, int, int]
"""RGB, 0…255."""
Kind = Literal["turn", "backchannel", "nod", "smile", "unseen"]

VIEW = 20 * FPS
"""Frames that are seen at once."""
PAPER: Colour = (255, 255, 255)
INK: Colour = (32, 33, 36)
FAINT: Colour = (214, 216, 220)
USER: Colour = (200, 90, 0)
AVATAR: Colour = (30, 130, 30)
MODEL: Colour = (40, 60, 200)
"""The same as in pages: the user, or a conversation's first person; the avatar, or its second; and a model's motion."""
_QUIET: Colour = (110, 114, 120)
_LANE, _CLOCK, _NAME, _EDGE = 30, 22, 104, 10  # pixels: height of a lane and of the clock's row, room for names
_FONT, _SIZE = cv2.FONT_HERSHEY_SIMPLEX, 0.42
_SHIFT = 4  # fractional bits of OpenCV's coordinates
_AHEAD = 0.4  # share of the view that lies before the cursor while it scrolls


@dataclass(frozen=True)
class Span:
    """Frames [first, last) of a film's scene in which something is so."""

    kind: Kind
    first: int
    last: int


@dataclass(frozen=True)
class Lane:
    name: str
    colour: Colour
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Timeline:
    """lanes: from top to bottom; none: nothing is drawn. borders: frames at which windows begin or end. start: the
    conversation's frame that the scene begins with, for the clock."""

    lanes: tuple[Lane, ...] = ()
    borders: tuple[int, ...] = ()
    start: int = 0


def timeline_height(lanes: int) -> int:
    """Pixels; 0 without lanes."""
    return lanes * _LANE + _CLOCK + _EDGE if lanes else 0


class TimelineDrawing:
    """Draws a timeline of `frames` frames in pictures `width` pixels wide."""

    def __init__(self, timeline: Timeline, frames: int, width: int) -> None:
        self._timeline, self._frames = timeline, frames
        self._name = min(_NAME, width // 4)
        self._size = timeline_height(len(timeline.lanes)), width
        self._room = max(1, width - self._name - _EDGE)
        self._view = min(frames, VIEW)
        self._spans = [_Sorted(lane.spans) for lane in timeline.lanes]
        self._borders = np.sort(np.array(timeline.borders, np.int64))
        self._still = self._drawn(0) if frames <= VIEW else None

    def draw(self, frame: int) -> np.ndarray:
        """The timeline while a frame is shown, uint8 [H, W, 3] RGB."""
        begin = min(max(0, frame - round(_AHEAD * self._view)), self._frames - self._view)
        picture = self._drawn(begin) if self._still is None else self._still.copy()
        height, _ = self._size
        x = self._x(frame + 0.5, begin)
        cv2.line(picture, (round(x), 0), (round(x), height - _CLOCK - _EDGE), INK, 2, cv2.LINE_AA)
        text = f"{clock(self._timeline.start + frame)}"
        if self._frames > VIEW:
            text += f" of {clock(self._timeline.start + self._frames)}"
        write(picture, text, (self._name, height - _EDGE - 5), _QUIET)
        return picture

    def _x(self, frame: float, begin: int) -> float:
        return self._name + self._room * (frame - begin) / max(1, self._view)

    def _drawn(self, begin: int) -> np.ndarray:
        """All but the cursor and the clock, of what is seen from a frame on."""
        height, width = self._size
        picture = np.full((height, width, 3), PAPER, np.uint8)
        bottom = height - _CLOCK - _EDGE
        for border in self._borders[(self._borders >= begin) & (self._borders <= begin + self._view)].tolist():
            x = round(self._x(border, begin))
            cv2.line(picture, (x, 0), (x, bottom), FAINT, 1)
        for number, (lane, spans) in enumerate(zip(self._timeline.lanes, self._spans, strict=True)):
            top = number * _LANE
            middle = top + _LANE // 2 + 3
            cv2.line(picture, (self._name, middle), (width - _EDGE, middle), FAINT, 1)
            for kind, first, last in spans.within(begin, begin + self._view):
                x0, x1 = (min(max(self._x(t, begin), self._name), width - _EDGE) for t in (first, last))
                _mark(picture, kind, x0, x1, top, middle, lane.colour)
            write(picture, lane.name, (8, middle + 4), lane.colour, self._name - 14)
        _legend(picture, {span.kind for lane in self._timeline.lanes for span in lane.spans}, height - _EDGE - 5)
        return picture


class _Sorted:
    """Spans by their beginning, so that few of many are looked at."""

    def __init__(self, spans: Sequence[Span]) -> None:
        order = {"unseen": 0, "turn": 1, "backchannel": 2}
        self._spans = sorted(spans, key=lambda span: (span.first, order.get(span.kind, 3)))
        self._first = np.array([span.first for span in self._spans], np.int64)
        self._last = np.array([span.last for span in self._spans], np.int64)

    def within(self, first: int, last: int) -> list[tuple[Kind, int, int]]:
        seen = np.flatnonzero((self._first < last) & (self._last > first)).tolist()
        drawn = [(self._spans[i].kind, self._spans[i].first, self._spans[i].last) for i in seen]
        return sorted(drawn, key=lambda each: each[0] != "unseen")  # the hatching lies beneath


def _mark(picture: np.ndarray, kind: Kind, x0: float, x1: float, top: int, middle: int, colour: Colour) -> None:
    """One span, from x0 to x1."""
    left, right, centre = round(x0), max(round(x1), round(x0) + 1), (x0 + x1) / 2
    if kind == "turn":
        cv2.rectangle(picture, (left, middle - 5), (right - 1, middle + 5), colour, -1)
    elif kind == "backchannel":
        cv2.rectangle(picture, (left, middle - 2), (right - 1, middle + 2), colour, -1)
    elif kind == "unseen":
        cv2.rectangle(picture, (left, middle - 9), (right - 1, middle + 9), FAINT, -1)
    elif kind == "nod":
        _triangle(picture, centre, top + 2, colour)
    else:
        _arc(picture, centre, top + 2, colour)


def _triangle(picture: np.ndarray, x: float, y: float, colour: Colour) -> None:
    corners = np.array([(x - 5, y), (x + 5, y), (x, y + 8)]) * (1 << _SHIFT)
    cv2.fillPoly(picture, [corners.round().astype(np.int32)], _darker(colour), cv2.LINE_AA, _SHIFT)


def _arc(picture: np.ndarray, x: float, y: float, colour: Colour) -> None:
    place = (round(x * (1 << _SHIFT)), round(y * (1 << _SHIFT)))
    axes = (6 << _SHIFT, 6 << _SHIFT)
    cv2.ellipse(picture, place, axes, 0, 20, 160, _darker(colour), 2, cv2.LINE_AA, _SHIFT)


def _darker(colour: Colour) -> Colour:
    red, green, blue = (round(0.6 * each) for each in colour)
    return red, green, blue


def _legend(picture: np.ndarray, kinds: set[Kind], base: int) -> None:
    """What the marks mean that are there, from the right; what has no room is left out."""
    right = picture.shape[1] - _EDGE
    words: tuple[tuple[Kind, str], ...] = (
        ("unseen", "not seen"), ("smile", "smile"), ("nod", "nod"), ("backchannel", "back-channel"), ("turn", "turn"),
    )  # fmt: skip
    for kind, word in words:
        left = right - text_width(word) - 22
        if kind not in kinds or left < picture.shape[1] // 2 - 40:
            continue
        shift = 10 if kind in ("nod", "smile") else 0
        _mark(picture, kind, left, left + 16, base - shift, base - 4, _QUIET)
        write(picture, word, (left + 22, base), _QUIET)
        right = left - 14


def clock(frame: int) -> str:
    """`0:02.4`, `1:02:03.4`: tenths, rounded down."""
    tenths = frame * 10 // FPS
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest // 10:02d}.{rest % 10}" if hours else f"{minutes}:{rest // 10:02d}.{rest % 10}"


def text_width(text: str) -> int:
    """Pixels."""
    (width, _), _ = cv2.getTextSize(text, _FONT, _SIZE, 1)
    return int(width)


def write(
    picture: np.ndarray, text: str, place: tuple[int, int], colour: Colour = INK, room: int | None = None
) -> None:
    """Text whose baseline begins at (x, y), cut short where it is wider than `room` pixels."""
    text = printable(text)
    room = picture.shape[1] - place[0] if room is None else room
    if text_width(text) > room:
        while text and text_width(f"{text}..") > room:
            text = text[:-1]
        text += ".."
    cv2.putText(picture, text, place, _FONT, _SIZE, colour, 1, cv2.LINE_AA)
