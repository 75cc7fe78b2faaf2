"""Ray Train runs the loop of `training`, in processes of its own."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from tests.training.synthetic import write_dataset
from visavis.pipeline.engine import ray_train
from visavis.pipeline.engine.ray_train import _work, train_on_ray
from visavis.schemas.errors import UsageError
from visavis.schemas.train import FeatureConfig, ModelConfig, OptimConfig, TrainConfig
from visavis.training.checkpoint import load_checkpoint
from visavis.training.train import Stopped

CONFIG = TrainConfig(
    model=ModelConfig(width=32, depth=1, heads=2, encoder_width=16, encoder_heads=2),
    features=FeatureConfig(n_mels=8),
    optim=OptimConfig(batch=2, steps=4),
    device="cpu",
    log_every=1,
    checkpoint_every=2,
)


@pytest.mark.nightly("Ray Train's start and stop; two ranks are in test_processes.py")
@pytest.mark.usefixtures("ray_cluster")
def test_two_processes_on_ray_are_one_run_that_can_be_stopped(tmp_path: Path):
    dataset = str(write_dataset(tmp_path / "windows", val=2))
    seen: list[tuple[int, int]] = []
    long = CONFIG.model_copy(update={"optim": CONFIG.optim.model_copy(update={"steps": 100_000})})

    def ask() -> None:
        while not (tmp_path / "run" / "checkpoint.safetensors").exists():
            time.sleep(0.1)
        (tmp_path / "run" / ".stop").touch()  # as Ctrl-C does

    threading.Thread(target=ask, daemon=True).start()
    with pytest.raises(Stopped, match="stopped after step"):
        train_on_ray(
            dataset, tmp_path / "run", long, workers=2, address=None,
            progress=lambda step, steps, _: seen.append((step, steps)),
        )  # fmt: skip
    left = load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")
    assert left.processes == 2
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert left.step == logged[-1]["step"]
    assert seen
    assert {steps for _, steps in seen} == {100_000}


def test_an_expected_error_is_an_answer_and_no_reason_to_try_again(tmp_path: Path):
    work = {"dataset": str(tmp_path), "out": tmp_path / "run", "config": CONFIG, "init": None, "pairs": None}
    answer = _work(work)
    assert answer["error"] == "UsageError"
    assert "is not a dataset" in answer["message"]


def test_more_processes_than_this_machine_holds_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray_train, "start_ray", lambda _: None)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 2.0})
    with pytest.raises(UsageError, match="--num-workers 1000: this machine has 2 CPUs"):
        train_on_ray("windows", tmp_path / "run", CONFIG, workers=1000, address=None)
