"""FLAME's vertices equal those worked out here vertex by vertex, and move as a head does."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stages.made_head import EXPRESSIONS, made_head, write_head
from visavis.schemas.coefficients import groups_of
from visavis.schemas.errors import UsageError
from visavis.stages.face.flame import CHUNK, JAW, NECK, ROOT, Flame, Frames
from visavis.stages.face.flame_files import SHAPE, read_flame

CODEC = f"flame-exp{EXPRESSIONS}-jaw3-pose3-neck3-eyes6"


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Flame:
    return read_flame(write_head(tmp_path_factory.mktemp("head")))[0]


def frames_of(angles: dict[int, tuple[float, float, float]], expression: np.ndarray | None = None) -> Frames:
    """One frame."""
    angles_TJ3 = np.zeros((1, 5, 3))
    for joint, turned in angles.items():
        angles_TJ3[0, joint] = turned
    return Frames(np.zeros((1, EXPRESSIONS)) if expression is None else expression[None], angles_TJ3)


def rotation(axis_angle: np.ndarray) -> np.ndarray:
    """Rodrigues' formula."""
    angle = float(np.linalg.norm(axis_angle))
    if angle == 0:
        return np.eye(3)
    x, y, z = axis_angle / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def reference(
    model: dict[str, np.ndarray], expression: np.ndarray, angles: np.ndarray, vertices: list[int] | None = None
) -> np.ndarray:
    """The paper's equations for one frame, vertex by vertex, with homogeneous 4 × 4 maps as in SMPL; of all or some."""
    arrays = {name: np.asarray(array, np.float64) for name, array in model.items()}
    turns = [rotation(each) for each in angles]
    elements = np.concatenate([(turn - np.eye(3)).ravel() for turn in turns[1:]])
    shaped = arrays["v_template"].copy()
    for k, value in enumerate(expression):
        shaped += value * arrays["shapedirs"][:, :, SHAPE + k]
    joints = arrays["J_regressor"] @ shaped
    posed = shaped + sum(value * arrays["posedirs"][:, :, p] for p, value in enumerate(elements))
    chain: list[np.ndarray] = []
    for joint, parent in enumerate((-1, 0, 1, 1, 1)):
        local = np.eye(4)
        local[:3, :3] = turns[joint]
        local[:3, 3] = joints[joint] - (joints[parent] if parent >= 0 else 0)
        chain.append(local if parent < 0 else chain[parent] @ local)
    out = []
    for v in range(len(posed)) if vertices is None else vertices:
        blended = np.zeros((4, 4))
        for joint in range(5):
            rest = np.eye(4)
            rest[:3, 3] = -joints[joint]
            blended += arrays["weights"][v, joint] * chain[joint] @ rest
        out.append((blended @ np.append(posed[v], 1.0))[:3])
    return np.array(out)


def test_vertices_are_the_papers(head: Flame) -> None:
    random = np.random.default_rng(3)
    motion_TD = random.normal(size=(4, EXPRESSIONS + 15)) * np.r_[np.ones(EXPRESSIONS), np.full(15, 0.4)]
    found = head.vertices(Frames.of(motion_TD, groups_of(CODEC)))
    for frame_D, found_V3 in zip(motion_TD, found, strict=True):
        exp, jaw, pose, neck, eyes = np.split(frame_D, EXPRESSIONS + np.array([0, 3, 6, 9]))
        angles = np.stack([pose, neck, jaw, eyes[:3], eyes[3:]])
        np.testing.assert_allclose(found_V3, reference(made_head(), exp, angles), rtol=0, atol=1e-12)


def test_some_vertices_move_as_in_the_whole_model_and_frames_may_be_cut(head: Flame) -> None:
    random = np.random.default_rng(4)
    frames = Frames.of(random.normal(size=(CHUNK + 3, EXPRESSIONS + 15)) * 0.3, groups_of(CODEC))
    whole, some = head.vertices(frames), np.array([5, 5, 400, 17])
    cut = np.concatenate([head.only(some).vertices(part) for part in frames.chunks()])
    np.testing.assert_allclose(cut, whole[:, some], rtol=0, atol=1e-14)


def test_without_rotations_a_face_is_the_template_and_its_blend_shapes(head: Flame) -> None:
    expression_E = np.linspace(-1, 1, EXPRESSIONS)
    np.testing.assert_allclose(head.vertices(frames_of({}))[0], head.template_V3, atol=1e-15)
    expected = head.template_V3 + head.expression_V3E @ expression_E
    np.testing.assert_allclose(head.vertices(frames_of({}, expression_E))[0], expected, atol=1e-14)


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.floats(-3, 3)] * 3), st.tuples(*[st.floats(-2, 2)] * 2))
def test_turning_the_head_is_rigid(turned: tuple[float, float, float], scores: tuple[float, float]) -> None:
    head = _head()
    expression_E = np.zeros(EXPRESSIONS)
    expression_E[:2] = scores
    still_V3 = head.vertices(frames_of({}, expression_E))[0]
    vertices_V3, turn_33, place_3 = (part[0] for part in head.posed(frames_of({ROOT: turned}, expression_E)))
    np.testing.assert_allclose(turn_33 @ turn_33.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(vertices_V3, still_V3 @ turn_33.T + place_3, atol=1e-12)


def test_angles_that_are_positive_look_down_and_right_in_the_picture(head: Flame) -> None:
    nose, chin = 1, 152
    still_V3 = head.template_V3
    assert still_V3[263, 0] > still_V3[33, 0], "the person's left is right in the picture"
    assert still_V3[10, 1] > still_V3[chin, 1], "y is up"
    assert still_V3[nose, 2] > still_V3[234, 2], "z is out of the face"
    down_V3 = head.vertices(frames_of({ROOT: (0.3, 0, 0)}))[0]
    right_V3 = head.vertices(frames_of({ROOT: (0, 0.3, 0)}))[0]
    assert down_V3[nose, 1] - down_V3[234, 1] < still_V3[nose, 1] - still_V3[234, 1]
    assert right_V3[nose, 0] > still_V3[nose, 0]
    opened_V3 = head.vertices(frames_of({JAW: (0.3, 0, 0)}))[0]
    assert opened_V3[14, 1] < still_V3[14, 1] - 0.005, "the lower lip goes down"


def test_the_jaw_moves_only_what_hangs_on_it() -> None:
    head = _head(posedirs=False)
    moved_V = np.linalg.norm(head.vertices(frames_of({JAW: (0.3, 0.1, 0)}))[0] - head.template_V3, axis=1)
    hangs_V = head.weights_VJ[:, JAW] > 0
    assert moved_V[~hangs_V].max() < 1e-15
    assert moved_V[hangs_V].min() > 1e-6
    neck_V = np.linalg.norm(head.vertices(frames_of({NECK: (0, 0.3, 0)}))[0] - head.template_V3, axis=1)
    stays_V = head.weights_VJ[:, ROOT] == 1
    assert stays_V.any()
    assert neck_V[stays_V].sum() == 0


def test_coefficients_that_a_model_does_not_have_are_told(head: Flame) -> None:
    count = EXPRESSIONS + 2
    many = Frames.of(np.zeros((2, count + 6)), groups_of(f"flame-exp{count}-jaw3-pose3"))
    with pytest.raises(UsageError, match=f"{count} coefficients of expression, the FLAME model {EXPRESSIONS}"):
        head.vertices(many)
    with pytest.raises(UsageError, match="not eyes4"):
        Frames.of(np.zeros((2, 14)), groups_of("flame-exp10-eyes4"))
    with pytest.raises(UsageError, match="not place3"):
        Frames.of(np.zeros((2, 13)), groups_of("flame-exp10-place3"))


@cache
def _head(*, posedirs: bool = True) -> Flame:
    """The same, for tests that hypothesis runs many times, or without pose correctives."""
    with tempfile.TemporaryDirectory() as folder:
        other = {} if posedirs else {"posedirs": 0 * made_head()["posedirs"]}
        return read_flame(write_head(Path(folder), **other))[0]
