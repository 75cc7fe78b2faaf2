"""Which recordings hold the same sound: found whatever was done to it, and nothing else is."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from benchmarks.copies import COPIES, Tracks, mix
from tests.stages.test_ingest import write_clip
from visavis.schemas import SAMPLE_RATE
from visavis.schemas.config import IngestConfig
from visavis.schemas.rows import Source
from visavis.stages.duplicates import matches as matches_module
from visavis.stages.duplicates.alignment import LEAST_VOTES, align
from visavis.stages.duplicates.landmarks import Landmarks, landmarks
from visavis.stages.duplicates.matches import Matches
from visavis.stages.duplicates.verdict import Duplicate, Prints, near_duplicates
from visavis.stages.ingest import IngestStage
from visavis.stages.media.audio import read_audio
from visavis.stages.soundprint import SoundprintStage

SECONDS = 20


def voice(seed: int, seconds: float = SECONDS) -> np.ndarray:
    """Noise under two resonances that change with each syllable, with pauses: float32 [N]."""
    random = np.random.default_rng([seed, 4])
    syllables, size = [], round(seconds * SAMPLE_RATE)
    while sum(map(len, syllables)) < size:
        sound = random.standard_normal(int(random.uniform(0.1, 0.4) * SAMPLE_RATE))
        for hertz in random.uniform([300, 900], [900, 3000]):
            sound = lfilter([1], [1, -2 * 0.98 * np.cos(2 * np.pi * hertz / SAMPLE_RATE), 0.98**2], sound)
        syllables += [0.1 * sound / sound.std(), np.zeros(int(random.uniform(0, 0.3) * SAMPLE_RATE))]
    whole = np.concatenate(syllables)[:size] + 1e-4 * random.standard_normal(size)
    return np.asarray(whole, np.float32)


def pair(seed: int) -> Tracks:
    return voice(2 * seed), voice(2 * seed + 1)


def told(found: list[Landmarks], seconds: list[float] | None = None) -> list[Duplicate]:
    matches = Matches()
    for number, each in enumerate(found):
        matches.add(number, each)
    duplicates = near_duplicates([Prints("the sound", matches, seconds or [each.seconds for each in found])])
    matches.close()
    return duplicates


def made(number: int, count: int = 300) -> Landmarks:
    random = np.random.default_rng(number)
    return Landmarks(
        random.integers(0, 1 << 32, count).astype(np.uint32), np.sort(random.integers(0, 3000, count)).astype(np.int32)
    )


def part(whole: Landmarks, first: float, last: float, speed: float = 1.0) -> Landmarks:
    """Of a recording, seconds of it, faster."""
    there = (whole.frame_M >= 50 * first) & (whole.frame_M < 50 * last)
    return Landmarks(whole.hash_M[there], np.round((whole.frame_M[there] - 50 * first) / speed).astype(np.int32))


@pytest.mark.slow
@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_found_among_others_whatever_was_done_to_it(kind: str) -> None:
    talks = [pair(seed) for seed in range(4)]
    copy = COPIES[kind](talks[1], talks[0], np.random.default_rng(0))
    (found,) = told([landmarks(mix(tracks)) for tracks in [*talks, copy]])
    assert {found.number, found.kept} == {1, 4}
    assert found.alignment.speed == pytest.approx(1.01 if kind == "faster" else 1.0, abs=0.003)


def test_where_and_how_fast_a_copy_lies_in_the_other_is_told() -> None:
    whole = made(0)
    (found,) = told([whole, part(whole, 20, 50, speed=1.012), made(1)])
    assert (found.number, found.kept) == (1, 0)
    assert found.alignment.offset == pytest.approx(20, abs=0.05)
    assert found.alignment.speed == pytest.approx(1.012, abs=0.001)
    assert found.alignment.overlap == pytest.approx(30, abs=1.5)
    assert "of a.mp4, from 20.0 s on" in found.told("a.mp4")
    assert "1.012 times" in found.told("a.mp4")


@given(st.integers(0, 1 << 30), st.floats(-300, 300), st.floats(0.977, 1.023), st.integers(0, 40))
@settings(max_examples=40)
def test_a_line_is_found_among_landmarks_that_are_equal_by_chance(
    seed: int, offset: float, speed: float, chance: int
) -> None:
    random = np.random.default_rng(seed)
    right = random.integers(0, 3000, 60)
    by_chance = random.integers(0, 3000, (2, chance))
    one = np.concatenate([np.round(50 * offset + speed * right), by_chance[0]]).astype(np.int32)
    found = align(one, np.concatenate([right, by_chance[1]]).astype(np.int32))
    assert found
    assert found.speed == pytest.approx(speed, abs=0.002)
    assert found.offset + 30 * found.speed == pytest.approx(offset + 30 * speed, abs=0.05)


@given(st.integers(0, 1 << 30))
@settings(max_examples=40)
def test_chance_makes_no_line(seed: int) -> None:
    one, other = np.random.default_rng(seed).integers(0, 15_000, (2, 3 * LEAST_VOTES)).astype(np.int32)
    assert align(one, other) is None


@given(st.randoms())
@settings(max_examples=15, deadline=None)
def test_the_same_is_told_whatever_order_and_pieces_they_come_in(random: Random) -> None:
    whole = [made(0), made(1), part(made(0), 5, 55), part(made(1), 10, 60), made(2)]
    pieces = [(n, part_of) for n, each in enumerate(whole) for part_of in halves(each)]
    random.shuffle(pieces)
    matches = Matches()
    for number, piece in [*pieces, *pieces[:3]]:  # pieces that overlap tell the same twice
        matches.add(number, piece)
    again = near_duplicates([Prints("the sound", matches, [each.seconds for each in whole])])
    matches.close()
    assert again == told(whole)
    assert [(each.number, each.kept) for each in again] == [(2, 0), (3, 1)]


def test_parts_that_are_too_large_are_parted_once_more_and_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [made(n, 3000) for n in range(4)]
    found = [*whole, *[part(each, 5, 50, speed=1.01) for each in whole]]
    at_once = told(found)
    monkeypatch.setattr(matches_module, "_LARGE", 20)
    monkeypatch.setattr(matches_module, "_BUFFER", 1000)
    assert told(found) == at_once
    assert [(each.number, each.kept) for each in at_once] == [(4, 0), (5, 1), (6, 2), (7, 3)]


def halves(whole: Landmarks) -> list[Landmarks]:
    return [Landmarks(whole.hash_M[each], whole.frame_M[each]) for each in (slice(0, 150), slice(150, None))]


def test_the_longer_one_stays_and_of_equal_ones_the_first() -> None:
    whole = made(0)
    short_first = told([part(whole, 10, 40), whole, made(1), whole])
    assert [(each.number, each.kept) for each in short_first] == [(0, 1), (3, 1)]


def test_a_shared_jingle_makes_nobody_a_duplicate() -> None:
    jingle = part(made(9, 200), 0, 20)
    shows = []
    for show in (made(1), made(2)):
        frames = np.append(jingle.frame_M, show.frame_M + 1000)
        shows.append(Landmarks(np.append(jingle.hash_M, show.hash_M), frames))
    assert told(shows) == []


def test_nobody_goes_for_the_sake_of_one_that_goes_itself() -> None:
    """Links of a chain: each has more than half of the one before it, and nothing of the one before that."""
    whole = made(0, 900)
    found = told([part(whole, 0, 36), part(whole, 16, 46), part(whole, 30, 56)])
    assert [(each.number, each.kept) for each in found] == [(1, 0)]


def test_a_film_is_told_of_pieces_and_copies_of_pieces() -> None:
    """All go for the sake of the film, and of each it is told where it lies in it."""
    whole = made(0)
    piece = part(whole, 30, 50)
    found = told([*[piece] * 30, part(piece, 1, 20), whole])
    assert {each.kept for each in found} == {31}
    assert len(found) == 31
    assert found[0].alignment.offset == pytest.approx(30, abs=0.1)
    assert found[30].alignment.offset == pytest.approx(31, abs=0.1)


def test_of_many_copies_one_stays() -> None:
    whole = made(0)
    found = told([made(1), whole, *[part(whole, n / 50, 60) for n in range(40)]])
    assert [each.number for each in found] == list(range(2, 42))
    assert {each.kept for each in found} == {1}


def test_silence_and_what_is_too_short_has_no_landmarks() -> None:
    assert not len(landmarks(np.zeros(SAMPLE_RATE, np.float32)).hash_M)
    assert not len(landmarks(np.zeros(10, np.float32)).hash_M)
    assert told([landmarks(np.zeros(SAMPLE_RATE, np.float32))] * 3) == []


@pytest.mark.nightly("real films, which are not part of a clone")
def test_real_recordings_are_found_again_and_are_not_each_other(shared_media: Path) -> None:
    """dev00 and dev01 are of the same two people."""
    names = ["diarization/dev00.wav", "diarization/dev01.wav", "conversation/interview.mp4"]
    audio = [read_audio(str(shared_media / name)) for name in names]
    assert told([landmarks(each) for each in audio]) == []
    silent, random = np.zeros(0, np.float32), np.random.default_rng(3)
    for kind in ("re-encoded", "faster"):
        copies = [mix(COPIES[kind]((each, np.zeros_like(each)), (silent, silent), random)) for each in audio]
        found = told([landmarks(each) for each in [*audio, *copies]])
        assert [abs(each.number - each.kept) for each in found] == [len(audio)] * len(audio)


@pytest.mark.slow
def test_a_conversation_has_a_soundprint_of_its_own(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4")
    (conversation,) = IngestStage(IngestConfig(min_duration=0.5)).process(Source(uris=(str(clip),)))
    (row,) = SoundprintStage().process(conversation)
    assert row.conversation == conversation.id
    assert Landmarks.checked(row.hashes, row.frames)
    with pytest.raises(ValueError, match="no landmarks"):
        Landmarks.checked(row.frames, row.frames)
