"""`python -m visavis.training` needs shards, torch and little else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from visavis.schemas.train import TrainConfig
from visavis.training.__main__ import main

ROOT = Path(__file__).parents[2]
ABSENT = ("ray", "mediapipe", "pyannote", "whisperx", "decord", "cv2", "pyarrow", "typer", "rich", "stages", "pipeline")
RUN = """
import runpy, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in %r:
            raise ModuleNotFoundError(f"{name} is not on this machine", name=name)

sys.meta_path.insert(0, Absent())
runpy.run_module("training", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
def test_it_trains_where_only_its_own_needs_are_installed(windows: Path, tmp_path: Path, small_config: TrainConfig):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(small_config.model_dump(mode="json")))  # JSON is YAML
    command = [sys.executable, "-c", RUN % (ABSENT,), str(recipe), str(windows), "--out", str(tmp_path / "out")]
    done = subprocess.run([*command, "--set", "optim.steps=2"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "out" / "checkpoint.safetensors")
    assert "step 2/2  loss" in done.stderr


@pytest.mark.parametrize("rank", ["0", "1"])
def test_wrong_use_is_one_line_whatever_the_rank(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, rank: str
):
    recipe = str(ROOT / "configs" / "train" / "tiny.yaml")
    monkeypatch.setattr(sys, "argv", ["training", recipe, str(tmp_path), "--out", str(tmp_path / "out")])
    monkeypatch.setenv("RANK", rank)
    assert main() == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"training: {tmp_path} is not a dataset")
    assert said.err.count("\n") == 1
