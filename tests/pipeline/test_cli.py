"""Wrong use is one line and exit 2; bad data is a ledger row; a traceback is never shown."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from visavis.pipeline.app import main

CONFIG = str(Path(__file__).parents[2] / "configs" / "default.yaml")


def visavis(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "argv", ["visavis", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    out = capsys.readouterr()
    assert "Traceback" not in out.out + out.err
    return int(ended.value.code or 0), out.out, out.err


@pytest.fixture
def text_as_video(tmp_path: Path) -> str:
    path = tmp_path / "text.mp4"
    path.write_text("this is not a video\n")
    return str(path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["build"], "Missing argument"),
        (["frobnicate"], "No such command"),
        (["build", CONFIG], "no input"),
        (["build", CONFIG, "absent.mp4"], "absent.mp4: no such file or folder"),
        (["build", "absent.yaml", "x.mp4"], "cannot read config absent.yaml"),
        (["build", CONFIG, "{video}", "--set", "windows.lenght=50"], "windows.lenght: unknown key"),
        (["build", CONFIG, "{video}", "--set", "windows.length=many"], "windows.length"),
        (
            ["build", CONFIG, "{video}", "--set", "qualty.min_face=3"],
            "visavis: --set qualty.min_face: qualty: unknown key; did you mean quality?",
        ),
        (["build", "{video}"], "text.mp4 is no recipe, which comes first"),
        (["clean", "{folder}"], "not a run's folder"),
        (["config", "tea"], "config is of build, train, pairs, not of 'tea'"),
        (["build", CONFIG, "{video}", "--engine", "slurm"], "run.engine"),
        (["build", CONFIG, "--pair", "a.mp4", "b.mp4"], "a.mp4: no such file"),
        (
            ["build", CONFIG, "{video}", "--set", "separate.backend=convtasnet", "--set", "separate.weights=absent.pt"],
            "separate.weights: cannot read absent.pt (No such file",
        ),
        (["status", "{folder}"], "not a run's folder"),
        (["report", "{folder}"], "is not a dataset"),
        (["train", CONFIG, "{folder}"], "is a recipe for `visavis build`, not for `visavis train`"),
        (["evaluate", "absent.safetensors", "{folder}"], "cannot read checkpoint"),
        (["evaluate", "absent.safetensors", "{folder}", "--split", "test"], "--split is train or val"),
        (["generate", "absent.safetensors", "{folder}", "k", "--drop", "everything"], "--drop is one of full"),
        (["pairs", "{folder}", "absent.pt"], "cannot read checkpoint"),
    ],
)
def test_wrong_use_is_one_line_and_exit_two(
    words: list[str],
    message: str,
    text_as_video: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    filled = [w.format(video=text_as_video, folder=tmp_path) if "{" in w else w for w in words]
    code, out, err = visavis(capsys, monkeypatch, *filled)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["text.mp4"]  # nothing half-written


def test_a_corpus_of_broken_files_ends_in_the_ledger(
    text_as_video: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty.mp4").touch()
    run = str(tmp_path / "run")
    code, _, err = visavis(capsys, monkeypatch, "build", CONFIG, str(tmp_path), "--out", run, "--engine", "local")
    assert code == 1
    assert "no conversation is left to train on (2 × unreadable)" in err
    code, out, _ = visavis(capsys, monkeypatch, "status", run, "--json")
    assert code == 0
    status = json.loads(out)
    assert status["stages"]["ingest"]["rejected"] == {"unreadable": 2}
    assert status["dataset"] is None
    code, out, _ = visavis(capsys, monkeypatch, "verify", run)
    assert (code, out.count("\n")) == (1, 1)
    assert "no manifest.json" in out

    code, _, err = visavis(
        capsys, monkeypatch, "build", CONFIG, text_as_video, "--out", run, "--engine", "local", "--set", "windows.hop=5"
    )
    assert code == 2
    assert "was built with windows.hop=25 and now has 5" in err


def test_a_folder_that_cannot_be_written_is_one_line(
    text_as_video: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = f"{text_as_video}/run"  # inside a file
    code, _, err = visavis(capsys, monkeypatch, "build", CONFIG, text_as_video, "--out", out, "--engine", "local")
    assert code == 1
    assert "Not a directory" in err
    assert err.count("\n") == 1


def test_a_dry_run_shows_the_plan_and_writes_nothing(
    text_as_video: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    code, out, err = visavis(capsys, monkeypatch, "build", CONFIG, text_as_video, "--out", str(run), "--dry-run")
    assert code == 0
    assert "text.mp4" in out
    assert "how long the video is (of 1 file) is not known yet; about 0.4 core-hours" in out
    assert "nothing was written" in err
    assert not run.exists()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["", "build", "train", "pairs", "evaluate", "verify", "demo"])
def test_help_works_from_a_shell(command: str, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "visavis", *([command] if command else []), "--help"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 0
    assert "Usage:" in done.stdout
    assert done.stderr == ""


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_wrong_use_and_nothing_is_written(text_as_video: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"  # nobody listens there once this is closed
    out = tmp_path / "run"
    words = ["build", CONFIG, text_as_video, "--out", str(out), "--engine", "ray", "--address", address]
    done = subprocess.run([sys.executable, "-m", "visavis", *words], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"visavis: no Ray cluster at {address} (Connection refused)")
    assert done.stderr.count("\n") == 1
    assert [path.name for path in out.iterdir()] == []
