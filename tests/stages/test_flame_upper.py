"""FDD equals UniLS's definition, worked out here with torch frame by frame on whole heads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.stages.made_head import EXPRESSIONS, KNOWN, made_head, true_landmarks, write_head
from tests.stages.test_flame import reference
from visavis.pipeline.cli.flame import FlameFiles
from visavis.schemas.coefficients import groups_of
from visavis.schemas.errors import UsageError
from visavis.stages.face.flame_files import EMBEDDING, read_embedding, read_flame
from visavis.stages.face.flame_upper import UpperFace, upper_vertices
from visavis.training.protocols.clips import Clip
from visavis.training.protocols.score import score

COLUMNS = groups_of(f"flame-exp{EXPRESSIONS}-jaw3-pose3-eyes6")
PARTS = {name: COLUMNS[name] for name in ("exp", "jaw", "pose")}
DIMS = EXPRESSIONS + 12


def expected_fdd(clips: list[tuple[np.ndarray, np.ndarray]], vertices: list[int]) -> float:
    """Of each clip 100 × |std generated − std truth| of the vertices' summed coordinates in mm, unbiased; the mean."""
    model, gaps = made_head(), []
    for truth_TD, made_TD in clips:
        deviations = []
        for motion_TD in (truth_TD, made_TD):
            heads = []
            for frame_D in motion_TD:
                exp, jaw, _, eyes = np.split(frame_D, EXPRESSIONS + np.array([0, 3, 6]))
                angles = np.zeros((5, 3))  # no head pose, one angle of the jaw, two of each eye
                angles[2, 0], angles[3, :2], angles[4, :2] = jaw[0], eyes[0:2], eyes[3:5]
                heads.append(reference(model, exp, angles, vertices))
            upper = torch.tensor(np.stack(heads)) * 1000
            deviations.append(upper.sum(dim=-1).std(dim=0))
        gaps.append(float((deviations[1] - deviations[0]).abs().mean() * 100))
    return float(np.mean(gaps))


def test_fdd(tmp_path: Path) -> None:
    head, _ = read_flame(write_head(tmp_path))
    random = np.random.default_rng(5)
    scale_D = np.r_[np.full(EXPRESSIONS, 0.8), np.full(12, 0.2)]
    sides = [tuple(random.normal(size=(2, frames, DIMS)) * scale_D) for frames in (7, 4)]
    listens = [np.arange(7) % 2 == 0, np.zeros(4, bool)]
    clips = [Clip(t, t, m, mask) for (t, m), mask in zip(sides, listens, strict=True)]
    vertices = [10, 10, 151, 9, 33, 159]  # one counts twice, as in the published list
    found = score("unils", clips, PARTS, UpperFace(head, np.array(vertices), COLUMNS))
    assert found["FDD"] == pytest.approx(expected_fdd(sides, vertices), rel=1e-9)
    heard = [(t[mask], m[mask]) for (t, m), mask in zip(sides, listens, strict=True) if mask.any()]
    assert found["FDD_listening"] == pytest.approx(expected_fdd(heard, vertices), rel=1e-9)
    assert {"FDD-exp", "PDD", "JDD"} <= set(found)
    assert "FDD" not in score("unils", clips, PARTS)


def test_the_head_s_pose_and_turns_that_the_script_leaves_out_do_not_count(tmp_path: Path) -> None:
    head, _ = read_flame(write_head(tmp_path))
    upper = UpperFace(head, np.arange(100), COLUMNS)
    random = np.random.default_rng(6)
    motion_TD = random.normal(size=(5, DIMS)) * 0.3
    other_TD = motion_TD.copy()
    other_TD[:, COLUMNS["pose"]] += 1
    other_TD[:, EXPRESSIONS + 1 : EXPRESSIONS + 3] += 1
    other_TD[:, [EXPRESSIONS + 8, EXPRESSIONS + 11]] += 1
    np.testing.assert_array_equal(upper(motion_TD), upper(other_TD))
    other_TD[:, EXPRESSIONS] += 0.1
    assert np.abs(upper(motion_TD) - upper(other_TD)).max() > 1e-6


def test_vertices_that_nobody_named_are_of_eyes_brows_and_forehead(tmp_path: Path) -> None:
    head, _ = read_flame(write_head(tmp_path))
    found = set(upper_vertices(head, read_embedding(tmp_path / EMBEDDING, head)).tolist())
    high = [number for number in KNOWN if true_landmarks()[number, 1] > true_landmarks()[[145, 374], 1].max() + 0.001]
    assert set(high) <= found
    assert not found & {152, 17, 61, 291, 2, 4}, "no chin, lips or tip of the nose"
    assert 10 in found, "the forehead's top"
    assert max(found) < 468, "neither eyeballs nor neck"


def test_what_names_the_vertices_is_said_and_what_does_not_fit_is_told(tmp_path: Path) -> None:
    path = write_head(tmp_path, upper_face=np.array([1, 2, 3]))
    upper, said = FlameFiles(path, None, None).upper(COLUMNS) or (None, "")
    assert said == "FDD of 3 vertices, upper_face of head.npz"
    assert upper is not None
    assert upper(np.zeros((0, DIMS))).shape == (0, 9)
    np.save(tmp_path / "named.npy", np.arange(20))
    _, said = FlameFiles(path, None, tmp_path / "named.npy").upper(COLUMNS) or (None, "")
    assert said == "FDD of 20 vertices, named.npy"
    assert FlameFiles(None, None, None).upper(COLUMNS) is None
    with pytest.raises(UsageError, match="a part exp, not of all"):
        FlameFiles(path, None, None).upper({"all": slice(0, 56)})
    with pytest.raises(UsageError, match="70 coefficients of expression, the FLAME model 50"):
        FlameFiles(path, None, None).upper({"exp": slice(0, 70)})
    for files, protocol, says in (
        (FlameFiles(path, None, None), "dualtalk", "--flame goes with --protocol unils"),
        (FlameFiles(None, None, path), "unils", "--upper-face goes with --flame"),
        (FlameFiles(None, path, None), None, "--flame-landmarks goes with --protocol unils"),
    ):
        with pytest.raises(UsageError, match=says):
            files.check(protocol)
