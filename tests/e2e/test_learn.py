"""The trainer trains on what a build made; pairs, tuning, evaluation and reports follow, all by command."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from visavis.pipeline.app import main
from visavis.pipeline.plan.summary import BuildSummary
from visavis.schemas.storage.store import Store
from visavis.stages.face.decode import read_faces
from visavis.training.dataset import Dataset

RECIPE = str(Path(__file__).parents[2] / "configs" / "train" / "tiny.yaml")
QUICK = [
    *("model.width=32", "model.depth=2", "model.heads=2", "model.encoder_width=32", "features.n_mels=16"),
    *("optim.steps=6", "optim.batch=4", "optim.warmup=2", "dpo.steps=4", "sampler.steps=2", "log_every=2"),
]
pytestmark = pytest.mark.slow


def visavis(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """Stdout of a command that must end well."""
    monkeypatch.setattr(sys, "argv", ["visavis", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    out = capsys.readouterr()
    assert not ended.value.code, out.err
    return out.out


def test_from_a_build_to_a_tuned_listener(
    built: tuple[Path, BuildSummary],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = str(built[0])  # commands take a run's folder as well as its dataset
    base, pairs, tuned = (str(tmp_path / name) for name in ("base", "pairs", "tuned"))
    quick = [word for setting in QUICK for word in ("--set", setting)]

    checkpoint = visavis(capsys, monkeypatch, "train", RECIPE, run, "--out", base, *quick).strip()
    lines = [json.loads(line) for line in (tmp_path / "base" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [2, 4, 6]
    assert all(np.isfinite(line["loss"]) for line in lines if "loss" in line)

    open_gate = ["--set", "gate.min_reactivity_margin=-10", "--set", "gate.max_jerk_ratio=1e9"]
    open_gate += ["--set", "gate.max_off_manifold=1e9", "--set", "gate.min_distance=0"]
    words = ["pairs", run, checkpoint, "--out", pairs, "--engine", "local", "--limit", "8", "--json", *open_gate]
    made = json.loads(visavis(capsys, monkeypatch, *words))
    assert (made["tried"], made["kept"]) == (8, 8)
    assert visavis(capsys, monkeypatch, "verify", pairs).endswith("intact\n")

    said = visavis(capsys, monkeypatch, "export", pairs, "--out", str(tmp_path / "pairs.parquet"))
    assert said.startswith("8 pairs\n")

    words = ["train", RECIPE, run, "--init", checkpoint, "--pairs", pairs, "--out", tuned, *quick]
    after = visavis(capsys, monkeypatch, *words).strip()
    assert (tmp_path / "tuned" / "checkpoint.safetensors").read_bytes() != Path(checkpoint).read_bytes()

    figures = json.loads(visavis(capsys, monkeypatch, "evaluate", after, run, "--limit", "3", "--json"))
    assert {"model", "model_no_user", "ground_truth", "hold_still"} <= set(figures["rows"])
    assert figures["rows"]["ground_truth"]["all"]["rpcc_pose"] == 0
    assert figures["rows"]["hold_still"]["all"]["var_pose"] == 0
    shown = visavis(capsys, monkeypatch, "evaluate", after, run, "--limit", "2")
    assert "lagged_delay" in shown
    assert "…" not in shown  # nothing is cut off at 80 columns

    key = next(iter(Dataset(f"{run}/dataset").samples("val"))).key
    path = visavis(capsys, monkeypatch, "generate", after, run, key, "--out", str(tmp_path / "generated")).strip()
    motion = np.load(path, allow_pickle=False)
    truth = np.load(path.replace("generated.npy", "truth.npy"), allow_pickle=False)
    assert motion.shape == truth.shape
    assert np.isfinite(motion).all()
    picture = visavis(capsys, monkeypatch, "report", path).strip()
    sheet = cv2.imread(picture)
    assert sheet.shape[0] > 8 * 90 + 3 * 170  # curves and faces
    faces = sheet[52 : 52 + 3 * 170, 130:].reshape(3, 170, -1, 170, 3)
    assert (faces.min(axis=(1, 3, 4)) < 128).all()  # each side, at each moment

    elsewhere = tmp_path / "elsewhere"  # the dataset alone, without the run that built it
    shutil.copytree(f"{run}/dataset", elsewhere)
    alone = visavis(
        capsys, monkeypatch, "generate", after, str(elsewhere), key, "--out", str(tmp_path / "alone")
    ).strip()
    assert cv2.imread(visavis(capsys, monkeypatch, "report", alone).strip()).shape == sheet.shape
    moved = elsewhere.rename(tmp_path / "moved")
    found = json.loads(visavis(capsys, monkeypatch, "report", alone, "--json"))
    assert "--dataset" in found["no_faces"]
    assert cv2.imread(found["picture"]).shape[0] < sheet.shape[0]
    words = ["report", alone, "--dataset", str(moved)]
    assert (cv2.imread(visavis(capsys, monkeypatch, *words).strip()) == sheet).all()
    assert read_faces(Store(f"{pairs}/dataset"), Dataset(f"{pairs}/dataset").manifest.of("train")[0])

    (tmp_path / "generated" / f"{key}.truth.npy").unlink()
    words = ["visavis", "report", path]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "not what `visavis generate` writes" in capsys.readouterr().err

    report = json.loads(visavis(capsys, monkeypatch, "report", pairs, "--json"))
    assert report["pairs"]["dropped"] == ["user_audio", "user_motion"]
    assert report["counts"]["train"]["listening"] == 8
    assert "listening" in visavis(capsys, monkeypatch, "report", run)
