"""Whatever the code imports is asked for in pyproject.toml; what is missing is said in a line that names its extra."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from visavis.schemas import extras
from visavis.schemas.errors import UsageError

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
BROUGHT_BY = {"pydantic_core": "pydantic", "yarl": "aiohttp"}  # imported, and part of another package's promise
BY_HAND = {"whisperx"}  # asked for in the message of its own: plain pip cannot reconcile it


def metadata(_: str = "") -> list[str]:
    """What a wheel built of this pyproject.toml says that it needs."""
    optional = PROJECT["optional-dependencies"].items()
    return [*PROJECT["dependencies"], *(f"{each}; extra == '{name}'" for name, words in optional for each in words)]


@pytest.fixture(autouse=True)
def _as_built(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(extras, "requires", metadata)
    extras._requirements.cache_clear()
    yield
    extras._requirements.cache_clear()


def imported(package: str) -> set[str]:
    """Modules of others that a package of ours imports, anywhere in its files."""
    found = set[str]()
    for path in (REPOSITORY / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module or "")
    roots = {name.partition(".")[0] for name in found}
    return roots - sys.stdlib_module_names - {"visavis"}


def in_base(module: str) -> bool:
    base = {extras._plain(Requirement(each).name) for each in PROJECT["dependencies"]}
    distributions = packages_distributions().get(module, [module])
    return any(extras._plain(name) in base for name in [*distributions, BROUGHT_BY.get(module, module)])


@pytest.mark.slow
@pytest.mark.parametrize("package", ["schemas", "training"])
def test_the_base_brings_all_that_training_imports(package: str) -> None:
    # of `training.protocols`, in functions
    optional = {"joblib", "sklearn", "threadpoolctl"} if package == "training" else set()
    assert {module for module in imported(package) if not in_base(module)} == optional
    assert {extras.extra_of(module) for module in optional} <= {"metrics"}


@pytest.mark.slow
@pytest.mark.parametrize("package", ["stages", "pipeline"])
def test_base_or_an_extra_brings_all_that_the_rest_imports(package: str) -> None:
    others = {module for module in imported(package) if not in_base(module)} - BY_HAND
    assert others  # else this test looks at nothing
    assert {module for module in others if extras.extra_of(module) is None} == set()


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("cv2", "build"),
        ("ray.train", "build"),
        ("pyannote.audio.core", "build"),
        ("decord", "decord"),
        ("senko", "embedded"),
        ("s3fs", "s3"),
        ("espeakng_loader", "demo"),
        ("tensorboard", "tensorboard"),
        ("numpy", None),
        ("no_such_module", None),
    ],
)
def test_a_module_is_traced_to_its_smallest_extra(module: str, extra: str | None) -> None:
    assert extras.extra_of(module) == extra


def test_all_holds_every_extra() -> None:
    brought = {each.name for each in extras._packages("all")}
    for extra in PROJECT["optional-dependencies"]:
        assert {each.name for each in extras._packages(extra)} <= brought, extra


def test_what_is_missing_or_too_old_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"ray": "2.60.0", "av": "17.0", "mediapipe": "1.2.3"}

    def version(name: str) -> str:
        if name not in here:
            raise PackageNotFoundError(name)
        return here[name]

    monkeypatch.setattr(extras, "version", version)
    with pytest.raises(UsageError) as told:
        extras.needs("build", "visavis build")
    line = str(told.value)
    assert line.startswith(
        'visavis build needs what is not installed here: pip install "visavis[build]" (av<19,>=18.1,'
    )
    assert "\n" not in line
    assert "mediapipe" not in line  # newer than asked for: the user's choice
    here.update({each.name: "9999" for each in extras._packages("build")})
    extras.needs("build", "visavis build")


def test_a_library_behind_another_ones_error_is_named() -> None:
    error = ImportError("Install s3fs to access S3")
    error.__cause__ = ModuleNotFoundError("No module named 's3fs'", name="s3fs")
    assert 'pip install "visavis[s3]"' in str(extras.absent(error))
    assert extras.absent(ImportError("cannot import name x")) is None
    assert extras.absent(ModuleNotFoundError("No module named 'x'", name="x")) is None


def test_without_metadata_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> list[str]:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(extras, "requires", none)
    extras.needs("build", "visavis build")
    assert extras.extra_of("ray") is None
