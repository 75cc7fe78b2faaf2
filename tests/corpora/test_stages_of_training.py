"""Clips of one person, then dyads: UniLS's two stages, by the recipes that are shipped, at a size for tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.corpora import write_dualtalk
from tests.corpora.test_import import imported
from visavis.schemas.recipes import load_config
from visavis.schemas.train import TrainConfig
from visavis.training.checkpoint import load_checkpoint
from visavis.training.train import train

SMALL = [
    "model={width: 32, depth: 1, heads: 2, encoder_width: 16, encoder_heads: 2}",
    "optim.steps=2",
    "optim.warmup=0",
    "optim.batch=4",
    "checkpoint_every=2",
    "val_batches=1",
    "device=cpu",
]


@pytest.mark.slow
def test_a_model_learned_from_solo_clips_goes_on_with_dyads(tmp_path: Path) -> None:
    write_dualtalk(tmp_path / "corpus", conversations=3, seconds=4)
    dyads = imported(tmp_path / "corpus", tmp_path / "dyads")
    (tmp_path / "solo").mkdir()
    for file in (tmp_path / "corpus" / "train").glob("*_speaker2.*"):
        (tmp_path / "solo" / file.name.replace("_speaker2", "")).write_bytes(file.read_bytes())
    solo = imported(tmp_path / "solo", tmp_path / "alone", "solo")

    free = train(solo.dataset, tmp_path / "free", load_config("configs/train/audio-free.yaml", TrainConfig, SMALL))
    second = load_config("configs/train/both-voices.yaml", TrainConfig, [*SMALL, "objective.groups={jaw: 4}"])
    both = train(dyads.dataset, tmp_path / "both", second, init=free)
    before, after = load_checkpoint(free), load_checkpoint(both)
    assert before.motion.codec == after.motion.codec == "flame-exp50-jaw3-pose3"
    changed = [name for name, weight in after.model.items() if not torch.equal(weight, before.model[name])]
    assert any("encoder" in name for name in changed), "the second stage hears and sees"
