"""A public corpus of coefficients, command by command: imported, learned, pairs, tuned in both ways, scored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.corpora import write_dualtalk
from tests.corpora.made_vico import coefficients, voices, write_mat, write_vico
from tests.e2e.test_learn import RECIPE, visavis
from visavis.pipeline.plan.rounds import read_ledger
from visavis.schemas.manifest import Manifest
from visavis.training.dataset import Dataset

SMALL = [
    *("model.width=32", "model.depth=1", "model.heads=2", "model.encoder_width=16", "model.encoder_heads=2"),
    *("features.n_mels=16", "optim.steps=4", "optim.batch=4", "optim.warmup=0", "sampler.steps=2", "val_batches=1"),
    *("dpo.steps=2", "dpo.warmup=0", "dpo.group_weights=equal", "log_every=1"),
]
OPEN = {"min_reactivity_margin": -10, "max_jerk_ratio": 1e9, "max_off_manifold": 1e9}  # for a model of four steps
GROUPS = {"exp", "jaw", "pose"}
pytestmark = pytest.mark.slow


def sets(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    return lambda *words: visavis(capsys, monkeypatch, *map(str, words))


def walked(said: Callable[..., str], corpus: Path, out: Path) -> Manifest:
    """Every command of the docs but the last, on a corpus; the manifest of its pairs."""
    run, base, pairs, dpo = (out / name for name in ("run", "base", "pairs", "dpo"))
    gate = [f"gate.{name}={value}" for name, value in OPEN.items()]
    said("import", "dualtalk", corpus, "--out", run, "--engine", "local")
    said("train", RECIPE, run, "--out", base, *sets(*SMALL))
    said("pairs", run, base / "checkpoint.safetensors", "--out", pairs, "--engine", "local", "--limit", 6, *sets(*gate))
    tuned = ("--init", base / "checkpoint.safetensors", "--pairs", pairs, "--out", dpo)
    said("train", RECIPE, run, *tuned, *sets(*SMALL))
    lines = [json.loads(line) for line in (dpo / "metrics.jsonl").read_text().splitlines()]
    assert {name for line in lines for name in line if name.startswith("margin_")} == {f"margin_{g}" for g in GROUPS}
    rounds = ("--out", out / "rounds", "--rounds", 1, "--engine", "local")
    made = [f"pairs.{setting}" for setting in gate] + ["pairs.classes=[listening]", "max_rise=null"]
    said("tune", run, "--init", base / "checkpoint.safetensors", *rounds, *sets(*made))
    assert [row.accepted for row in read_ledger(out / "rounds")] == [True]
    return Dataset(str(pairs / "dataset")).manifest


def test_a_made_corpus_from_a_folder_to_a_score(said: Callable[..., str], tmp_path: Path) -> None:
    write_dualtalk(tmp_path / "made", conversations=4, seconds=8)
    made = walked(said, tmp_path / "made", tmp_path)
    assert made.pairs is not None
    assert made.pairs.kept > 0
    words = ("evaluate", tmp_path / "dpo" / "checkpoint.safetensors", tmp_path / "run", "--protocol", "dualtalk")
    scored = json.loads(said(*words, "--json"))
    for of in ("model", "floor", "shifted"):
        assert all(scored["figures"]["all"][of][f"FD_{group}"] is not None for group in GROUPS)
    assert scored["columns"]["jaw"] == [50, 51, 52]
    assert "what the gate measured" in said("report", tmp_path / "pairs")


def test_a_made_vico_from_its_tables_to_a_score(said: Callable[..., str], tmp_path: Path) -> None:
    """Of listeners alone, as in the corpus' own task."""
    corpus, run, base = (tmp_path / name for name in ("vico", "run", "base"))
    write_vico(corpus, voices(tmp_path / "voices", 4))
    write_mat(corpus / "stray.mat", coefficients(90, 0))
    listeners = ("--set", "balance.mixture={listening: 1}", "--engine", "local")
    told = said("import", "vico", corpus, "--out", run, "--dry-run")
    assert "5 conversations (1 no split, 1 test, 3 train); motion 3dmm-exp64-pose3-place3" in told
    assert "will be left out: stray.mat: no table names it" in told
    said("import", "vico", corpus, "--out", run, *listeners)
    assert "no table names it" in said("status", run, "--left-out")
    drawn = Dataset(str(run / "dataset")).manifest.plan.mixture
    assert {label for label, share in drawn.items() if share} == {"listening"}
    said("train", RECIPE, run, "--out", base, *sets(*SMALL[:-1], "objective.groups={pose: 2}"))
    scored = json.loads(said("evaluate", base / "checkpoint.safetensors", run, "--protocol", "dim", "--json"))
    assert scored["columns"]["place"] == [67, 68, 69]
    for of in ("model", "floor", "shifted"):
        found = scored["figures"]["listening"][of]
        assert all(found[f"FD_{group}"] is not None for group in ("exp", "pose", "place"))
    said("card", run, "--out", tmp_path / "README.md")
    assert "3dmm-exp64-pose3-place3" in (tmp_path / "README.md").read_text()


@pytest.mark.nightly("real films as an imported corpus; a made one is above")
def test_the_two_real_dialogues(said: Callable[..., str], tmp_path: Path, shared_media: Path) -> None:
    made = walked(said, shared_media / "flame", tmp_path)
    assert made.pairs is not None
    assert made.pairs.kept > 0
    assert made.motion.codec == "flame-exp50-jaw3-pose3"
    words = ("evaluate", tmp_path / "dpo" / "checkpoint.safetensors", tmp_path / "run", "--protocol", "dualtalk")
    with pytest.raises(AssertionError, match="only one person was seen"):  # of each, motion of one side is public
        said(*words)
