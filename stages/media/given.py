"""Turns and boxes that somebody else's diarizer or tracker found, as files beside a video or in columns of a list.

Turns are RTTM as NIST defines it (its SPEAKER lines; others are passed over), or JSON, `[{"speaker": "ann", "start":
0.4, "end": 2.1}, …]`. Boxes are `.npz` (`time` [N] in seconds, `box` [N, 4] as x0 y0 x1 y1 in pixels of the picture as
displayed, and, if they are of several people, `person` [N], whole numbers), or JSON, `[{"time": 0.4, "box": [x0, y0,
x1, y1], "person": "ann"}, …]`. Times are seconds of the file's own clock, to which a list may add an offset.

What cannot be read, or cannot belong to this file, rejects the conversation: unlike what a corpus happens to hold
(`stages.media.sidecars`), these files were put there to be used.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import numpy as np
from pydantic import BaseModel, RootModel

from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.names import is_name
from visavis.schemas.rows import Given, Media, Turn
from visavis.schemas.storage.files import Reader
from visavis.schemas.untrusted import bounded
from visavis.schemas.uris import file_name, is_local, printable, shown
from visavis.stages.media.file_identity import size_of
from visavis.stages.media.npz import read_members
from visavis.stages.media.opening import judged, open_bytes
from visavis.stages.media.sidecars import BIGGEST, LARGEST_ARRAY, LARGEST_TEXT, Moment, parsed_json

_MOST_TURNS = 100_000
_MOST_SPEAKERS = 64  # what comes next makes an array of all frames for each
_MOST_PEOPLE = 16  # with boxes
_BEYOND, _SLACK = 0.1, 5.0  # share of the media's length, and seconds, by which turns may lie outside of it
_NEAR = 0.5  # seconds from a full second to the box that stands for it
_LISTED = 5  # names that a message lists
_RTTM = frozenset(
    ["SPEAKER", "SPKR-INFO", "SEGMENT", "NOSCORE", "NO_RT_METADATA", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER"]
    + ["EDIT", "IP", "SU", "CB", "A/P", "RT_METADATA"]
)

T = TypeVar("T")
_Names = tuple[str | None, ...] | None
Spoken = dict[str, list[tuple[float, float]]]  # speaker → spans, in seconds, in the order of their first turns


class _Turn(BaseModel):
    speaker: str | int
    start: Moment
    end: Moment


class _Turns(RootModel[tuple[_Turn, ...]]):
    pass


class _Box(BaseModel):
    time: Moment
    box: tuple[float, float, float, float]
    person: str | int = ""


class _Boxes(RootModel[tuple[_Box, ...]]):
    pass


def has_ending(name: str, *endings: str) -> bool:
    """Whether a path or URL ends so, whatever a URL has after a question mark."""
    return (name if is_local(name) else name.partition("?")[0]).lower().endswith(endings)


def with_given(media: Media, uri: str, given: Given, participant: str | None, *, alone: bool) -> Media:
    """A file's row with what is given for it.

    Args:
        uri: of the video. participant: whose file it is, if that is known. alone: it is one participant's, and what is
            given for others is left out.

    Raises:
        Rejected: UNREADABLE, also where the turns cannot be this file's, or nobody in them is the participant.
    """
    stem = file_name(uri).rpartition(".")[0] or file_name(uri)
    end = max(media.video_start + media.video_duration, media.audio_start + media.audio_duration)
    names = (participant, stem) if alone else None
    found = _turns(given, names, stem, end) if given.turns else {}
    if given.boxes:
        found |= {"boxes": _boxes(given, names, end)}
    return media.model_copy(update=found)


def _turns(given: Given, names: _Names, stem: str, end: float) -> dict[str, Any]:
    """names: of the participant whose file it is, None where it shows both people."""
    with open_bytes(given.turns) as file, judged(given.turns, file):
        spoken = _within(read_turns(file, given.turns, stem, given.offset), end)
        own = _whose(spoken, names, "speakers") if names and spoken else ()
    if not names and not spoken:
        raise Rejected(Reason.NO_SPEECH, f"{shown(given.turns)}: no turns")
    return {"vad": tuple(own)} if names else {"turns": _numbered(spoken)}


def _boxes(given: Given, names: _Names, end: float) -> np.ndarray | None:
    with open_bytes(given.boxes) as file, judged(given.boxes, file):
        boxes = read_boxes_of(file, given.boxes, given.offset, end)
        chosen = [_whose(boxes, names, "people")] if names and boxes else list(boxes.values())
    return np.stack(chosen) if chosen else None


def read_turns(file: Reader, name: str, recording: str, offset: float = 0.0) -> Spoken:
    """Speaker → spans (start, end) in seconds, in the order of their first turn; empty spans are left out.

    Args:
        name: of the file, whose ending says what it is. recording: which one is wanted, if it is about several.

    Raises:
        ValueError, or whatever reading raises: the file is at fault.
    """
    bounded(size_of(file), LARGEST_TEXT, "bytes of a text")
    data = file.read(LARGEST_TEXT)
    rows = _of_rttm(data.decode("utf-8-sig"), recording) if has_ending(name, ".rttm") else _of_json(data)
    turns = sorted((start + offset, end + offset, speaker) for speaker, start, end in rows if end > start)
    bounded(len(turns), _MOST_TURNS, "turns")
    spoken: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for start, end, speaker in turns:
        spoken[speaker].append((start, end))
    bounded(len(spoken), _MOST_SPEAKERS, "speakers")
    return dict(spoken)


def _of_json(data: bytes) -> Iterable[tuple[str, float, float]]:
    for turn in parsed_json(_Turns, data).root:
        yield _checked_name(str(turn.speaker)), turn.start, turn.end


def _of_rttm(text: str, recording: str) -> list[tuple[str, float, float]]:
    """The turns of a recording: of the one that has this name, or of the only one."""
    by_recording: defaultdict[str, list[tuple[str, float, float]]] = defaultdict(list)
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split(None, 9)
        if not words or words[0].startswith(";;"):
            continue
        if words[0] not in _RTTM:
            _refuse(number, f"begins with {printable(words[0][:20])!r}, which is no type of RTTM")
        if words[0] == "SPEAKER":
            if len(words) < 8:
                _refuse(number, f"has {len(words)} fields, not SPEAKER file channel start seconds <NA> <NA> name …")
            start, seconds = _seconds(number, words[3]), _seconds(number, words[4])
            by_recording[words[1]].append((_checked_name(words[7]), start, start + seconds))
    if recording in by_recording or len(by_recording) < 2:
        return by_recording.get(recording) or next(iter(by_recording.values()), [])
    raise ValueError(f"turns of {len(by_recording)} recordings, none of which is called {printable(recording)[:60]}")


def _seconds(number: int, word: str) -> float:
    try:
        found = float(word)
    except ValueError:
        found = math.nan
    if not abs(found) <= 1e12:  # NaN is not
        _refuse(number, f"has {printable(word[:20])!r} where seconds are expected")
    return found


def _refuse(number: int, why: str) -> NoReturn:
    raise ValueError(f"line {number} {why}")


def _checked_name(name: str) -> str:
    if not is_name(name):
        raise ValueError("a speaker's name is not one line of text")
    return name


def _within(spoken: Spoken, end: float) -> Spoken:
    """The same, if it can be about a file of this length."""
    spans = [span for own in spoken.values() for span in own]
    if spans:
        first, last, slack = min(s for s, _ in spans), max(e for _, e in spans), _BEYOND * end + _SLACK
        if first < -slack or last > end + slack:
            raise ValueError(
                f"turns from {first:.1f} to {last:.1f} s, and the file ends at {end:.1f} s: another recording, or"
                " another clock, which a list's column `turns_offset` (seconds) moves"
            )
    return spoken


def _whose(found: Mapping[str, T], names: Sequence[str | None], what: str) -> T:
    """What belongs to a participant: to one of these names, or to the only one there is."""
    name = next((name for name in names if name in found), next(iter(found)) if len(found) == 1 else None)
    if name is None:
        shown = ", ".join(printable(each)[:40] for each in list(found)[:_LISTED])
        wanted = " or ".join(printable(name)[:60] for name in names if name)
        raise ValueError(f"{len(found)} {what} ({shown}), none of whom is called {wanted}, whose file it is")
    return found[name]


def _numbered(spoken: Spoken) -> tuple[Turn, ...]:
    """Turns of speakers 0, 1, … in the order of their first turns."""
    turns = [Turn(speaker=n, start=s, end=e) for n, own in enumerate(spoken.values()) for s, e in own]
    return tuple(sorted(turns, key=lambda turn: (turn.start, turn.speaker)))


def read_boxes_of(file: Reader, name: str, offset: float, end: float) -> dict[str, np.ndarray]:
    """Person → float32 [S, 4], where that person is at second s: x0 y0 x1 y1 in pixels, NaN where nobody says.

    Args:
        end: of the media, in seconds.

    Raises:
        ValueError, or whatever reading raises: the file is at fault.
    """
    time_N, box_N4, person_N, names = _of_npz(file) if has_ending(name, ".npz") else _boxes_of_json(file)
    if box_N4.shape != (len(time_N), 4) or person_N.shape != time_N.shape or box_N4.dtype.kind == "b":
        raise ValueError(f"time has shape {time_N.shape}, box {box_N4.shape}, person {person_N.shape}")
    time_N, box_N4 = time_N.astype(np.float64) + offset, box_N4.astype(np.float64)
    usable_N = (np.abs(box_N4) <= BIGGEST).all(axis=1) & (time_N > -_NEAR) & (time_N < end + _NEAR)
    people = np.unique(person_N).tolist()
    bounded(len(people), _MOST_PEOPLE, "people with boxes")
    wanted = ((person, usable_N & (person_N == person)) for person in people)
    return {names.get(who, str(who)): _by_second(time_N[own], box_N4[own], end) for who, own in wanted if own.any()}


_Listed = tuple[np.ndarray, np.ndarray, np.ndarray, dict[int, str]]
"""Times [N], boxes [N, 4], number of the person [N]; and what people are called, where that is another name."""


def _of_npz(file: Reader) -> _Listed:
    arrays = read_members(file, ("time", "box"), LARGEST_ARRAY)
    if arrays is None or arrays[0].ndim != 1:
        raise ValueError("no array `time` with a number for each box")
    (person_N,) = read_members(file, ("person",), LARGEST_ARRAY) or (np.zeros(len(arrays[0]), np.int64),)
    if person_N.dtype.kind not in "iu":
        raise ValueError(f"person is {person_N.dtype}, whole numbers are expected")
    return arrays[0], arrays[1], person_N, {}


def _boxes_of_json(file: Reader) -> _Listed:
    bounded(size_of(file), LARGEST_TEXT, "bytes of a text")
    rows = parsed_json(_Boxes, file.read(LARGEST_TEXT)).root
    number = {name: n for n, name in enumerate(dict.fromkeys(_checked_name(str(row.person)) for row in rows))}
    boxes_N4 = np.array([row.box for row in rows], np.float64).reshape(-1, 4)
    person_N = np.array([number[str(row.person)] for row in rows], np.int64)
    return np.array([row.time for row in rows], np.float64), boxes_N4, person_N, {n: name for name, n in number.items()}


def _by_second(time_N: np.ndarray, box_N4: np.ndarray, end: float) -> np.ndarray:
    """At each full second the box that is nearest in time, if one is near."""
    order = np.argsort(time_N, kind="stable")
    time_N, box_N4 = time_N[order], box_N4[order]
    second_S = np.arange(int(end) + 1)
    after_S = np.searchsorted(time_N, second_S).clip(0, len(time_N) - 1)
    before_S = (after_S - 1).clip(0)
    nearest_S = np.where(np.abs(time_N[before_S] - second_S) < np.abs(time_N[after_S] - second_S), before_S, after_S)
    box_S4 = box_N4[nearest_S].astype(np.float32)
    box_S4[np.abs(time_N[nearest_S] - second_S) > _NEAR] = np.nan
    return box_S4
