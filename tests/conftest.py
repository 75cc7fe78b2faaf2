"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import jaxtyping
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

from tests import shapes
from tests.command_line import keep_commands
from tests.scale import NIGHTLY

if TYPE_CHECKING:
    from tests.bucket import S3Server

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("PYANNOTE_METRICS_ENABLED", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may download a model
# Two processes with a pool of threads each would wait for each other: voices were separated in a quarter of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# HYPOTHESIS_PROFILE=nightly draws fifty times as many inputs as CI has time for.
_QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]  # files are written anew for each input
settings.register_profile("ci", max_examples=60, deadline=None, suppress_health_check=_QUIET)
settings.register_profile("nightly", max_examples=3000, deadline=None, suppress_health_check=_QUIET)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

keep_commands()

# Shapes and types that these signatures state hold in every call that a test makes in its own process. With models as
# small as ours looking takes a third of the time (1.7 s for 1.1), so in slow tests it is nightly.
_TRAINING = Path(__file__).parents[1] / "training"
_SHAPED = [
    ".".join(path.relative_to(_TRAINING).with_suffix("").parts)
    for path in _TRAINING.rglob("*.py")
    if re.search("jaxtyping|training.shapes", path.read_text())
]
jaxtyping.install_import_hook([f"visavis.training.{name}" for name in _SHAPED], f"{shapes.__name__}.checked")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that quick ones fill the end, where a process would wait for another. Who
    is left to the night says what it guards.
    """
    silent = [item.nodeid for item in items for mark in item.iter_markers("nightly") if not mark.args]
    if silent:
        raise pytest.UsageError(f"pytest.mark.nightly says what is guarded: {', '.join(silent)}")
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: not slow[item.path])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    with pytest.MonkeyPatch.context() as patch:
        if item.get_closest_marker("slow") and not NIGHTLY:
            patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        return (yield)


Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """`once(NAME, fill)`: a folder that is filled once, also where several processes share the tests. It is not
    changed after that.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def folder_of(name: str, fill: Callable[[Path], object]) -> Path:
        folder = root / "once" / name
        folder.parent.mkdir(exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                (unfinished := folder.with_name(f"{name}.unfinished")).mkdir()
                fill(unfinished)
                unfinished.rename(folder)
        return folder

    return folder_of


@pytest.fixture(scope="session")
def shared_media() -> Path:
    """Real clips that lie beside the project; they are not part of it."""
    folder = Path(__file__).parents[2] / "shared" / "media"
    if not folder.is_dir():
        pytest.skip(f"no media beside the project ({folder.name}/ is absent)")
    return folder


@pytest.fixture(scope="session")
def landmarker() -> Path:
    """MediaPipe's FaceLandmarker bundle, which lies beside the project; it is not part of it."""
    file = Path(__file__).parents[2] / "shared" / "models" / "face_landmarker.task"
    if not file.is_file():
        pytest.skip(f"no {file.name} beside the project")
    return file


@pytest.fixture(scope="session")
def server() -> Iterator[S3Server]:
    """One S3 server for the whole test session."""
    from tests.bucket import s3_server

    with s3_server() as running:
        yield running


@pytest.fixture(scope="module")
def ray_cluster(server: S3Server) -> Iterator[None]:
    """One local cluster for a file: one that nobody needs takes a twentieth of a core. Its workers find the S3 server,
    as it is started after that.
    """
    import ray

    from visavis.pipeline.engine.cluster import start_ray

    start_ray(None)
    yield
    ray.shutdown()
