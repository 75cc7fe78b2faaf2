"""Which films show the same: found whatever was done to the pictures, and two of one room are not each other."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benchmarks.films import FILM_COPIES, Room, coarse_film, encoded, pictures_of
from tests.stages.test_duplicates import told
from visavis.pipeline.demo.dialogue import write_video
from visavis.schemas.config import FacesConfig
from visavis.schemas.face_rows import FaceTracks, Piece
from visavis.schemas.print_rows import Filmprint
from visavis.stages.duplicates.landmarks import Landmarks
from visavis.stages.duplicates.pictures import picture_landmarks
from visavis.stages.faces import FacesStage
from visavis.stages.filmprint import FilmprintInput, FilmprintStage
from visavis.stages.media.coarse import STROKES

SECONDS = 14.0


@pytest.fixture(scope="module")
def films() -> list[list[np.ndarray]]:
    room = Room(SECONDS)
    return [list(room.film(0, number)) for number in range(3)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in FILM_COPIES if kind != "everything"])  # of that there is too little
def test_a_copy_is_found_among_films_of_the_same_room(films: list[list[np.ndarray]], kind: str) -> None:
    copy = encoded(*FILM_COPIES[kind](films[1], np.random.default_rng(0)))
    (found,) = told([picture_landmarks(coarse_film(film)) for film in [*films, copy]])
    assert {found.number, found.kept} == {1, 3}
    assert found.alignment.speed == pytest.approx(1.01 if kind == "faster" else 1.0, abs=0.004)


@pytest.mark.slow
def test_real_clips_are_found_again_and_are_not_each_other(shared_media: Path) -> None:
    clips = [pictures_of(shared_media / f"conversation/{name}.mp4", 16) for name in ("pair_user", "pair_avatar")]
    copies = [encoded(*FILM_COPIES["cropped"](clip, np.random.default_rng(1))) for clip in clips]
    found = told([picture_landmarks(coarse_film(film)) for film in [*clips, *copies]])
    assert [{each.number, each.kept} for each in found] == [{0, 2}, {1, 3}]


def strokes(seed: int, frames: int) -> np.ndarray:
    """Strokes that wander slowly: float16 [T, K], grey levels."""
    steps = np.random.default_rng(seed).normal(size=(frames + 24, STROKES)).cumsum(axis=0)
    return np.stack([np.convolve(step, np.ones(25) / 25, "valid") for step in steps.T], axis=1).astype(np.float16)


def test_what_stands_still_says_nothing() -> None:
    noise = 0.05 * np.random.default_rng(0).standard_normal((500, STROKES)).astype(np.float16)
    assert not len(picture_landmarks(noise).hash_M)
    for frames in (0, 1, 10, 11):
        assert not len(picture_landmarks(np.zeros((frames, STROKES), np.float16)).hash_M)


def test_a_film_that_goes_back_and_forth_between_two_cameras_has_nothing_of_its_cuts() -> None:
    cuts = list(range(40, 500, 40))
    views = np.repeat([n % 2 for n in range(13)], 40)[:500, None] * np.linspace(3, 30, STROKES)
    assert not len(picture_landmarks(views.astype(np.float16), cuts).hash_M)
    assert len(picture_landmarks(views.astype(np.float16)).hash_M)


def test_a_stage_joins_pieces_in_any_order_and_both_peoples_films() -> None:
    first, second = strokes(1, 600), strokes(2, 600)
    spans = [(0, first, 0, 350), (1, second, 0, 600), (0, first, 350, 600)]
    pieces = [tracked(media, first_of, film[first_of:last]) for media, film, first_of, last in spans]
    whole = [picture_landmarks(film) for film in (first, second)]
    for order in (pieces, pieces[::-1]):
        (row,) = FilmprintStage().process(FilmprintInput(faces=order))
        made = Landmarks.checked(row.hashes, row.frames)
        assert row.pictures == 1200
        assert sorted(zip(*made, strict=True)) == sorted(each for one in whole for each in zip(*one, strict=True))
    (row,) = FilmprintStage().process(FilmprintInput(faces=[tracked(0, 0, None)]))
    assert (len(row.hashes), row.pictures) == (0, 0)


class Nobody:
    """A tracker that sees no face."""

    blendshapes: np.ndarray | None = None

    def landmarks(self, rgb_HW3: np.ndarray, *, new_shot: bool) -> np.ndarray:
        return np.zeros((0, 478, 3), np.float32)


@pytest.mark.slow
def test_pictures_are_drawn_while_faces_are_looked_for_and_a_film_in_pieces_is_the_film(tmp_path: Path) -> None:
    """From the file on: what a build finds in a film and in a copy of it that begins a second later."""
    film = list(Room(10.0).film(0, 0))
    rows = list[Filmprint]()
    for name, shown, edges in (("film", film, (0, 90, 250)), ("copy", film[25:], (0, 225))):
        write_video(path := tmp_path / f"{name}.mp4", iter(shown), np.zeros(len(shown) * 640, np.float32))
        faces = FacesStage(FacesConfig(), Nobody())
        pieces = [
            Piece(conversation=name, media=0, uri=str(path), first=first, last=last) for first, last in pairwise(edges)
        ]
        rows += FilmprintStage().process(FilmprintInput(faces=[row for p in pieces for row in faces.process(p)]))
    (found,) = told([Landmarks.checked(row.hashes, row.frames) for row in rows])
    assert (found.number, found.kept) == (1, 0)
    assert found.alignment.offset == pytest.approx(1.0, abs=0.1)
    assert [row.pictures for row in rows] == [250, 225]


def tracked(media: int, first: int, coarse_TK: np.ndarray | None) -> FaceTracks:
    last = first + (10 if coarse_TK is None else len(coarse_TK))
    piece = Piece(conversation="c000001", media=media, uri="", first=first, last=last)
    return FaceTracks(piece=piece, width=640, height=360, cuts=(), tracks=(), coarse=coarse_TK)
