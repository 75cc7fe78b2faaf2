"""The measuring programs of who speaks and who is who: what their truth says is what their clips show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from benchmarks.acting import Actor, Trait, draw_actor, frame_mask, perform
from benchmarks.exchanges import Truth, read_truths
from benchmarks.outcomes import Clip, Result, summaries, who_is_seen
from benchmarks.recuts import EDITS, Footage, Shot, edit
from benchmarks.speech import crossed, dialogues, spoken_turns
from visavis.schemas import FPS, SAMPLE_RATE
from visavis.schemas.face_rows import FaceTracks, Figures, Piece, Segment, Track
from visavis.schemas.rows import Binding, BoundParticipant, Turn

SHARED = Path(__file__).parents[1] / ".." / "shared" / "media"
FIGURES = Figures(visible=1, face_size=100, sharpness=100, luminance=100, confidence=1, yaw=0, pitch=0, jitter=0)


def bursts(seconds: float, spans: list[tuple[float, float]]) -> np.ndarray:
    """Syllables, four a second, of noise within the spans, over silence."""
    rng = np.random.default_rng(0)
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    spoken = np.any([(time >= a) & (time < b) for a, b in spans], axis=0)
    return (0.1 * spoken * (0.6 - 0.4 * np.cos(8 * np.pi * time)) * rng.standard_normal(len(time))).astype(np.float32)


@pytest.mark.parametrize("number", range(8))
def test_lips_move_with_the_own_voice_and_not_with_the_others(number: int) -> None:
    voice, turns = bursts(8, [(0, 8)]), (Turn(speaker=0, start=0, end=4), Turn(speaker=1, start=4, end=8))
    actor = Actor(number, False, draw_actor(number).traits - {Trait.CHEWS, Trait.LAUGHS})
    mouth = perform(actor, voice, turns, 0, 1, 1.0).motion.mouth
    own = frame_mask(turns, 0, 8 * FPS) > 0
    moves = np.abs(np.diff(mouth, prepend=mouth[0]))
    assert np.median(moves[own]) > 3 * np.median(moves[~own])


def test_the_same_number_is_the_same_person_and_numbers_differ() -> None:
    assert draw_actor(3) == draw_actor(3)
    assert len({draw_actor(number).traits for number in range(30)}) > 10


def test_turns_of_a_clean_track_are_where_it_sounds() -> None:
    found = spoken_turns(bursts(9, [(1, 3), (5, 8)]))
    borders = [border for turn in found for border in (turn.start, turn.end)]
    np.testing.assert_allclose(borders, [1, 3, 5, 8], atol=0.12)


@pytest.mark.slow
def test_strangers_tracks_sound_in_their_turns_only() -> None:
    if not (SHARED / "diarization").is_dir():
        pytest.skip("needs ../shared/media")
    for speech in crossed(SHARED, 2, 5):
        for me in (0, 1):
            inside = np.repeat(frame_mask(speech.turns, me, speech.frames) > 0, SAMPLE_RATE // FPS)
            power = speech.tracks[me].astype(np.float64) ** 2
            assert power[inside].mean() > 100 * power[~inside].mean()


@pytest.mark.slow
def test_a_part_of_a_dialogue_keeps_its_turns_in_place() -> None:
    if not (SHARED / "diarization").is_dir():
        pytest.skip("needs ../shared/media")
    whole = next(speech for speech in dialogues(SHARED) if speech.name == "dev00")
    part = whole.part(10.0, 20.0)
    assert part.frames == 10 * FPS
    np.testing.assert_array_equal(part.mix, whole.mix[10 * SAMPLE_RATE : 20 * SAMPLE_RATE])
    assert part.turns[0].end == pytest.approx(whole.turns[0].end - 10.0)


def test_a_cut_list_says_where_each_face_is(tmp_path: Path) -> None:
    """A is a red, B a green square: the picture has them where the list says, and nobody where it says so."""
    frame = np.zeros((96, 160, 3), np.uint8)
    frame[20:40, 30:50, 0] = frame[20:40, 110:130, 1] = 255
    audio = np.zeros(7 * SAMPLE_RATE, np.float32)
    footage = Footage("squares", [frame] * (7 * FPS), audio, ((0.25, 0.31), (0.75, 0.31)), 0.4)
    assert Shot(3, "wide", crossed=True) in EDITS["reverse"]
    edit(footage, tmp_path, ["reverse", "alternating"])
    for clip in ("reverse", "alternating"):
        shown = _pictures(tmp_path / f"squares-{clip}.mp4")
        cuts = _cuts(tmp_path / f"squares-{clip}.cuts.json")
        assert cuts[-1]["end"] == 7.0
        for shot in cuts:
            picture = shown[round((shot["start"] + shot["end"]) / 2 * FPS)].astype(int)
            for channel, who in ((0, "A"), (1, "B")):
                here = np.argwhere(picture[..., channel] - picture[..., 1 - channel] > 120)
                if shot[who] is None:
                    assert len(here) < 40
                else:
                    np.testing.assert_allclose(here.mean(axis=0)[::-1] / (160, 96), shot[who], atol=0.06)


def test_a_participant_who_is_joined_from_two_people_is_seen() -> None:
    """The second one's track goes on with A's close-up: half of what is said to be B is A."""
    cuts = [
        {"start": 0.0, "end": 2.0, "shot": "wide", "until": None, "A": [0.25, 0.3], "B": [0.75, 0.3]},
        {"start": 2.0, "end": 4.0, "shot": "a", "until": None, "A": [0.5, 0.5], "B": None},
    ]
    tracks = (_track(0, 25), _track(0, 75), _track(50, 50))
    piece = Piece(conversation="c", media=0, uri="", first=0, last=100)
    faces = [FaceTracks(piece=piece, width=100, height=100, cuts=(50,), tracks=tracks)]
    right = _participants([[0, 2], [1]])
    wrong = _participants([[0], [1, 2]])
    np.testing.assert_array_equal(who_is_seen(cuts, right, faces) > 0, [[True, False], [False, True]])
    mixed = who_is_seen(cuts, wrong, faces)
    assert mixed[1, 0] == mixed[1, 1] > 40


def test_what_is_accepted_against_the_truth_counts_as_unwanted(tmp_path: Path) -> None:
    truth = Truth("m", "monologue", ("m.mp4",), "rejected", (), 9.0, (), "murmurs")
    truth.write(tmp_path)
    [again] = read_truths(tmp_path)
    assert again == truth
    clip = Clip(tmp_path, again, ())
    groups = summaries([Result(clip, "ok", windows=4), Result(clip, "silent_face")])
    assert groups["monologue"]["as wanted"] == 1
    assert groups["monologue"]["outcomes"] == {"ok": 1, "silent_face": 1}


def _track(first: int, x: int) -> Track:
    box = np.tile(np.array([x - 5, 20, x + 5, 40], np.float32), (50, 1))
    ones = np.ones(50, np.float32)
    return Track(
        first=first,
        landmarks=np.zeros((50, 468, 3), np.float32),
        box=box,
        valid=np.ones(50, bool),
        confidence=ones,
        sharpness=ones,
        luminance=ones,
        portrait=np.zeros((32, 32, 3), np.uint8),
    )


def _participants(tracks: list[list[int]]) -> Binding:
    one, other = (
        BoundParticipant(
            name=str(number),
            media=0,
            speaker=number,
            segments=tuple(Segment(piece=0, track=track) for track in own),
            score=1.0,
            margin=1.0,
            figures=FIGURES,
        )
        for number, own in enumerate(tracks)
    )
    return Binding(conversation="c", participants=(one, other), turns=())


def _pictures(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def _cuts(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text()))
