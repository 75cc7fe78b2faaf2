"""MediaPipe's 478 landmarks find their places on a head of which 105 are known, and are drawn as they move."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.stages.made_head import BROWS_UP, EXPRESSIONS, KNOWN, SMILE, made_head, true_landmarks, write_head
from visavis.pipeline.view.avatar import Avatar
from visavis.pipeline.view.mesh import IRISES
from visavis.pipeline.view.puppet import Puppet
from visavis.schemas.coefficients import groups_of
from visavis.schemas.errors import UsageError
from visavis.stages.face.flame import LEFT_EYE, RIGHT_EYE, Frames
from visavis.stages.face.flame_files import read_embedding, read_flame
from visavis.stages.face.flame_landmarks import FlameFace, nearest, placed
from visavis.stages.face.heads import canonical_face

CODEC = f"flame-exp{EXPRESSIONS}-jaw3-pose3-eyes6"
DIMS = EXPRESSIONS + 12
JAW, POSE, EYES = EXPRESSIONS, EXPRESSIONS + 3, EXPRESSIONS + 6
WIDTH = float(np.ptp(canonical_face()[:, 0]))  # cm


@pytest.fixture(scope="module")
def face(tmp_path_factory: pytest.TempPathFactory) -> FlameFace:
    return FlameFace.read(write_head(tmp_path_factory.mktemp("head")))


def motion(rows: int = 1, **values: float) -> np.ndarray:
    """Coefficients, all 0 but those that are named by their column."""
    made = np.zeros((rows, DIMS))
    for column, value in values.items():
        made[:, int(column[1:])] = value
    return made


def landmarks(face: FlameFace, motion_TD: np.ndarray) -> np.ndarray:
    """[T, 478, 3] m, as FLAME turns them: about its joints."""
    vertices_TV3 = face.model.vertices(Frames.of(motion_TD, groups_of(CODEC)))
    return np.einsum("tlkx,lk->tlx", vertices_TV3[:, face.corners_L3], face.share_L3)


def test_landmarks_lie_where_they_are_on_another_head(face: FlameFace) -> None:
    found_L3 = landmarks(face, motion())[0]
    error_L = 100 * np.linalg.norm(found_L3[:468] - true_landmarks(), axis=1)
    assert error_L[KNOWN].max() < 1e-4
    assert error_L.mean() < 0.05
    assert error_L.max() < 0.6, "of a chin that is 2 cm longer, which no landmark of the embedding tells"


def test_known_landmarks_that_are_a_millimetre_off_do_not_throw_the_border_off(tmp_path: Path) -> None:
    head, _ = read_flame(write_head(tmp_path))
    embedding = read_embedding(tmp_path / "mediapipe_landmark_embedding.npz", head)
    seen_N3 = head.template_V3[embedding.number_N] + np.random.default_rng(3).normal(size=(105, 3)) * 0.001
    corners_N3, share_N3 = nearest(head.template_V3, head.faces_F3, seen_N3)
    corners_L3, share_L3 = placed(head, replace(embedding, corners_N3=corners_N3, share_N3=share_N3))
    found_L3 = np.einsum("lkx,lk->lx", head.template_V3[corners_L3], share_L3)[:468]
    error_L = 100 * np.linalg.norm(found_L3 - true_landmarks(), axis=1)
    assert error_L.mean() < 0.12
    assert error_L.max() < 0.8


def test_irises_lie_in_front_of_eyeballs_and_turn_with_them(face: FlameFace) -> None:
    still_L3 = landmarks(face, motion())[0]
    right, left = (face.model.joints_J3[eye] for eye in (RIGHT_EYE, LEFT_EYE))
    for iris, middle in zip(IRISES, (right, left), strict=True):
        np.testing.assert_allclose(still_L3[iris[0], :2], middle[:2], atol=6e-4)
        assert still_L3[iris[0], 2] > middle[2] + 0.01
        radius_4 = np.linalg.norm(still_L3[list(iris[1:]), :2] - still_L3[iris[0], :2], axis=1)
        assert np.all((radius_4 > 0.004) & (radius_4 < 0.007))
    aside_L3 = landmarks(face, motion(**{f"_{EYES + 1}": 0.4, f"_{EYES + 4}": 0.4}))[0]
    assert (aside_L3[[468, 473], 0] - still_L3[[468, 473], 0]).min() > 0.003
    assert np.abs(aside_L3[:468] - still_L3[:468]).max() < 0.002, "pose correctives alone"


def test_what_draws_landmarks_draws_them(face: FlameFace) -> None:
    random = np.random.default_rng(1)
    coefficients = random.normal(size=(70, DIMS)) * np.r_[np.ones(EXPRESSIONS), np.full(12, 0.25)]
    made_TD = face.motion(coefficients, CODEC)
    points_TL3 = Puppet.of(face.codec, face.neutral_L3).points(made_TD) * WIDTH
    np.testing.assert_allclose(face.points(coefficients, CODEC) * WIDTH, points_TL3, atol=1e-3)
    expected_TL3 = 100 * landmarks(face, coefficients)
    middles = points_TL3.mean(axis=1, keepdims=True), expected_TL3.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(points_TL3 - middles[0], expected_TL3 - middles[1], atol=1e-3)
    assert np.abs(middles[0]).max() < 12, "cm: a head turns about its neck and stays in the picture"
    assert face.motion(np.zeros((0, DIMS)), CODEC).shape == (0, made_TD.shape[1])


def test_a_nod_is_pitch_and_a_smile_is_wider(face: FlameFace) -> None:
    nod_TD = face.motion(motion(**{f"_{POSE}": 0.3}), CODEC)
    np.testing.assert_allclose(nod_TD[0, :3], [0.3, 0, 0], atol=1e-6)
    assert nod_TD[0, 4] < 0, "the face sinks"
    assert np.abs(nod_TD[0, 6:]).max() < 1e-3, "and is the same face"
    mouth = [face.points(motion(**{f"_{SMILE}": value}), CODEC)[0, [61, 291]] for value in (0.0, 2.0)]
    assert np.ptp(mouth[1][:, 0]) > 1.1 * np.ptp(mouth[0][:, 0])


def test_pictures_of_a_head_that_opens_its_mouth_and_lifts_its_brows(face: FlameFace) -> None:
    avatar = Avatar(Puppet.of(face.codec, face.neutral_L3))

    def drawn(**values: float) -> np.ndarray:
        return avatar.draw(avatar.puppet.points(face.motion(motion(**values), CODEC))[0], 200).astype(int)

    still, opened, lifted = drawn(), drawn(**{f"_{JAW}": 0.3}), drawn(**{f"_{BROWS_UP}": 2.0})
    dark = [(picture.sum(axis=2) < 250) for picture in (still, opened, lifted)]
    half = 100
    assert dark[1][half:].sum() > 1.5 * dark[0][half:].sum(), "a mouth that is open is dark"
    top = [np.flatnonzero(picture[:half].any(axis=1)).min() for picture in dark]
    assert top[2] < top[0], "brows are higher"


def test_a_model_that_landmarks_do_not_fit_is_told(tmp_path: Path) -> None:
    path = write_head(tmp_path, weights=np.tile(np.eye(5)[1], (len(made_head()["weights"]), 1)))
    with pytest.raises(UsageError, match="an eye has no eyeball"):
        FlameFace.read(path)
    head, _ = read_flame(write_head(tmp_path))
    flat = read_embedding(tmp_path / "mediapipe_landmark_embedding.npz", head)
    head.template_V3[:, 2] = 0
    with pytest.raises(ValueError, match="plane"):
        FlameFace.of(head, flat)


def test_nearest_points_are_those_of_all_triangles(face: FlameFace) -> None:
    random = np.random.default_rng(2)
    vertices_V3 = random.normal(size=(40, 3))
    faces_F3 = np.array([random.permutation(40)[:3] for _ in range(35)])
    points_L3 = random.normal(size=(50, 3))
    corners_L3, share_L3 = nearest(vertices_V3, faces_F3, points_L3)
    assert share_L3.min() >= 0
    np.testing.assert_allclose(share_L3.sum(axis=1), 1)
    away_L = np.linalg.norm(np.einsum("lkx,lk->lx", vertices_V3[corners_L3], share_L3) - points_L3, axis=1)
    grid = np.array([(i, j, 30 - i - j) for i in range(31) for j in range(31 - i)]) / 30
    every = np.einsum("gk,fkx->fgx", grid, vertices_V3[faces_F3]).reshape(-1, 3)
    sought_L = np.linalg.norm(every[None] - points_L3[:, None], axis=2).min(axis=1)
    assert (away_L <= sought_L + 1e-12).all()
    assert (sought_L - away_L).max() < 0.1, "as fine as the grid is"
