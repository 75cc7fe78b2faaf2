"""Who is who: a face is known again when it turns away, and nobody is taken for somebody else."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from visavis.stages.face.heads import canonical_face
from visavis.stages.face.identity import Appearance, Scale, learned
from visavis.stages.face.reidentification import joined
from visavis.stages.face.texture import TEXELS, TURNS, Unwrapped, by_turn, unwrap

SIDE = 300


def points(yaw: float) -> np.ndarray:
    """The canonical face in a picture, turned by degrees: float64 [468, 2]."""
    turned = Rotation.from_euler("Y", yaw, degrees=True).apply(canonical_face())
    return turned[:, :2] * (11, -11) + SIDE / 2


@cache
def skin(person: int) -> np.ndarray:
    """What is painted on somebody: uint8 RGB [S, S, 3] of the flat texture."""
    rng = np.random.default_rng(person)
    spots = cv2.GaussianBlur(rng.normal(0, 90, (TEXELS, TEXELS, 3)), (0, 0), 1)
    return np.clip(130 + rng.normal(0, 15, 3) + spots, 0, 255).astype(np.uint8)


def seen(person: int, yaw: float, *, noise: int = 0) -> Appearance:
    """Somebody looked at five times at one turn, with a camera's noise."""
    facing = unwrap(np.zeros((SIDE, SIDE, 3), np.uint8), points(yaw)).seen_SS
    rng = np.random.default_rng([person, noise])
    views = [
        Unwrapped(np.clip(skin(person) + rng.normal(0, 12, (TEXELS, TEXELS, 3)), 0, 255).astype(np.uint8), facing)
        for _ in range(5)
    ]
    return Appearance.of([by_turn(views, np.full(5, yaw))])


def test_a_texture_does_not_move_when_the_head_does() -> None:
    painted = np.zeros((SIDE, SIDE, 3), np.uint8)
    here = points(0)[50]  # a cheek
    cv2.circle(painted, (round(here[0]), round(here[1])), 12, (255, 255, 255), -1)
    turned = np.zeros((SIDE, SIDE, 3), np.uint8)
    there = points(25)[50]
    cv2.circle(turned, (round(there[0]), round(there[1])), 12, (255, 255, 255), -1)
    one, other = (unwrap(p, points(yaw)).rgb_SS3.astype(float)[..., 0] for p, yaw in ((painted, 0), (turned, 25)))
    middle = [np.array(np.nonzero(flat > 128)).mean(axis=1) for flat in (one, other)]
    assert np.linalg.norm(middle[0] - middle[1]) < 1.5


def test_what_turns_away_is_not_seen() -> None:
    away = unwrap(np.zeros((SIDE, SIDE, 3), np.uint8), points(60)).seen_SS.astype(float)
    left, right = away[:, : TEXELS // 2].sum(), away[:, TEXELS // 2 :].sum()
    assert min(left, right) < 0.3 * max(left, right)
    outside = unwrap(np.zeros((SIDE, SIDE, 3), np.uint8), points(0) + (SIDE / 2, 0)).seen_SS
    assert outside[:, TEXELS // 2 + 1 :].max() == 0


@pytest.mark.parametrize("yaw", [0.0, 20.0, 40.0])
def test_a_face_that_turns_is_the_same_and_another_is_not(yaw: float) -> None:
    scale = learned()
    for person in range(4):
        assert scale.same(seen(person, 0), seen(person, yaw, noise=1)) > np.log(9)
        assert scale.same(seen(person, 0), seen(person + 1, yaw)) < 0


def test_without_a_common_view_nothing_is_said() -> None:
    nothing = Appearance.of([by_turn([], np.zeros(0))])
    assert learned().same(seen(0, 0), nothing) == 0
    halves = [np.arange(TEXELS) < TEXELS // 2, np.arange(TEXELS) >= TEXELS // 2]
    left, right = (Appearance.of([by_turn([Unwrapped(skin(0), np.tile(255 * half, (TEXELS, 1)).astype(np.uint8))],
                                          np.zeros(1))]) for half in halves)  # fmt: skip
    assert learned().same(left, right) == 0


def test_a_recording_in_which_all_look_alike_moves_the_scale() -> None:
    people = [Appearance.sum([seen(p, yaw) for yaw in TURNS[1:4]]) for p in range(2)]
    alike = [seen(0, 0), Appearance.sum([seen(0, 0, noise=1), seen(1, 0)])]  # a sister
    assert learned().same(*alike) > 0
    scale = learned().adapted([*people, *alike], [(0, 1), (2, 3)])  # they are seen together
    assert scale.same(*alike) < learned().same(*alike)
    assert (scale := learned()).adapted(people, []) is scale


def sister(share: float, noise: int) -> Appearance:
    """Somebody who is that much like person 0."""
    rng, painted = np.random.default_rng([9, noise]), share * skin(0).astype(float) + (1 - share) * skin(1)
    facing = unwrap(np.zeros((SIDE, SIDE, 3), np.uint8), points(0)).seen_SS
    noisy = np.clip(painted + rng.normal(0, 12, (5, TEXELS, TEXELS, 3)), 0, 255).astype(np.uint8)
    return Appearance.of([by_turn([Unwrapped(view, facing) for view in noisy], np.zeros(5))])


def test_where_two_are_never_seen_at_once_looking_somewhat_alike_is_not_enough() -> None:
    """Close-ups in turn: light and camera make people alike, and nothing shows how much."""
    looks = [seen(0, 0), sister(0.25, 0), seen(0, 0, noise=1), sister(0.25, 1)]
    known = learned()
    without_doubt = Scale(known.weights_F, np.zeros_like(known.spread_FF))
    assert without_doubt.same(looks[0], looks[1]) > np.log(9)
    assert joined(looks, np.ones(4), np.zeros((4, 4), bool), known) == [[0, 2], [1, 3]]


def test_two_seen_at_once_take_the_doubt_away() -> None:
    people = [Appearance.sum([seen(p, yaw) for yaw in TURNS[1:4]]) for p in range(2)]
    pair = seen(0, 0), seen(0, 20, noise=1)
    assert learned().adapted(people, [(0, 1)]).same(*pair) > learned().same(*pair)


def test_a_close_up_of_whom_nobody_knows_stays_alone() -> None:
    """Two people seen together; then one of them, and then only somebody's hair."""
    looks = [seen(0, 0), seen(1, 0), seen(1, 20, noise=1), Appearance.of([by_turn([], np.zeros(0))])]
    apart = np.zeros((4, 4), bool)
    apart[0, 1] = apart[1, 0] = True
    assert joined(looks, np.array([2.0, 2.0, 1.0, 1.0]), apart, learned()) == [[0], [1, 2], [3]]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_who_is_seen_together_is_never_one(data: st.DataObject) -> None:
    people = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=7))
    looks = [seen(person, 20.0 * (n % 3 - 1), noise=n) for n, person in enumerate(people)]
    pairs = data.draw(st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=6))
    apart = np.zeros((len(people), len(people)), bool)
    for a, b in pairs:
        if a != b and max(a, b) < len(people):
            apart[a, b] = apart[b, a] = True
    groups = joined(looks, np.arange(len(people)) + 1.0, apart, learned())
    assert sorted(face for group in groups for face in group) == list(range(len(people)))
    assert not any(apart[a, b] for group in groups for a in group for b in group)
    if not apart.any():
        assert sorted(sorted(g) for g in groups) == sorted(
            [n for n, p in enumerate(people) if p == person] for person in set(people)
        )
