"""The same two people in two conversations, whom nobody named: splits by voice keep them on one side."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from tests.e2e.conftest import SMALL, Built, begin_from, sources_of
from visavis.pipeline.engine.executor import local_engine
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.plan.build import Build
from visavis.pipeline.plan.doctor_run import examine_run
from visavis.pipeline.plan.outputs import read_outputs
from visavis.pipeline.plan.summary import BuildSummary
from visavis.schemas.config import BuildConfig
from visavis.stages.doctor.kinds import Kind
from visavis.stages.voiceprints import VoiceprintsStage
from visavis.training.dataset import Dataset

pytestmark = pytest.mark.slow


def silent() -> Reporter:
    return Reporter(Console(file=io.StringIO()))


def splits(dataset: str) -> set[str]:
    return {shard.split for shard in Dataset(dataset).manifest.shards}


def test_who_sounds_alike_is_in_one_split_and_the_doctor_tells_where_that_was_not_so(
    built: Built, dialogues: Path, tmp_path: Path
) -> None:
    def build(people: str, *, reconfigure: bool = False) -> BuildSummary:
        more = {"voiceprints": {"enabled": True}, "split": {"people": people}}
        recipe = BuildConfig.model_validate(SMALL | more)
        return Build(recipe, str(root), local_engine, silent()).run(sources_of(dialogues), reconfigure=reconfigure)

    begin_from(built, root := tmp_path / "run")
    summary = build("names")
    assert splits(summary.dataset) == {"train", "val"}
    assert [row.prints.shape for _, row in read_outputs(str(root), VoiceprintsStage)] == [(2, 192)] * 2
    found = {each.kind: each for each in examine_run(str(root), silent()).findings}
    assert {Kind.SEVERAL_NAMES, Kind.SPLIT_LEAK} <= set(found)
    assert found[Kind.SPLIT_LEAK].count == 2, "both people"

    summary = build("voices", reconfigure=True)
    assert splits(summary.dataset) == {"train"}, "one group of people"
    assert build("voices").processed == 0
    assert Kind.SPLIT_LEAK not in {each.kind for each in examine_run(str(root), silent()).findings}
    assert not any("voiceprint" in path.name for path in (root / "dataset").rglob("*"))
