"""Squares cut out of films: what stretches they are of, where they lie, and which landmarks go with them."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from visavis.stages.face.fixed_crops import (
    MOVES,
    SHORTEST,
    SMALL,
    TOO_SHORT,
    FaceClip,
    Followed,
    face_clips,
    square_around,
)
from visavis.stages.face.heads import canonical_face
from visavis.stages.face.ibug import IBUG_68
from visavis.stages.faces import box_of

WIDTH, HEIGHT = 640, 360
MIRRORED = [
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
    *(45, 44, 43, 42, 47, 46), *(39, 38, 37, 36, 41, 40),
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55), *(64, 63, 62, 61, 60, 67, 66, 65),
]  # fmt: skip
"""Point i of 68 lies where point MIRRORED[i] of a mirrored face lies."""


def face(*, size: float = 90.0, at: tuple[float, float] = (320, 180)) -> np.ndarray:
    """[478, 3]: a canonical face in a picture, `size` pixels high."""
    points_L3 = canonical_face() * [1, -1, 1]
    points_L3 = points_L3 / np.ptp(points_L3[:, 1]) * size
    points_L3[:, :2] += at - points_L3[:, :2].mean(axis=0)
    return np.concatenate([points_L3, points_L3[:10]])


def followed(
    where: list[int], begins: set[int], points: np.ndarray | None = None, *, moves_to: float | None = None
) -> Followed:
    """A face in these frames; moves_to: where it is in the last one, pixels from the left, by even steps."""
    points_L3 = (face() if points is None else points).astype(np.float32)
    points_VL3, box_V4 = (np.broadcast_to(a, (len(where), *a.shape)) for a in (points_L3, box_of(points_L3[None])[0]))
    if moves_to is not None:
        points_VL3 = points_VL3 + np.linspace([0, 0, 0], [moves_to - 320, 0, 0], len(where), dtype=np.float32)[:, None]
        box_V4 = box_of(points_VL3)
    return Followed(np.array(where), points_VL3, box_V4, np.isin(where, sorted(begins)), (WIDTH, HEIGHT))


def clips_of(seen: Followed, smallest: int = 0) -> tuple[list[FaceClip], Counter[str]]:
    left_out = Counter[str]()
    return list(face_clips(seen, smallest, left_out)), left_out


def test_the_68_points_are_those_of_a_face_and_of_its_mirror_image() -> None:
    points_P3 = canonical_face()[IBUG_68]
    assert len(set(IBUG_68.tolist())) == 68
    np.testing.assert_allclose(points_P3[MIRRORED] * [-1, 1, 1], points_P3, atol=0.02)  # cm
    assert (points_P3[36:42, 0] < 0).all()  # the eye on the left of the picture comes first
    assert points_P3[8, 1] == canonical_face()[:, 1].min()  # the chin
    for lower, upper in ((41, 37), (40, 38), (57, 51), (58, 50), (66, 62), (33, 30), (36, 17)):
        assert points_P3[lower, 1] < points_P3[upper, 1]
    steps = np.linalg.norm(np.diff(points_P3[:17], axis=0), axis=1)
    assert steps.max() < 2.2 * steps.min()  # the jaw is walked along evenly


@given(
    gaps=st.lists(st.tuples(st.integers(1, 700), st.integers(1, 3)), min_size=1, max_size=5),
    cuts=st.sets(st.integers(0, 2500), max_size=6),
)
def test_no_frame_is_lost_in_silence(gaps: list[tuple[int, int]], cuts: set[int]) -> None:
    where, n = list[int](), 7
    for length, gap in gaps:
        where += range(n, n + length)
        n += length + gap
    clips, left_out = clips_of(followed(where, cuts))
    inside = [frame for clip in clips for frame in range(clip.first, clip.last)]
    assert len(set(inside)) == len(inside)
    assert set(inside) <= set(where)
    assert inside == sorted(inside)
    for clip in clips:
        assert SHORTEST <= len(clip.points_TP2) <= 500
        assert not cuts & set(range(clip.first + 1, clip.last))
    lost = sorted(set(where) - set(inside))
    runs = sum(1 for n in lost if n - 1 not in lost or n in cuts)
    assert left_out == Counter({TOO_SHORT: runs} if runs else {})


def test_the_square_is_as_wide_as_the_field_cuts_it_and_inside_the_picture() -> None:
    box = np.array([[100, 100, 180, 200]] * 3, np.float32)
    assert square_around(box, (WIDTH, HEIGHT)) == (60, 70, 160)
    assert square_around(box - [100, 100, 100, 100], (WIDTH, HEIGHT)) == (0, 0, 160)
    assert square_around(box + [460, 160, 460, 160], (WIDTH, HEIGHT)) == (480, 200, 160)
    assert square_around(box * 4, (WIDTH, HEIGHT))[2] == HEIGHT
    once = np.concatenate([box, [[0, 0, 600, 300]]])
    assert square_around(once, (WIDTH, HEIGHT)) == square_around(box, (WIDTH, HEIGHT))  # one slip moves nothing


def test_landmarks_are_counted_from_the_corner_of_the_square() -> None:
    seen = followed(list(range(40)), set())
    ((clip,), _) = clips_of(seen)
    np.testing.assert_array_equal(
        clip.points_TP2 + np.array(clip.square[:2], np.float32), seen.points_VL3[:, IBUG_68, :2]
    )


def test_a_face_that_walks_through_the_picture_gets_several_squares() -> None:
    clips, left_out = clips_of(followed(list(range(400)), set(), moves_to=570))
    assert (len(clips), not left_out) == (4, True)
    assert [clip.first for clip in clips] == [0, 100, 200, 300]
    assert sorted({clip.square.x for clip in clips}) == [clip.square.x for clip in clips]
    for clip in clips:
        assert ((clip.points_TP2 >= 0) & (clip.points_TP2 < clip.square.side)).all()


def test_what_no_square_holds_and_what_is_small_is_counted() -> None:
    assert clips_of(followed(list(range(50)), set(), moves_to=570)) == ([], {MOVES: 1})
    beyond = face(size=500)
    assert clips_of(followed(list(range(30)), set(), beyond)) == ([], {MOVES: 1})
    assert clips_of(followed(list(range(200)), {100}), smallest=145) == ([], {SMALL: 2})
    assert clips_of(followed([], set())) == ([], {})
