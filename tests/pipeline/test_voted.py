"""Votes become pairs: what more people preferred is chosen, as it was shown; where they disagree is counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.study import QUESTION, World, vote_all
from tests.pipeline.test_cli import visavis
from tests.stages.test_pairs import save_model
from tests.training.conftest import small_model
from tests.training.synthetic import write_dataset
from visavis.pipeline.page.preferences import MOTIONS_NAME, dump_motions, votes_of
from visavis.pipeline.page.study import design, sheets
from visavis.pipeline.page.votes import Key
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import UsageError
from visavis.schemas.pairs import VotesConfig
from visavis.schemas.plain import to_json
from visavis.schemas.sample import Sample
from visavis.training.dataset import Dataset

SYSTEMS = ("base", "tuned")


def held_study(
    folder: Path, source: Path, world: World, checks: int = 0
) -> tuple[Key, dict[str, Sample], dict[str, np.ndarray]]:
    """A study of two systems on held-out windows, whose clips move as recorded and stiller, and what people said."""
    data = Dataset(str(source))
    (entry,) = data.manifest.of("val", WindowClass.LISTENING)
    windows = {key: data.decode(key, members) for key, members in data.shard(entry)}
    secret = b"secret"
    key = design(
        list(windows), SYSTEMS, [QUESTION], checks=list(windows)[:checks], trials=len(windows), seed=7, ties=True,
        secret=secret, origin={"dataset": data.hash},
    )  # fmt: skip
    key = key.model_copy(update={"trials": tuple(t.model_copy(update={"shard": entry.path}) for t in key.trials)})
    scale = {"base": np.float32(0.25), "tuned": np.float32(0.9)}
    motions = {
        clip.code: windows[trial.window].avatar_motion * scale[clip.system]
        for trial in key.trials
        if not trial.check
        for clip in trial.clips
    }
    folder.mkdir()
    (folder / "key.json").write_text(to_json(key.model_dump(mode="json")))
    (folder / MOTIONS_NAME).write_bytes(dump_motions(motions))
    (folder / "votes").mkdir()
    for ballot in vote_all(key, sheets(key, secret), world, np.random.default_rng(0)):
        (folder / "votes" / ballot.file).write_text(to_json(ballot.votes.model_dump(mode="json")))
    return key, windows, motions


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "source", {WindowClass.LISTENING: 6}, val=8)


def test_what_people_agree_on_is_a_pair_and_the_rest_is_counted(source: Path, tmp_path: Path) -> None:
    key, _, motions = held_study(tmp_path / "study", source, World("", voters=6, preference=-1, clips=1.0))
    study, votes = tmp_path / "study", [tmp_path / "study" / "votes"]
    found, said = votes_of(study, votes, VotesConfig(min_votes=6, min_share=0.7))
    assert said == []
    (pairs,) = found.pairs.values()
    assert len(pairs.keys) + found.left_out["no_agreement"] == len(key.trials)
    assert 0 < len(pairs.keys) < len(key.trials)
    assert (pairs.shares[:, 0] >= 0.7).all()
    np.testing.assert_allclose(pairs.shares.sum(axis=1), 1)
    trials = {trial.window: trial for trial in key.trials}
    for n, window in enumerate(pairs.windows):
        codes = [clip.code for clip in trials[window].clips]
        best = int(not np.array_equal(pairs.chosen[n], motions[codes[0]]))
        np.testing.assert_array_equal(pairs.chosen[n], motions[codes[best]])
        np.testing.assert_array_equal(pairs.rejected[n], motions[codes[1 - best]])
    assert votes_of(study, votes, VotesConfig(min_votes=7))[0].left_out == {"too_few_votes": len(key.trials)}
    assert found.digest != votes_of(study, votes, VotesConfig(min_share=0.9))[0].digest
    backwards = sorted((study / "votes").iterdir(), reverse=True)
    assert found.digest == votes_of(study, backwards, VotesConfig(min_votes=6, min_share=0.7))[0].digest


def test_who_does_not_look_and_who_votes_twice_does_not_count(source: Path, tmp_path: Path) -> None:
    """One of four people answers the attention checks wrongly; another hands in the same votes again."""
    key, _, _ = held_study(tmp_path / "study", source, World("", voters=4, preference=-9), checks=4)
    folder = tmp_path / "study" / "votes"
    (folder / "again.json").write_text((folder / "0.json").read_text())
    blind = json.loads((folder / "1.json").read_text())
    turned = {"left": "right", "right": "left", "same": "same"}
    blind["votes"] = [vote | {"answer": turned[vote["answer"]]} for vote in blind["votes"]]
    (folder / "1.json").write_text(json.dumps(blind))
    found, said = votes_of(tmp_path / "study", [folder], VotesConfig())
    assert sorted(line.partition(": ")[2] for line in said) == [
        "4 of 4 attention checks failed, left out",
        f"of the same person as {folder / '0.json'}, left out (the same votes)",
    ]
    (pairs,) = found.pairs.values()
    assert len(pairs.keys) == len([trial for trial in key.trials if not trial.check])
    assert (pairs.shares[:, 0] == 1).all()
    everybody = votes_of(tmp_path / "study", [folder], VotesConfig(failed_checks=4))[0]
    assert (next(iter(everybody.pairs.values())).shares[:, 0] == 0.75).all()


def test_a_study_that_cannot_make_pairs_is_told(source: Path, tmp_path: Path) -> None:
    key, _, motions = held_study(tmp_path / "study", source, World("", voters=3))
    study, votes = tmp_path / "study", [tmp_path / "study" / "votes"]
    with pytest.raises(UsageError, match=r"does not ask natural; there is 1 question: "):
        votes_of(study, votes, VotesConfig(question="natural"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"has no \.json file of votes"):
        votes_of(study, [tmp_path / "empty"], VotesConfig())
    first = key.trials[0].clips[0].code
    for wrong, message in (
        (motions | {first: np.full((50, 12), np.nan, np.float32)}, f"clip {first} has no motion, or none that is"),
        ({code: motion for code, motion in motions.items() if code != first}, f"clip {first} has no motion"),
        (motions | {first: np.zeros((40, 12), np.float32)}, "motions of several shapes"),
    ):
        (study / MOTIONS_NAME).write_bytes(dump_motions(wrong))
        with pytest.raises(UsageError, match=message):
            votes_of(study, votes, VotesConfig())
    (study / MOTIONS_NAME).write_bytes(b"no safetensors")
    with pytest.raises(UsageError, match="not the motions of a study"):
        votes_of(study, votes, VotesConfig())
    (study / MOTIONS_NAME).unlink()
    with pytest.raises(UsageError, match="only a study that keeps what it shows makes pairs"):
        votes_of(study, votes, VotesConfig())


@pytest.mark.slow
def test_the_command_makes_a_set_of_pairs_to_train_on(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = save_model(small_model(), tmp_path / "checkpoint.safetensors")
    _, windows, _ = held_study(tmp_path / "study", source, World("", voters=5, preference=-6))
    words = ["pairs", str(source), str(checkpoint), "--votes", str(tmp_path / "study" / "votes")]
    words += ["--study", str(tmp_path / "study"), "--engine", "local", "--out", str(tmp_path / "pairs"), "--json"]
    words += ["--set", "gate.max_off_manifold=1e9"]
    code, out, err = visavis(capsys, monkeypatch, *words)
    assert code == 0, err
    said = json.loads(out)
    assert (said["kept"], said["tried"]) == (8, 8)
    assert "people saw held-out windows" in err
    made = Dataset(said["dataset"])
    found = {sample.key: sample for sample in made.samples("train")}
    assert set(found) == set(windows)
    for key, sample in found.items():
        assert sample.pair is not None
        assert (sample.pair.chosen, sample.pair.rejected) == ("voted", "voted")
        assert sample.pair.scorer.startswith("votes:")
        assert sample.pair.scores is not None
        assert sample.pair.scores[0] > 0.6 > sample.pair.scores[1]
        np.testing.assert_array_equal(sample.chosen, windows[key].avatar_motion * np.float32(0.9))
        np.testing.assert_array_equal(sample.rejected, windows[key].avatar_motion * np.float32(0.25))
    assert made.manifest.pairs is not None
    assert made.manifest.pairs.figures["score_margin"].quantile(0.5) > 0.5
    code, _, err = visavis(capsys, monkeypatch, *words[:5])
    assert code == 2
    assert "--votes and --study go together" in err
    other = write_dataset(tmp_path / "other", {WindowClass.LISTENING: 5}, val=8)
    code, _, err = visavis(capsys, monkeypatch, "pairs", str(other), *words[2:])
    assert code == 2
    assert "the study is of another dataset" in err
