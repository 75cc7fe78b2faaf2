"""The Dockerfile without Docker: what it copies suffices to build the program, and what it installs resolves.

Not checked: that its base image exists, its apt-get and useradd steps, and that what was resolved also runs.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def steps(kind: str) -> list[list[str]]:
    lines = DOCKERFILE.replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith(f"{kind} ")]


def uv() -> str:
    return shutil.which("uv") or str(REPOSITORY / ".uv" / "bin" / "uv")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the COPY steps make; links stay links, as Docker keeps those inside a folder."""
    folder = tmp_path_factory.mktemp("image")
    for *sources, target in steps("COPY"):
        for source in sources:
            found = REPOSITORY / source
            if found.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(found, folder / target, symlinks=True, ignore=ignored)
            else:
                shutil.copy(found, folder / target)
    return folder


def test_what_is_copied_builds_the_whole_program(image: Path, tmp_path: Path) -> None:
    subprocess.run([uv(), "build", "--quiet", "--wheel", "--out-dir", tmp_path, image], check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    ours = [
        path for top in ("configs", "pipeline", "schemas", "stages", "training") for path in (image / top).rglob("*")
    ]
    assert {f"visavis/{path.relative_to(image)}" for path in ours if path.is_file()} <= inside


@pytest.mark.nightly("what the image installs, which the lock fixes")
def test_what_is_installed_resolves_with_the_face_model_inside(image: Path, tmp_path: Path) -> None:
    """uv's own step, into an empty environment, as far as the list of what it would install."""
    (words,) = (words for words in steps("RUN") if words[:3] == ["uv", "pip", "install"])
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True, timeout=100)
    asked = [word for word in words[3:] if word not in ("--system", "--no-cache")]
    command = [uv(), "pip", "install", "--dry-run", "--python", str(tmp_path / "venv" / "bin" / "python"), *asked]
    done = subprocess.run(command, cwd=image, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    chosen = {line.split("==")[0].removeprefix(" + "): line for line in done.stderr.splitlines() if "==" in line}
    assert chosen["mediapipe"] == " + mediapipe==0.10.21"
    assert {"whisperx", "senko", "ray", "s3fs", "resemblyzer", "opencv-python-headless"} <= set(chosen)
    assert {"jax", "opencv-contrib-python", "umap-learn", "webrtcvad"}.isdisjoint(chosen)
