"""Motion of FLAME's coefficients as films, pictures and FDD, from the command line, with a model of the user's own."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from benchmarks.corpora import write_dualtalk
from tests.corpora.test_import import imported
from tests.corpora.test_stages_of_training import SMALL
from tests.stages.made_head import write_head
from tests.training.synthetic import write_dataset
from visavis.pipeline.app import app
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import UsageError
from visavis.schemas.recipes import load_config
from visavis.schemas.train import TrainConfig
from visavis.training.dataset import Dataset
from visavis.training.generate import generate
from visavis.training.train import train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus in DualTalk's layout, imported, a model of two steps, what it generated of a window, and a head."""
    folder = tmp_path_factory.mktemp("flame")
    write_head(folder)
    write_dualtalk(folder / "corpus", conversations=3, seconds=6)
    run = imported(folder / "corpus", folder / "run")
    train(run.dataset, folder / "base", load_config("configs/train/tiny.yaml", TrainConfig, SMALL))
    generate(folder / "base" / "checkpoint.safetensors", run.dataset, first_key(folder), folder / "made")
    return folder


def first_key(folder: Path) -> str:
    data = Dataset(f"{folder}/run/dataset")
    entry = data.manifest.of("val")[0]
    return next(key for key, _ in data.groups(entry, data.fetch(entry)))


def visavis(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments: object) -> str:
    done = visavis(*arguments)
    assert isinstance(done.exception, UsageError), done.exception
    return str(done.exception)


def coloured(picture: np.ndarray) -> int:
    return int((np.ptp(picture.astype(int), axis=2) > 40).sum())


def test_a_generated_window_is_drawn_as_faces(made: Path, tmp_path: Path) -> None:
    window, model = made / "made" / f"{first_key(made)}.generated.npy", made / "head.npz"
    curves = visavis("report", window, "--out", tmp_path / "curves.png")
    assert "no faces are drawn, only curves" in " ".join(curves.stderr.split())
    assert "name yours with --flame MODEL.npz" in " ".join(curves.stderr.split())
    faces = visavis("report", window, "--out", tmp_path / "faces.png", "--flame", model)
    assert faces.exit_code == 0, faces.exception
    without, drawn = (cv2.imread(str(tmp_path / f"{name}.png")) for name in ("curves", "faces"))
    assert len(drawn) > len(without) + 3 * 170, "a row of faces for each side"
    for row in range(3):  # below the heading: the user, the recorded avatar, the generated one
        assert coloured(drawn[52 + 170 * row : 52 + 170 * (row + 1), 130:]) > 20_000, row


def test_a_window_and_what_was_generated_of_it_become_films(made: Path, tmp_path: Path) -> None:
    key, model = first_key(made), made / "head.npz"
    assert "--flame MODEL.npz to `visavis render`" in refused("render", made / "run", key, "--out", tmp_path / "no.mp4")
    for what, names in ((made / "run", (key,)), (made / "made" / f"{key}.generated.npy", ())):
        film = tmp_path / f"{len(names)}.mp4"
        done = visavis("render", what, *names, "--flame", model, "--out", film, "--size", 96)
        assert done.exit_code == 0, done.exception
        capture = cv2.VideoCapture(str(film))
        seen = [capture.read()[1] for _ in range(50)]
        assert capture.read()[0] is False, "50 frames"
        assert min(map(coloured, seen)) > 3_000
        assert np.abs(seen[0].astype(int) - seen[40]).max() > 60, "it moves"


def test_people_are_asked_about_such_motion(made: Path, tmp_path: Path) -> None:
    asked = (
        "study",
        made / "run",
        "--checkpoint",
        made / "base" / "checkpoint.safetensors",
        "--recorded",
        "--size",
        128,
    )
    few = ("--trials", 1, "--checks", 1, "--class", "any")
    assert "faces can be drawn" in refused(*asked, *few, "--out", tmp_path / "none")
    done = visavis(*asked, *few, "--out", tmp_path / "study", "--flame", made / "head.npz")
    assert done.exit_code == 0, done.exception
    assert len(list((tmp_path / "study" / "page" / "clips").glob("*.mp4"))) == 4


def test_fdd_is_printed_where_a_model_is_named(made: Path, tmp_path: Path) -> None:
    model, test = made / "head.npz", made / "corpus" / "test"
    np.save(tmp_path / "upper.npy", np.array([10, 10, 151, 9]))
    named = ("--protocol", "unils", "--flame", model, "--json")
    told = json.loads(visavis("metrics", test, test, test, *named, "--upper-face", tmp_path / "upper.npy").stdout)
    assert told["vertices"] == "FDD of 4 vertices, upper.npy"
    assert told["figures"]["all"]["generated"]["FDD"] == 0
    assert told["figures"]["all"]["hold_still"]["FDD"] > 1
    checkpoint = made / "base" / "checkpoint.safetensors"
    told = json.loads(visavis("evaluate", checkpoint, made / "run", *named).stdout)
    assert "vertices, those near landmarks of eyes, brows and forehead" in told["vertices"]
    row = told["figures"]["all"]["model"]
    assert row["FDD"] > 0
    assert row["FDD_listening"] > 0
    assert "FDD" not in json.loads(visavis("metrics", test, test, test, *named[:2], "--json").stdout)["figures"]["all"]
    assert "goes with --protocol unils" in refused("evaluate", checkpoint, made / "run", "--flame", model)


def test_a_model_for_other_motion_is_refused(made: Path, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "other", {WindowClass.LISTENING: 2})
    says = "--flame is for motion that is FLAME's coefficients; that of"
    assert says in refused("render", dataset, "--flame", made / "head.npz", "--out", tmp_path / "no.mp4")
    assert "name yours with --flame" in " ".join(visavis("report", made / "run").stdout.split())
