"""What happens in a window: kinds of events, and the labels that they give it.

A label is an event's kind with who does it before it, `avatar_nod` or `user_interruption`; `gap` and `lapse` are
nobody's. A user's own function may add labels of other names (`shard.labeller`). `training.labels` finds events in
motion and turns.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Literal, NamedTuple, get_args

MotionKind = Literal["nod", "shake", "smile", "brow", "blink", "laugh", "heard_laugh", "gaze_away"]
TurnKind = Literal[
    "backchannel", "filler", "pause", "gap", "lapse", "interruption", "attempt", "overlap", "terminal_overlap"
]
EventKind = Literal[MotionKind, TurnKind]
KINDS: tuple[EventKind, ...] = (*get_args(MotionKind), *get_args(TurnKind))
"""In the order of their numbers in `Dyad.events`; new ones come last."""
TURN_KINDS: tuple[TurnKind, ...] = get_args(TurnKind)
NOBODYS: tuple[EventKind, ...] = ("gap", "lapse")
SIDES = ("avatar", "user")
NOBODY = 2
"""In place of a participant's number."""
OWN_LABEL = re.compile(r"[a-z][a-z0-9_]{0,40}")
"""A label of a user's own."""

_EVENT = re.compile(r"([a-z_]{1,40}):([0-9]{1,6})-([0-9]{1,6})")


class Event(NamedTuple):
    """label: as a window's. first, end: frames of the window, end exclusive; what began before it begins with it."""

    label: str
    first: int
    end: int

    def __str__(self) -> str:
        return f"{self.label}:{self.first}-{self.end}"


def parse_event(text: str) -> Event:
    """Raises ValueError for a text that `str` of no event gives."""
    found = _EVENT.fullmatch(text)
    if not found or found[1] not in LABELS or int(found[2]) >= int(found[3]):
        raise ValueError(f"{text[:60]!r} is no event, as avatar_nod:3-15")
    return Event(found[1], int(found[2]), int(found[3]))


def label_of(kind: EventKind, side: str) -> str:
    """side: of SIDES."""
    return kind if kind in NOBODYS else f"{side}_{kind}"


def labels_of(kinds: Iterable[EventKind]) -> tuple[str, ...]:
    """All labels that events of such kinds can give."""
    return tuple(dict.fromkeys(label_of(kind, side) for kind in kinds for side in SIDES))


LABELS = labels_of(KINDS)


def has_any(labels: Collection[str], wanted: Iterable[str]) -> bool:
    """Whether some wanted label is there; a kind alone stands for either side's."""
    return any(name in labels or any(f"{side}_{name}" in labels for side in SIDES) for name in wanted)


def unknown_label(wanted: Iterable[str], known: Collection[str]) -> str | None:
    """The first wanted label, or kind, that nobody gives."""
    return next((name for name in wanted if not has_any(known, (name,))), None)
