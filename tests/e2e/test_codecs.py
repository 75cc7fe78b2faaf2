"""Every codec goes the whole way from video to shards, and its motion can be drawn."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.e2e.conftest import SMALL, Built, begin_from
from tests.stages.networks import exported, scripted
from tests.stages.roundtrip import round_trip
from visavis.pipeline.cli.verify import verify_dataset
from visavis.pipeline.engine.executor import local_engine
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.plan.build import Build
from visavis.pipeline.plan.outputs import read_outputs
from visavis.pipeline.plan.sources import find_sources
from visavis.pipeline.plan.summary import BuildSummary
from visavis.schemas.artifact import load_rows
from visavis.schemas.config import BuildConfig
from visavis.schemas.dyads import Codec
from visavis.stages.bind import BindStage
from visavis.stages.faces import FacesStage
from visavis.stages.motion import MotionStage
from visavis.training.dataset import Dataset

pytestmark = pytest.mark.slow


def build(dialogue: Path, root: Path, **settings: dict[str, Any]) -> BuildSummary:
    config = BuildConfig.model_validate(SMALL | settings)
    sources = list(find_sources([str(dialogue)], []))
    return Build(config, str(root), local_engine, Reporter(Console(file=io.StringIO()))).run(sources)


def codec_of(root: Path) -> Codec:
    (file,) = (root / "artifacts" / "codec").iterdir()
    return load_rows(file.read_bytes(), Codec)[0]


def errors(root: Path) -> list[float]:
    faces = [row for _, row in read_outputs(str(root), FacesStage)]
    (binding,) = (row for _, row in read_outputs(str(root), BindStage))
    codec = codec_of(root)
    return [round_trip(codec, binding, faces, motion) for _, motion in read_outputs(str(root), MotionStage)]


@pytest.mark.nightly("blendshapes from end to end; the codec itself is in tests/stages/test_codec.py")
def test_blendshapes(dialogues: Path, landmarker: Path, tmp_path: Path) -> None:
    faces = {"model": "face-landmarker", "landmarker": str(landmarker)}
    summary = build(dialogues / "together.mp4", tmp_path / "run", motion={"kind": "blendshapes"}, faces=faces)
    assert verify_dataset(summary.dataset) == []
    assert Dataset(summary.dataset).manifest.motion.dim == 64
    assert max(errors(tmp_path / "run")) <= 1.0


@pytest.mark.parametrize(
    "kind", ["script", pytest.param("export", marks=pytest.mark.nightly("exported programs; scripts are in CI"))]
)
def test_a_network(built: Built, dialogues: Path, tmp_path: Path, kind: str) -> None:
    begin_from(built, tmp_path / "run")
    file = tmp_path / "network"
    file.write_bytes(scripted() if kind == "script" else exported(batch=16))
    settings: dict[str, dict[str, Any]] = {
        "motion": {"kind": "network", "rest_dims": 12},
        "encode": {
            "network": str(file),
            "network_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "size": 32,
            "batch": 16,
        },
    }
    summary = build(dialogues / "together.mp4", tmp_path / "run", **settings)
    assert verify_dataset(summary.dataset) == []
    assert Dataset(summary.dataset).manifest.motion.dim == 6 + 5 + 12
    assert max(errors(tmp_path / "run")) <= 1.0
    # The network may lie elsewhere: it is known by its content.
    moved = file.rename(tmp_path / "moved")
    settings["encode"]["network"] = str(moved)
    assert build(dialogues / "together.mp4", tmp_path / "run", **settings).processed == 0
