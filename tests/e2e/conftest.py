"""Real media made once per session, and a build of it."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from rich.console import Console

from tests.conftest import Once
from visavis.pipeline.demo.dialogue import make_dialogue
from visavis.pipeline.engine.executor import Engine, local_engine
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.plan.build import Build
from visavis.pipeline.plan.sources import find_sources
from visavis.pipeline.plan.summary import BuildSummary
from visavis.schemas.config import BuildConfig
from visavis.schemas.rows import Source

SECONDS = 10.0
KEPT = ("ingest", "diarize", "glance", "faces", "cast", "bind", "separate")
"""Stages whose work a build may find done: what takes longest."""
Built = tuple[Path, BuildSummary]
SMALL = {"motion": {"expression_dims": 8}, "windows": {"hop": 10}, "balance": {"val_share": 0.3}}


@pytest.fixture(scope="session")
def dialogues(once: Once) -> Path:
    """One dialogue in both layouts, with its truth."""

    def film(folder: Path) -> None:
        make_dialogue(folder, "apart", 1, SECONDS, "per_participant")
        make_dialogue(folder, "together", 1, SECONDS, "one_frame")

    return once("dialogues", film)


def sources_of(folder: Path) -> list[Source]:
    one, other = sorted(folder.glob("apart_*.mp4"))
    return list(find_sources([str(folder / "together.mp4")], [(str(one), str(other))]))


def build(folder: Path, root: Path, engine: Engine = local_engine) -> BuildSummary:
    reporter = Reporter(Console(file=io.StringIO()))
    return Build(BuildConfig.model_validate(SMALL), str(root), engine, reporter).run(sources_of(folder))


@pytest.fixture(scope="session")
def built(dialogues: Path, once: Once, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BuildSummary]:
    """A finished build, of which each process of the session has a copy; tests that change it work on another."""
    kept = once("built", lambda folder: _keep(build(dialogues, folder / "run"), folder))
    root = tmp_path_factory.mktemp("built") / "run"
    shutil.copytree(kept / "run", root)
    summary = TypeAdapter(BuildSummary).validate_json((kept / "summary.json").read_bytes())
    return root, replace(summary, dataset=str(root / "dataset"))


def begin_from(built: Built, root: Path) -> None:
    """A run's folder in which the first stages of the session's build are done; its ledger knows nothing of it."""
    for stage in KEPT:
        if (built[0] / "artifacts" / stage).exists():
            shutil.copytree(built[0] / "artifacts" / stage, root / "artifacts" / stage)


def _keep(summary: BuildSummary, folder: Path) -> None:
    (folder / "summary.json").write_bytes(TypeAdapter(BuildSummary).dump_json(summary))
