"""Sequences are the conversations that windows were cut from, and a checkpoint generates them as one stream."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from benchmarks.reactive import AVATAR, USER, Corpus, Rule, make_dyad, write_corpus
from tests.conftest import Once
from tests.training.synthetic import write_dataset
from visavis.pipeline.app import app
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import UsageError
from visavis.schemas.manifest import MotionColumn
from visavis.schemas.train import FeatureConfig, ModelConfig, OptimConfig, SamplerConfig, TrainConfig
from visavis.training.checkpoint import load_checkpoint, load_model
from visavis.training.dataset import Dataset
from visavis.training.protocol_rows import clips_of, part_columns, protocol_rows
from visavis.training.protocols.clips import Clip
from visavis.training.protocols.score import score
from visavis.training.sampler import rollout
from visavis.training.sequences import Generated, Recorded, Run, Side, _cut, generate_sequences, read_sequences, runs_of
from visavis.training.train import train

CORPUS = Corpus(train=2, val=3, seconds=8, window=50, hop=40)


@pytest.fixture(scope="module")
def dataset(once: Once) -> Dataset:
    return Dataset(str(once("sequences", lambda folder: write_corpus(folder, CORPUS, Rule()))))


@pytest.fixture(scope="module")
def checkpoint(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = TrainConfig(
        model=ModelConfig(width=16, depth=1, heads=1, encoder_width=16, encoder_heads=1),
        features=FeatureConfig(n_mels=4),
        optim=OptimConfig(batch=2, steps=2),
        sampler=SamplerConfig(steps=2, guidance="none"),
        device="cpu",
    )
    return train(dataset.location, tmp_path_factory.mktemp("run"), config)


def recorded(data: Dataset, limit: int | None = None) -> list[Recorded]:
    runs, where = runs_of(data, "val", limit)
    return list(read_sequences(data, "val", runs, where))


def test_windows_become_the_conversations_they_were_cut_from(dataset: Dataset) -> None:
    """Windows of four classes, in four shards, that overlap by 10 frames."""
    found = {sequence.side.conversation: sequence for sequence in recorded(dataset)}
    assert sorted(found) == ["c000002", "c000003", "c000004"]
    for number, (_, sequence) in enumerate(sorted(found.items()), CORPUS.train):
        dyad = make_dyad(CORPUS, Rule(), number)
        frames = 50 + 40 * 3  # 200 frames: the fifth window would not fit
        assert np.array_equal(sequence.truth, dyad.motion[AVATAR][:frames])
        assert np.array_equal(sequence.user, dyad.motion[USER][:frames])
        assert len(sequence.state) == len(sequence.valid) == frames
        assert len(sequence.avatar_audio) == len(sequence.user_audio) == frames * 640
        assert sequence.key.endswith("-0000000")


def test_a_gap_begins_a_new_sequence_and_ten_minutes_end_one(dataset: Dataset, tmp_path: Path) -> None:
    side = Side("c", "a", "b")
    assert list(_cut(side, [0, 50, 101, 150], 50)) == [Run(side, (0, 50)), Run(side, (101, 150))]
    long = list(_cut(side, range(0, 40_000, 50), 50))
    assert [len(run.starts) for run in long] == [300, 300, 200]
    assert len(recorded(dataset, limit=2)) == 2
    none = write_dataset(tmp_path, {WindowClass.LISTENING: 2}, val=0)
    with pytest.raises(UsageError, match="no val samples"):
        runs_of(Dataset(str(none)), "val")


@pytest.mark.slow
def test_a_sequence_is_generated_as_one_stream_whatever_else_is_there(dataset: Dataset, checkpoint: Path) -> None:
    model = load_model(load_checkpoint(checkpoint))
    sampler, sequences = SamplerConfig(steps=2, guidance="none"), recorded(dataset)
    short = replace(
        sequences[1],
        **{name: getattr(sequences[1], name)[:90] for name in ("truth", "user", "state", "valid")},
        avatar_audio=sequences[1].avatar_audio[: 90 * 640],
        user_audio=sequences[1].user_audio[: 90 * 640],
    )
    made = generate_sequences(model, [sequences[0], short, sequences[2]], 3, sampler, (0, 1))
    assert [len(each.recorded.truth) for each in made] == [170, 170, 90]  # those of one length together
    for each in made:
        source = short if len(each.recorded.truth) == 90 else next(s for s in sequences if s.key == each.recorded.key)
        conditions = (
            torch.from_numpy(getattr(source, n))[None] for n in ("avatar_audio", "user_audio", "user", "reference")
        )
        alone = rollout(model, *conditions, sampler.model_copy(update={"seed": 1}), [source.key])
        assert each.motions["full"][1] == pytest.approx(alone[0].numpy(), abs=1e-4)
        assert not np.allclose(each.motions["full"][0], each.motions["full"][1])
        assert len(each.recorded.avatar_audio) == 0


def test_parts_go_by_ranges_and_names(dataset: Dataset) -> None:
    manifest = dataset.manifest.model_copy(update={"columns": None})
    assert {name: part.tolist() for name, part in part_columns(manifest).items()} == {
        "exp": [6, 7, 8, 9, 10, 11], "pose": [0, 1, 2], "place": [3, 4, 5],
    }  # fmt: skip
    names = ["pitch", "yaw", "roll", "x", "y", "log_size", "smile", "jawOpen", "jaw_1", "brow", "a", "b"]
    named = manifest.model_copy(update={"columns": tuple(MotionColumn(name=name, unit="") for name in names)})
    assert part_columns(named)["jaw"].tolist() == [7, 8]
    assert part_columns(named)["exp"].tolist() == [6, 9, 10, 11]


@pytest.mark.slow  # scikit-learn is imported
def test_clips_keep_raw_units_valid_frames_and_who_listens(dataset: Dataset) -> None:
    (sequence, *_) = recorded(dataset)
    valid = np.ones(170, bool)
    valid[20:40] = False
    state = np.zeros(170, np.uint8)
    state[:60] = 1
    sequence = replace(sequence, valid=valid, state=state)
    columns = {"jaw": np.array([7, 9]), "exp": np.array([6])}
    made = [Generated(sequence, {"full": (sequence.truth + 1, sequence.truth + 3)})]
    (clip,), parts = clips_of(made, columns, "full")
    assert parts == {"jaw": slice(0, 2), "exp": slice(2, 3)}
    assert np.array_equal(clip.truth, sequence.truth[valid][:, [7, 9, 6]])
    assert clip.listening is not None
    assert clip.listening.tolist() == [False] * 40 + [True] * 110
    blind = replace(sequence, valid=np.zeros(170, bool))
    assert clips_of([Generated(blind, made[0].motions)], columns, "full")[0] == []
    rows = protocol_rows("dim", {"model": [clip]}, parts, whole=False)[0]["all"]
    assert rows["model"]["MSE_exp"] == pytest.approx((1 + 9) / 2, rel=1e-5)  # the mean over seeds
    assert rows["floor"]["MSE_exp"] == pytest.approx(
        score("dim", [Clip(clip.truth[:75], clip.user[:75], clip.truth[75:])], parts)["MSE_exp"]
    )


@pytest.mark.slow
def test_evaluate_by_a_protocol(dataset: Dataset, checkpoint: Path) -> None:
    arguments = ["evaluate", str(checkpoint), dataset.location, "--protocol", "react", "--seeds", "2"]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.exception
    found = json.loads(done.stdout)
    assert (found["sequences"], found["shortest"], found["longest"], found["not_compared"]) == (3, 170, 170, 0)
    assert set(found["figures"]) == {"all", "listening"}
    rows = found["figures"]["all"]
    assert set(rows) == {"model", "model_no_user", "floor", "shifted", "hold_still"}
    assert rows["model"]["FRDiv"] > 0  # of two seeds
    assert rows["hold_still"]["FRDiv"] == 0  # the same twice
    table = CliRunner().invoke(app, [*arguments, "--limit", "2"])
    assert "react, all frames" in table.stdout
    assert "2 val sequences of 170 to 170 frames" in table.stdout
    wrong = CliRunner().invoke(app, [*arguments[:-3], "best"])
    assert "one of dim, dualtalk" in str(wrong.exception)
