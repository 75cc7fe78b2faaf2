"""Jump cuts: what is left out is noticed, what people do is not taken for it."""

from __future__ import annotations

import numpy as np
import pytest

from tests.stages.test_bind import track
from tests.stages.tracks import track_of
from visavis.schemas.face_rows import Track
from visavis.stages.face.jump_cuts import jumps_of, picture_change

FRAMES = 200


def left_out(face: Track, at: int, count: int) -> Track:
    kept = np.r_[0:at, at + count : len(face.landmarks)]
    return track_of(face.landmarks[kept], looks=5)


def changes(faces: list[Track], *, noise: float = 0.3) -> np.ndarray:
    """As if nothing but the faces changed the picture."""
    moved = [np.linalg.norm(np.diff(f.landmarks[..., :2], axis=0), axis=2).mean(axis=1) for f in faces]
    rng = np.random.default_rng(0)
    return np.concatenate([[0.0], np.sum(moved, axis=0)]) + noise * rng.random(len(faces[0].landmarks))


def sway(seed: int, x: float) -> Track:
    """A head that moves about slowly: float32 [T, 478, 3]."""
    still = track(seed, x).landmarks[:1]
    path = 12 * np.sin(np.arange(FRAMES) / 9 + seed)[:, None] * np.array([1.0, 0.4, 0.0])
    return track_of((still + path[:, None]).astype(np.float32), looks=5)


@pytest.mark.parametrize("at", [60, 100])
def test_a_jump_is_found_where_it_is(at: int) -> None:
    faces = [left_out(sway(n, x), at, 25) for n, x in enumerate((200, 800))]
    assert jumps_of(changes(faces), faces, 0) == [at]


def test_people_who_move_make_no_jump() -> None:
    faces = [sway(n, x) for n, x in enumerate((200, 800))]
    assert jumps_of(changes(faces), faces, 0) == []


def test_a_picture_that_changes_where_nobody_moves_is_no_jump() -> None:
    """A slide on a wall; a key frame that is coded better than the one before."""
    faces, picture = [sway(0, 200)], changes([sway(0, 200)])
    picture[90] += 20 * picture.max()
    assert jumps_of(picture, faces, 0) == []


def test_a_tracker_that_slips_is_no_jump() -> None:
    points = sway(0, 200).landmarks.copy()
    points[90:, :, 0] += 60
    assert jumps_of(changes([sway(0, 200)]), [track_of(points, looks=5)], 0) == []


def test_pictures_that_are_held_make_no_jumps() -> None:
    """12 pictures a second in 25: every other frame stands still."""
    held = track_of(sway(0, 200).landmarks[np.arange(FRAMES) // 2 * 2], looks=5)
    assert jumps_of(changes([held], noise=0), [held], 0) == []


def test_a_change_of_picture_is_in_grey_levels() -> None:
    black, grey = (np.full((72, 128, 3), level, np.uint8) for level in (0, 40))
    assert picture_change(grey, black) == pytest.approx(40)
    assert picture_change(grey, None) == 0
