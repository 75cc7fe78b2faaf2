"""Shots: what cuts, dissolves and the camera do to a picture is not taken for what a head does."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stages.test_motion import expressions, filmed
from visavis.schemas.face_rows import FaceTracks, Piece
from visavis.schemas.windows_config import WindowsConfig
from visavis.stages.face.camera import CameraPath, Filmed
from visavis.stages.face.heads import Heads
from visavis.stages.media.dissolves import DissolveDetector
from visavis.stages.motion import _lasting
from visavis.stages.windows import starts

WIDTH, HEIGHT = 640, 360
FRAMES = 100
NOBODY = np.zeros((0, 4))
Path_ = Callable[[float], tuple[float, complex]]


def scenery(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3)).astype(np.uint8)
    return cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def seen_by(camera: tuple[float, complex], picture: np.ndarray) -> np.ndarray:
    zoom, shift = camera
    return cv2.warpAffine(
        picture,
        np.array([[zoom, 0, shift.real], [0, zoom, shift.imag]]),
        (WIDTH, HEIGHT),
        borderMode=cv2.BORDER_REFLECT,
    )


def zoomed(t: float) -> tuple[float, complex]:
    return 1 + 0.3 * t, -0.15 * t * complex(WIDTH, HEIGHT)


def slowly(t: float) -> tuple[float, complex]:
    return 1 + 0.03 * t, 0j


def panned(t: float) -> tuple[float, complex]:
    return 1.0, 60 * t + 0j


def still(t: float) -> tuple[float, complex]:
    return 1.0, 0j


def path_of(
    camera: Path_, boxes: np.ndarray = NOBODY, over: Callable[[int, np.ndarray], None] | None = None
) -> np.ndarray:
    path = CameraPath()
    for n in range(FRAMES + 1):
        picture = seen_by(camera(n / FRAMES), scenery())
        if over:
            over(n, picture)
        path.add(n, picture, boxes, new_shot=n == 0, last=n == FRAMES)
    return path.path(0, FRAMES, WIDTH)


def row_of(path_T4: np.ndarray, first: int = 0, cuts: tuple[int, ...] = ()) -> FaceTracks:
    piece = Piece(conversation="c", media=0, uri="", first=first, last=first + len(path_T4) - 1)
    return FaceTracks(piece=piece, width=WIDTH, height=HEIGHT, cuts=cuts, tracks=(), camera=path_T4)


@pytest.mark.parametrize("camera", [zoomed, slowly, panned, still])
def test_the_camera_is_seen_to_zoom_and_pan(camera: Path_) -> None:
    turn_T, shift_T = path_of(camera).astype(np.float64).view(np.complex128).T
    zoom_T, true_shift_T = (np.array(x) for x in zip(*(camera(n / FRAMES) for n in range(FRAMES + 1)), strict=True))
    assert np.abs(turn_T - zoom_T).max() < 0.003
    assert np.abs(shift_T - true_shift_T).max() < 1.5


def test_who_comes_near_is_no_zoom() -> None:
    """A person grows by half, who fills a third of the picture, before a wall that stands still."""
    person = scenery(1)
    box = np.array([[0.42, 0.2, 0.58, 0.5]])

    def grows(n: int, picture: np.ndarray) -> None:
        side = int(220 * (1 + 0.5 * n / FRAMES))
        x0, y0 = WIDTH // 2 - side // 3, 40
        part = cv2.resize(person[:200, :200], (2 * side // 3, HEIGHT - y0))
        picture[y0:, x0 : x0 + 2 * side // 3] = part

    filmed_ = Filmed.of(FRAMES)
    filmed_.add(row_of(path_of(still, box, grows)))
    np.testing.assert_array_equal(filmed_.path(WIDTH, HEIGHT), np.tile([1, 0], (FRAMES, 1)))


def test_the_camera_goes_on_from_piece_to_piece() -> None:
    whole_T4 = path_of(zoomed)
    parts = []
    for first, last in ((0, 50), (50, FRAMES)):
        path = CameraPath()
        for n in range(first, last + 1):
            path.add(n, seen_by(zoomed(n / FRAMES), scenery()), NOBODY, new_shot=n == first, last=n == last)
        parts.append(row_of(path.path(first, last, WIDTH), first))
    filmed_ = Filmed.of(FRAMES)
    for part in parts:
        filmed_.add(part)
    assert filmed_.cuts == []
    expected_T2 = whole_T4[:-1].astype(np.float64).view(np.complex128)
    np.testing.assert_allclose(filmed_.path(WIDTH, HEIGHT), expected_T2, atol=1.5)


def test_a_piece_in_which_nobody_looked_ends_a_shot() -> None:
    filmed_ = Filmed.of(300)
    still_T4 = np.tile(np.array([1, 0, 0, 0], np.float32), (101, 1))
    filmed_.add(row_of(still_T4, 0))
    filmed_.add(row_of(still_T4, 200, cuts=(250,)))
    assert filmed_.cuts == [100, 200, 250]


def test_a_head_before_a_camera_that_zooms_keeps_its_place() -> None:
    rotation = np.zeros((FRAMES, 3))
    landmarks = filmed(expressions(FRAMES), rotation)
    camera_T2 = np.array([zoomed(n / FRAMES) for n in range(FRAMES)], np.complex128)
    zoom_T1, shift_T1 = camera_T2[:, :1], camera_T2[:, 1:]
    seen = zoom_T1 * (landmarks[..., 0] + 1j * landmarks[..., 1]) + shift_T1
    shown = np.stack([seen.real, seen.imag, zoom_T1.real * landmarks[..., 2]], axis=-1).astype(np.float32)
    assert np.ptp(Heads.of(shown).pose()[:, 3:], axis=0).max() > 0.2
    steady = Heads.of(shown).steadied(camera_T2)
    np.testing.assert_allclose(steady.pose(), Heads.of(landmarks).pose(), atol=1e-3)


def test_a_camera_that_is_turned_is_not_a_head_that_is_bent() -> None:
    landmarks = filmed(expressions(20), np.tile([0.1, 0.2, 0.0], (20, 1)))
    turn = np.exp(0.2j)
    seen = turn * (landmarks[..., 0] + 1j * landmarks[..., 1]) + (30 - 5j)
    shown = np.stack([seen.real, seen.imag, landmarks[..., 2]], axis=-1).astype(np.float32)
    steady = Heads.of(shown).steadied(np.tile([turn, 30 - 5j], (20, 1)))
    np.testing.assert_allclose(steady.pose(), Heads.of(landmarks).pose(), atol=1e-3)


def heads_of_shots(scale: float, shift: float) -> tuple[Heads, np.ndarray]:
    """Two shots of one head that nods, the second one larger and elsewhere."""
    rotation = np.zeros((FRAMES, 3))
    rotation[:, 0] = 0.1 * np.sin(np.arange(FRAMES) / 5)
    landmarks = filmed(expressions(FRAMES), rotation)
    landmarks[50:] = (landmarks[50:] * scale + np.array([shift, 0, 0])).astype(np.float32)
    return Heads.of(landmarks), (np.arange(FRAMES) >= 50).astype(np.int64)


def test_place_and_size_are_those_in_the_shot() -> None:
    heads, shot_V = heads_of_shots(1.6, -200)
    as_one, apart = heads.pose()[:, 3:], heads.pose(shot_V)[:, 3:]
    assert np.abs(as_one[:50].mean(0) - as_one[50:].mean(0)).max() > 0.4
    assert np.abs(apart[:50].mean(0) - apart[50:].mean(0)).max() < 0.01
    assert np.abs(apart[50] - apart[49]).max() < 0.02


def test_a_cut_that_leaves_the_head_where_it_was_is_no_shot_of_its() -> None:
    where_V = np.arange(FRAMES)
    same, shot_V = heads_of_shots(1.0, 0)
    assert len(np.unique(_lasting(shot_V, where_V, same))) == 1
    other, _ = heads_of_shots(1.6, -200)
    assert len(np.unique(_lasting(shot_V, where_V, other))) == 2


@settings(max_examples=200)
@given(
    frames=st.integers(1, 600),
    cuts=st.lists(st.integers(1, 599), max_size=12),
    length=st.integers(10, 80),
    hop=st.integers(1, 40),
)
def test_no_window_crosses_a_cut(frames: int, cuts: list[int], length: int, hop: int) -> None:
    cuts = sorted({cut for cut in cuts if cut < frames})
    found = list(starts(frames, cuts, WindowsConfig(length=length, hop=hop)))
    assert len(found) == len(set(found))
    for first in found:
        assert 0 <= first <= frames - length
        assert not any(first < cut < first + length for cut in cuts)
    for begin, end in zip([0, *cuts], [*cuts, frames], strict=True):
        assert (begin in found) == (end - begin >= length)  # a shot that is long enough is used, from its beginning


def gone_over(n: int, first: int, length: int) -> np.ndarray:
    share = np.clip((n - first) / length, 0, 1)
    return np.uint8(np.rint((1 - share) * scenery(0) + share * scenery(1)))


def spans_of(picture: Callable[[int], np.ndarray]) -> list[tuple[int, int]]:
    detector = DissolveDetector()
    for n in range(FRAMES):
        detector.add(n, picture(n), new_shot=n == 0)
    return detector.spans()


@pytest.mark.parametrize("length", [14, 25, 45])
def test_a_dissolve_is_found_wherever_it_lies(length: int) -> None:
    [(first, last)] = spans_of(lambda n: gone_over(n, 30, length))
    assert first <= 30 + 5
    assert last >= 30 + length - 5
    assert last - first <= length + 2 * 24


def test_a_fade_to_black_is_one() -> None:
    assert len(spans_of(lambda n: np.uint8(scenery() * np.clip((60 - n) / 25, 0, 1)))) == 1


@pytest.mark.parametrize("camera", [zoomed, panned, still])
def test_a_camera_that_moves_dissolves_nothing(camera: Path_) -> None:
    assert spans_of(lambda n: seen_by(camera(n / FRAMES), scenery())) == []


def test_a_lamp_that_is_dimmed_up_dissolves_nothing() -> None:
    assert spans_of(lambda n: np.uint8(scenery() * (0.6 + 0.4 * n / FRAMES))) == []


def test_a_cut_is_no_dissolve() -> None:
    assert spans_of(lambda n: scenery(n // 50)) == []
