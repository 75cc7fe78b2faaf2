"""The renderer of motion: a portrait that moves as the motion says, and a mesh where there is none."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.view.faces import IRIS, codec, motion, neutral_face, portrait
from visavis.pipeline.view.avatar import WHITE, Avatar
from visavis.pipeline.view.mesh import LIPS_INNER_BOTTOM
from visavis.pipeline.view.puppet import Puppet, face_json, model_json, puppet_json
from visavis.schemas.dyads import Codec
from visavis.stages.face.codec import decode_motion

SIZE = 512
PORTRAIT = portrait()
CARRYING, BARE = Puppet.carrying(codec(), PORTRAIT), Puppet.of(codec(), neutral_face())
AVATAR, MESH = Avatar(CARRYING), Avatar(BARE)


def drawn(avatar: Avatar = AVATAR, size: int = SIZE, **values: float) -> np.ndarray:
    return avatar.draw(avatar.puppet.points(motion(**values))[0], size)


def place(landmark: int, **values: float) -> tuple[int, int]:
    """Where the portrait's landmark is in a picture, x and y in pixels."""
    points_L3 = CARRYING.points(motion(**values))[0]
    x, y = PORTRAIT.origin_2 + points_L3[landmark, :2] * (PORTRAIT.unit, -PORTRAIT.unit)
    return round(float(x)), round(float(y))


def blue(picture: np.ndarray) -> int:
    """How many pixels have the iris' colour."""
    return int((np.abs(picture.astype(int) - IRIS).max(axis=2) < 40).sum())


def test_motion_without_a_portrait_is_what_the_codec_decodes() -> None:
    wild_TD = np.random.default_rng(0).normal(0, 0.4, (5, 9)).astype(np.float32)
    assert np.allclose(BARE.points(wild_TD), decode_motion(codec(), wild_TD, neutral_face()), atol=1e-5)


def test_a_face_at_rest_is_the_portrait_itself() -> None:
    assert np.abs(drawn().astype(int) - PORTRAIT.picture_SS3).mean() < 0.5


def test_the_motion_that_a_picture_shows_gives_the_picture_back() -> None:
    """A frame of somebody who smiles with the head turned, whoever moves it then."""
    shown_D = motion(yaw=0.3, pitch=-0.1, x=0.2, open=0.4, smile=1)[0]
    mine = Puppet.carrying(codec(), type(PORTRAIT)(**{**vars(PORTRAIT), "motion_D": shown_D}))
    again = Avatar(mine).draw(mine.points(shown_D[None])[0], SIZE)
    assert np.abs(again.astype(int) - PORTRAIT.picture_SS3).mean() < 0.5


@pytest.mark.parametrize(("name", "much", "axis"), [("yaw", 0.3, 0), ("pitch", 0.2, 1), ("x", 0.2, 0), ("y", -0.2, 1)])
def test_the_nose_goes_where_motion_says(name: str, much: float, axis: int) -> None:
    """To the right or down in the picture; the red tip of the nose is seen where its landmark is."""
    (x, y), rest = place(4, **{name: much}), place(4)
    assert (x, y)[axis] > rest[axis] + 10
    tip = drawn(**{name: much})[y - 1 : y + 2, x - 1 : x + 2].mean(axis=(0, 1))
    assert np.abs(tip - (120, 40, 40)).max() < 60


def test_lips_that_open_show_the_inside_of_a_mouth() -> None:
    upper, lower = place(13, open=1.5), place(14, open=1.5)
    column = drawn(open=1.5)[upper[1] + 2 : lower[1] - 1, upper[0]].astype(int)
    assert len(column) > 12
    assert column.sum(axis=1).min() < 200  # a shadow
    assert column[: len(column) // 2].sum(axis=1).max() > 300  # and teeth, below the upper lip


def test_lips_that_are_open_in_the_picture_show_what_is_behind_them_there() -> None:
    points_L3 = PORTRAIT.points_L3.copy()
    points_L3[list(LIPS_INNER_BOTTOM[1:-1]), 1] += 20
    picture = PORTRAIT.picture_SS3.copy()
    (x, top), bottom = np.rint(points_L3[13, :2]).astype(int), round(float(points_L3[14, 1]))
    picture[top:bottom, x - 20 : x + 20] = (10, 200, 10)
    puppet = Puppet.carrying(codec(), PORTRAIT.of(picture, points_L3))
    shown = Avatar(puppet).draw(puppet.points(motion(open=0.8))[0], SIZE)
    assert ((shown[..., 1] > 150) & (shown[..., 0] < 60)).sum() > 500


def test_lids_that_close_cover_the_irises() -> None:
    assert blue(drawn()) > 60
    assert blue(drawn(blink=1)) < 0.15 * blue(drawn())


def test_what_is_far_from_the_face_stays() -> None:
    moved = drawn(yaw=0.4, x=0.2, open=1)
    for corner in (np.s_[:16, :16], np.s_[:16, -16:], np.s_[-16:, :16], np.s_[-16:, -16:]):
        assert np.array_equal(moved[corner], PORTRAIT.picture_SS3[corner])


def test_nothing_of_the_wall_is_seen_through_a_face_that_turns() -> None:
    """No holes: inside the border of the face, every pixel is of the face."""
    turned = drawn(yaw=0.5, pitch=0.2, roll=0.3).astype(int)
    for landmark in (50, 280, 151, 199, 205, 425, 6):
        x, y = place(landmark, yaw=0.5, pitch=0.2, roll=0.3)
        assert turned[y, x, 0] > turned[y, x, 2]  # skin is redder than the wall


@pytest.mark.parametrize("size", [1, 7, 63, 200, 511, 513])
@pytest.mark.parametrize("avatar", [AVATAR, MESH], ids=["portrait", "mesh"])
def test_any_size_is_drawn(avatar: Avatar, size: int) -> None:
    assert drawn(avatar, size, yaw=0.3, open=1).shape == (size, size, 3)


def test_a_smaller_picture_is_the_large_one_made_smaller() -> None:
    small = drawn(size=128, yaw=0.3, open=1).astype(int)
    large = drawn(yaw=0.3, open=1).reshape(128, 4, 128, 4, 3).mean(axis=(1, 3))
    assert np.abs(small - large).mean() < 4


@settings(max_examples=25)
@given(st.lists(st.floats(-1e9, 1e9), min_size=9, max_size=9))
@pytest.mark.slow
def test_wild_motion_is_drawn_and_each_time_the_same(values: list[float]) -> None:
    for avatar in (AVATAR, MESH):
        points_TL3 = avatar.puppet.points(np.array([values]))
        assert np.isfinite(points_TL3).all()
        first, again = avatar.draw(points_TL3[0], 96), avatar.draw(points_TL3[0], 96)
        assert np.array_equal(first, again)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        CARRYING.points(motion(open=value))
    with pytest.raises(ValueError, match="finite"):
        MESH.draw(np.full((478, 3), value), 64)


def test_motion_of_another_codec_is_refused() -> None:
    with pytest.raises(ValueError, match="9"):
        BARE.points(np.zeros((2, 32)))


def test_a_mesh_shows_a_mouth_that_opens_and_lids_that_close() -> None:
    rest, opened, shut = drawn(MESH), drawn(MESH, open=1.5), drawn(MESH, blink=1)
    dark = [int((picture.sum(axis=2) < 200).sum()) for picture in (rest, opened, shut)]
    white = [int((picture[180:250].min(axis=2) == 250).sum()) for picture in (rest, shut)]
    assert dark[1] > 1.3 * dark[0]
    assert white[1] < 0.3 * white[0]
    assert tuple(rest[0, 0]) == WHITE


def test_a_puppet_for_a_page_is_small_and_decodes_nearly_the_same() -> None:
    """26 numbers of expression, as at the defaults, in at most 80 kB; off by less than half a pixel of 512."""
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.normal(size=(1434, 26)))[0].T.astype(np.float32)
    wide = Codec(**{**codec().model_dump(), "basis": np.ascontiguousarray(basis)})
    puppet = Puppet.of(wide, neutral_face())
    assert len(json.dumps(puppet_json(puppet))) <= 80_000
    packed = model_json(puppet)["basis"]
    numbers = np.frombuffer(base64.b64decode(packed["data"]), np.int8).reshape(26, -1)
    back = numbers * np.array(packed["steps"])[:, None]
    code = rng.normal(0, 3, (100, 26))  # cm over all landmarks: a face that is very lively
    off_cm = np.abs(code @ (back - basis)).max()
    assert off_cm / 15.5 * 0.6 * 512 < 0.5  # pixels
    assert face_json(puppet)["portrait"] is None
