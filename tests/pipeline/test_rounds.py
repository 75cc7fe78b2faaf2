"""Preference tuning in rounds: pairs of what the model does now, steps against it, and again; stopped, it goes on."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from tests.stages.test_pairs import save_model
from tests.stages.test_scoring import CONFIG
from tests.training.conftest import small_config, small_model
from tests.training.synthetic import write_dataset
from visavis.pipeline.cli.tune import rounds_table, tune_config
from visavis.pipeline.engine.executor import local_engine
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.plan import rounds
from visavis.pipeline.plan.rounds import TuneRequest, TuneSummary, read_ledger, tune
from visavis.pipeline.plan.settle import share_of_way
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import RunFailed, UsageError
from visavis.schemas.train import TrainConfig
from visavis.schemas.tune import TuneConfig
from visavis.stages.pairing import reference_statistics
from visavis.training.checkpoint import checkpoint_id, load_checkpoint
from visavis.training.dataset import Dataset

__all__ = ["small_config"]


@pytest.fixture
def config(small_config: TrainConfig) -> TuneConfig:
    train = small_config.model_copy(
        update={"dpo": small_config.dpo.model_copy(update={"steps": 3, "warmup": 0, "max_chosen_rise": None})}
    )
    pairs = CONFIG.model_copy(update={"chosen": "best", "rejected": "own", "per_window": 2})
    return TuneConfig(rounds=2, max_rise=None, pairs=pairs, train=train)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A dataset and a model."""
    folder = tmp_path_factory.mktemp("base")
    source = write_dataset(folder / "source", {WindowClass.LISTENING: 6}, val=2)
    return source, save_model(small_model(), folder / "base.safetensors")


def made(base: tuple[Path, Path], out: Path, config: TuneConfig) -> TuneSummary:
    request = TuneRequest(str(base[0]), base[1], out, config)
    return tune(request, local_engine, Reporter(Console(file=io.StringIO())))


_whole: dict[Path, bytes] = {}


def whole_run(base: tuple[Path, Path], factory: pytest.TempPathFactory, config: TuneConfig) -> bytes:
    """The model that came out of rounds that nobody stopped."""
    if base[1] not in _whole:
        _whole[base[1]] = made(base, factory.mktemp("whole"), config).checkpoint.read_bytes()
    return _whole[base[1]]


@pytest.mark.slow
def test_each_round_is_of_the_model_that_came_out_of_the_one_before(
    base: tuple[Path, Path], tmp_path: Path, config: TuneConfig
) -> None:
    found = made(base, tmp_path / "out", config)
    assert [(each.number, each.seed, each.accepted, each.steps) for each in found.rounds] == [
        (1, 0, True, 3), (2, 2, True, 3),
    ]  # fmt: skip
    generators = [base[1], tmp_path / "out" / "round-001" / "train" / "checkpoint.safetensors"]
    for number, generator in enumerate(generators, 1):
        pairs = Dataset(str(tmp_path / "out" / f"round-{number:03d}" / "pairs" / "dataset")).manifest.pairs
        assert pairs is not None
        assert pairs.generator == checkpoint_id(generator)
        assert pairs.seeds == (2 * number - 2, 2 * number - 1)
    assert checkpoint_id(found.checkpoint) == found.rounds[-1].checkpoint
    assert read_ledger(tmp_path / "out") == found.rounds
    assert {"val_loss", "val_chosen_rise"} <= set(found.rounds[0].validation)
    assert rounds_table(found.rounds).row_count == 2
    more = made(base, tmp_path / "out", config.model_copy(update={"rounds": 3}))
    assert more.rounds[:2] == found.rounds
    assert len(more.rounds) == 3
    other = config.model_copy(update={"train": config.train.model_copy(update={"seed": 5})})
    with pytest.raises(UsageError, match="was tuned with train"):
        made(base, tmp_path / "out", other)


@pytest.mark.slow
@pytest.mark.parametrize(
    "at",
    [
        pytest.param("pairs", marks=pytest.mark.nightly("a stop before the first step; in its midst it is in CI")),
        "train",
        pytest.param("ledger", marks=pytest.mark.nightly("a stop after the last step; in its midst it is in CI")),
    ],
)
def test_stopped_anywhere_it_goes_on_to_the_same_model(
    base: tuple[Path, Path],
    tmp_path: Path,
    config: TuneConfig,
    monkeypatch: pytest.MonkeyPatch,
    at: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """In the second round: after its pairs, in the midst of its steps, or before its line is written."""
    whole = whole_run(base, tmp_path_factory, config)
    name = {"pairs": "train", "train": "train", "ledger": "_validation"}[at]
    real, calls = getattr(rounds, name), []

    def stopping(*words: Any, **more: Any) -> Any:
        calls.append(words)
        if len(calls) == 2:
            if at == "train":
                real(*words, **more | {"stop": lambda: True})  # finishes its step, and raises
            raise KeyboardInterrupt
        return real(*words, **more)

    with monkeypatch.context() as patch:
        patch.setattr(rounds, name, stopping)
        with pytest.raises(KeyboardInterrupt):
            made(base, tmp_path / "stopped", config)
    assert len(read_ledger(tmp_path / "stopped")) == 1
    resumed = made(base, tmp_path / "stopped", config)
    assert resumed.checkpoint.read_bytes() == whole


@pytest.mark.slow
def test_rounds_end_where_the_chosen_side_gets_worse(
    base: tuple[Path, Path], tmp_path: Path, config: TuneConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The round that went too far is left, and the model before it is what comes out."""
    real = rounds._validation
    rises = iter([0.01, 0.03])
    monkeypatch.setattr(rounds, "_validation", lambda *words: real(*words) | {"val_chosen_rise": next(rises)})
    found = made(base, tmp_path / "out", config.model_copy(update={"rounds": 5, "max_rise": 0.02}))
    assert [each.accepted for each in found.rounds] == [True, False]
    assert found.ended.startswith("round 2: the chosen side is 4.0% worse than the base's")
    assert checkpoint_id(found.checkpoint) == found.rounds[0].checkpoint
    assert made(base, tmp_path / "out", config.model_copy(update={"rounds": 5, "max_rise": 0.02})) == found


@pytest.mark.slow
def test_a_round_without_pairs_is_the_end(base: tuple[Path, Path], tmp_path: Path, config: TuneConfig) -> None:
    """In the first one there is something wrong, and it is said."""
    strict = config.pairs.model_copy(update={"gate": config.pairs.gate.model_copy(update={"min_distance": 1e6})})
    with pytest.raises(RunFailed, match="the gate left none of 6 pairs: 6 too similar"):
        made(base, tmp_path / "out", config.model_copy(update={"pairs": strict}))
    assert read_ledger(tmp_path / "out") == []


@pytest.mark.slow
def test_rounds_end_where_nothing_falls_short(
    base: tuple[Path, Path], tmp_path: Path, config: TuneConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups that weigh what they fall short by would weigh nothing, and steps would be those of no pairs at all."""
    monkeypatch.setattr(reference_statistics, "FEWEST", 2)
    dpo = config.train.dpo.model_copy(update={"objective": "groups", "group_weights": "shortfall"})
    pairs = config.pairs.model_copy(update={"chosen": "ground_truth", "per_window": 1})
    train = config.train.model_copy(update={"dpo": dpo})
    request = config.model_copy(update={"pairs": pairs, "train": train})
    source = write_dataset(tmp_path / "source", {WindowClass.LISTENING: 8})  # conversations of both folds
    base = source, base[1]
    found = made(base, tmp_path / "out", request)
    assert found.checkpoint == base[1]
    (only,) = found.rounds
    assert (only.accepted, only.steps, set(only.shortfall.values())) == (False, 0, {None})
    assert only.ended.startswith("round 1: nothing is left to teach: reactions fall short")
    assert made(base, tmp_path / "out", request) == found


@pytest.mark.slow
def test_a_round_that_went_too_far_is_taken_back(
    base: tuple[Path, Path], tmp_path: Path, config: TuneConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head fell short by a half and goes beyond by a quarter: two thirds of the way are kept, and rounds end."""
    told = {1: {"pose": 0.5, "expression": 0.0}, 2: {"pose": -0.25, "expression": 0.0}}
    real = rounds.build_pairs

    def telling(request: Any, root: str, *words: Any) -> Any:
        return dataclasses.replace(real(request, root, *words), shortfall=told[int(root.split("round-")[1][:3])])

    monkeypatch.setattr(rounds, "build_pairs", telling)
    pairs = config.pairs.model_copy(update={"chosen": "ground_truth", "per_window": 1})
    train = config.train.model_copy(update={"dpo": config.train.dpo.model_copy(update={"group_weights": "auto"})})
    request = config.model_copy(update={"pairs": pairs, "train": train})
    found = made(base, tmp_path / "out", request)
    (only,) = found.rounds
    assert (only.accepted, only.settled) == (True, pytest.approx(2 / 3, abs=1e-4))
    assert only.ended == "round 1: reactions are as large as the recorded ones at 67% of the way"
    assert only.checkpoint == checkpoint_id(found.checkpoint)
    start, end, kept = (
        load_checkpoint(path).ema
        for path in (base[1], tmp_path / "out" / "round-001" / "train" / "checkpoint.safetensors", found.checkpoint)
    )
    for name, weight in kept.items():
        torch.testing.assert_close(weight, start[name] + only.settled * (end[name] - start[name]))
    assert any((kept[name] != end[name]).any() for name in kept)
    assert made(base, tmp_path / "out", request) == found


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [
        ({"pose": 0.22}, {"pose": -0.37}, 0.22 / 0.59),
        ({"pose": 0.22}, {"pose": 0.1}, 1.0),
        ({"pose": 0.22}, {"pose": 0.0}, 1.0),
        ({"pose": 0.22, "mouth": 0.0}, {"pose": 0.1, "mouth": -0.2}, 1.0),
        ({"pose": 0.2, "mouth": 0.4}, {"pose": -0.2, "mouth": -0.4}, 0.5),
        ({"pose": 0.95, "mouth": None}, {"pose": -0.2, "mouth": -0.1}, 1.0),
        ({}, {}, 1.0),
    ],
)
def test_the_share_that_is_kept_is_where_nothing_falls_short(
    before: dict[str, float | None], after: dict[str, float | None], share: float
) -> None:
    """Of what was taught alone: what is kept as it was is not gone back for."""
    assert share_of_way(before, after) == pytest.approx(share, abs=1e-3)


def test_what_falls_short_is_asked_of_pairs_that_can_tell(tmp_path: Path) -> None:
    base = save_model(small_model(), tmp_path / "base.safetensors")
    weights = "train.dpo.group_weights=shortfall"
    assert tune_config(base, None, [weights, "pairs.rejected=own"]).train.dpo.group_weights == "shortfall"
    with pytest.raises(UsageError, match=r"wants pairs\.chosen=ground_truth"):
        tune_config(base, None, [weights, "pairs.shortfall_share=0"])


def test_settings_are_those_of_the_base_unless_the_recipe_names_others(tmp_path: Path) -> None:
    """But where its files lay is not followed."""
    base = save_model(small_model(), tmp_path / "base.safetensors")
    plain = tune_config(base, None, ["train.dpo.steps=7", "rounds=4", "pairs.per_window=2"])
    assert plain.train.model.width == 32
    assert (plain.train.dpo.steps, plain.rounds, plain.pairs.per_window) == (7, 4, 2)
    (tmp_path / "tune.yaml").write_text("pairs:\n  per_window: 3\ntrain:\n  dpo: {steps: 9}\n")
    named = tune_config(base, str(tmp_path / "tune.yaml"), ["pairs.scorer=mine.py:f"])
    assert (named.pairs.per_window, named.train.dpo.steps, named.pairs.gate.min_score_margin) == (3, 9, 0.0)
    with pytest.raises(UsageError, match="rounds want a scorer"):
        tune_config(base, None, ["pairs.scores=scores.csv"])
    with pytest.raises(UsageError, match=r"train\.dpo\.stepss"):
        tune_config(base, None, ["train.dpo.stepss=7"])


def test_a_ledger_that_is_none_is_told(tmp_path: Path) -> None:
    for text in ("{", json.dumps({"number": 1}), "[]"):
        (tmp_path / "rounds.jsonl").write_text(text + "\n")
        with pytest.raises(UsageError, match="is not what `visavis tune` writes"):
            read_ledger(tmp_path)
