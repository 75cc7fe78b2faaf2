"""A user's FLAME model is read as plain arrays, and what is none is told in a line."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csc_matrix

from tests.stages.made_head import KNOWN, made_embedding, made_head, write_head
from visavis.schemas.errors import UsageError
from visavis.stages.face.flame_files import EMBEDDING, read_embedding, read_flame, read_upper_face

MODEL = made_head()
COUNT = len(MODEL["v_template"])


class Sprung:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_model_may_be_float64_or_float32_and_name_its_upper_face(tmp_path: Path) -> None:
    doubled = {name: array.astype(np.float64) for name, array in MODEL.items() if array.dtype == np.float32}
    head, upper = read_flame(write_head(tmp_path, **doubled, upper_face=np.array([3, 3, 9])))
    assert upper is not None
    assert upper.tolist() == [3, 3, 9]
    np.testing.assert_array_equal(head.template_V3, MODEL["v_template"])
    mask = np.zeros(COUNT, bool)
    mask[[4, 7]] = True
    _, masked = read_flame(write_head(tmp_path, upper_face=mask))
    assert masked is not None
    assert masked.tolist() == [4, 7]


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"shapedirs": MODEL["shapedirs"][:, :, :300]}, "300 of shape and more of expression"),
        ({"shapedirs": MODEL["shapedirs"][:9]}, "shapedirs"),
        ({"posedirs": MODEL["posedirs"][:, :, :27]}, "posedirs is"),
        ({"J_regressor": MODEL["J_regressor"].T}, "J_regressor is"),
        ({"weights": 2 * MODEL["weights"]}, "do not sum to 1"),
        ({"weights": np.full((COUNT, 5), np.nan)}, "not finite"),
        ({"v_template": 1000 * MODEL["v_template"]}, "metres are expected"),
        ({"v_template": np.zeros((0, 3))}, "shapedirs"),
        ({"f": MODEL["f"] + COUNT}, "f has"),
        ({"f": -MODEL["f"].astype(np.int64)}, "f has"),
        ({"f": MODEL["f"][:, :2]}, "triangles are expected"),
        ({"kintree_table": np.array([[0, 0, 1, 2, 3], range(5)])}, "kintree_table is not FLAME's"),
        ({"upper_face": np.array([COUNT])}, "upper_face has"),
        ({"upper_face": np.array([0.5])}, "whole numbers"),
        ({"upper_face": np.array([True, False, True])}, "a mask of"),
        ({"v_template": np.array([None, {}], dtype=object)}, "numbers are expected"),
    ],
)
def test_what_is_no_model_is_told(other: dict[str, np.ndarray], says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says) as told:
        read_flame(write_head(tmp_path, **other))
    assert "\n" not in str(told.value)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    for name in ("generic_model.pkl", "model.npz"):
        (tmp_path / name).write_bytes(pickle.dumps({"v_template": Sprung(tmp_path / "sprung")}))
        with pytest.raises(UsageError, match="a pickle is not opened here"):
            read_flame(tmp_path / name)
    np.savez(tmp_path / "objects.npz", v_template=np.array([Sprung(tmp_path / "sprung")], dtype=object))
    with pytest.raises(UsageError, match="numbers are expected"):
        read_flame(tmp_path / "objects.npz")
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(UsageError, match="cannot read"):
        read_flame(tmp_path / "absent.npz")


def test_the_lines_of_the_docs_make_an_npz_of_what_the_user_trusts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "corpora.md").read_text()
    lines = next(block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "generic_model.pkl" in block)
    theirs = MODEL | {"J_regressor": csc_matrix(MODEL["J_regressor"]), "bs_style": "lbs"}
    (tmp_path / "generic_model.pkl").write_bytes(pickle.dumps(theirs, protocol=2))
    monkeypatch.chdir(tmp_path)
    exec(compile(lines, "corpora.md", "exec"), {})
    made, _ = read_flame(tmp_path / "flame.npz")
    expected, _ = read_flame(write_head(tmp_path))
    np.testing.assert_array_equal(made.template_V3, expected.template_V3)
    np.testing.assert_array_equal(made.faces_F3, expected.faces_F3)
    np.testing.assert_allclose(made.joints_J3, expected.joints_J3, atol=1e-12)


def test_landmarks_on_the_model_are_checked_against_it(tmp_path: Path) -> None:
    head, _ = read_flame(write_head(tmp_path))
    good, path = made_embedding(MODEL), tmp_path / EMBEDDING
    assert read_embedding(path, head).number_N.tolist() == KNOWN
    for other, says in (
        ({"landmark_indices": np.array(KNOWN) + 400}, "landmark_indices has"),
        ({"landmark_indices": np.full(105, 3)}, "each once"),
        ({"lmk_face_idx": good["lmk_face_idx"] + len(head.faces_F3)}, "lmk_face_idx has"),
        ({"lmk_face_idx": good["lmk_face_idx"][:99]}, "99 lmk_face_idx"),
        ({"lmk_b_coords": 3 * good["lmk_b_coords"]}, "do not sum to 1"),
        ({"lmk_b_coords": good["lmk_b_coords"][:, :2]}, "lmk_b_coords is"),
    ):
        np.savez(path, **(good | other))
        with pytest.raises(UsageError, match=says):
            read_embedding(path, head)
    path.unlink()
    with pytest.raises(UsageError, match="FLAME's site has"):
        read_embedding(path, head)


def test_an_upper_face_is_numbers_of_vertices(tmp_path: Path) -> None:
    path = tmp_path / "upper.npy"
    np.save(path, np.array([7, 2, 7]))
    assert read_upper_face(path, COUNT).tolist() == [7, 2, 7], "one that occurs twice counts twice"
    cases = [(np.array([-1]), "-1 to -1"), (np.zeros(0, int), "whole numbers"), (np.zeros((2, 2), int), "numbers of")]
    for array, says in cases:
        np.save(path, array)
        with pytest.raises(UsageError, match=says):
            read_upper_face(path, COUNT)
