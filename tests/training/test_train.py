"""Runs, end to end: they learn, they stop and go on, and they refuse what does not belong together."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.training.synthetic import SPEC, sample, write_dataset
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import RunFailed, UsageError
from visavis.schemas.train import DpoConfig, ObjectiveConfig, TrainConfig
from visavis.training.checkpoint import checkpoint_id, load_checkpoint, load_model, save_checkpoint
from visavis.training.dataset import Dataset
from visavis.training.flow import Noise, draw_noise, step_error
from visavis.training.loader import Batch, Loader
from visavis.training.model import build_model
from visavis.training.objective import Objective, Part, compared_frames, step_generator
from visavis.training.optimizer import learning_rate
from visavis.training.train import Stopped, train


class CutOff(Exception):
    """Without a chance to write anything."""


def stop_after(step: int) -> Callable[[int, int, dict[str, float]], None]:
    def progress(done: int, _steps: int, _metrics: dict[str, float]) -> None:
        if done == step:
            raise CutOff

    return progress


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def losses(out: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in lines(out) if "loss" in line}


def test_a_folder_holds_one_run_at_a_time(windows: Path, tmp_path: Path, small_config: TrainConfig):
    """`srun -n 8 visavis train` sets no ranks: eight processes that each think they are alone."""
    second = []

    def start_another(*_: object) -> None:
        with pytest.raises(UsageError, match="in use by another training run"):
            train(str(windows), tmp_path / "out", small_config)
        second.append(True)

    train(str(windows), tmp_path / "out", small_config, progress=start_another)
    assert second == [True] * small_config.optim.steps
    train(str(windows), tmp_path / "out", small_config)  # free again


@pytest.mark.slow
def test_metrics_say_what_happens(windows: Path, tmp_path: Path, small_config: TrainConfig):
    seen = []
    path = train(str(windows), tmp_path, small_config, progress=lambda *args: seen.append(args))
    assert path == tmp_path / "checkpoint.safetensors"
    assert [(done, steps) for done, steps, _ in seen] == [(i + 1, 6) for i in range(6)]
    logged = lines(tmp_path)
    assert [line["step"] for line in logged if "loss" in line] == [1, 2, 3, 4, 5, 6]
    line = logged[0]
    assert {f"loss_t{i}of4" for i in (1, 2, 3, 4)} <= set(line)
    assert line["samples_s"] > 0
    assert line["media_hours_s"] == pytest.approx(line["samples_s"] * 2 / 3600)
    assert [line["eta_s"] > 0 for line in logged if "eta_s" in line] == [True] * 5 + [False]
    assert 0 <= line["data_wait_share"] <= 1
    validated = [line for line in logged if "val_loss" in line]
    assert [line["step"] for line in validated] == [3, 6]
    assert validated[0]["val_user_gain"] == pytest.approx(
        1 - validated[0]["val_loss"] / validated[0]["val_loss_no_user"]
    )
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".") and p.name != ".lock"]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run_to_the_byte(windows: Path, tmp_path: Path, small_config: TrainConfig):
    paths = [train(str(windows), tmp_path / name, small_config) for name in ("a", "b")]
    other = train(str(windows), tmp_path / "c", small_config.model_copy(update={"seed": 1}))
    assert checkpoint_id(paths[0]) == checkpoint_id(paths[1]) != checkpoint_id(other)
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


@pytest.mark.slow
def test_whoever_reads_the_windows_it_is_the_same_run_and_goes_on(
    windows: Path, tmp_path: Path, small_config: TrainConfig
):
    train(str(windows), tmp_path / "thread", small_config)
    beside = small_config.model_copy(update={"readers": "processes"})
    with pytest.raises(CutOff):
        train(str(windows), tmp_path / "cut", beside, progress=stop_after(4))
    train(str(windows), tmp_path / "cut", beside)
    whole, cut = (load_checkpoint(tmp_path / name / "checkpoint.safetensors") for name in ("thread", "cut"))
    assert (cut.loaders, losses(tmp_path / "cut")) == (whole.loaders, losses(tmp_path / "thread"))
    assert all(torch.equal(cut.model[name], value) for name, value in whole.model.items())


def test_training_leaves_the_global_state_alone(windows: Path, tmp_path: Path, small_config: TrainConfig):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    train(str(windows), tmp_path, small_config)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


@pytest.mark.slow
@pytest.mark.parametrize("stop", [3, 5])  # at a checkpoint, and after one
def test_a_resumed_run_equals_one_that_never_stopped(
    windows: Path, tmp_path: Path, small_config: TrainConfig, stop: int
):
    whole = train(str(windows), tmp_path / "whole", small_config)
    with pytest.raises(CutOff):
        train(str(windows), tmp_path / "cut", small_config, progress=stop_after(stop))
    assert load_checkpoint(tmp_path / "cut" / "checkpoint.safetensors").step == 3
    resumed = train(str(windows), tmp_path / "cut", small_config)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert checkpoint_id(resumed) == checkpoint_id(whole)
    before = resumed.stat().st_mtime_ns
    train(str(windows), tmp_path / "cut", small_config)  # finished: nothing to do
    assert resumed.stat().st_mtime_ns == before


@pytest.mark.slow
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
    assert first["loss"] == pytest.approx(first["loss_flow"] + config.dpo.lambda_ * first["loss_dpo"], abs=1e-6)
    last = [line for line in lines(tmp_path / "whole") if "loss" in line][-1]
    assert last["chosen_policy"] != last["chosen_reference"]
    with pytest.raises(CutOff):
        train(str(windows), tmp_path / "cut", config, **arguments, progress=stop_after(4))
    train(str(windows), tmp_path / "cut", config, **arguments)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    checkpoint = load_checkpoint(tmp_path / "whole" / "checkpoint.safetensors")
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
    with pytest.raises(UsageError, match=r"was trained with seed=\d+ and now has 9"):
        train(str(windows), tmp_path / "run", changed)
    later = small_config.model_copy(update={"dpo": DpoConfig(beta=7.0)})  # not of this run
    train(str(windows), tmp_path / "run", later)
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
    assert not (tmp_path / "checkpoint.safetensors").exists()


@pytest.mark.slow
def test_half_precision_follows_full_precision(windows: Path, tmp_path: Path, small_config: TrainConfig):
    half = small_config.model_copy(update={"optim": small_config.optim.model_copy(update={"precision": "bfloat16"})})
    train(str(windows), tmp_path / "full", small_config)
    train(str(windows), tmp_path / "half", half)
    full, rounded = losses(tmp_path / "full"), losses(tmp_path / "half")
    assert full != rounded
    assert list(rounded.values()) == pytest.approx(list(full.values()), rel=0.02)


def test_a_loss_that_is_not_finite_stops_the_run(windows: Path, tmp_path: Path, small_config: TrainConfig):
    config = small_config.model_copy(update={"optim": small_config.optim.model_copy(update={"lr": 1e30, "warmup": 0})})
    with pytest.raises(RunFailed, match=r"step \d: loss is .*no checkpoint .* look at the samples \w+-\d+"):
        train(str(windows), tmp_path, config)
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_a_loss_that_is_not_finite_is_told_of_its_own_step_though_it_is_looked_at_later(
    windows: Path, tmp_path: Path, small_config: TrainConfig
):
    """As on a GPU, where nobody waits for a step's numbers until they are written down."""
    optim = small_config.optim.model_copy(update={"lr": 1e30, "warmup": 0})
    told = []
    for every in (1, 100):
        config = small_config.model_copy(update={"optim": optim, "log_every": every, "checkpoint_every": 100})
        with pytest.raises(RunFailed) as failed:
            train(str(windows), tmp_path / str(every), config)
        told.append(str(failed.value))
    assert told[0] == told[1]
    assert "step 2: loss is" in told[0]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_and_writes_a_checkpoint(
    windows: Path, tmp_path: Path, small_config: TrainConfig, number: signal.Signals
):
    def ask(done: int, _steps: int, _metrics: dict[str, float]) -> None:
        if done == 4:
            os.kill(os.getpid(), number)

    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(Stopped, match="stopped after step 5 of 6"):
        train(str(windows), tmp_path / "cut", small_config, progress=ask)
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert load_checkpoint(tmp_path / "cut" / "checkpoint.safetensors").step == 5
    whole = train(str(windows), tmp_path / "whole", small_config)
    assert checkpoint_id(train(str(windows), tmp_path / "cut", small_config)) == checkpoint_id(whole)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


@pytest.mark.slow
def test_the_newest_checkpoints_are_kept_and_some_for_good(windows: Path, tmp_path: Path, small_config: TrainConfig):
    config = small_config.model_copy(update={"checkpoint_every": 1, "keep_checkpoints": 2, "keep_every": 3})
    path = train(str(windows), tmp_path, config)
    kept = {file.name: load_checkpoint(file).step for file in tmp_path.glob("checkpoint*.safetensors")}
    assert kept == {
        "checkpoint.safetensors": 6,
        **{f"checkpoint-000000{step}.safetensors": step for step in (3, 4, 5, 6)},
    }
    shutil.copy(tmp_path / "checkpoint-0000004.safetensors", path)  # turn the run back
    assert load_checkpoint(train(str(windows), tmp_path, config)).step == 6
    assert {file.name for file in tmp_path.glob("checkpoint*.safetensors")} == set(kept)


def test_held_out_shards_are_read_once_however_often_they_are_scored(
    windows: Path, tmp_path: Path, small_config: TrainConfig, monkeypatch: pytest.MonkeyPatch
):
    read: list[str] = []
    fetch = Dataset.fetch
    monkeypatch.setattr(Dataset, "fetch", lambda data, entry: read.append(entry.path) or fetch(data, entry))
    train(str(windows), tmp_path, small_config)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert sum("val_loss" in line for line in lines) == 2
    held_out = [path for path in read if path.startswith("val")]
    assert held_out
    assert len(held_out) == len(set(held_out))


def test_preferences_can_be_about_listening_alone(pairs: Path):
    batch = next(iter(Loader(Dataset(str(pairs)), 2)))[0]
    batch.state[0, :6] = torch.tensor([0, 1, 2, 3, 0b0110, 0b1001], dtype=torch.uint8)
    batch.valid[0, 2, 0] = False
    everything, listening = (compared_frames(batch, DpoConfig(frames=frames)) for frames in ("all", "listening"))
    assert everything.equal(batch.valid[..., 0])
    assert listening[0, :6].tolist() == [False, False, False, False, True, False]
    assert Part(batch, batch).counts(DpoConfig(frames="listening"))[2] == int(listening.sum())


@pytest.mark.slow
def test_steps_of_accumulated_batches_are_means_over_all_their_frames(
    windows: Path, tmp_path: Path, small_config: TrainConfig, monkeypatch: pytest.MonkeyPatch
):
    """With levels and noise of one batch of eight, two batches of four give its loss: the first has fewer frames."""
    whole = next(iter(Loader(Dataset(str(windows)), 8)))[0]
    whole.valid[:4, 10:, 0] = False
    model = build_model(small_config.model, small_config.features, SPEC, 0)
    noise = draw_noise((8, 50, SPEC.dim), 10, torch.Generator().manual_seed(0))
    none_dropped = ObjectiveConfig(full=1, no_user=0, no_avatar=0, none=0, velocity=0.5)
    objective = Objective(model, None, small_config.model_copy(update={"objective": none_dropped}))

    def loss(*slices: slice) -> Tensor:
        parts = [Part(Batch(**{f.name: _cut(getattr(whole, f.name), s) for f in fields(Batch)})) for s in slices]
        totals = [
            max(sum(column), 1) for column in zip(*(part.counts(small_config.dpo) for part in parts), strict=True)
        ]
        sums = []
        for part, s in zip(parts, slices, strict=True):
            drawn = Noise(noise.x0[s], noise.t[s])
            shares = [n / total for n, total in zip(part.counts(small_config.dpo), totals, strict=True)]
            with monkeypatch.context() as patch:
                patch.setattr("visavis.training.objective.window_noise", lambda *_, drawn=drawn: drawn)
                sums.append(objective(part, shares, torch.Generator()).total)
        return torch.stack(sums).sum()

    torch.testing.assert_close(loss(slice(0, 4), slice(4, 8)), loss(slice(0, 8)))
    accumulated = small_config.model_copy(update={"optim": small_config.optim.model_copy(update={"accumulate": 3})})
    train(str(windows), tmp_path, accumulated)
    state = load_checkpoint(tmp_path / "checkpoint.safetensors").loaders["windows"][0]
    assert sum(numbers[0] for label, numbers in state.items() if label != "bad") == 6 * 3 * 4


def _cut(value: Any, part: slice) -> Any:
    return None if value is None else value[part]


def test_motion_between_frames_counts_where_it_is_known():
    off = torch.zeros(1, 4, 3)
    off[0, 2:] = 2.0  # right motion, but for a jump
    valid = torch.ones(1, 4, dtype=torch.bool)
    assert step_error(off, valid, "l2") == pytest.approx(4 / 3)
    assert step_error(off + 7, valid, "l1") == pytest.approx(2 / 3)
    valid[0, 2] = False
    assert step_error(off, valid, "l2") == 0
    assert step_error(off, torch.zeros_like(valid), "l2") == 0


@pytest.mark.slow
def test_the_objectives_options_change_what_is_learned(windows: Path, tmp_path: Path, small_config: TrainConfig):
    train(str(windows), tmp_path / "plain", small_config)
    for name, options in {"velocity": {"velocity": 1.0}, "level": {"level": "logit_normal"}}.items():
        objective = small_config.objective.model_copy(update=options)
        path = train(str(windows), tmp_path / name, small_config.model_copy(update={"objective": objective}))
        assert checkpoint_id(path) != checkpoint_id(tmp_path / "plain" / "checkpoint.safetensors")
    line = lines(tmp_path / "velocity")[0]
    assert line["loss"] == pytest.approx(line["loss_flow"] + line["loss_velocity"])


def test_logit_normal_levels_keep_away_from_the_ends():
    def levels(**options: Any) -> Tensor:
        config = ObjectiveConfig(level="logit_normal", **options)
        return draw_noise((4000, 4, 1), 2, torch.Generator().manual_seed(0), config).t

    t = levels(level_mean=0.5, level_std=1.5)
    assert torch.equal(t[:, 0], t[:, 1])
    assert torch.logit(t).mean() == pytest.approx(0.5, abs=0.05)
    assert torch.logit(t).std() == pytest.approx(1.5, abs=0.05)
    assert (levels() > 0.95).float().mean() == pytest.approx(1 / 618, rel=0.5)


@pytest.mark.nightly("optim.compile, which is off by default")
def test_a_compiled_network_learns_the_same_and_its_checkpoint_looks_the_same(
    windows: Path, tmp_path: Path, small_config: TrainConfig, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("torch._inductor.config.cpp.simdlen", 1)  # compiles in two thirds of the time
    if not any(map(shutil.which, ("g++", "clang++"))):
        pytest.skip("no C++ compiler")
    model = small_config.model.model_copy(update={"depth": 1})
    config = small_config.model_copy(update={"model": model, "checkpoint_every": 9, "val_batches": 0})
    compiled = config.model_copy(update={"optim": config.optim.model_copy(update={"compile": True})})
    paths = [train(str(windows), tmp_path / name, c) for name, c in {"eager": config, "compiled": compiled}.items()]
    eager, fused = (load_checkpoint(path) for path in paths)
    assert list(eager.model) == list(fused.model)
    assert list(losses(tmp_path / "compiled").values()) == pytest.approx(
        list(losses(tmp_path / "eager").values()), rel=1e-3
    )


@pytest.mark.slow
def test_tensorboard_shows_what_the_lines_say(windows: Path, tmp_path: Path, small_config: TrainConfig):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(CutOff):
        train(str(windows), tmp_path, small_config, progress=stop_after(5))
    time.sleep(1.0)  # event files of one second and process are read in the order of their names: 10 before 9
    train(str(windows), tmp_path, small_config)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    shown = {event.step: event.value for event in events.Scalars("loss/loss")}
    assert shown == pytest.approx(losses(tmp_path), rel=1e-6)
    assert {"val/val_loss", "speed/samples_s", "train/lr", "loss/loss_t1of4"} <= set(events.Tags()["scalars"])


def test_a_checkpoint_is_whole_or_refused(trained: Path, tmp_path: Path):
    checkpoint = load_checkpoint(trained)
    save_checkpoint(checkpoint, tmp_path / "copy.safetensors")
    assert checkpoint_id(tmp_path / "copy.safetensors") == checkpoint_id(trained)
    model = load_model(checkpoint)
    assert not any(weight.requires_grad for weight in model.parameters())
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(trained.read_bytes()[:5000])
    absent = tmp_path / "none.safetensors"
    for path, message in ((cut, "is not a whole checkpoint"), (absent, "cannot read checkpoint")):
        with pytest.raises(UsageError, match=message):
            load_checkpoint(path)
    save_file({"weights": torch.zeros(1)}, cut)
    with pytest.raises(UsageError, match="holds tensors and no checkpoint"):
        load_checkpoint(cut)


def test_motion_is_normalised_and_what_is_missing_stays_missing(trained: Path):
    model = load_model(load_checkpoint(trained))
    motion = torch.from_numpy(sample(1).avatar_motion)
    normal = model.normalise(motion)
    assert normal.std(dim=0).sub(1).abs().mean() < 0.5
    torch.testing.assert_close(model.denormalise(normal), motion)
    motion[3] = torch.nan
    assert model.normalise(motion)[3].isnan().all()  # it was the corpus' mean once, and scored as such


def test_steps_have_randomness_of_their_own():
    numbers = itertools.product(range(3), range(150), range(2))
    draws = [torch.rand(1, generator=step_generator(*of)).item() for of in numbers]
    assert len(set(draws)) == 900
    assert torch.rand(1, generator=step_generator(2, 149, 1)).item() == draws[-1]


def test_learning_rate_warms_up_and_falls():
    assert [learning_rate(step, 10, 1.0, 4, "constant") for step in (0, 1, 3, 9)] == [0.25, 0.5, 1.0, 1.0]
    cosine = [learning_rate(step, 10, 1.0, 4, "cosine") for step in range(4, 10)]
    assert cosine[0] == 1.0
    assert cosine == sorted(cosine, reverse=True)
    assert 0 < cosine[-1] < 0.1
