"""A study by command, of a build and of its pairs, to the count of its votes."""

from __future__ import annotations

import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from benchmarks.study import World, vote_all
from tests.e2e.test_learn import QUICK, RECIPE, visavis
from visavis.pipeline.page.votes import Key, Trial, read_key
from visavis.pipeline.plan.summary import BuildSummary
from visavis.schemas.plain import to_json

pytestmark = pytest.mark.slow
Patch, Said = pytest.MonkeyPatch, pytest.CaptureFixture[str]


@pytest.fixture
def trained(built: tuple[Path, BuildSummary], tmp_path: Path, capsys: Said, monkeypatch: Patch) -> tuple[str, str]:
    """A build's folder, and a checkpoint that has hardly begun."""
    quick = [word for setting in QUICK for word in ("--set", setting)]
    out = ("--out", str(tmp_path / "base"))
    return str(built[0]), visavis(capsys, monkeypatch, "train", RECIPE, str(built[0]), *out, *quick).strip()


def pictures(folder: Path, code: str) -> list[np.ndarray]:
    with av.open(str(folder / "page" / "clips" / f"{code}.mp4")) as film:
        return [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]


def sounds(folder: Path, code: str) -> np.ndarray:
    with av.open(str(folder / "page" / "clips" / f"{code}.mp4")) as film:
        return np.concatenate([frame.to_ndarray() for frame in film.decode(audio=0)], axis=1)


def cast_votes(folder: Path, world: World) -> tuple[Key, list[str]]:
    """Votes of simulated people as files."""
    key = read_key(folder / "key.json")
    (folder / "votes").mkdir()
    page = (folder / "page" / "index.html").read_text()
    sheets = json.loads(page.partition('id="study">')[2].partition("</script>")[0])["sheets"]
    paths = []
    for ballot in vote_all(key, sheets, world, np.random.default_rng(0)):
        (path := folder / "votes" / ballot.file).write_text(to_json(ballot.votes.model_dump(mode="json")))
        paths.append(str(path))
    return key, paths


def looks_alike(folder: Path, trial: Trial) -> None:
    """Both clips: one length, one size in bytes, the same user's picture, the same sound; the avatars differ."""
    one, two = (pictures(folder, clip.code) for clip in trial.clips)
    assert len(one) == len(two) == 50
    assert len({(folder / "page" / "clips" / f"{clip.code}.mp4").stat().st_size for clip in trial.clips}) == 1
    half = one[0].shape[1] // 2
    users = [np.abs(a[:, :half].astype(int) - b[:, :half]).mean() for a, b in zip(one, two, strict=True)]
    avatars = [np.abs(a[:, half:].astype(int) - b[:, half:]).mean() for a, b in zip(one, two, strict=True)]
    assert max(users) < 2 < 4 * max(avatars)
    assert np.abs(sounds(folder, trial.clips[0].code) - sounds(folder, trial.clips[1].code)).max() < 1e-6


def test_a_checkpoint_beside_the_recording(
    trained: tuple[str, str], tmp_path: Path, capsys: Said, monkeypatch: Patch, somebody: Path
) -> None:
    run, checkpoint = trained
    folder = tmp_path / "study"
    words = ["study", run, "--checkpoint", checkpoint, "--recorded", "--out", str(folder), "--class", "any"]
    words += ["--split", "train", "--trials", "4", "--checks", "2", "--size", "192", "--ask", "Who <b>listens</b>?"]
    made = json.loads(visavis(capsys, monkeypatch, *words, "--portrait", str(somebody), "--json"))
    assert (made["trials"], made["checks"], made["systems"]) == (4, 2, ["base", "recorded"])
    key = read_key(folder / "key.json")
    for trial in key.trials:
        looks_alike(folder, trial)
    assert {"pcc_pose", "var_expression", "reactivity"} <= set(key.trials[0].clips[0].figures)

    monkeypatch.setattr("sys.argv", ["visavis", *words])
    from visavis.pipeline.app import main

    with pytest.raises(SystemExit) as ended:  # votes would lose their key
        main()
    assert ended.value.code == 2
    assert "has a study already" in capsys.readouterr().err

    _, votes = cast_votes(folder, World("", voters=6, preference=-3))
    said = visavis(capsys, monkeypatch, "study", "--count", *votes, "--key", str(folder))
    assert "Who <b>listens</b>?" in said
    assert "…" not in said.replace(" … ", "")  # nothing is cut off at 80 columns
    counted = json.loads(visavis(capsys, monkeypatch, "study", "--count", *votes, "--key", str(folder), "--json"))
    (found,) = counted["questions"]["own-1"]["shares"]
    assert found["votes"] == 24
    assert found["share"] < 0.2
    assert counted["people"]["counted"] == 6
    assert {row["preferred"] for row in counted["questions"]["own-1"]["trials"]} == {"recorded"}


@pytest.mark.nightly("a study of pairs; one of checkpoints is tested above")
def test_the_sides_of_pairs(trained: tuple[str, str], tmp_path: Path, capsys: Said, monkeypatch: Patch) -> None:
    run, checkpoint = trained
    pairs, folder = tmp_path / "pairs", tmp_path / "study"
    gate = ["--set", "gate.min_reactivity_margin=-10", "--set", "gate.max_jerk_ratio=1e9"]
    gate += ["--set", "gate.max_off_manifold=1e9", "--set", "gate.min_distance=0"]
    visavis(
        capsys, monkeypatch, "pairs", run, checkpoint, "--out", str(pairs), "--engine", "local", "--limit", "8", *gate
    )
    words = ["study", str(pairs), "--out", str(folder), "--trials", "5", "--checks", "1", "--size", "128"]
    visavis(capsys, monkeypatch, *words, "--ask", "listening", "--ask", "natural", "--no-ties")
    key, votes = cast_votes(folder, World("", voters=4))
    assert key.systems == ("chosen", "rejected")
    counted = json.loads(visavis(capsys, monkeypatch, "study", "--count", *votes, "--key", str(folder), "--json"))
    told = {row["measurement"] for row in counted["questions"]["listening"]["measurements"]}
    assert {"gate: reactivity_margin", "gate: distance", "var_pose"} <= told


@pytest.fixture
def somebody(dialogues: Path, tmp_path: Path) -> Path:
    """A picture of somebody."""
    with av.open(str(sorted(dialogues.glob("apart_*.mp4"))[0])) as film:
        picture = next(film.decode(video=0)).to_ndarray(format="bgr24")
    cv2.imwrite(str(tmp_path / "face.png"), picture)
    return tmp_path / "face.png"
