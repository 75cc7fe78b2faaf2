"""Many processes are one run: they do what one does with their batches, stop together, fail together."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.ranks import Ranks, start_ranks
from tests.training.synthetic import write_dataset
from visavis.schemas.errors import UsageError
from visavis.schemas.train import DpoConfig, TrainConfig
from visavis.training.checkpoint import checkpoint_id, load_checkpoint
from visavis.training.dataset import Dataset
from visavis.training.inputs import Run
from visavis.training.loader import Batch, Loader
from visavis.training.train import train

pytestmark = pytest.mark.slow


def hide_some_frames(key: str, members: dict[str, bytes]) -> dict[str, bytes]:
    """Faces that are out of sight for up to four fifths of a window."""
    valid = np.load(io.BytesIO(members["valid.npy"]))
    valid[: int(key[-1], 36) % 5 * 10, 0] = False
    changed = io.BytesIO()
    np.save(changed, valid)
    return members | {"valid.npy": changed.getvalue()}


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    with start_ranks(2) as started:
        yield started


@pytest.fixture(scope="module")
def gaps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("gaps"), val=2, damage=hide_some_frames)


def losses(out: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def changed(config: TrainConfig, **optim: Any) -> TrainConfig:
    return config.model_copy(update={"optim": config.optim.model_copy(update=optim)})


class InTurn:
    """The batches of two loaders, one after the other: what two processes get, for one."""

    def __init__(self, run: Run, dataset: Dataset) -> None:
        assert run.group.size == 1
        assert run.resumed is None
        config = run.config
        self._loaders = [
            Loader(dataset, config.optim.batch, seed=config.seed, rank=r, world_size=2, max_bad=config.max_bad_samples)
            for r in range(2)
        ]
        self.bad: dict[str, str] = {}

    def __iter__(self) -> Iterator[tuple[Batch, dict[str, Any]]]:
        sources = [iter(loader) for loader in self._loaders]
        while True:
            yield from (next(source) for source in sources)

    def close(self) -> None:
        for loader in self._loaders:
            loader.close()


def test_two_processes_do_what_one_does_with_their_batches(
    ranks: Ranks, gaps: Path, tmp_path: Path, small_config: TrainConfig, monkeypatch: pytest.MonkeyPatch
):
    objective = small_config.objective.model_copy(update={"velocity": 0.5})
    config = changed(small_config.model_copy(update={"objective": objective}), accumulate=2, batch=2)
    assert [a["error"] for a in ranks.train(gaps, tmp_path / "two", config)] == [None, None]
    monkeypatch.setattr(Run, "loader", lambda run, dataset, name: InTurn(run, dataset))
    train(str(gaps), tmp_path / "one", changed(config, accumulate=4))

    assert list(losses(tmp_path / "two").values()) == pytest.approx(list(losses(tmp_path / "one").values()), rel=1e-5)
    two, one = (load_checkpoint(tmp_path / name / "checkpoint.safetensors") for name in ("two", "one"))
    fresh = load_checkpoint(tmp_path / "two" / "checkpoint-0000003.safetensors")
    for name, weights in one.model.items():
        moved = (weights - fresh.model[name]).abs().max()
        assert (two.model[name] - weights).abs().max() <= 0.02 * moved + 1e-6, name


def test_two_processes_end_early_together(
    ranks: Ranks, windows: Path, pairs: Path, trained: Path, tmp_path: Path, small_config: TrainConfig
):
    """Only the first one looks at the pairs; both stop, at the checkpoint before, with the cache of each in a file."""
    dpo = DpoConfig(steps=12, lr=0.02, warmup=12, lambda_=30.0, beta=10.0, cache=str(tmp_path / "cache"))
    inputs = {"init": str(trained), "pairs": str(pairs)}
    endless = small_config.model_copy(update={"dpo": dpo.model_copy(update={"max_chosen_rise": None})})
    assert [a["error"] for a in ranks.train(windows, tmp_path / "all", endless, **inputs)] == [None, None]
    lines = [json.loads(line) for line in (tmp_path / "all" / "metrics.jsonl").read_text().splitlines()]
    rises = [line["val_chosen_rise"] for line in lines if "val_chosen_rise" in line]
    assert rises[1] > rises[0]
    careful = small_config.model_copy(update={"dpo": dpo.model_copy(update={"max_chosen_rise": sum(rises[:2]) / 2})})
    assert [a["error"] for a in ranks.train(windows, tmp_path / "some", careful, **inputs)] == [None, None]
    assert load_checkpoint(tmp_path / "some" / "checkpoint.safetensors").step == 3
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_two_processes_stop_together_on_a_signal_to_one_and_go_on_as_if_they_had_not(
    ranks: Ranks, windows: Path, pairs: Path, tmp_path: Path, small_config: TrainConfig
):
    """Tuning by pairs, so that there are two loaders in each, and a frozen model."""
    base = train(str(windows), tmp_path / "base", changed(small_config, steps=1))
    dpo = small_config.dpo.model_copy(update={"steps": 4, "warmup": 0})
    config = changed(small_config.model_copy(update={"dpo": dpo}), batch=2)
    more = {"init": str(base), "pairs": str(pairs)}
    ranks.train(windows, tmp_path / "whole", config, **more)
    first = json.loads((tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()[0])
    assert first["loss_dpo"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["implicit_accuracy"] == 0.5
    stopped = ranks.train(windows, tmp_path / "cut", config, **more, fault="signal", fault_at=2)
    assert [a["error"] for a in stopped] == ["Stopped", "Stopped"]
    assert "stopped after step 2 of 4" in stopped[0]["message"]
    assert load_checkpoint(tmp_path / "cut" / "checkpoint.safetensors").step == 2
    with pytest.raises(UsageError, match="a run of 2 processes, and now there is 1"):
        train(str(windows), tmp_path / "cut", config, init=base, pairs=str(pairs))
    assert [a["error"] for a in ranks.train(windows, tmp_path / "cut", config, **more)] == [None, None]
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    whole, cut = (tmp_path / name / "checkpoint.safetensors" for name in ("whole", "cut"))
    assert checkpoint_id(whole) == checkpoint_id(cut)


def test_what_is_wrong_in_one_process_ends_both_with_one_sentence(
    ranks: Ranks, windows: Path, tmp_path: Path, small_config: TrainConfig
):
    config = changed(small_config, accumulate=2, precision="bfloat16")
    broken = ranks.train(windows, tmp_path / "nan", config, fault="nan", fault_at=8)  # the second part of step 4
    assert [a["error"] for a in broken] == ["RunFailed", "RunFailed"]
    assert broken[0]["message"] == broken[1]["message"]
    assert "step 4: loss is nan" in broken[0]["message"]
    assert "checkpoint.safetensors is of step 3" in broken[0]["message"]
    named = broken[0]["message"].split("look at the samples ")[1]
    assert "," not in named, "only the sample whose loss is not finite"
    kept = load_checkpoint(tmp_path / "nan" / "checkpoint.safetensors")
    assert kept.step == 3
    assert all(torch.isfinite(weights).all() for weights in kept.model.values())

    bug = ranks.train(windows, tmp_path / "bug", config, fault="raise", fault_at=3)
    assert bug[1] == {"error": "ValueError", "message": "a bug of one process"}
    assert bug[0]["error"] == "RunFailed"
    assert bug[0]["message"] == "process 1 of 2 failed: ValueError: a bug of one process"


def test_a_process_that_dies_leaves_nobody_waiting(  # the last test of this file: one of its processes is gone
    ranks: Ranks, windows: Path, tmp_path: Path, small_config: TrainConfig
):
    left, died = ranks.train(windows, tmp_path, changed(small_config, batch=2), fault="die", fault_at=3)
    assert died["error"] == "died"
    assert left["error"] == "RunFailed"
    assert "another process is gone" in left["message"]
