"""`visavis render`: what people type, and the film that lies there then."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from tests.e2e.conftest import built, dialogues  # noqa: F401  # the session's small build
from visavis.pipeline.app import main
from visavis.pipeline.plan.outputs import read_outputs
from visavis.pipeline.plan.summary import BuildSummary
from visavis.stages.ingest import IngestStage
from visavis.training.dataset import Dataset
from visavis.training.generate import generate

Built = tuple[Path, BuildSummary]
pytestmark = pytest.mark.slow


@pytest.fixture
def visavis(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):  # type: ignore[no-untyped-def]
    """A command in an empty folder: its exit code, and what it said on stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["visavis", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def film(path: Path) -> tuple[int, int, int, float]:
    """Width, height and number of its pictures, and the loudest of its sound."""
    with av.open(str(path)) as container:
        pictures = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        loudest = max(float(np.abs(frame.to_ndarray()).max()) for frame in container.decode(audio=0))
    return pictures[0].shape[1], pictures[0].shape[0], len(pictures), loudest


def keys_of(root: Path, count: int) -> list[str]:
    data = Dataset(str(root / "dataset"))
    keys = [key for entry in data.manifest.shards for key, _ in data.groups(entry, data.fetch(entry))]
    return keys[:count]


def test_a_window_is_a_film_of_two_people_with_their_voices(built: Built, visavis) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    (key,) = keys_of(built[0], 1)
    code, out, err = visavis("render", built[0], key, "--size", 96)
    assert (code, out) == (0, f"{key}.mp4\n"), err
    width, _, frames, loudest = film(Path(f"{key}.mp4"))
    assert (width, frames) == (96 + 8 + 96, 50)
    assert loudest > 0.01
    assert "50 frames (2 s)" in err.splitlines()[-1]
    assert "look at" in err.splitlines()[-1]


def test_a_conversation_shows_both_people_beside_their_motion(built: Built, visavis) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    for name, panels in (("apart", 4 * [96]), ("together", [171, 96, 96])):
        words = ("render", built[0], name, "--from", 1, "--to", 2.2, "--size", 96, "--wireframe", "-o", f"{name}.mp4")
        code, _, err = visavis(*words)
        assert code == 0, err
        width, _, frames, _ = film(Path(f"{name}.mp4"))
        assert abs(width - sum(panels) - 8 * (len(panels) - 1)) <= 1
        assert frames == 30


def test_windows_without_names_follow_each_other_or_lie_in_a_folder(built: Built, visavis) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    code, out, err = visavis("render", built[0], "--windows", 2, "--size", 64, "--wireframe")
    assert (code, out) == (0, "windows.mp4\n"), err
    assert film(Path("windows.mp4"))[2] == 2 * (50 + 25)  # with a card each
    code, out, err = visavis("render", built[0], "--windows", 2, "--size", 64, "--wireframe", "-o", "films/")
    assert code == 0, err
    assert sorted(out.split()) == sorted(str(path) for path in Path("films").iterdir())
    assert len(out.split()) == 2


def test_checkpoints_stand_beside_what_was_recorded(built: Built, visavis, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    from tests.e2e.test_learn import QUICK, RECIPE

    quick = [word for setting in QUICK for word in ("--set", setting)]
    code, _, err = visavis("train", RECIPE, built[0], "--out", "base", *quick)
    assert code == 0, err
    checkpoint = tmp_path / "base" / "checkpoint.safetensors"
    shutil.copy(checkpoint, "other.safetensors")
    (key,) = keys_of(built[0], 1)
    models = ("--checkpoint", checkpoint, "--checkpoint", "other.safetensors")
    code, out, err = visavis("render", built[0], key, *models, "--seed", 3, "--size", 64, "--wireframe")
    assert (code, out) == (0, f"{key}.mp4\n"), err
    assert film(Path(f"{key}.mp4"))[0] == 4 * 64 + 3 * 8

    made = generate(checkpoint, str(built[0] / "dataset"), key, tmp_path / "generated")
    code, out, err = visavis("render", made, "--size", 64, "--wireframe")
    assert (code, out) == (0, f"{tmp_path}/generated/{key}.mp4\n"), err
    assert film(tmp_path / "generated" / f"{key}.mp4")[0] == 3 * 64 + 2 * 8
    np.save(made, np.zeros((4, 4), np.float32))
    assert visavis("render", made)[0] == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("KEY", "-o", "film.avi"), "a film ends in .mp4"),
        (("KEY", "-o", "nowhere/film.mp4"), "there is no folder nowhere"),
        (("abc-0-0000010",), "has no sample abc-0-0000010"),
        (("nobody",), "no such conversation"),
        (("apart", "--from", "500"), "it is 10 s long"),
        (("apart", "--from", "3", "--to", "2"), "nothing lies between --from 3 and --to 2"),
        (("apart", "--from", "nan"), "Invalid value for '--from'"),
        (("apart", "KEY"), "not both"),
        (("apart", "--checkpoint", "x.safetensors"), "--checkpoint does not go with a conversation"),
        (("KEY", "--from", "1"), "--from does not go with windows"),
        (("KEY", "--seed", "1"), "--seed does not go with windows"),
        (("--split", "test"), "--split is train or val"),
        (("KEY", "--split", "val"), "--split does not go with a KEY"),
        (("KEY", "--windows", "3"), "--windows does not go with a KEY"),
        (("apart", "--windows", "3"), "--windows does not go with a conversation"),
        (("KEY", "--wireframe", "--portrait", "face.png"), "--wireframe draws meshes"),
        (("KEY", "--portrait", "absent.png"), "absent.png"),
    ],
)
def test_wrong_words_are_one_line_and_write_nothing(built: Built, visavis, words: tuple[str, ...], said: str) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    (key,) = keys_of(built[0], 1)
    code, out, err = visavis("render", built[0], *(key if word == "KEY" else word for word in words))
    assert (code, out) == (2, ""), err
    assert len(err.splitlines()) == 1
    assert said in err
    assert not list(Path().iterdir())


def test_a_video_that_is_gone_is_one_line(built: Built, visavis, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    (where,) = [Path(row.media[0].uri) for _, row in read_outputs(str(built[0]), IngestStage) if len(row.media) == 1]
    where.rename(tmp_path / "moved.mp4")
    try:
        code, out, err = visavis("render", built[0], "together", "-o", "film.mp4")
        assert (code, out, Path("film.mp4").exists()) == (2, "", False)
        assert "cannot be shown" in err.splitlines()[-1]
        (key,) = [key for key in keys_of(built[0], 50) if key.startswith(_id(built[0]))][:1]
        code, _, err = visavis("render", built[0], key, "--size", 64)  # its motion is there all the same
        assert code == 0, err
        assert "drawn as meshes" in err
    finally:
        (tmp_path / "moved.mp4").rename(where)


def _id(root: Path) -> str:
    return next(row.id for _, row in read_outputs(str(root), IngestStage) if len(row.media) == 1)
