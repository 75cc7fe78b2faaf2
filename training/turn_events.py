"""Events of turn-taking, by times alone: who has a turn in each frame.

Silences (Heldner and Edlund 2010, "Pauses, gaps and overlaps in conversations"; a lapse as McLaughlin and Cody 1982):

    pause    within a person's turn    gap    between the turns of two    lapse    either, of 3 s or more

When one begins to speak while the other has the floor (Gravano and Hirschberg 2012, "A corpus-based study of
interruptions in spoken dialogue", after Beattie 1982, told them by who has the floor afterwards and by whether the
first one's utterance was complete; here the length of the overlap stands in for completeness, which no clock tells):

    interruption      takes the turn: the other stops within 3 s, does not come back meanwhile, and speaks no more than
                      `_TERMINAL` into it
    terminal_overlap  takes the turn just as the other ends it: what is foreseen, not cut off (Jefferson 1986)
    attempt           does not take it: speaks for more than a second and stops, and the other goes on ("butting-in")
    overlap           does not take it, nor want it: a second at most, as back-channels, or two who speak on and on

The event of the one who begins lasts as long as both speak. Back-channels are marked before
(`stages.voice.backchannels`), and no turns. A filler is a sound of half a second at most between pauses of one's own
turn: "uh", but also a short word.

Shape suffixes: T frames, E events.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from visavis.schemas import FPS
from visavis.schemas.labels import NOBODY, TurnKind
from visavis.training.runs import runs

_SHORTEST_SILENCE = 5  # frames; shorter ones are not heard as silence (Heldner and Edlund: 0.18 s)
_LAPSE = 3 * FPS
_PAUSE = FPS  # frames; a longer silence ends a turn
_HELD = FPS // 2  # frames for which one must have had the floor to be interrupted
_TERMINAL = 10  # frames
_YIELDS = 3 * FPS
_SHORT = FPS  # frames; no longer are overlaps that want no turn
_FILLER = FPS // 2

Found = tuple[TurnKind, int, int, int]
"""Kind, person (0 or 1, or `schemas.labels.NOBODY`), first frame, first frame after it."""
Spans = list[tuple[int, int]]


def turn_events(state_T: np.ndarray) -> list[Found]:
    """Events in order of their first frames. state: `schemas.sample`: bits 0 and 1 turns, 2 and 3 back-channels."""
    phrases = tuple(runs(state_T >> person & 1 > 0) for person in (0, 1))
    found: list[Found] = [*_silences(state_T)]
    for person in (0, 1):
        found += [("backchannel", person, *span) for span in runs(state_T >> 2 + person & 1 > 0)]
        found += [("filler", person, *span) for span in _fillers(phrases[person], state_T, 1 - person)]
        found += _begun(phrases[person], phrases[1 - person], person)
    return sorted(found, key=lambda each: (each[2], each[3], each[1], each[0]))


def _silences(state_T: np.ndarray) -> Iterator[Found]:
    """Those with speech before and after; one in which somebody hums is none, but its parts are."""
    turns_T = state_T & 3
    speech_N = np.flatnonzero(turns_T)
    for first, end in runs(state_T & 15 == 0):
        at = int(np.searchsorted(speech_N, first))
        if end - first < _SHORTEST_SILENCE or not 0 < at < len(speech_N):
            continue
        same = int(turns_T[speech_N[at - 1]] & turns_T[speech_N[at]])
        if end - first >= _LAPSE:
            yield "lapse", NOBODY, first, end
        elif same in (1, 2):
            yield "pause", same - 1, first, end
        elif not same:
            yield "gap", NOBODY, first, end


def _fillers(phrases: Spans, state_T: np.ndarray, other: int) -> Iterator[tuple[int, int]]:
    for before, (first, end), after in zip(phrases, phrases[1:], phrases[2:], strict=False):
        alone = not (state_T[before[1] : after[0]] >> other & 1).any()
        gaps = first - before[1], after[0] - end
        if alone and end - first <= _FILLER and all(_SHORTEST_SILENCE <= gap <= _PAUSE for gap in gaps):
            yield first, end


def _begun(own: Spans, others: Spans, person: int) -> Iterator[Found]:
    """What becomes of each phrase that begins while the other has the floor."""
    at = 0
    for first, end in _turns(own, others):
        while at < len(others) and others[at][1] <= first:
            at += 1
        if at == len(others) or others[at][0] >= first:
            continue
        if first - _floor(others, at) < _HELD:
            continue
        stop = _stop(others, at, end)
        overlap = min(stop, end) - first
        if stop < end:
            kind: TurnKind = "terminal_overlap" if overlap <= _TERMINAL else "interruption"
            kind = kind if overlap <= _YIELDS else "overlap"
        else:
            kind = "attempt" if end - first > _SHORT else "overlap"
        yield kind, person, first, first + overlap


def _turns(own: Spans, others: Spans) -> Iterator[tuple[int, int]]:
    """One's phrases, those together between which there is a pause in which the other does not begin. Who had the floor
    before goes on with the same turn though the other still speaks; who had not begins anew."""
    joined: list[list[int]] = []
    starts, ends = (np.array([span[side] for span in others], int) for side in (0, 1))
    for first, end in own:
        begin, last = joined[-1] if joined else (0, -FPS * 60)
        begun = int(np.searchsorted(starts, last, "right"))
        silent = begun == np.searchsorted(starts, first)
        if begun and ends[begun - 1] > last:  # the other speaks on
            silent = silent and bool(starts[begun - 1] > begin)
        if first - last <= _PAUSE and silent:
            joined[-1][1] = end
        else:
            joined.append([first, end])
    yield from ((first, end) for first, end in joined)


def _floor(others: Spans, at: int) -> int:
    """First frame of the turn that a phrase of the other belongs to."""
    while at and others[at][0] - others[at - 1][1] <= _PAUSE:
        at -= 1
    return others[at][0]


def _stop(others: Spans, at: int, end: int) -> int:
    """Where the other stops for one who speaks until `end`. Who comes back after a mere pause has not stopped, unless
    the one who speaks was alone for half a second before."""
    stop = others[at][1]
    for first, last in others[at + 1 :]:
        if stop >= end or first - stop > _PAUSE or (first >= end and end - stop >= _HELD):
            break
        stop = last
    return stop
