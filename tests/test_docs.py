"""What the documents name exists: links, commands, options, settings, paths, messages; and their code runs."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
import typer
import yaml

from tests.stages.test_ingest import write_clip
from visavis.pipeline.app import app
from visavis.pipeline.engine.supervise import FAULTS
from visavis.pipeline.plan.graph import Graph
from visavis.schemas.config import BuildConfig, IngestConfig, PluginConfig
from visavis.schemas.errors import Reason, Rejected, UsageError
from visavis.schemas.manifest import MotionSpec
from visavis.schemas.pairs import PairsConfig
from visavis.schemas.rows import Source
from visavis.schemas.section import Section
from visavis.schemas.train import TrainConfig
from visavis.stages.ingest import IngestStage

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
PAGES = sorted(p for p in (*REPOSITORY.glob("*.md"), *DOCS.rglob("*.md")) if not p.is_symlink())
PACKAGES = ("schemas", "training", "stages", "pipeline")
LONGEST_PAGE = 250
OTHERS_OPTIONS = {"--nnodes", "--node-rank", "--rdzv-endpoint", "--map-root-user", "--network", "--shm-size", "--tmpfs"}
OTHERS_OPTIONS |= {"--num-cpus", "--labels", "--working-dir", "--runtime-env-json", "--help", "--version"}
OTHERS_OPTIONS |= {"--quick", "--clips", "--starts", "--corpus", "--recipes"}
"""Of torchrun, Ray, Docker, bubblewrap and the benchmarks."""


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def code_of(page: Path) -> Iterator[str]:
    """Lines of code, continued ones joined, and code within lines."""
    block = ""
    for line in re.sub(r"<!--.*?-->", "", text_of(page), flags=re.DOTALL).splitlines():
        indented = line.startswith("    ")
        block = f"{block}{line.strip()}" if indented or block else ""
        if block.endswith("\\"):
            block = block[:-1]
            continue
        if block:
            yield block
            block = ""
        if not indented:
            yield from re.findall(r"`([^`]+)`", line)


def slug_of(heading: str) -> str:
    """The anchor that both GitHub and the site make of a heading."""
    plain = re.sub(r"[`*_]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", plain))


@every_page
def test_links_and_anchors_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"```.*?```|`[^`]*`", "", text_of(page), flags=re.DOTALL)
    for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]*))?\)", prose):
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", text_of(there), re.MULTILINE)
            assert anchor in {slug_of(heading) for heading in headings}, f"{target}#{anchor}"


@every_page
def test_a_page_is_read_in_one_sitting(page: Path) -> None:
    assert len(text_of(page).splitlines()) <= LONGEST_PAGE


@every_page
def test_paths_exist(page: Path) -> None:
    for code in code_of(page):
        for path in re.findall(rf"(?<![\w/.-])(?:{'|'.join(PACKAGES)}|configs|tests|benchmarks|docs)/[\w./-]+", code):
            if "NAME" not in path:
                assert (REPOSITORY / path).exists() or path.startswith("docs/images/"), path
        for module in re.findall(r"(?:python -m )?\bbenchmarks\.(\w+)", code):
            assert (REPOSITORY / "benchmarks" / f"{module}.py").exists() or module == "NAME", module


@cache
def commands() -> dict[str, set[str]]:
    """Options by command, `assets fetch` as one word."""
    found: dict[str, set[str]] = {}

    def look(command: Any, name: str) -> None:
        found[name] = {option for p in command.params for option in (*p.opts, *p.secondary_opts)} | {"--help"}
        for child, below in getattr(command, "commands", {}).items():
            look(below, f"{name} {child}".strip())

    look(typer.main.get_command(app), "")
    return found


@every_page
def test_commands_and_their_options_exist(page: Path) -> None:
    for code in code_of(page):
        for words in re.findall(r"(?<!-n)(?<!namespace)(?:^|[/\s])visavis ([^#|;&']*)", code):
            name, *rest = words.split() or [""]
            if name.startswith("-") or not name.isalpha() or not name.islower():
                continue
            assert name in commands(), f"visavis {name}"
            name = f"{name} {rest[0]}" if rest and f"{name} {rest[0]}" in commands() else name
            known = commands()[name] | commands()[name.split()[0]]
            assert {word.split("=")[0] for word in rest if word.startswith("--")} <= known, code


@every_page
def test_options_named_alone_exist(page: Path) -> None:
    known = set().union(*commands().values()) | OTHERS_OPTIONS
    for code in code_of(page):
        found = re.match(r"--[a-z][a-z-]*", code)
        assert found is None or found[0] in known, code


def keys_of(section: type[Section], before: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield before + name
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, Section):
                yield from keys_of(kind, f"{before}{name}.")


SETTINGS = {key for config in (BuildConfig, TrainConfig, PairsConfig) for key in keys_of(config)}
OPEN = ("run.resources.", "resources.", "windows.backchannels.words.", "transcribe.alignment.")
"""Settings below these are named by the user: a stage, a language."""
NO_SETTINGS = {f"motion.{field}" for field in MotionSpec.model_fields}
"""What a manifest says of the motion."""


@every_page
def test_settings_exist(page: Path) -> None:
    sections = {key.split(".")[0] for key in SETTINGS if "." in key}
    for code in code_of(page):
        named = [code] if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+(=.*)?", code) else re.findall(r"--set '?([a-z_.]+)=", code)
        for setting in (name.split("=")[0] for name in named):
            if setting.split(".")[0] in sections and not setting.endswith((".mp4", ".json", ".npy", ".py", ".yaml")):
                assert setting in SETTINGS | NO_SETTINGS or setting.startswith(OPEN), setting


def table_below(heading: str, page: Path) -> list[list[str]]:
    section = text_of(page).split(f"\n{heading}\n", 1)[1].split("\n## ", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in section.splitlines() if "|" in line][2:]


def test_every_reason_and_error_is_explained() -> None:
    page = DOCS / "troubleshooting.md"
    reasons = {reason.strip() for row in table_below("## Reasons", page) for reason in row[0].strip("| ").split(",")}
    assert reasons == {reason.value for reason in Reason}
    assert {row[0].strip("| ") for row in table_below("## Errors that end a worker", page)} >= set(FAULTS)


@cache
def literals() -> str:
    """All text in the code of the packages, parts of one message side by side."""
    texts = []
    for package in PACKAGES:
        for file in sorted((REPOSITORY / package).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    texts.append("".join(str(v.value) if isinstance(v, ast.Constant) else "\0" for v in node.values))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
    return "\n".join(texts)


MESSAGES = [
    found[1].replace("\\`", "`")
    for line in text_of(DOCS / "troubleshooting.md").split("## Messages", 1)[1].splitlines()
    if (found := re.match(r"\| `((?:[^`\\]|\\`)+)` \|", line))
]


@pytest.mark.slow
@pytest.mark.parametrize("message", MESSAGES)
def test_messages_are_those_of_the_code(message: str) -> None:
    """Capital words stand for what differs."""
    parts = [part.strip(" ,:;'") for part in re.split(r"\b[A-Z]{3,}\b(?!_)", message)]
    long = [part for part in parts if len(part) > 5]
    assert long
    for part in long:
        assert part in literals(), part


def test_the_site_has_every_page() -> None:
    nav = str(yaml.safe_load(text_of(REPOSITORY / "mkdocs.yml"))["nav"])
    for page in DOCS.rglob("*.md"):
        assert f"'{page.relative_to(DOCS)}'" in nav, page


def blocks_of(page: Path, module: str = "documented") -> dict[str, Any]:
    """What the fenced Python of a page defines."""
    names = vars(sys.modules.setdefault(module, ModuleType(module)))  # pydantic looks for a class' module
    for block in re.findall(r"^```python\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE):
        exec(compile(block, str(page), "exec"), names)
    return names


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "CHANGELOG.md"])
def test_the_site_shows_the_page_of_the_top_level(name: str) -> None:
    assert (DOCS / name.lower()).read_text() == (REPOSITORY / name).read_text()


def test_the_stage_of_the_contributing_page_joins_a_build(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "CONTRIBUTING.md").read_text(), re.DOTALL)
    code = tmp_path / "loudness.py"
    code.write_text(next(block for block in blocks if "class LoudnessStage" in block))
    entry = PluginConfig(code=f"{code}:LoudnessStage", settings={"floor_db": -50.0})
    config = BuildConfig(plugins={"loudness": entry})
    stage = Graph(config).stages(config, "")["loudness"]
    assert stage.config.floor_db == -50.0
    with pytest.raises(UsageError, match=r"plugins\.loudness\.settings\.flor_db: there is 1 setting: floor_db"):
        Graph(BuildConfig(plugins={"loudness": entry.model_copy(update={"settings": {"flor_db": 1}})}))


def test_the_stage_of_the_contributing_page_runs_alone(tmp_path: Path) -> None:
    page = blocks_of(REPOSITORY / "CONTRIBUTING.md", "contributed")
    (conversation,) = IngestStage(IngestConfig()).process(Source(uris=(str(write_clip(tmp_path / "tone.mp4")),)))
    (row,) = page["LoudnessStage"](page["LoudnessConfig"]()).process(conversation)
    assert row.conversation == conversation.id
    assert -40 < row.level_db[0] < 0
    with pytest.raises(Rejected, match="no_speech"):
        next(page["LoudnessStage"](page["LoudnessConfig"](floor_db=0.0)).process(conversation))
