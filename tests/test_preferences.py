"""The benchmark of preferences runs from corpus to picture, and goes on with what it made."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from benchmarks import preferences
from benchmarks.plots import draw
from benchmarks.preferences import Scale

pytestmark = pytest.mark.nightly  # 80 s; guards that the benchmark still runs, not what the product does


def test_every_way_to_go_on_has_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few steps teach nothing: this is about the workflow from corpus to picture."""
    scale = Scale(conversations=12, held_out=2, steps=240, further=2, seeds=(0,))
    monkeypatch.setattr(preferences, "SWEEPS", {name: preferences.EFFECT[name] for name in ("control", "own")})
    result = preferences.bench(scale, ("sweeps",), tmp_path / "out", jobs=1)
    json.dumps(result, allow_nan=False)
    rows = result["rows"]["sweeps"]
    assert list(rows) == ["lively: base", "lively: control", "lively: own"]
    assert all(set(preferences.SHOWN) <= set(row) for row in rows.values())
    assert "val_implicit_accuracy" in rows["lively: own"]
    assert rows["lively: control"]["val_loss"] != rows["lively: own"]["val_loss"]
    assert result["truth"]["gain"] == pytest.approx(0.6, abs=0.15)
    assert result["truth"]["rpcc_expression_floor"] > 0

    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.safetensors")}
    assert preferences.bench(scale, ("sweeps",), tmp_path / "out", jobs=1) == result
    assert made == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.safetensors")}

    draw(rows, result["truth"], tmp_path / "effect.png")
    assert cv2.imread(str(tmp_path / "effect.png")).std() > 5
