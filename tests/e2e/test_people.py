"""The same two people in two conversations, whom nobody named: splits by voice or face keep them on one side."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from tests.e2e.conftest import SMALL, Built, begin_from, sources_of
from tests.stages.onnx_networks import SIZE, of_cells
from visavis.pipeline.engine.executor import local_engine
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.plan.build import Build
from visavis.pipeline.plan.doctor_run import examine_run
from visavis.pipeline.plan.outputs import read_outputs
from visavis.pipeline.plan.summary import BuildSummary
from visavis.schemas.config import BuildConfig
from visavis.stages.doctor.kinds import Kind
from visavis.stages.faceprints import FaceprintsStage
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


def test_who_looks_alike_is_in_one_split_by_a_network_of_ones_own(
    built: Built, dialogues: Path, tmp_path: Path
) -> None:
    """Two conversations are too few to learn from how alike faces are: names decide, until a threshold is set."""
    (network := tmp_path / "network.onnx").write_bytes(of_cells())

    def build(*, reconfigure: bool = False, **split: object) -> tuple[BuildSummary, str]:
        more = {"faceprints": {"weights": str(network)}, "split": {"people": "faces", **split}}
        said = io.StringIO()
        run = Build(BuildConfig.model_validate(SMALL | more), str(root), local_engine, Reporter(Console(file=said)))
        return run.run(sources_of(dialogues), reconfigure=reconfigure), said.getvalue()

    begin_from(built, root := tmp_path / "run")
    summary, said = build()
    assert "faces: 2 conversations with both faces are too few" in said
    assert splits(summary.dataset) == {"train", "val"}
    rows = [row for _, row in read_outputs(str(root), FaceprintsStage)]
    assert [row.prints.shape for row in rows] == [(2, SIZE)] * 2
    cosine = rows[0].prints.astype(float) @ rows[1].prints.astype(float).T
    same, others = sorted((cosine.diagonal(), cosine[::-1].diagonal()), key=lambda both: -both.min())
    assert same.min() > others.max(), "whoever is on the left"
    found = examine_run(str(root), silent())
    assert any("too few" in note for note in found.notes)
    assert Kind.SPLIT_LEAK not in {each.kind for each in found.findings}

    threshold = round((same.min() + others.max()) / 2, 4)
    summary, said = build(face_threshold=threshold, reconfigure=True)
    assert f"one person from a cosine of {threshold:.2f} on, as set" in said
    assert splits(summary.dataset) == {"train"}
    found = examine_run(str(root), silent())
    assert found.looked_at["people by face"] == 2
    (told,) = [each for each in found.findings if each.kind is Kind.SEVERAL_NAMES]
    assert (told.count, told.items[0].detail[:11]) == (2, "one face in")
    assert not any("faceprint" in path.name for path in (root / "dataset").rglob("*"))
