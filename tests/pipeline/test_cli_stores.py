"""Stores that are away, forbidding, full or not there, as the command line tells of them: one line, with the path."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import fsspec
import pytest
import s3fs

from benchmarks.webserver import Behaviour, closed_port, web
from tests.bucket import BUCKET, S3Server
from tests.pipeline.test_cli import CONFIG, visavis
from tests.stages.test_ingest import write_clip
from tests.training.synthetic import write_dataset
from visavis.schemas.dyads import WindowClass
from visavis.schemas.storage import faults


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "WAITS", (0.01,))
    monkeypatch.setattr(faults, "_AWAY", {})


@pytest.fixture
def clip(tmp_path: Path) -> str:
    return str(write_clip(tmp_path / "clip.mp4"))


@pytest.mark.slow
@pytest.mark.parametrize("where", ["{tmp}/absent", "{tmp}", "{web}/absent", "nosuch://x", f"s3://{BUCKET}/absent"])
def test_verify_of_what_is_no_dataset_is_wrong_use(
    server: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    with web() as host:
        place = where.format(tmp=tmp_path, web=host.address)
        code, out, err = visavis(capsys, monkeypatch, "verify", place)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert place in err


def test_verify_of_a_damaged_dataset_or_a_server_that_is_away_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_dataset(tmp_path / "windows", {WindowClass.LISTENING: 6}, shards=2, frames=5)
    assert visavis(capsys, monkeypatch, "verify", str(folder))[0] == 0
    (folder / "train-listening-00001.tar").write_bytes(b"damaged")
    assert visavis(capsys, monkeypatch, "verify", str(folder))[0] == 1
    url = f"http://127.0.0.1:{closed_port()}/windows"
    code, _, err = visavis(capsys, monkeypatch, "verify", url)
    assert code == 1
    assert url in err.splitlines()[-1]
    assert "Connection refused" in err.splitlines()[-1]


def test_verify_where_only_reading_is_allowed(
    server: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may not list is told "forbidden" of what is absent, too."""
    folder = write_dataset(tmp_path / "windows", {WindowClass.LISTENING: 6}, shards=2, frames=5)
    fsspec.filesystem("s3").put(str(folder), f"s3://{BUCKET}/read-only/dataset", recursive=True)
    absent = f"/{BUCKET}/read-only/manifest.json"

    def before(method: str, path: str, query: dict[str, list[str]]) -> str | None:
        return "AccessDenied" if "list-type" in query or path == absent else None

    server.before = before
    try:
        code, out, _ = visavis(capsys, monkeypatch, "verify", f"s3://{BUCKET}/read-only")
    finally:
        server.before = lambda *_: None
    assert (code, out) == (0, f"s3://{BUCKET}/read-only/dataset: intact\n")


def test_a_run_in_no_bucket_is_wrong_use(
    server: S3Server, clip: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("build", CONFIG, clip, "--out", "s3://no-such-bucket-here/run", "--engine", "local")
    code, _, err = visavis(capsys, monkeypatch, *words)
    assert code == 2
    assert "s3://no-such-bucket-here/run" in err
    assert "bucket does not exist" in err
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    s3fs.S3FileSystem.clear_instance_cache()
    code, _, err = visavis(capsys, monkeypatch, *words)
    s3fs.S3FileSystem.clear_instance_cache()
    assert code == 2
    assert "Unable to locate credentials" in err


@pytest.mark.parametrize("out", ["{file}/run", "{tmp}/" + "x" * 300])
def test_a_run_where_no_folder_can_be_is_one_line(
    clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    place = out.format(file=clip, tmp=tmp_path)
    code, _, err = visavis(capsys, monkeypatch, "build", CONFIG, clip, "--out", place, "--engine", "local")
    assert (code, err.count("\n")) == (1, 1)
    assert place[:40] in err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_disk_in_trouble_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise OSError(number, "in trouble", f"{tmp_path}/x")

    monkeypatch.setattr("visavis.schemas.recipes.load_config", fails)
    code, _, err = visavis(capsys, monkeypatch, "train", CONFIG, str(tmp_path))
    assert (code, err) == (1, f"visavis: {tmp_path}/x: in trouble\n")


def test_a_dataset_behind_a_server_that_answers_403_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with web() as host:
        host.behaviour["/manifest.json"] = host.behaviour["/dataset/manifest.json"] = Behaviour(status=403)
        code, _, err = visavis(capsys, monkeypatch, "verify", host.address)
    assert code == 2
    assert "the server answers 403 Forbidden" in err
