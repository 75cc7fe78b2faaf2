"""The examples run as they stand, as programs, on what a test makes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.pairs import untrained
from tests.training.conftest import SMALL
from tests.training.synthetic import write_dataset
from visavis.pipeline.demo.dialogue import write_video
from visavis.pipeline.demo.script import write_script
from visavis.schemas import FPS
from visavis.schemas.dyads import WindowClass
from visavis.schemas.train import FeatureConfig, SamplerConfig, TrainConfig
from visavis.training.checkpoint import load_checkpoint, load_model
from visavis.training.dataset import Dataset
from visavis.training.loader import collate
from visavis.training.sampler import rollout

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *words: object) -> str:
    """What an example prints."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, words)]
    made = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert made.returncode == 0, made.stderr
    return made.stdout


@pytest.mark.parametrize("name", ["one_stage.py", "shard_to_batch.py", "stream.py", "reactivity.py"])
def test_an_example_is_read_in_one_sitting(name: str) -> None:
    assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) <= 60


@pytest.mark.nightly("the example of one stage, which loads all of diarization")
def test_one_stage_alone_tells_who_speaks_when(tmp_path: Path) -> None:
    script = write_script(0, 16.0)
    pictures = (np.full((64, 64, 3), n % 200, np.uint8) for n in range(script.frames))
    write_video(tmp_path / "talk.mp4", pictures, script.audio[0] + script.audio[1])
    said = run("one_stage.py", tmp_path / "talk.mp4")
    turns = [tuple(map(float, found)) for found in re.findall(r"([\d.]+) –\s+([\d.]+) s  speaker (\d)", said)]
    heard, spoken = np.zeros(script.frames, bool), np.zeros(script.frames, bool)
    for start, end, _ in turns:
        heard[int(start * FPS) : int(end * FPS)] = True
    for turn in script.turns:
        spoken[int(turn.start * FPS) : int(turn.end * FPS)] = True
    assert (heard == spoken).mean() > 0.9


@pytest.mark.slow
def test_shards_become_batches_without_anything_of_ours(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "dataset", {WindowClass.LISTENING: 12, WindowClass.SPEAKING: 6})
    assert "visavis" not in (EXAMPLES / "shard_to_batch.py").read_text(encoding="utf-8")
    said = run("shard_to_batch.py", folder)
    motion = Dataset(str(folder)).manifest
    shape = f"[16, {motion.window}, {motion.motion.dim}]"
    for line in (f"avatar.motion  float32  {shape}", f"valid          bool     [16, {motion.window}, 2]"):
        assert line in said
    assert f"user.audio     float32  [16, {motion.window * 640}]" in said


@pytest.mark.slow
def test_recorded_motion_fits_its_users_and_another_windows_does_not(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "dataset", {WindowClass.LISTENING: 48})
    np.save(tmp_path / "still.npy", np.zeros((48, 50, 12), np.float32))
    said = run("reactivity.py", folder, tmp_path / "still.npy")
    recorded, other, yours = (float(found) for found in re.findall(r"total ([+-][\d.]+)", said))
    assert recorded > 0.2 > abs(other)
    assert yours == 0


@pytest.mark.slow
def test_a_stream_is_what_the_model_makes_of_the_whole_window(tmp_path: Path) -> None:
    """And saving it half-way changes nothing."""
    folder = write_dataset(tmp_path / "dataset", {WindowClass.LISTENING: 4}, val=2)
    data = Dataset(str(folder))
    config = TrainConfig(
        model=SMALL.model_copy(update={"block": 10}),
        features=FeatureConfig(n_mels=8),
        sampler=SamplerConfig(steps=2, guidance="none"),
    )
    untrained(tmp_path / "checkpoint.safetensors", config, data)
    key = next(iter(data.samples("train"))).key
    said = run("stream.py", tmp_path / "checkpoint.safetensors", folder, tmp_path / "out.npy", key)
    assert re.search(r" 0\.4 s: 10 frames in \d+ ms", said)
    window = next(s for s in data.samples("train") if s.key == key)
    checkpoint = load_checkpoint(tmp_path / "checkpoint.safetensors")
    b = collate([window])
    whole = rollout(
        load_model(checkpoint), b.avatar_audio, b.user_audio, b.user_motion, b.reference, config.sampler, [key]
    )
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), whole[0].numpy(), atol=1e-4)
    assert np.ptp(whole.numpy()) > 0.1
