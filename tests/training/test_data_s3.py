"""The loader on a real S3 server: moto's, on loopback, over HTTP."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import fsspec
import pytest
import s3fs

from tests.bucket import BUCKET, S3Server
from tests.training.synthetic import write_dataset
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import DatasetError, UsageError
from visavis.schemas.storage import faults
from visavis.training.dataset import Dataset
from visavis.training.loader import Loader

URL = f"s3://{BUCKET}/windows"
SHARD = "train-listening-00001.tar"


@pytest.fixture
def here(server: S3Server, tmp_path: Path) -> Iterator[Path]:
    """A dataset on a disk, and the same one at URL."""
    folder = write_dataset(tmp_path / "windows", {WindowClass.LISTENING: 6}, shards=2, frames=5)
    fsspec.filesystem("s3").put(str(folder), URL, recursive=True)
    yield folder
    server.before = lambda *_: None
    fsspec.filesystem("s3").rm(URL, recursive=True)


def keys(location: str) -> list[str]:
    return [key for batch, _ in islice(Loader(Dataset(location), 2), 6) for key in batch.keys]


def test_windows_come_from_s3_as_from_a_disk(here: Path):
    assert keys(URL) == keys(str(here))


def test_what_is_missing_is_named(here: Path, server: S3Server):
    with pytest.raises(UsageError, match=r"s3://nowhere/windows is not a dataset: .*bucket does not exist"):
        Dataset("s3://nowhere/windows")
    with pytest.raises(UsageError, match=rf"s3://{BUCKET}/elsewhere is not a dataset: .*No such file"):
        Dataset(f"s3://{BUCKET}/elsewhere")
    server.before = lambda *_: "AccessDenied"
    with pytest.raises(UsageError, match=r"is not a dataset: .*(AccessDenied|Forbidden)"):
        Dataset(URL)
    server.before = lambda *_: None
    fsspec.filesystem("s3").rm(f"{URL}/{SHARD}")
    with pytest.raises(DatasetError, match=f"shard {SHARD} is missing"):
        keys(URL)


@pytest.mark.slow
def test_missing_credentials_are_named(here: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(UsageError, match="Unable to locate credentials"):
        Dataset(URL)
    monkeypatch.undo()
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_store_that_is_away_for_a_while_stops_nothing(
    here: Path, server: S3Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # the client's own patience comes first, and takes its time
    s3fs.S3FileSystem.clear_instance_cache()
    left = 2

    def away(method: str, path: str, query: dict[str, list[str]]) -> str | None:
        nonlocal left
        if method == "GET" and path.endswith(SHARD) and left:
            left -= 1
            return "InternalError"
        return None

    server.before = away
    monkeypatch.setattr(faults, "WAITS", (0.01, 0.02))
    with caplog.at_level(logging.WARNING):
        assert keys(URL) == keys(str(here))
    assert [f"{URL}/{SHARD} cannot be read (InternalError it is)" in line for line in caplog.messages] == [True, True]
    left = 3
    with pytest.raises(DatasetError, match=rf"shard {SHARD} cannot be read \(InternalError it is\)"):
        keys(URL)
    s3fs.S3FileSystem.clear_instance_cache()
