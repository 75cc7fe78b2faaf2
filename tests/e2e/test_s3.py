"""An object store is as good a place as a disk: the same bytes, nothing done twice."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import boto3
import pytest
from rich.console import Console

from tests.bucket import BUCKET, S3Server
from tests.e2e.conftest import SMALL, sources_of
from tests.e2e.test_build import Built, files
from visavis.pipeline.app import main
from visavis.pipeline.cli.status import read_status
from visavis.pipeline.cli.verify import verify_dataset
from visavis.pipeline.engine.executor import Engine, local_engine
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.engine.ray_executor import ray_engine
from visavis.pipeline.plan.build import Build
from visavis.pipeline.plan.sources import find_sources
from visavis.pipeline.plan.summary import BuildSummary
from visavis.schemas.config import BuildConfig, RunConfig
from visavis.schemas.rows import Source
from visavis.schemas.storage.store import Store

VIDEOS = f"s3://{BUCKET}/videos"
pytestmark = pytest.mark.slow


def build(sources: list[Source], root: str, engine: Engine = local_engine) -> BuildSummary:
    reporter = Reporter(Console(file=io.StringIO()))
    return Build(BuildConfig.model_validate(SMALL), root, engine, reporter).run(sources)


def objects(root: str, folder: str) -> dict[str, bytes]:
    """What `files` gives for a folder of a disk."""
    store = Store(root)
    return {name: store.read(f"{folder}/{name}") for name in sorted(store.names(folder))}


def versions(root: str) -> dict[str, object]:
    """When each object was written."""
    pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=root.split("/", 3)[3])
    return {entry["Key"]: entry["LastModified"] for page in pages for entry in page["Contents"]}


@pytest.fixture(scope="module")
def uploaded(server: S3Server, dialogues: Path) -> list[Source]:
    """The dialogues, as conversations on S3."""
    for path in dialogues.glob("*.mp4"):
        boto3.client("s3").upload_file(str(path), BUCKET, f"videos/{path.name}")
    one, other = (f"{VIDEOS}/{path.name}" for path in sorted(dialogues.glob("apart_*.mp4")))
    return list(find_sources([f"{VIDEOS}/together.mp4"], [(one, other)]))


@pytest.fixture(scope="module")
def remote(uploaded: list[Source]) -> tuple[str, BuildSummary]:
    """A build from S3 into S3. The tests leave it as they found it."""
    root = f"s3://{BUCKET}/runs/first"
    return root, build(uploaded, root)


Remote = tuple[str, BuildSummary]


def test_from_s3_into_s3_gives_the_bytes_of_a_disk(built: Built, remote: Remote) -> None:
    root, summary = remote
    assert summary.dataset == f"{root}/dataset"
    assert objects(root, "dataset") == files(built[0] / "dataset")
    here, there = (
        {name for name in Store(str(place)).names("artifacts") if not name.startswith("ingest/")}
        for place in (built[0], root)
    )
    assert here == there  # ids come from content; only ingest knows a conversation by where it lies


def test_a_run_on_s3_can_be_verified_and_asked(
    remote: Remote, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, _ = remote
    assert verify_dataset(f"{root}/dataset") == []
    monkeypatch.setattr(sys, "argv", ["visavis", "verify", root])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert capsys.readouterr().out == f"{root}/dataset: intact\n"
    status = read_status(root, "dataset")
    assert list(status["stages"]) == [
        "ingest",
        "diarize",
        "faces",
        "cast",
        "bind",
        "separate",
        "fit",
        "motion",
        "windows",
        "census",
        "shard",
    ]
    assert all(row["ok"] and not row["failed"] and not row["rejected"] for row in status["stages"].values())
    assert status["running"] is None
    assert "Uploads" not in boto3.client("s3").list_multipart_uploads(Bucket=BUCKET)


def test_run_twice_the_second_processes_nothing(remote: Remote, uploaded: list[Source]) -> None:
    root, _ = remote
    before = versions(root)
    assert build(uploaded, root).processed == 0
    after = versions(root)
    folder = root.split("/", 3)[3]
    assert {key for key in after if before.get(key) != after[key]} == {
        f"{folder}/{name}.json" for name in ("run", "state")
    }


@pytest.mark.nightly("what is missing on S3 is made again; on a disk in test_build.py")
def test_a_deleted_object_is_redone_and_nothing_beside_it(remote: Remote, uploaded: list[Source]) -> None:
    root, _ = remote
    store = Store(root)
    dataset = objects(root, "dataset")
    victim = min(name for name in store.names("artifacts") if name.startswith("motion/"))
    for path in (f"artifacts/{victim}", f"dataset/{min(name for name in dataset if name.endswith('.tar'))}"):
        store.delete(path)
        assert build(uploaded, root).processed == 1
        assert store.exists(path)
        assert objects(root, "dataset") == dataset


@pytest.mark.nightly("videos that moved from S3; names mean nothing in test_build.py, too")
def test_videos_that_moved_to_a_disk_are_read_again_and_nothing_else(
    remote: Remote, uploaded: list[Source], dialogues: Path
) -> None:
    root, _ = remote
    dataset = objects(root, "dataset")
    assert build(sources_of(dialogues), root).processed == len(uploaded)  # hashed, and recognised
    assert objects(root, "dataset") == dataset


@pytest.mark.nightly("S3 from Ray's workers; S3 is tested above, Ray in test_build.py")
def test_workers_on_ray_read_and_write_there(remote: Remote, uploaded: list[Source], ray_cluster: None) -> None:
    root, _ = remote
    store = Store(root)
    dataset = objects(root, "dataset")
    made = [f"artifacts/shard/{name}" for name in store.names("artifacts/shard")]
    for path in (*made, *(f"dataset/{name}" for name in dataset)):
        store.delete(path)
    assert build(uploaded, root, ray_engine(RunConfig())).processed == len(made)
    assert objects(root, "dataset") == dataset
