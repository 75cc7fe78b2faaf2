"""What happens in a conversation, from who has a turn and how faces move: each kind where it is, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis.schemas.labels import KINDS, LABELS, Event, has_any, label_of, parse_event
from visavis.schemas.windows_config import LabelsConfig
from visavis.training.events import column_readouts
from visavis.training.labels import happened, labels_in, window_events
from visavis.training.turn_events import Found, turn_events

Span = tuple[int, float, float]
A, B = 0, 1
NAMES = ["pitch", "yaw", "roll", "x", "y", "log_size", "jawOpen", "mouthSmileLeft", "mouthSmileRight"]
GAZE = [f"eyeLook{way}{side}" for way in ("In", "Out", "Up", "Down") for side in ("Left", "Right")]


def talk(seconds: float, *spans: Span, hums: tuple[Span, ...] = ()) -> np.ndarray:
    """State of who has a turn, from spans in seconds."""
    state = np.zeros(round(seconds * 25), np.uint8)
    for bit, some in ((0, spans), (2, hums)):
        for person, first, end in some:
            state[round(first * 25) : round(end * 25)] |= 1 << bit + person
    return state


def told(state: np.ndarray, *kinds: str) -> list[Found]:
    return [each for each in turn_events(state) if each[0] in kinds]


OVERLAPS = ("interruption", "attempt", "overlap", "terminal_overlap")
SCENES = {
    "B takes the turn, A stops a second later": (((A, 0, 5), (B, 4, 8)), "interruption"),
    "A comes back only after B is through": (((A, 0, 5), (B, 4, 7), (A, 7.3, 9)), "interruption"),
    "A is ending anyway": (((A, 0, 5), (B, 4.7, 8)), "terminal_overlap"),
    "B gives up, A goes on": (((A, 0, 9), (B, 4, 5.6)), "attempt"),
    "A draws breath while B tries": (((A, 0, 4.8), (A, 5.2, 9), (B, 4, 5.6)), "attempt"),
    "A draws breath just as B gives up": (((A, 0, 5.3), (A, 5.9, 9), (B, 4, 5.5)), "attempt"),
    "B agrees in two words": (((A, 0, 9), (B, 4, 4.8)), "overlap"),
    "both speak on and on": (((A, 0, 8), (B, 4, 12)), "overlap"),
    "A had just begun": (((A, 3.8, 6), (B, 4, 8)), None),
    "B waits until A is through": (((A, 0, 4), (B, 4.2, 8)), None),
}


@pytest.mark.parametrize("scene", SCENES)
def test_who_begins_while_the_other_speaks(scene: str) -> None:
    spans, expected = SCENES[scene]
    found = told(talk(14, *spans), *OVERLAPS)
    assert [(kind, person) for kind, person, *_ in found] == ([(expected, B)] if expected else [])
    if found:
        assert found[0][2] == round(25 * max(4, spans[-1][1] if "ending" in scene else 4))


def test_an_interruption_lasts_as_long_as_both_speak() -> None:
    assert told(talk(14, (A, 0, 5), (B, 4, 8)), *OVERLAPS) == [("interruption", B, 100, 125)]


def test_silences_within_a_turn_between_two_and_long_ones() -> None:
    state = talk(20, (A, 1, 3), (A, 3.6, 5), (B, 5.5, 8), (A, 12, 14))
    assert told(state, "pause", "gap", "lapse") == [("pause", A, 75, 90), ("gap", 2, 125, 138), ("lapse", 2, 200, 300)]


def test_a_filler_stands_between_pauses_and_a_hum_is_a_back_channel() -> None:
    state = talk(10, (A, 0, 2), (A, 2.4, 2.7), (A, 3.2, 6), hums=((B, 4, 4.6),))
    assert told(state, "filler", "backchannel", *OVERLAPS) == [("filler", A, 60, 68), ("backchannel", B, 100, 115)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 60)), max_size=20),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 60)), max_size=20),
)
def test_events_lie_in_the_conversation_and_do_not_depend_on_who_is_first(one: list, other: list) -> None:
    tracks = [np.concatenate([[0], *(np.full(n, v & 1) for v, n in some)]) for some in (one, other)]
    frames = min(map(len, tracks))
    state = (tracks[0][:frames] | tracks[1][:frames] << 1).astype(np.uint8)
    swapped = (state >> 1 | (state & 1) << 1).astype(np.uint8)
    found = turn_events(state)
    assert all(0 <= first < end <= frames and kind in KINDS for kind, _, first, end in found)
    turned = {(kind, (1, 0, 2)[person], first, end) for kind, person, first, end in turn_events(swapped)}
    assert set(found) == turned


def bump(motion: np.ndarray, columns: tuple[int, ...], first: int, frames: int, height: float) -> None:
    shape = height * np.sin(np.pi * (np.arange(frames) + 0.5) / frames) ** 2
    for column in columns:
        motion[first : first + frames, column] += shape


def scene(names: list[str] = NAMES, seen: slice = slice(None)) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """A nods at 50, smiles at 100, laughs at 200; B is still."""
    motion = [np.zeros((400, len(names))) for _ in "AB"]
    bump(motion[A], (0,), 50, 12, 0.12)
    bump(motion[A], (7, 8), 100, 40, 0.5)
    bump(motion[A], (7, 8), 200, 50, 0.6)
    bump(motion[A], (6,), 220, 8, 0.3)
    valid = np.zeros(400, bool)
    valid[seen] = True
    return motion, [valid, np.ones(400, bool)]


def found_in(motion: list, valid: list, state: np.ndarray, names: list[str] = NAMES) -> list[tuple[str, int, int]]:
    signals = column_readouts(len(names), range(3), range(6, len(names)), names)
    events = happened(motion, valid, state, signals, LabelsConfig(), named=True).events
    return [(KINDS[kind], person, first) for kind, person, first, _ in events.tolist() if KINDS[kind] != "lapse"]


def test_movements_are_found_where_they_are_and_a_laugh_is_heard_where_it_sounds() -> None:
    motion, valid = scene()
    quiet = np.zeros(400, np.uint8)
    kinds = [("nod", A), ("smile", A), ("smile", A), ("laugh", A)]
    assert [each[:2] for each in found_in(motion, valid, quiet)] == kinds
    hummed = talk(16, hums=((A, 8.8, 9.2),))
    assert ("heard_laugh", A) in [each[:2] for each in found_in(motion, valid, hummed)]


def test_what_is_not_seen_and_what_columns_cannot_tell_is_not_there() -> None:
    motion, valid = scene(seen=slice(0, 90))
    assert [each[:2] for each in found_in(motion, valid, np.zeros(400, np.uint8))] == [("nod", A)]
    nameless = column_readouts(9, range(3), range(6, 9))
    made = happened(motion, valid, np.zeros(400, np.uint8), nameless, LabelsConfig(), named=True)
    assert {"nod", "shake", "pause"} <= set(made.told)
    assert not {"smile", "laugh", "heard_laugh", "blink", "brow", "gaze_away"} & set(made.told)
    assert made.blinks_min == (None, None)


def test_eyes_that_look_away_are_told_where_there_are_scores_of_gaze() -> None:
    names = [*NAMES, *GAZE]
    motion, valid = [np.zeros((200, len(names))) for _ in "AB"], [np.ones(200, bool)] * 2
    for name in ("eyeLookOutLeft", "eyeLookInRight"):
        motion[B][100:140, names.index(name)] = 0.6
    assert found_in(motion, valid, np.zeros(200, np.uint8), names) == [("gaze_away", B, 100)]


def test_a_window_has_its_events_seen_from_its_avatar() -> None:
    state = talk(16, (A, 0, 5), (B, 4, 8))
    signals = column_readouts(9, range(3), range(6, 9), NAMES)
    events = happened(*scene(), state, signals, LabelsConfig(), named=True).events
    as_user, as_avatar = (window_events(events, 90, 50, avatar) for avatar in (A, B))
    assert Event("user_interruption", 10, 35) in as_user
    assert {"avatar_interruption", "user_smile"} <= set(labels_in(as_avatar))
    assert all(0 <= each.first < each.end <= 50 for each in (*as_user, *as_avatar))
    assert "user_interruption" not in labels_in(window_events(events, 130, 20, A))


def test_events_and_labels_are_texts_that_read_back() -> None:
    event = Event("user_interruption", 3, 15)
    assert parse_event(str(event)) == event
    for text in ("user_interruption", "nobody_knows:1-2", "avatar_nod:1-x", "avatar_nod:1-2; rm"):
        with pytest.raises(ValueError, match="is no event"):
            parse_event(text)
    assert has_any(("user_interruption",), ("interruption",))
    assert not has_any(("user_nod",), ("avatar_nod",))
    assert label_of("gap", "user") == "gap"
    assert len(set(LABELS)) == 2 * (len(KINDS) - 2) + 2
