"""Every objective as a run: it trains, goes on where it was stopped, and reads the answers of others only where
they are the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.conftest import small_model
from tests.training.preferences.made import pairs_of
from tests.training.synthetic import DIM, write_dataset
from visavis.schemas.coefficients import coefficient_columns, coefficient_spec
from visavis.schemas.errors import UsageError
from visavis.schemas.manifest import MotionColumn, MotionSpec
from visavis.schemas.pairs import PairRecord
from visavis.schemas.plain import dump_record, load_record
from visavis.schemas.train import DpoConfig, Preferences, TrainConfig
from visavis.training.checkpoint import checkpoint_id, load_checkpoint
from visavis.training.flow import draw_noise
from visavis.training.preferences.groups import groups_of, weights_of
from visavis.training.preferences.seam import OBJECTIVES, Preference
from visavis.training.train import Stopped, train


@pytest.mark.slow
def test_every_objective_teaches_a_model_the_preference_it_has_a_gradient_for():
    """Some steps on one batch of a small model: the chosen side gains on the rejected one."""
    for name in OBJECTIVES:
        config = TrainConfig(dpo=DpoConfig(objective=name, beta=20.0, reward="sides", levels=(0, 1)))
        policy, frozen = small_model(), small_model()
        preference, pairs = Preference(config, policy), pairs_of(20)
        pairs = replace(pairs, records=tuple(r.model_copy(update={"window": "w"}) for r in pairs.records))
        noise = preference.noise(pairs, draw_noise((2, 20, DIM), 5, torch.Generator().manual_seed(0)))
        reference, valid = preference.ask(frozen, pairs, noise), pairs.valid[..., 0]
        optimizer = torch.optim.Adam(policy.parameters(), lr=2e-3)
        found = []
        for _ in range(6):
            loss, logs = preference.loss(policy, reference, pairs, noise, valid)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append((loss.item(), logs["margin"].item()))
        assert found[0][1] == 0, name
        assert found[-1][0] < found[0][0], name
        assert found[-1][1] > 0, name


def test_groups_are_told_by_columns():
    spec = MotionSpec(
        codec="c", dim=9, rotation=(0, 2), translation=(2, 3), expression=(3, 9), mean=(0.0,) * 9, std=(1.0,) * 9
    )
    words = ("pitch", "yaw", "x", "browInnerUp", "eyeBlinkLeft", "jawOpen", "mouthClose", "component_0", "Eye_look")
    columns = [MotionColumn(name=name, unit="") for name in words]
    assert groups_of(spec, columns, DpoConfig()) == {
        "pose": (0, 1, 2),
        "brows": (3,),
        "eyes": (4, 8),
        "mouth": (5, 6),
        "expression": (7,),
    }
    assert groups_of(spec, None, DpoConfig()) == {"pose": (0, 1, 2), "expression": (3, 4, 5, 6, 7, 8)}
    assert groups_of(spec, columns, DpoConfig(group_by="column")) == {name: (n,) for n, name in enumerate(words)}
    assert groups_of(spec, columns, DpoConfig(groups=("mouth", "pose"))) == {"pose": (0, 1, 2), "mouth": (5, 6)}
    with pytest.raises(UsageError, match="no group nose; it has pose, brows, eyes, mouth, expression"):
        groups_of(spec, columns, DpoConfig(groups=("nose",)))
    flame = coefficient_spec("flame-exp4-jaw3-pose3", np.zeros(10), np.ones(10))
    found = groups_of(flame, coefficient_columns(flame), DpoConfig())
    assert found == {"exp": (0, 1, 2, 3), "jaw": (4, 5, 6), "pose": (7, 8, 9)}, "named as in objective.groups"


def test_groups_weigh_the_same_or_what_they_fall_short_by():
    found = {"pose": (0,), "mouth": (1,)}
    even = {"pose": 0.5, "mouth": 0.5}
    assert weights_of(found, DpoConfig(group_weights="equal"), {"pose": 0.5, "mouth": 0.1}) == even
    short = DpoConfig(group_weights="shortfall")
    assert weights_of(found, short, {"pose": 0.2, "mouth": 0.0, "eyes": 0.1}) == {"pose": 0.25, "mouth": 0.0}
    for auto in (DpoConfig(), DpoConfig(group_weights="auto")):
        for untold in (None, {}, {"eyes": 0.1}, {"pose": None, "mouth": None}):
            assert weights_of(found, auto, untold) == even, "nothing certain is told"
        assert weights_of(found, auto, {"mouth": 0.0}) == {"pose": 0.5, "mouth": 0.0}, "what is right is kept"
    for weights in (auto, short):
        assert weights_of(found, weights, {"pose": 0.2, "mouth": 0.9}) == {"pose": 0.25, "mouth": 0.0}
    with pytest.raises(UsageError, match="as large as the recorded ones in mouth, and it hardly reacts yet in pose"):
        weights_of(found, short, {"pose": 1.0, "mouth": 0.0})
    with pytest.raises(UsageError, match="make them with chosen=ground_truth"):
        weights_of(found, short, {})
    with pytest.raises(UsageError, match="make them with chosen=ground_truth"):
        weights_of(found, short, {"eyes": 0.1})
    assert weights_of(found, short, {"pose": 0.2}) == {"pose": 0.25, "mouth": 0.0}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tracked", "nft"])
def test_a_run_resumes_and_shares_answers(
    windows: Path, trained: Path, tmp_path: Path, small_config: TrainConfig, name: Preferences
):
    """tracked: other noise; nft: answers of another shape. The cache is that of plain DPO, too."""
    made_by = checkpoint_id(trained)
    pairs = write_dataset(tmp_path / "pairs", pairs=True, damage=lambda _, members: made(members, made_by))
    stamp(pairs, made_by)
    cache = str(tmp_path / "cache")

    def run(folder: str, stop: int | None = None, **dpo: Any) -> list[float]:
        settings = {
            "objective": "dpo",
            "steps": 4,
            "lr": 1e-3,
            "warmup": 0,
            "beta": 10.0,
            "max_chosen_rise": None,
        } | dpo
        config = small_config.model_copy(update={"dpo": DpoConfig(**settings), "val_batches": 0})
        out = tmp_path / folder
        more = {"init": trained, "pairs": str(pairs)}
        if stop is not None:
            asked = iter([False] * stop)
            with pytest.raises(Stopped):
                train(str(windows), out, config, **more, stop=lambda: next(asked, True))
        train(str(windows), out, config, **more)
        assert load_checkpoint(out / "checkpoint.safetensors").step == 4
        lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
        return [line["loss"] for line in lines if "loss" in line]

    plain = run("plain", cache=cache)
    whole = run("whole", objective=name)
    assert whole != plain
    assert run("cut", stop=2, objective=name) == whole
    assert run("asked", objective=name, cache=cache) == run("read", objective=name, cache=cache) == whole
    assert run("plain-again", cache=cache) == plain
    assert len(list((tmp_path / "cache").iterdir())) == 2


def made(members: dict[str, bytes], by: str) -> dict[str, bytes]:
    record = load_record(members["pair.json"], PairRecord)
    changed = record.model_copy(update={"rejected_generator": by, "reactivity_margin": 0.2})
    return members | {"pair.json": dump_record(changed)}


def stamp(folder: Path, by: str) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["pairs"]["rejected_generator"] = by
    (folder / "manifest.json").write_text(json.dumps(manifest))
