"""Events of a conversation, and the labels that they give its windows: from motion and turns, without pictures.

Motion tells what its columns mean (`training.events.readouts`): of a codec of landmarks all but gaze, with
blendshapes gaze, too, of a face model's coefficients nods and shakes. How large a movement must be is a setting, so
that a label means the same in every conversation (`LabelsConfig`).

Shape suffixes: T frames, D columns, E events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from visavis.schemas import FPS
from visavis.schemas.labels import KINDS, NOBODY, SIDES, TURN_KINDS, Event, EventKind, label_of
from visavis.schemas.windows_config import LabelsConfig
from visavis.training.events import Readouts, events, not_told
from visavis.training.runs import runs
from visavis.training.turn_events import turn_events

MOST = 1500
"""Events of a window that are told; ten minutes have a thousand."""
_SHORTEST_LOOK = 8  # frames; shorter ones are glances, or a blink
_GAZE = ("gaze_x", "gaze_y")
_SMILES: frozenset[EventKind] = frozenset({"smile", "laugh"})


@dataclass(frozen=True)
class Happened:
    """What happens in a conversation.

    events_E4: int32, in order of their beginnings: number of the kind in `KINDS`, person (0, 1 or `NOBODY`), first
        frame, first frame after it.
    told: kinds that could be told.
    blinks_min: of each person, blinks a minute of valid frames; None where they cannot be told, or nobody was seen.
    """

    events: np.ndarray
    told: tuple[EventKind, ...]
    blinks_min: tuple[float | None, float | None]


def happened(
    motion: Sequence[np.ndarray],
    valid: Sequence[np.ndarray],
    state_T: np.ndarray,
    signals: Readouts,
    config: LabelsConfig,
    *,
    named: bool,
) -> Happened:
    """Nothing where labels are switched off.

    Args:
        motion, valid: [T, D] and bool [T] of both people. state: bits as a dyad has them.
        signals: `readouts` of this motion. named: of columns with names of blendshapes, and so in scores, not in cm.
    """
    if not config.enabled:
        return Happened(np.zeros((0, 4), np.int32), (), (None, None))
    told = _told(signals)
    found: list[tuple[int, int, int, int]] = [
        (KINDS.index(kind), person, first, end) for kind, person, first, end in turn_events(state_T)
    ]
    blinks: list[float | None] = []
    least = heights(config, named)
    for person in (0, 1):
        seen = _seen(motion[person], valid[person], state_T >> person & 1 > 0, signals, least, config)
        sounds_T = state_T >> person & 0b101 > 0
        if "laugh" in seen:
            seen["heard_laugh"] = [(a, b) for a, b in seen["laugh"] if sounds_T[a:b].any()]
        found += [(KINDS.index(kind), person, a, b) for kind, spans in seen.items() for a, b in spans]
        minutes = int(valid[person].sum()) / FPS / 60
        blinks.append(round(len(seen["blink"]) / minutes, 3) if "blink" in seen and minutes else None)
    rows = sorted(found, key=lambda each: (each[2], each[3], each[0], each[1]))
    return Happened(np.array(rows, np.int32).reshape(-1, 4), told, (blinks[0], blinks[1]))


def heights(config: LabelsConfig, named: bool) -> dict[str, float]:
    """Least heights of `training.events.events`, in the units of the readouts."""
    unit = "score" if named else "cm"
    bumps = {name: getattr(config, f"{name}_{unit}") for name in ("smile", "brow", "blink", "jaw")}
    return {"nod": np.deg2rad(config.nod_degrees), "shake": np.deg2rad(config.shake_degrees)} | bumps


def window_events(events_E4: np.ndarray, first: int, length: int, avatar: int) -> tuple[Event, ...]:
    """Events of a window, as its avatar's and its user's, in its own frames; those at its edges are cut there. The
    first `MOST` of them: a record has an end."""
    inside_E = np.flatnonzero((events_E4[:, 2] < first + length) & (events_E4[:, 3] > first))[:MOST]
    return tuple(
        Event(
            label_of(KINDS[kind], SIDES[0] if person in (avatar, NOBODY) else SIDES[1]),
            max(0, begin - first),
            min(length, end - first),
        )
        for kind, person, begin, end in events_E4[inside_E].tolist()
    )


def labels_in(found: Iterable[Event]) -> tuple[str, ...]:
    """Labels of a window with such events, by name."""
    return tuple(sorted({event.label for event in found}))


def _told(signals: Readouts) -> tuple[EventKind, ...]:
    unseen = set(not_told(signals)) | ({"heard_laugh"} if "laugh" in not_told(signals) else set())
    unseen |= set() if all(axis in signals for axis in _GAZE) else {"gaze_away"}
    return tuple(kind for kind in KINDS if kind in TURN_KINDS or kind not in unseen)


def _seen(
    motion_TD: np.ndarray,
    valid_T: np.ndarray,
    speaks_T: np.ndarray,
    signals: Readouts,
    least: Mapping[str, float],
    config: LabelsConfig,
) -> dict[EventKind, list[tuple[int, int]]]:
    bumps = {name: weights for name, weights in signals.items() if name not in _GAZE}
    known = {name: height for name, height in least.items() if _needs(name) in bumps}
    found: dict[EventKind, list[tuple[int, int]]] = {
        kind: [(a, b) for a, b in spans.tolist()]
        for kind, spans in events(motion_TD, valid_T, speaks_T, bumps, known).items()
    }
    if "smile" in found and valid_T.any():  # a mouth that comes back from "oh" grows wider, too
        smile_T = motion_TD @ signals["smile"]
        wide_T = smile_T - np.median(smile_T[valid_T]) >= least["smile"]
        for kind in _SMILES & found.keys():
            found[kind] = [(a, b) for a, b in found[kind] if wide_T[a:b].any()]
    if all(axis in signals for axis in _GAZE) and valid_T.any():
        away_T2 = np.stack([motion_TD @ signals[axis] for axis in _GAZE], axis=1)
        away_T = np.linalg.norm(away_T2 - np.median(away_T2[valid_T], axis=0), axis=1) >= config.gaze_score
        found["gaze_away"] = [(a, b) for a, b in runs(away_T & valid_T) if b - a >= _SHORTEST_LOOK]
    return found


def _needs(name: str) -> str:
    return {"nod": "pitch", "shake": "yaw"}.get(name, name)
