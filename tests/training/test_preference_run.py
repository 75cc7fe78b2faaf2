"""Preference tuning as a run: the reference model is asked once, and a side that gets worse ends it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.synthetic import write_dataset
from visavis.schemas.errors import RunFailed, UsageError
from visavis.schemas.train import TrainConfig
from visavis.training.checkpoint import checkpoint_id, load_checkpoint
from visavis.training.inputs import open_run
from visavis.training.model import Listener
from visavis.training.preferences import seam
from visavis.training.process_group import join
from visavis.training.train import train


def tuning(config: TrainConfig, **dpo: Any) -> TrainConfig:
    settings = {"steps": 6, "lr": 1e-4, "warmup": 0} | dpo
    return config.model_copy(update={"dpo": config.dpo.model_copy(update=settings)})


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in lines(out) if "loss" in line]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Listener]:
    """The models that were asked how far they are off on pairs, in order."""
    models: list[Listener] = []
    real = seam.pair_offsets
    monkeypatch.setattr(seam, "pair_offsets", lambda model, *rest: models.append(model) or real(model, *rest))
    return models


@pytest.mark.slow
def test_what_the_reference_model_said_is_asked_once_for_a_sweep(
    windows: Path, pairs: Path, trained: Path, tmp_path: Path, small_config: TrainConfig, asked: list[Listener]
):
    cache = str(tmp_path / "cache")
    inputs = {"init": trained, "pairs": str(pairs)}
    small_config = small_config.model_copy(update={"val_batches": 0})  # there, too, models are asked
    without = train(str(windows), tmp_path / "without", tuning(small_config), **inputs)
    assert len(asked) == 12  # policy and reference model, six steps
    first = train(str(windows), tmp_path / "first", tuning(small_config, cache=cache), **inputs)
    again = train(str(windows), tmp_path / "again", tuning(small_config, cache=cache), **inputs)
    assert len(asked) == 12 + 12 + 6
    assert losses(tmp_path / "first") == losses(tmp_path / "again") == losses(tmp_path / "without")
    weights = [load_checkpoint(path).model for path in (without, first, again)]
    assert all(found[name].equal(weights[0][name]) for found in weights[1:] for name in weights[0])

    asked.clear()
    train(str(windows), tmp_path / "sharper", tuning(small_config, cache=cache, beta=10.0, lr=1e-3), **inputs)
    train(str(windows), tmp_path / "plain", tuning(small_config, beta=10.0, lr=1e-3), **inputs)
    assert len(asked) == 6 + 12
    assert losses(tmp_path / "sharper") == losses(tmp_path / "plain")
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.slow
def test_other_questions_are_not_given_old_answers(
    windows: Path, pairs: Path, trained: Path, tmp_path: Path, small_config: TrainConfig
):
    cache = tmp_path / "cache"
    inputs = {"init": trained, "pairs": str(pairs)}
    train(str(windows), tmp_path / "one", tuning(small_config, steps=3, cache=str(cache)), **inputs)
    (kept,) = cache.iterdir()
    for name, config in {
        "seed": small_config.model_copy(update={"seed": 1}),
        "norm": small_config.model_copy(update={"dpo": small_config.dpo.model_copy(update={"norm": "l2"})}),
    }.items():
        train(str(windows), tmp_path / name, tuning(config, steps=3, cache=str(cache)), **inputs)
        train(str(windows), tmp_path / f"{name}-plain", tuning(config, steps=3), **inputs)
        assert losses(tmp_path / name) == losses(tmp_path / f"{name}-plain")
    levels = small_config.objective.model_copy(update={"level": "logit_normal"})  # not in the file's name
    config = small_config.model_copy(update={"objective": levels})
    train(str(windows), tmp_path / "levels", tuning(config, steps=3, cache=str(cache)), **inputs)
    train(str(windows), tmp_path / "levels-plain", tuning(config, steps=3), **inputs)
    assert losses(tmp_path / "levels") == losses(tmp_path / "levels-plain")

    kept.write_bytes(kept.read_bytes()[: kept.stat().st_size // 2])  # cut off: what is missing is asked again
    train(str(windows), tmp_path / "cut", tuning(small_config, steps=3, cache=str(cache)), **inputs)
    assert losses(tmp_path / "cut") == losses(tmp_path / "one")
    kept.write_bytes(b"something else")
    with pytest.raises(UsageError, match="remove it"):
        train(str(windows), tmp_path / "broken", tuning(small_config, steps=3, cache=str(cache)), **inputs)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        train(str(windows), tmp_path / "full", tuning(small_config, steps=3, cache=str(tmp_path / "file")), **inputs)


@pytest.mark.slow
def test_tuning_ends_at_the_last_checkpoint_before_the_chosen_side_gets_worse(
    windows: Path, pairs: Path, trained: Path, tmp_path: Path, small_config: TrainConfig, caplog: Any
):
    """With so much weight on the preference it gets worse step by step; the limit lies between two checkpoints."""
    inputs = {"init": trained, "pairs": str(pairs)}
    worse = {"steps": 12, "lr": 0.02, "warmup": 12, "lambda_": 30.0, "beta": 10.0}
    spoilt = tuning(small_config, **worse, max_chosen_rise=None)
    train(str(windows), tmp_path / "all", spoilt, **inputs)
    rises = {line["step"]: line["val_chosen_rise"] for line in lines(tmp_path / "all") if "val_chosen_rise" in line}
    assert list(rises) == [3, 6, 9, 12]
    assert rises[6] > rises[3] > 0

    careful = tuning(small_config, **worse, max_chosen_rise=(rises[3] + rises[6]) / 2)
    with caplog.at_level(logging.WARNING):
        path = train(str(windows), tmp_path / "some", careful, **inputs)
    assert load_checkpoint(path).step == 3
    assert "worse on the chosen side" in caplog.text
    assert "of step 3" in caplog.text
    assert losses(tmp_path / "some") == losses(tmp_path / "all")[:6]
    before = checkpoint_id(path)
    assert checkpoint_id(train(str(windows), tmp_path / "some", careful, **inputs)) == before

    hopeless = careful.model_copy(update={"dpo": careful.dpo.model_copy(update={"max_chosen_rise": rises[3] / 2})})
    with pytest.raises(RunFailed, match=r"no checkpoint came before it; lower dpo\.lr"):
        train(str(windows), tmp_path / "none", hopeless, **inputs)
    assert not (tmp_path / "none" / "checkpoint.safetensors").exists()
    unwatched = hopeless.model_copy(update={"val_batches": 0})
    assert load_checkpoint(train(str(windows), tmp_path / "unwatched", unwatched, **inputs)).step == 12


def test_what_is_watched_is_held_out_where_pairs_are(
    windows: Path, trained: Path, tmp_path: Path, small_config: TrainConfig
):
    both = write_dataset(tmp_path / "pairs", pairs=True, val=2)
    for folder, split in ((both, "val"), (write_dataset(tmp_path / "train-only", pairs=True), "train")):
        with join("cpu") as group:
            run = open_run(str(windows), tmp_path / "run", tuning(small_config), trained, str(folder), group)
            keys = {key for batch in run.watched for key in batch.keys}
            held = {key for e in run.pairs.manifest.of(split) for key, _ in run.pairs.shard(e)}
        assert keys
        assert keys <= held


@pytest.mark.slow
def test_pairs_of_which_no_frame_is_compared_end_nothing(
    windows: Path,
    pairs: Path,
    trained: Path,
    tmp_path: Path,
    small_config: TrainConfig,
    monkeypatch: pytest.MonkeyPatch,
):
    nothing = lambda batch, _config: torch.zeros_like(batch.valid[..., 0])  # noqa: E731
    monkeypatch.setattr("visavis.training.objective.compared_frames", nothing)
    monkeypatch.setattr("visavis.training.validate.compared_frames", nothing)
    path = train(str(windows), tmp_path, tuning(small_config, max_chosen_rise=0.0), init=trained, pairs=str(pairs))
    assert load_checkpoint(path).step == 6
    assert {line["val_chosen_rise"] for line in lines(tmp_path) if "val_chosen_rise" in line} == {None}  # not known
