"""Runs, end to end: they learn, they stop and go on, and they refuse what does not belong together."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.dyads import WindowClass
from schemas.errors import RunFailed, UsageError
from schemas.train import ModelConfig, OptimConfig, TrainConfig
from tests.training.synthetic import sample, write_dataset
from training.checkpoint import checkpoint_id, load_checkpoint, load_model, save_checkpoint
from training.train import learning_rate, step_generator, train


class Stopped(Exception):
    pass


def stop_after(step: int) -> Callable[[int, int, dict[str, float]], None]:
    def progress(done: int, _steps: int, _metrics: dict[str, float]) -> None:
        if done == step:
            raise Stopped

    return progress


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def losses(out: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in lines(out) if "loss" in line}


@pytest.fixture(scope="module")
def trained(windows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = TrainConfig(
        model=ModelConfig(width=32, depth=2, heads=2, encoder_width=16, encoder_heads=2),
        optim=OptimConfig(lr=2e-3, batch=4, steps=3, warmup=2, ema=0.9),
        device="cpu",
        checkpoint_every=100,
    )
    return train(str(windows), tmp_path_factory.mktemp("trained"), config)


def test_metrics_say_what_happens(windows: Path, tmp_path: Path, small_config: TrainConfig):
    seen = []
    path = train(str(windows), tmp_path, small_config, progress=lambda *args: seen.append(args))
    assert path == tmp_path / "checkpoint.pt"
    assert [(done, steps) for done, steps, _ in seen] == [(i + 1, 6) for i in range(6)]
    logged = lines(tmp_path)
    assert [line["step"] for line in logged if "loss" in line] == [1, 2, 3, 4, 5, 6]
    line = logged[0]
    assert {f"loss_t{i}of4" for i in (1, 2, 3, 4)} <= set(line)
    assert line["samples_s"] > 0
    assert 0 <= line["data_wait_share"] <= 1
    validated = [line for line in logged if "val_loss" in line]
    assert [line["step"] for line in validated] == [3, 6]
    assert validated[0]["val_user_gain"] == pytest.approx(
        1 - validated[0]["val_loss"] / validated[0]["val_loss_no_user"]
    )
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_the_same_seed_gives_the_same_run_to_the_byte(windows: Path, tmp_path: Path, small_config: TrainConfig):
    paths = [train(str(windows), tmp_path / name, small_config) for name in ("a", "b")]
    other = train(str(windows), tmp_path / "c", small_config.model_copy(update={"seed": 1}))
    assert checkpoint_id(paths[0]) == checkpoint_id(paths[1]) != checkpoint_id(other)
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


def test_training_leaves_the_global_state_alone(windows: Path, tmp_path: Path, small_config: TrainConfig):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    train(str(windows), tmp_path, small_config)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("stop", [3, 5])  # at a checkpoint, and after one
def test_a_resumed_run_equals_one_that_never_stopped(
    windows: Path, tmp_path: Path, small_config: TrainConfig, stop: int
):
    whole = train(str(windows), tmp_path / "whole", small_config)
    with pytest.raises(Stopped):
        train(str(windows), tmp_path / "cut", small_config, progress=stop_after(stop))
    assert load_checkpoint(tmp_path / "cut" / "checkpoint.pt").step == 3
    resumed = train(str(windows), tmp_path / "cut", small_config)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert checkpoint_id(resumed) == checkpoint_id(whole)
    before = resumed.stat().st_mtime_ns
    train(str(windows), tmp_path / "cut", small_config)  # finished: nothing to do
    assert resumed.stat().st_mtime_ns == before


def test_preference_tuning_starts_at_log_two_and_resumes(
    windows: Path, pairs: Path, trained: Path, tmp_path: Path, small_config: TrainConfig
):
    config = small_config.model_copy(
        update={"dpo": small_config.dpo.model_copy(update={"steps": 6, "lr": 1e-4, "warmup": 0})}
    )
    arguments = {"init": trained, "pairs": str(pairs)}
    train(str(windows), tmp_path / "whole", config, **arguments)
    first = lines(tmp_path / "whole")[0]
    assert first["loss_dpo"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["implicit_accuracy"] == 0.5
    assert first["loss"] == pytest.approx(first["loss_flow"] + 0.1 * first["loss_dpo"], abs=1e-6)
    last = [line for line in lines(tmp_path / "whole") if "loss" in line][-1]
    assert last["chosen_policy"] != last["chosen_reference"]
    with pytest.raises(Stopped):
        train(str(windows), tmp_path / "cut", config, **arguments, progress=stop_after(4))
    train(str(windows), tmp_path / "cut", config, **arguments)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    checkpoint = load_checkpoint(tmp_path / "whole" / "checkpoint.pt")
    assert checkpoint.reference == checkpoint_id(trained)
    assert checkpoint.config.model == load_checkpoint(trained).config.model  # the initial model's, not the recipe's


def test_another_dataset_or_config_is_refused_on_resume(
    windows: Path, trained: Path, tmp_path: Path, small_config: TrainConfig
):
    train(str(windows), tmp_path / "run", small_config)
    other = write_dataset(tmp_path / "other", {WindowClass.LISTENING: 2})
    with pytest.raises(UsageError, match="holds a run on another dataset"):
        train(str(other), tmp_path / "run", small_config)
    changed = small_config.model_copy(update={"seed": 9})
    with pytest.raises(UsageError, match="of another training config"):
        train(str(windows), tmp_path / "run", changed)
    with pytest.raises(UsageError, match="another initial checkpoint"):
        train(str(windows), tmp_path / "run", small_config, init=trained)


def test_preference_tuning_refuses_what_does_not_fit(
    windows: Path, pairs: Path, trained: Path, tmp_path: Path, small_config: TrainConfig
):
    with pytest.raises(UsageError, match="give one as init"):
        train(str(windows), tmp_path, small_config, pairs=str(pairs))
    with pytest.raises(UsageError, match="holds windows, not pairs"):
        train(str(windows), tmp_path, small_config, init=trained, pairs=str(windows))
    other = write_dataset(tmp_path / "other", {WindowClass.LISTENING: 2}, pairs=True, codec="other")
    with pytest.raises(UsageError, match="codec other, the model was trained on synthetic"):
        train(str(windows), tmp_path, small_config, init=trained, pairs=str(other))
    assert not (tmp_path / "checkpoint.pt").exists()


def test_half_precision_follows_full_precision(windows: Path, tmp_path: Path, small_config: TrainConfig):
    half = small_config.model_copy(update={"optim": small_config.optim.model_copy(update={"precision": "bfloat16"})})
    train(str(windows), tmp_path / "full", small_config)
    train(str(windows), tmp_path / "half", half)
    full, rounded = losses(tmp_path / "full"), losses(tmp_path / "half")
    assert full != rounded
    assert list(rounded.values()) == pytest.approx(list(full.values()), rel=0.02)


def test_a_loss_that_is_not_finite_stops_the_run(windows: Path, tmp_path: Path, small_config: TrainConfig):
    config = small_config.model_copy(update={"optim": small_config.optim.model_copy(update={"lr": 1e30, "warmup": 0})})
    with pytest.raises(RunFailed, match=r"step \d: loss is .* look at the samples \w+-\d+"):
        train(str(windows), tmp_path, config)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_checkpoint_is_whole_or_refused(trained: Path, tmp_path: Path):
    checkpoint = load_checkpoint(trained)
    save_checkpoint(checkpoint, tmp_path / "copy.pt")
    assert checkpoint_id(tmp_path / "copy.pt") == checkpoint_id(trained)
    model = load_model(checkpoint)
    assert not any(weight.requires_grad for weight in model.parameters())
    cut = tmp_path / "cut.pt"
    cut.write_bytes(trained.read_bytes()[:5000])
    for path, message in ((cut, "is not a whole checkpoint"), (tmp_path / "none.pt", "cannot read checkpoint")):
        with pytest.raises(UsageError, match=message):
            load_checkpoint(path)
    torch.save({"weights": torch.zeros(1)}, cut)
    with pytest.raises(UsageError, match="not a checkpoint of format"):
        load_checkpoint(cut)


def test_a_checkpoint_cannot_run_code(tmp_path: Path):
    touched = tmp_path / "touched"

    class Trap:
        def __reduce__(self):
            return Path.touch, (touched,)

    torch.save({"format": 1, "header": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(UsageError, match="not a whole checkpoint"):
        load_checkpoint(tmp_path / "trap.pt")
    assert not touched.exists()


def test_motion_is_normalised_and_what_is_missing_becomes_the_mean(trained: Path):
    model = load_model(load_checkpoint(trained))
    motion = torch.from_numpy(sample(1).avatar_motion)
    normal = model.normalise(motion)
    assert normal.std(dim=0).sub(1).abs().mean() < 0.5
    torch.testing.assert_close(model.denormalise(normal), motion)
    motion[3] = torch.nan
    assert (model.normalise(motion)[3] == 0).all()


def test_steps_have_randomness_of_their_own():
    draws = [torch.rand(1, generator=step_generator(seed, step)).item() for seed in range(3) for step in range(300)]
    assert len(set(draws)) == 900
    assert torch.rand(1, generator=step_generator(2, 299)).item() == draws[-1]


def test_learning_rate_warms_up_and_falls():
    assert [learning_rate(step, 10, 1.0, 4, "constant") for step in (0, 1, 3, 9)] == [0.25, 0.5, 1.0, 1.0]
    cosine = [learning_rate(step, 10, 1.0, 4, "cosine") for step in range(4, 10)]
    assert cosine[0] == 1.0
    assert cosine == sorted(cosine, reverse=True)
    assert 0 < cosine[-1] < 0.1
