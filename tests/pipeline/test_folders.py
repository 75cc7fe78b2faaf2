"""`config`, `clean` and the verdict of `evaluate`: what settings there are, what may go, what a model is worth."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.test_cli import visavis as run_visavis
from visavis.pipeline.cli.config import KINDS, recipe_of, settings_of
from visavis.pipeline.cli.evaluate import evaluation_tables, names_of, verdict
from visavis.pipeline.engine.terminal import Terminal
from visavis.pipeline.state.lock import locked
from visavis.schemas.recipes import parse_config
from visavis.schemas.words import size

Run = tuple[int, str, str]


@pytest.fixture
def visavis(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda *words: run_visavis(capsys, monkeypatch, *map(str, words))


# config


@pytest.mark.parametrize("kind", KINDS)
def test_the_printed_recipe_is_the_defaults_and_names_every_setting(kind: str) -> None:
    model: Any = KINDS[kind]
    text = recipe_of(kind)
    assert parse_config(text, model) == model()
    assert max(map(len, text.splitlines())) < 200
    for setting in settings_of(model):
        assert f"{setting.name.rpartition('.')[2]}: " in text


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_says_what_it_means_and_can_be_set(kind: str) -> None:
    model: Any = KINDS[kind]
    assert [s.name for s in settings_of(model) if not s.meaning] == []
    for setting in settings_of(model):
        if "NAME" not in setting.name:
            value = "" if setting.default is None else json.dumps(setting.default)
            assert parse_config("", model, [f"{setting.name}={value}"]) == model()


def test_settings_for_people_and_programs(visavis: Any) -> None:
    code, out, err = visavis("config", "train")
    assert code == 0
    assert "optim.lr" in out
    assert "next: visavis config train --yaml" in err
    code, out, _ = visavis("config", "--json")
    found = {s["name"]: s for s in json.loads(out)["settings"]}
    assert found["ingest.min_duration"] == {
        "name": "ingest.min_duration", "default": 3.0, "allowed": "> 0",
        "meaning": "seconds; shorter conversations are rejected",
    }  # fmt: skip
    assert found["diarize.backend"]["allowed"] == "embedded, pyannote, given"
    assert visavis("config", "tea")[0] == visavis("config", "--yaml", "--json")[0] == 2


# clean


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run with artifacts of its settings and of others, and what is nobody's to delete."""
    folder = tmp_path / "run"
    for name, length in {
        "run.json": 0, "dataset/manifest.json": 10, "dataset/train/a.tar": 10, "ledger/1.parquet": 10,
        "artifacts/codec/landmark-pca-0.safetensors": 10, "artifacts/faces/v3-aaaa/1.safetensors": 2000,
        "artifacts/faces/v2-bbbb/1.safetensors": 3000, "artifacts/windows/v7-cccc-1234/1.safetensors": 400,
        "artifacts/windows/v7-dddd-1234/1.safetensors": 500, "artifacts/mine.txt": 10, "artifacts/faces/note": 10,
        "artifacts/faces/v2-bbbb/.tmp-0123456789ab": 10, "artifacts/eyes2/v1-bbbb/1.safetensors": 100,
        "artifacts/census-of-all/0.safetensors": 10, "artifacts/reference/0.safetensors": 10,
    }.items():  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * length)
    prints = {"faces": "aaaa", "windows": "cccc"}
    (folder / "run.json").write_text(json.dumps({"config": {}, "fingerprints": prints}))
    return folder


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_clean_lists_and_deletes_nothing_until_it_is_told_to(run: Path, visavis: Any) -> None:
    before = names(run)
    code, out, err = visavis("clean", run)
    assert code == 0
    assert [line.split()[:5] for line in out.splitlines() if " kB" in line or "bytes" in line] == [
        ["faces", "earlier", "1", "3.0", "kB"], ["windows", "earlier", "1", "500", "bytes"],
        ["eyes2", "earlier", "1", "100", "bytes"],
        ["faces", "present", "1", "2.0", "kB"], ["windows", "present", "1", "400", "bytes"],
    ]  # fmt: skip
    assert "nothing was deleted; 3.6 kB of earlier settings, 6.0 kB with the present ones" in err
    assert names(run) == before
    code, out, _ = visavis("clean", run, "--json")
    assert sum(group["bytes"] for group in json.loads(out)["may_be_deleted"]) == 6000


def test_clean_deletes_what_other_settings_left_and_then_the_rest(run: Path, visavis: Any) -> None:
    kept = {name for name in names(run) if not any(part in name for part in ("bbbb", "dddd"))}
    code, _, err = visavis("clean", run, "--yes")
    assert code == 0
    assert "4 files deleted, 3.6 kB" in err
    assert names(run) == kept
    assert visavis("clean", run, "--yes", "--all")[0] == 0
    assert names(run) == {name for name in kept if not any(part in name for part in ("aaaa", "cccc"))}


def test_clean_follows_no_link(run: Path, tmp_path: Path, visavis: Any) -> None:
    outside = tmp_path / "outside"
    (outside / "v2-bbbb").mkdir(parents=True)
    (outside / "v2-bbbb" / "1.safetensors").write_text("mine")
    (run / "artifacts" / "cast").symlink_to(outside)
    (run / "artifacts" / "faces" / "v2-bbbb" / "2.safetensors").symlink_to(outside / "v2-bbbb" / "1.safetensors")
    assert visavis("clean", run, "--yes", "--all")[0] == 0
    assert (outside / "v2-bbbb" / "1.safetensors").read_text() == "mine"
    assert os.path.lexists(run / "artifacts" / "cast")


def test_clean_refuses_a_run_at_work_one_without_a_dataset_and_other_folders(
    run: Path, tmp_path: Path, visavis: Any
) -> None:
    before = names(run)
    with locked(str(run)):
        code, _, err = visavis("clean", run, "--yes")
        assert code == 2
        assert err.count("\n") == 1
    assert names(run) == before
    (run / "dataset" / "manifest.json").unlink()
    code, _, err = visavis("clean", run, "--yes", "--all")
    assert code == 2
    assert "has no dataset, so its artifacts are all there is of it" in err
    (tmp_path / "other").mkdir()
    assert visavis("clean", tmp_path / "other", "--yes")[0] == 2
    assert not names(tmp_path / "other")


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (17_300, "17 kB"), (2.5e15, "2500 TB")]
)
def test_sizes_are_for_people(count: float, said: str) -> None:
    assert size(count) == said


# evaluate


def result(rpcc: float, fd: float, doubt: float = 0.0) -> dict[str, Any]:
    def row(rpcc: float, fd: float) -> dict[str, Any]:
        metrics = {"rpcc_expression": rpcc, "fd_pooled_expression": fd, "jerk_expression": 1.0, "sid_expression": None}
        return {"all": metrics, "listening": metrics}

    rows = {"model": row(rpcc, fd), "model_no_user": row(1.0, 1.0), "ground_truth": row(0.0, 0.0)}
    rows |= {"hold_still": row(0.2, 5.0), "shuffled": row(0.5, 0.5)}
    errors = {
        "model": {"all": {"rpcc_expression": doubt}, "listening": {}},
        "model_no_user": {"all": {}, "listening": {}},
    }
    counts = {"all": 3, "listening": 3}
    return {
        "rows": rows, "standard_errors": errors, "spread": {}, "windows": counts, "seeds": [0],
        "noise_floor": {"all": {}, "listening": {}},
    }  # fmt: skip


def test_a_verdict_says_what_is_worse_first_and_what_is_not_sure() -> None:
    assert verdict("a", result(0.3, 1.0)) == (
        "verdict, a: worse than holding still on rpcc of expression;"
        " better than holding still on fd pooled of expression"
    )
    assert "no different from holding still on rpcc of expression" in verdict("a", result(0.3, 1.0, doubt=0.2))


def test_checkpoints_are_columns_and_few_rows_unless_all_are_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    def shown(results: dict[str, Any], *, whole: bool) -> str:
        Terminal().print(*evaluation_tables(results, "all", whole=whole))
        return capsys.readouterr().out

    several = {"base": result(0.3, 1.0), "tuned": result(0.1, 2.0)}
    short, long = shown(several, whole=False), shown(several, whole=True)
    assert "base" in short
    assert "tuned" in short
    assert "shuffled" not in short
    assert "jerk" not in short
    assert "jerk" in long
    assert "shuffled" in long
    assert "model" in shown({"base": result(0.3, 1.0)}, whole=False)


def test_names_of_columns_are_short_and_differ() -> None:
    assert names_of([Path("runs/a/checkpoint.safetensors"), Path("b.safetensors")]) == ["a", "b"]
    assert names_of([Path("x/a/checkpoint.safetensors"), Path("y/a/checkpoint.safetensors")])[0].startswith("x/")
    assert len(set(names_of([Path("a.safetensors")] * 2))) == 2
