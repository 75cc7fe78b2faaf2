"""Media on a real S3 server (moto's, on loopback): whose fault is it?"""

from __future__ import annotations

import errno
from collections.abc import Iterator

import boto3
import pytest
import s3fs

from tests.bucket import BUCKET, S3Server
from tests.stages.test_ingest import write_clip
from visavis.schemas.errors import Rejected
from visavis.schemas.storage import faults
from visavis.schemas.storage.faults import Blame, blame_of
from visavis.stages.ingest import probe

URL = f"s3://{BUCKET}/media/clip.mp4"


@pytest.fixture
def clip(server: S3Server, tmp_path, monkeypatch: pytest.MonkeyPatch) -> Iterator[bytes]:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # the client's own patience comes first, and takes its time
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    monkeypatch.setattr(faults, "ITEM_WAITS", (0.01, 0.01))
    monkeypatch.setattr(faults, "_AWAY", {})
    s3fs.S3FileSystem.clear_instance_cache()
    data = write_clip(tmp_path / "clip.mp4").read_bytes()
    boto3.client("s3").put_object(Bucket=BUCKET, Key="media/clip.mp4", Body=data)
    yield data
    server.before = lambda *_: None
    boto3.client("s3").delete_object(Bucket=BUCKET, Key="media/clip.mp4")
    s3fs.S3FileSystem.clear_instance_cache()


def answers(server: S3Server, code: str, times: int = 10_000) -> list[str]:
    """Let the server answer with an error so often where the clip is asked for."""
    asked: list[str] = []

    def before(method: str, path: str, query: dict[str, list[str]]) -> str | None:
        if not path.endswith("clip.mp4"):
            return None
        asked.append(method)
        return code if len(asked) <= times else None

    server.before = before
    return asked


def test_an_absent_key_is_the_datas_fault(clip: bytes) -> None:
    with pytest.raises(Rejected, match="No such file"):
        probe(f"{URL}.not")


@pytest.mark.slow
def test_an_absent_bucket_is_not(clip: bytes) -> None:
    with pytest.raises(FileNotFoundError, match="bucket does not exist") as caught:
        probe("s3://nowhere-at-all/clip.mp4")
    assert blame_of(caught.value) is Blame.USER


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidAccessKeyId", "ExpiredToken"])
def test_forbidden_is_not(clip: bytes, server: S3Server, code: str) -> None:
    answers(server, code)
    with pytest.raises(OSError) as caught:  # noqa: PT011 - which one depends on the code
        probe(URL)
    assert caught.value.errno == errno.EACCES
    assert caught.value.filename == URL


@pytest.mark.parametrize("code", ["SlowDown", "InternalError"])
def test_what_passes_is_waited_for(clip: bytes, server: S3Server, code: str) -> None:
    asked = answers(server, code, times=2)
    assert probe(URL).bytes == len(clip)
    assert len(asked) > 2


def test_nobody_to_ask_as(clip: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(OSError, match="Unable to locate credentials") as caught:
        probe(URL)
    assert blame_of(caught.value) is Blame.USER


def test_a_server_that_is_away(clip: bytes) -> None:
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
        with pytest.raises(OSError, match="endpoint") as caught:
            probe(URL)
    assert caught.value.errno == errno.EHOSTUNREACH
