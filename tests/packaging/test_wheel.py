"""The wheel, installed by plain pip into a fresh environment without extras, overrides or this checkout.

torch and what it brings for GPUs, 3 to 5 GB, are not fetched again: links to this environment's copies lie in a folder
that the fresh one knows by a .pth file, where pip finds them as installed. torch and torchaudio are the checkout's, so
the versions that pip would choose are not tried. All else pip resolves and fetches itself. `tests/packaging/matrix`
does it in full, with every extra, on each Python that it is given.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement

import visavis
from tests.training.synthetic import write_dataset
from visavis.schemas.dyads import WindowClass

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("configs", "pipeline", "schemas", "stages", "training")
HEAVY = re.compile(r"torch|torchaudio|triton|nvidia-.*|cuda-.*")
PIP = pytest.mark.nightly("what plain pip makes of the wheel; without extras tests/training/test_entry.py trains")
MISSING = re.compile(r'visavis: .* needs what is not installed here: pip install "visavis\[(\w+)\]" \(.*\)\n')

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # on a busy machine pip alone takes two minutes


class Dist(NamedTuple):
    wheel: Path
    sdist: Path


class Installed(NamedTuple):
    bin: Path

    def run(self, *words: object, where: Path) -> subprocess.CompletedProcess[str]:
        """A program of the fresh environment, in a folder that has nothing of this checkout."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        command = [str(self.bin / str(words[0])), *map(str, words[1:])]
        return subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Dist:
    folder = tmp_path_factory.mktemp("dist")
    uv = shutil.which("uv") or REPOSITORY / ".uv" / "bin" / "uv"
    _must([uv, "build", "--quiet", "--out-dir", folder, REPOSITORY])
    (wheel,), (sdist,) = (list(folder.glob(pattern)) for pattern in ("*.whl", "*.tar.gz"))
    return Dist(wheel, sdist)


@pytest.fixture(scope="module")
def installed(dist: Dist, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("packaging")
    _must([sys.executable, "-m", "venv", folder / "venv"])
    python = folder / "venv" / "bin" / "python"
    known = _must([python, "-c", "import site; print(site.getsitepackages()[0])"]).strip()
    Path(known, "heavy.pth").write_text(f"{_heavy(folder / 'heavy')}\n")
    _must([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", dist.wheel])
    return Installed(python.parent)


def _must(command: list[object]) -> str:
    done = subprocess.run([str(word) for word in command], cwd="/", capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _heavy(folder: Path) -> Path:
    """A folder of links to torch and the GPU libraries that it depends on."""
    folder.mkdir()
    for name in _closure("torch") | _closure("torchaudio"):
        found = distribution(name)
        for top in {file.parts[0] for file in found.files or () if ".." not in file.parts}:
            link = folder / top
            if top != "__pycache__" and not link.exists():
                link.symlink_to(Path(str(found.locate_file(top))))
    return folder


def _closure(name: str) -> set[str]:
    try:
        wanted = [Requirement(each) for each in distribution(name).requires or ()]
    except PackageNotFoundError:
        return set()
    names = {each.name for each in wanted if HEAVY.fullmatch(each.name) and (not each.marker or each.marker.evaluate())}
    return {name}.union(*map(_closure, names))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    counts = {WindowClass.LISTENING: 24, WindowClass.SPEAKING: 24}
    return write_dataset(tmp_path_factory.mktemp("shards"), counts)


def _ours() -> Iterator[str]:
    """Files of this checkout that are to be installed."""
    for package in PACKAGES:
        for path in (REPOSITORY / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield f"visavis/{path.relative_to(REPOSITORY).as_posix()}"


def test_wheel_and_sdist_hold_our_package_whole_and_nothing_beside_it(dist: Dist) -> None:
    inside = set(zipfile.ZipFile(dist.wheel).namelist())
    about = f"visavis-{visavis.__version__}.dist-info/"
    assert {name for name in inside if not name.startswith(("visavis/", about))} == set()
    assert set(_ours()) - inside == set()
    with tarfile.open(dist.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"visavis", "pyproject.toml", "README.md", "LICENSE", "NOTICE", "PKG-INFO", ".gitignore"}
    assert set(_ours()) - names == set()


@PIP
def test_a_library_of_one_name(installed: Installed, tmp_path: Path) -> None:
    """Folders of a user's own that are called as ours are in a checkout are theirs."""
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    look = (
        "import importlib.util as u, visavis, visavis.stages.face.texture as t;"
        "from visavis.training.dataset import Dataset; from visavis.training.model import Listener;"
        "from visavis.stages.face.heads import canonical_face; print(visavis.__file__, canonical_face().shape);"
        "print([n for n in ('stages', 'training', 'pipeline', 'configs', 'tests', 'ray', 'cv2') if u.find_spec(n)])"
    )
    done = installed.run("python", "-c", look, where=tmp_path)
    assert done.returncode == 0, done.stderr
    path, others = done.stdout.splitlines()
    assert path.startswith(str(installed.bin.parent))
    assert others == "[]"


@PIP
def test_version_and_help(installed: Installed, tmp_path: Path) -> None:
    assert installed.run("visavis", "--version", where=tmp_path).stdout == f"visavis {visavis.__version__}\n"
    for command in ((), ("build",), ("train",), ("pairs",), ("demo",)):
        done = installed.run("visavis", *command, "--help", where=tmp_path)
        assert (done.returncode, done.stdout[:5]) == (0, "Usage"), command


@PIP
def test_training_and_evaluation_need_no_extra(installed: Installed, shards: Path, tmp_path: Path) -> None:
    recipe = ("configs/train/tiny.yaml", shards, "--set", "optim.steps=20", "--out")
    done = installed.run("visavis", "train", *recipe, "a", where=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "step 20 of 20" in done.stderr
    done = installed.run("python", "-m", "visavis.training", *recipe, "b", where=tmp_path)
    assert (done.returncode, done.stdout) == (0, "b/checkpoint.safetensors\n"), done.stderr
    assert (tmp_path / "a" / "checkpoint.safetensors").is_file()
    scored = ("evaluate", "a/checkpoint.safetensors", shards, "--split", "train", "--limit", 1)
    for words in (scored, ("verify", shards), ("report", shards), ("assets",)):
        done = installed.run("visavis", *words, where=tmp_path)
        assert done.returncode == 0, done.stderr


@PIP
def test_what_is_missing_is_said_in_a_line_before_any_work(installed: Installed, shards: Path, tmp_path: Path) -> None:
    commands = {
        ("build", "configs/default.yaml", "a.mp4"): "build",
        ("status", shards): "build",
        ("draw", shards, "a"): "build",
        ("export", shards): "build",
        ("pairs", shards, "checkpoint.safetensors"): "build",
        ("report", "a.generated.npy"): "build",
        ("train", "configs/train/tiny.yaml", shards, "--num-workers", 2): "build",
        ("demo",): "demo",
    }
    for words, extra in commands.items():
        done = installed.run("visavis", *words, where=tmp_path)
        assert done.returncode == 2, (words, done.stderr)
        found = MISSING.fullmatch(done.stderr)
        assert found, done.stderr
        assert found[1] == extra
    done = installed.run("visavis", "train", "configs/train/tiny.yaml", "s3://bucket/folder", where=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert 'pip install "visavis[s3]"' in done.stderr
    assert list(tmp_path.iterdir()) == []
