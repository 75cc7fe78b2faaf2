"""Evaluation, and the proof that the model learns to react."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.synthetic import DELAY, SMILE, write_dataset
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import UsageError
from visavis.schemas.manifest import ShardEntry
from visavis.schemas.sampling import SamplingConfig
from visavis.schemas.train import FeatureConfig, ModelConfig, OptimConfig, SamplerConfig, TrainConfig
from visavis.training.checkpoint import load_checkpoint, load_model
from visavis.training.dataset import SHARDS, Dataset, choose
from visavis.training.evaluate import evaluate
from visavis.training.generate import generate
from visavis.training.loader import collate
from visavis.training.metrics.lags import lagged
from visavis.training.sampler import rollout
from visavis.training.train import train


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("listening"), {WindowClass.LISTENING: 160}, val=12)


@pytest.fixture(scope="module")
def checkpoint(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = TrainConfig(
        model=ModelConfig(width=48, depth=2, heads=2, encoder_width=48, encoder_heads=2),
        features=FeatureConfig(n_mels=8),
        optim=OptimConfig(lr=4e-3, batch=8, steps=STEPS, warmup=20, schedule="cosine", ema=0.98),
        sampler=SamplerConfig(steps=8, guidance="none"),
        device="cpu",
        checkpoint_every=10_000,
    )
    return train(str(dataset), tmp_path_factory.mktemp("run"), config)


STEPS = 300


@pytest.mark.slow
def test_the_model_learns_to_mirror_the_user_with_the_right_delay(dataset: Path, checkpoint: Path):
    model = load_model(load_checkpoint(checkpoint))
    batch = collate(list(Dataset(str(dataset)).samples("val")))
    valid = batch.valid.all(dim=2).numpy()

    def mirrored(drop) -> tuple[float, int]:
        motion = rollout(
            model,
            batch.avatar_audio,
            batch.user_audio,
            batch.user_motion,
            batch.reference,
            SamplerConfig(steps=8, guidance="none"),
            batch.keys,
            drop,
        )
        timing = lagged(motion.numpy()[..., [SMILE]], batch.user_motion.numpy()[..., [SMILE]], valid)
        return timing.correlation[DELAY], timing.best

    seen, best = mirrored("full")
    dropped, _ = mirrored("no_user")
    assert seen > 0.3
    assert abs(best - DELAY) <= 1
    assert abs(dropped) < 0.25
    last = json.loads((checkpoint.parent / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["val_user_gain"] > 0.01


@pytest.mark.slow
def test_evaluation_compares_the_model_with_the_truth_and_with_what_costs_nothing(dataset: Path, checkpoint: Path):
    table = evaluate(checkpoint, str(dataset), seeds=(0, 1))
    assert json.loads(json.dumps(table)) == table
    assert table["windows"] == {"all": 12, "listening": 12}
    rows = {name: classes["listening"] for name, classes in table["rows"].items()}
    assert set(rows) == {
        "model",
        "model_no_user",
        "ground_truth",
        "hold_still",
        "copy_user",
        "mean_motion",
        "shuffled",
    }
    assert rows["ground_truth"]["rpcc_expression"] == 0
    assert rows["copy_user"]["pcc_expression"] == pytest.approx(1)
    assert rows["copy_user"]["lagged_delay_expression"] == 0
    assert rows["hold_still"]["var_pose"] == rows["mean_motion"]["jerk_expression"] == 0
    assert rows["shuffled"]["fd_pooled_expression"] == pytest.approx(0, abs=1e-3)
    assert rows["model"]["pcc_truth_expression"] > rows["model_no_user"]["pcc_truth_expression"] + 0.02
    assert table == evaluate(checkpoint, str(dataset), seeds=(0, 1))
    single = [evaluate(checkpoint, str(dataset), seeds=(seed,)) for seed in (0, 1)]
    each = [found["rows"]["model"]["all"]["var_pose"] for found in single]
    assert table["rows"]["model"]["all"]["var_pose"] == pytest.approx(np.mean(each))
    assert table["spread"]["model"]["all"]["var_pose"] == pytest.approx(abs(each[0] - each[1]) / np.sqrt(2))
    assert single[0]["spread"] == {}
    assert set(table["noise_floor"]["listening"]) == {
        f"{name}_{part}" for name in ("rpcc", "rpcc_flat") for part in ("expression", "pose")
    }
    assert table["standard_errors"]["model"]["all"]["pcc_pose"] > 0


@pytest.mark.slow
def test_generate_writes_arrays_that_anyone_can_read(dataset: Path, checkpoint: Path, tmp_path: Path):
    key = next(Dataset(str(dataset)).samples("val")).key
    path = generate(checkpoint, str(dataset), key, tmp_path)
    motion = np.load(path, allow_pickle=False)
    assert motion.shape == np.load(tmp_path / f"{key}.truth.npy", allow_pickle=False).shape == (50, 12)
    assert motion.dtype == np.float32
    assert json.loads((tmp_path / f"{key}.json").read_text())["key"] == key
    with pytest.raises(UsageError, match="has no sample nobody; there are 172 samples: "):
        generate(checkpoint, str(dataset), "nobody", tmp_path)


def test_nothing_held_out_is_answered_with_what_helps(trained_elsewhere: Path, tmp_path: Path):
    one = write_dataset(tmp_path, {WindowClass.LISTENING: 2}, val=0)
    with pytest.raises(UsageError, match=r"all people of its 1 conversation have met.* or score .* --split train"):
        evaluate(trained_elsewhere, str(one))
    with pytest.raises(UsageError, match="no sample listening-00005; there are 2 samples: listening-0000"):
        generate(trained_elsewhere, str(one), "listening-00005", tmp_path)


@pytest.mark.slow
def test_memory_is_that_of_a_batch_and_its_size_changes_nothing(
    trained_elsewhere: Path, windows: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[int] = []
    whole = evaluate(trained_elsewhere, str(windows), "train", limit=5)
    monkeypatch.setattr("visavis.training.evaluate.BATCH", 3)
    monkeypatch.setattr(
        "visavis.training.rollouts.rollout", lambda *args, **named: seen.append(len(args[1])) or rollout(*args, **named)
    )
    steps: list[tuple[int, int]] = []
    cut = evaluate(trained_elsewhere, str(windows), "train", limit=5, progress=lambda i, n, _: steps.append((i, n)))
    assert set(seen) == {2, 3}  # never a batch of one: its shuffled row would be the truth
    assert steps == [(i + 1, 8) for i in range(8)]
    assert whole["windows"] == cut["windows"] == {"all": 20} | dict.fromkeys(WindowClass, 5)
    for row in set(whole["rows"]) - {"shuffled"}:
        for label, figures in whole["rows"][row].items():
            defined = {name: value for name, value in figures.items() if value is not None}
            assert {name for name, value in cut["rows"][row][label].items() if value is not None} == set(defined)
            assert {name: cut["rows"][row][label][name] for name in defined} == pytest.approx(
                defined, rel=1e-4, abs=1e-5
            )


@given(sizes=st.lists(st.integers(0, 9), max_size=20), limit=st.integers(1, 60))
def test_a_limited_evaluation_spreads_over_the_split(sizes: list[int], limit: int):
    shards = [
        ShardEntry(
            path=f"s-{i}.tar", split="val", label=WindowClass.LISTENING, samples=n, bytes=1 << 20, sha256="0" * 64
        )
        for i, n in enumerate(sizes)
    ]
    chosen = choose(shards, limit)
    assert sum(count for _, count in chosen) == min(limit, sum(sizes))
    assert len({entry.path for entry, _ in chosen}) == len(chosen)
    assert all(0 < count <= entry.samples for entry, count in chosen)
    full = sum(map(bool, sizes))
    assert len(chosen) >= min(full, SHARDS, limit) // 2
    assert choose(shards, None) == [(entry, entry.samples) for entry in shards if entry.samples]


@pytest.mark.slow
def test_evaluation_says_what_is_missing(dataset: Path, trained_elsewhere: Path, tmp_path: Path):
    empty = write_dataset(tmp_path / "no_val", {WindowClass.LISTENING: 2})
    with pytest.raises(UsageError, match="has no val samples"):
        evaluate(trained_elsewhere, str(empty))
    other = write_dataset(tmp_path / "other", {WindowClass.LISTENING: 2}, codec="other")
    with pytest.raises(UsageError, match="codec other"):
        evaluate(trained_elsewhere, str(other))


@pytest.fixture
def trained_elsewhere(windows: Path, tmp_path: Path, small_config: TrainConfig) -> Path:
    config = small_config.model_copy(update={"optim": small_config.optim.model_copy(update={"steps": 1})})
    return train(str(windows), tmp_path / "trained", config)


@pytest.mark.slow
def test_an_evaluation_says_how_it_sampled_and_scores_the_same_of_larger_batches(
    windows: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
):
    """Windows are scored in the same groups, so what is not generated has the very same figures."""
    monkeypatch.setattr("visavis.training.evaluate.BATCH", 2)
    monkeypatch.setattr("visavis.training.evaluate.CLUSTERED", 300)

    def figures(**said):
        sampler = SamplerConfig(steps=1, guidance="none")
        return evaluate(trained, str(windows), "train", sampler, limit=4, device="cpu", sampling=SamplingConfig(**said))

    usual, larger, rounded = figures(), figures(batch=5), figures(precision="bfloat16")
    assert usual["sampling"] == {"device": "cpu", "precision": "float32", "batch": 2, "graphs": False}
    assert (larger["sampling"]["batch"], rounded["sampling"]["precision"]) == (5, "bfloat16")
    for found, near in ((larger, 1e-3), (rounded, 0.1)):
        for row, classes in usual["rows"].items():
            if row.startswith("model"):
                assert found["rows"][row]["all"]["jerk_expression"] == pytest.approx(
                    classes["all"]["jerk_expression"], rel=near
                )
            else:
                assert found["rows"][row] == classes
    assert rounded["rows"]["model"] != usual["rows"]["model"]
    with pytest.raises(UsageError, match="precision tf32 needs a GPU"):
        figures(precision="tf32")
