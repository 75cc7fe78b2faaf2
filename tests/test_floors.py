"""No version with a known fault is asked for, or installed: what each floor in pyproject.toml is for.

A row is added when an advisory concerns what this program does with a package. Lowering a floor below its row fails.
"""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import av
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

REPOSITORY = Path(__file__).parents[1]


class Floor(NamedTuple):
    """`fixed`: the first version without the fault."""

    package: str
    fixed: str
    advisories: str
    why: str


FLOORS = (
    Floor("torch", "2.10", "CVE-2026-24747", "weights_only does not hold: checkpoints of others could run code"),
    Floor("ray", "2.55", "CVE-2026-41486", "reading Parquet of others unpickles metadata once ray.data is imported"),
    Floor("ray", "2.56", "CVE-2026-57516", "its WebDataset reader unpickles; ours is another, users may know only one"),
    Floor("ray", "2.52", "GHSA-q279-jhrf-cc6v", "a web page in a browser beside it could reach its ports and run code"),
    Floor("ray", "2.59", "no advisory", "since then a cluster of this machine asks for a token by itself"),
    Floor("av", "18.1", "CVE-2026-8461", "FFmpeg before 8.1.2 writes out of bounds in a decoder"),
    Floor("fsspec", "2026.6", "CVE-2026-104851", "a reference:// URL in a list runs code by its templates"),
    Floor("s3fs", "2026.6", "CVE-2026-104851", "goes with the fsspec of the same month"),
    Floor("jinja2", "3.1.6", "CVE-2025-27516", "the sandbox that fsspec's templates run in since then had a way out"),
    Floor("filelock", "3.20.3", "CVE-2025-68146, CVE-2026-22701", "a link in the place of a lock was followed"),
    Floor("pyarrow", "14.0.1", "CVE-2023-47248", "Parquet lists of others could run code"),
    Floor("aiohttp", "3.14.1", "PYSEC-2026-2110", "lines of any length are taken into memory"),
    Floor("aiohttp", "3.14.4", "PYSEC-2026-4369", "the dashboard's side: a request says which scheme it came by"),
    Floor("multidict", "6.9.1", "CVE-2026-104874", "aiohttp keeps headers in it, and servers send those"),
    Floor(
        "urllib3", "2.7", "CVE-2026-44431, CVE-2026-44432", "keys follow a redirect; compressed answers grow unbounded"
    ),
    Floor("pillow", "12.3", "CVE-2026-59199", "writes out of bounds; others of this program's packages use it"),
    Floor("protobuf", "6.33.5", "CVE-2026-0994", "nesting without a bound; MediaPipe and TensorBoard use it"),
    Floor("lightning", "2.6.4", "GHSA-w37p-236h-pfx3", "2.6.2 and 2.6.3 were stolen releases that steal keys"),
    Floor("lightning", "2.6.6", "Lightning #21832, #21914", "pyannote loads models by it: a checkpoint could run code"),
    Floor("pytorch-lightning", "2.6.6", "GHSA-w37p-236h-pfx3, Lightning #21832, #21914", "the same"),
)

BUNDLED = (
    Floor("decord2", "", "CVE-2026-8461", "3.4.0 brings FFmpeg 8.1.1: no floor helps, so it is refused at run time"),
    Floor("opencv-python-headless", "", "CVE-2026-8461", "5.0.0.93 brings FFmpeg 8.1.1, which nothing here opens"),
)
"""Faults of what lies inside a wheel, for which there is no fixed version yet."""


def asked() -> list[Requirement]:
    """Everything that pyproject.toml asks for: for users, extras, tools, and of what others bring along."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    uv = project["tool"]["uv"]
    words = [
        *project["project"]["dependencies"],
        *(word for extra in project["project"]["optional-dependencies"].values() for word in extra),
        *(word for group in project["dependency-groups"].values() for word in group),
        *uv["override-dependencies"],
        *uv["constraint-dependencies"],
    ]
    return [Requirement(word) for word in words]


def name_of(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


@pytest.mark.parametrize("floor", FLOORS, ids=lambda floor: f"{floor.package}-{floor.fixed}")
def test_no_version_with_a_known_fault_is_asked_for(floor: Floor) -> None:
    """Wherever a package is asked for (a floor in one list would not hold for the others)."""
    wanted = [each for each in asked() if name_of(each.name) == floor.package]
    assert wanted
    for each in wanted:
        lowest = [Version(clause.version) for clause in each.specifier if clause.operator in (">=", "==", "~=")]
        assert lowest, f"{each} has no floor"
        assert max(lowest) >= Version(floor.fixed), f"{each}: {floor.advisories}: {floor.why}"


@pytest.mark.parametrize("floor", FLOORS, ids=lambda floor: f"{floor.package}-{floor.fixed}")
def test_no_version_with_a_known_fault_is_installed(floor: Floor) -> None:
    try:
        found = Version(version(floor.package))
    except PackageNotFoundError:
        pytest.skip(f"{floor.package} is not installed")
    assert found >= Version(floor.fixed), f"{floor.advisories}: {floor.why}"


def test_the_ffmpeg_that_opens_media_is_the_fixed_one() -> None:
    found = re.match(r"n?(\d+)\.(\d+)(?:\.(\d+))?", av.ffmpeg_version_info)
    assert found, av.ffmpeg_version_info
    assert tuple(int(part or 0) for part in found.groups()) >= (8, 1, 2)


def test_no_video_is_opened_by_opencv() -> None:
    """Its wheel has an FFmpeg of its own (see `BUNDLED`)."""
    for package in ("schemas", "training", "stages", "pipeline"):
        for path in (REPOSITORY / package).rglob("*.py"):
            text = path.read_text()
            assert "VideoCapture(" not in text, path
            assert not re.search(r"scenedetect.*\b(open_video|VideoStreamCv2|VideoManager)\b", text), path
