"""Hundreds of hostile inputs: nothing dies, nothing outside is touched, and every end has its code.

Nightly takes all of them, CI every tenth (of what whole builds are given every third); what was once found has a test
of its own.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.hostile import datasets, folders, lists, media, sidecars, weights
from tests.hostile.conftest import SEED, Judge
from tests.hostile.media import KINDS, Elsewhere
from tests.hostile.watch import PROJECT, Driver
from tests.scale import FEW, NIGHTLY, some, thinned
from visavis.pipeline.state.ledger import Ledger
from visavis.schemas.storage.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RECIPE = PROJECT / "configs" / "default.yaml"
MUTANTS = 600 if NIGHTLY else 36


def outcomes(out: Path) -> dict[str, tuple[str, str, str]]:
    """What became of every listed item: status, reason, detail. The last stage that has a word counts."""
    found: dict[str, tuple[str, str, str]] = {}
    for row in sorted(Ledger(Store(str(out))).latest().values(), key=lambda row: row.ended):
        if row.status != "ok" or row.item not in found:
            found[row.item] = (row.status, row.reason, row.detail)
    return found


def build(
    driver: Driver, tmp_path: Path, judge: Judge, name: str, inputs: list[Path], codes: tuple[int, ...] = (0, 1)
) -> Path:
    out = tmp_path / f"out-{name}"
    argv = ["build", RECIPE, *inputs, "--out", out, "--engine", "local", "--set", "run.max_failure_share=1"]
    told = driver.run(argv, seconds=600)
    judge.look(name, told, codes)
    print(f"{name}: code {told.code}, {told.seconds:.0f} s, peak {told.peak_mb:.0f} MB")
    return out


def judged(out: Path, judge: Judge, expected: int) -> None:
    """Every item ended rejected or ok; none failed. Some passed the door: it is not shut to all."""
    ingested = [
        row for row in Ledger(Store(str(out))).latest().values() if row.stage == "ingest" and row.status == "ok"
    ]
    if not ingested:
        judge.faults.append("none was taken in")
    found = outcomes(out)
    print(Counter(f"{status} {reason}".strip() for status, reason, _ in found.values()))
    judge.faults += [
        f"{item}: failed: {reason}: {detail[:300]}"
        for item, (status, reason, detail) in found.items()
        if status == "failed"
    ]
    if len(found) < expected:
        judge.faults.append(f"{len(found)} of {expected} items have an end")


def test_media(driver: Driver, tmp_path: Path, elsewhere: Elsewhere) -> None:
    judge = Judge(elsewhere, tmp_path, Path(tempfile.gettempdir()))
    written = thinned(media.write_all(tmp_path / "media", elsewhere, SEED, MUTANTS))
    special = media.special(tmp_path / "special", elsewhere)
    listed = tmp_path / "special.jsonl"
    listed.write_text("".join(json.dumps({"uri": str(path)}) + "\n" for path in special))
    out = build(driver, tmp_path, judge, "media", [tmp_path / "media", listed])
    judged(out, judge, len(written) + len(special))
    judge.verdict()


def test_a_row_of_hostile_files_does_not_end_a_build(library: Path, tmp_path: Path, elsewhere: Elsewhere) -> None:
    """With Ray's workers, each of which would be lost to one file."""
    judge = Judge(elsewhere, tmp_path, Path(tempfile.gettempdir()))
    written = thinned(media.write_all(tmp_path / "media", elsewhere, SEED + 1, 0))
    judge.expect_ray()
    driver = Driver(library, tmp_path)
    out = tmp_path / "out"
    argv = ["build", RECIPE, tmp_path / "media", "--out", out, "--set", "run.max_failures_in_row=20"]
    told = driver.run([*argv, "--set", "run.max_failure_share=0"], seconds=300)
    judge.look("in a row", told, (1,))  # no conversation is left
    judged(out, judge, len(written))
    attempts = {row.attempt for row in Ledger(Store(str(out))).latest().values()}
    if attempts != {1}:
        judge.faults.append(f"some took several attempts: {attempts}")
    driver.close()
    judge.verdict()


def test_sidecars(driver: Driver, tmp_path: Path, elsewhere: Elsewhere) -> None:
    judge = Judge(elsewhere, tmp_path, Path(tempfile.gettempdir()))
    one, other = (KINDS[0].possible().write(tmp_path / f"{i}.mp4").read_bytes() for i in range(2))
    written = sidecars.write_all(tmp_path / "dyads", one, other + b"\0\0\0\x08free", elsewhere, SEED)
    out = build(driver, tmp_path, judge, "sidecars", [tmp_path / "dyads"])
    judged(out, judge, len(written))
    judge.verdict()


def test_lists_and_rows(driver: Driver, tmp_path: Path, elsewhere: Elsewhere) -> None:
    judge = Judge(elsewhere, tmp_path, Path(tempfile.gettempdir()))
    judge.expect_read("/aaaa")
    for path in lists.write_lists(tmp_path / "lists", SEED):
        told = driver.run(["build", RECIPE, path, "--out", tmp_path / "never", "--engine", "local", "--dry-run"])
        judge.look(path.name, told, (0, 1, 2))
    for name, row in some(lists.rows(elsewhere), FEW):
        path = lists.write_row(tmp_path, name, row)
        out = tmp_path / f"out-{name}"
        judge.look(name, driver.run(["build", RECIPE, path, "--out", out, "--engine", "local"]), (0, 1, 2))
    judge.verdict()


def test_recipes(driver: Driver, tmp_path: Path, elsewhere: Elsewhere) -> None:
    judge = Judge(elsewhere, tmp_path, Path(tempfile.gettempdir()))
    for name, text in lists.recipes():
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        judge.look(
            name, driver.run(["build", path, "nothing.mp4", "--out", tmp_path / "never", "--engine", "local"]), (2,)
        )
    judge.verdict()


@pytest.mark.parametrize("pairs", [False, True], ids=["windows", "pairs"])
def test_datasets(driver: Driver, tmp_path: Path, elsewhere: Elsewhere, pairs: bool) -> None:
    judge = Judge(elsewhere, tmp_path, Path(tempfile.gettempdir()))
    train = tmp_path / "train.yaml"
    train.write_text(
        "model: {width: 32, depth: 1, heads: 2, encoder_width: 16, encoder_heads: 2}\noptim: {steps: 1, batch: 2}\n"
    )
    written = datasets.write_all(tmp_path / "datasets", elsewhere.file, SEED, pairs=pairs)
    for number, path in enumerate(written):
        commands: list[list[str | Path]] = [["verify", path], ["report", path]]
        commands.append(["export", path, "--out", tmp_path / f"{number}.parquet"])
        if not pairs:
            commands.append(["train", train, path, "--out", tmp_path / f"train-{number}"])
        for argv in commands:
            told = driver.run(argv)
            judge.look(f"{argv[0]} {path.name}", told, (0, 1, 2))
    judge.verdict()


def test_weights(driver: Driver, tmp_path: Path, elsewhere: Elsewhere) -> None:
    judge = Judge(elsewhere, tmp_path, Path(tempfile.gettempdir()))
    rng = np.random.default_rng(SEED)
    data = datasets.write_dataset(tmp_path / "data", datasets.COUNTS, val=1)
    train = tmp_path / "train.yaml"
    train.write_text(
        "model: {width: 32, depth: 1, heads: 2, encoder_width: 16, encoder_heads: 2}\noptim: {steps: 1, batch: 2}\n"
    )
    told = driver.run(["train", train, data, "--out", tmp_path / "good"])
    judge.look("train", told, (0,))
    mark = tmp_path / "ran"
    cases = [
        *weights.pickles(mark, rng),
        *weights.safetensors((tmp_path / "good" / "checkpoint.safetensors").read_bytes(), elsewhere, rng),
    ]
    for name, content in some(cases, FEW):
        path = tmp_path / (name if "." in name else f"{name}.safetensors")
        path.write_bytes(content)
        codes = (0, 1, 2) if "mutant" in name or name.startswith("told") else (1, 2)
        commands: list[list[str | Path]] = [
            ["evaluate", path, data],
            ["pairs", data, path, "--out", tmp_path / f"pairs-{name}", "--engine", "local"],
        ]
        if path.suffix == ".pt":
            commands.append(["convert", path, "--to", tmp_path / f"converted-{name}"])
        for argv in commands:
            told = driver.run(argv)
            judge.look(f"{argv[0]} {name}", told, codes)
    if mark.exists():
        judge.faults.append("a pickle ran code")
    judge.verdict()


def test_folders(driver: Driver, tmp_path: Path, elsewhere: Elsewhere) -> None:
    judge = Judge(elsewhere, tmp_path, Path(tempfile.gettempdir()))
    clip = tmp_path / "clip.mp4"
    KINDS[0].possible().write(clip)
    outside = elsewhere.file.parent
    before = {path: path.read_bytes() for path in outside.iterdir()}
    for path in some(folders.write_all(tmp_path / "folders", outside, SEED), FEW):
        judge.look(f"status {path.name}", driver.run(["status", path]), (0, 1, 2))
        judge.look(
            f"build {path.name}", driver.run(["build", RECIPE, clip, "--out", path, "--engine", "local"]), (0, 1, 2)
        )
    if {path: path.read_bytes() for path in outside.iterdir()} != before:
        judge.faults.append("files outside were changed")
    judge.verdict()
