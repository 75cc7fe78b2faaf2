"""The table of preferences runs from corpus to picture, goes on with what it made, and says what failed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest

from benchmarks.intervals import against, half_interval, over_seeds
from benchmarks.places import Place, Scale, dpo_config
from benchmarks.plots import draw
from benchmarks.preferences import SHOWN, bench
from benchmarks.pushes import changes_of
from benchmarks.pushes import draw as draw_changes
from benchmarks.rows import ROWS, Rows, read_rows
from visavis.schemas.train import Preferences

SCALE = Scale(conversations=2, held_out=1, steps=6, further=2, lr=1e-4, seeds=(0, 1), one_base=True)
LOOSE = {
    "min_reactivity_margin": -10.0,
    "max_jerk_ratio": 1e9,
    "max_off_manifold": 1e9,
}  # for a model that is untrained
RECIPES = Rows.model_validate(
    {
        "pairs": {
            "own": {"rejected": "own", "gate": LOOSE},
            "none": {"rejected": "own", "gate": LOOSE | {"min_distance": 1e6}},
        },
        "rows": {
            "base": {"steps": 0},
            "control": {},
            "own": {"pairs": "own"},
            "impossible": {"pairs": "none"},
        },
    }
)


@pytest.mark.nightly("that the benchmark still runs, not what the product does")
def test_a_table_is_made_once(tmp_path: Path) -> None:
    """A few steps teach nothing: this is about the workflow from corpus to picture."""
    result = bench(SCALE, ["lively"], RECIPES, tmp_path, jobs=0)
    json.dumps(result, allow_nan=False)
    table, truth = result["corpora"]["lively"]["rows"], result["corpora"]["lively"]["truth"]
    assert list(table) == ["base", "control", "own"]
    assert all(set(SHOWN) <= set(row) for row in table.values())
    assert [line.partition(":")[0] for line in result["failed"]] == [
        "lively, impossible, seed 0",
        "lively, impossible, seed 1",
    ]
    assert truth["gain"] == pytest.approx(0.6, abs=0.15)

    # Passes of two steps of 8 windows: once for the flow loss, and both sides of 8 pairs through both models.
    assert [table[name]["passes_learning"] for name in table] == [0, 2 * 8, 2 * (8 + 16)]
    assert [table[name]["passes_frozen"] for name in table] == [0, 0, 2 * 16]
    assert table["own"]["passes_pairs"] >= 11  # ten evaluations of a window, and what is written to the cache
    assert "val_chosen_rise" in table["own"]
    assert "recall_change_ci" in table["own"]

    made = stamps(tmp_path)
    (row,) = [
        path for path in tmp_path.glob("*/models/*/further-*/row-*.json") if "chosen_rise" not in path.read_text()
    ][:1]
    row.unlink()  # as if killed before it was judged
    again = bench(SCALE, ["lively"], RECIPES, tmp_path, jobs=0)
    assert again == result
    assert stamps(tmp_path) == made

    stronger = RECIPES.model_copy(
        update={"rows": RECIPES.rows | {"own": RECIPES.rows["own"].model_copy(update={"dpo": {"beta": 1.0}})}}
    )
    bench(SCALE, ["lively"], stronger.chosen(["own"]), tmp_path, jobs=0)
    new = set(stamps(tmp_path)) - set(made)
    assert {path.name for path in new} == {"checkpoint.safetensors", "checkpoint-0000002.safetensors"}
    assert len({path.parent for path in new}) == len(SCALE.seeds)  # the row's two seeds, and nothing else

    draw(result["corpora"], tmp_path / "lively.png")
    assert cv2.imread(str(tmp_path / "lively.png")).std() > 5
    place = Place("lively", 0, SCALE, tmp_path)
    models = {
        name: place.further(RECIPES.rows[name], RECIPES) / "checkpoint.safetensors" for name in ("control", "own")
    }
    changes, columns = changes_of(place, models, 6)
    draw_changes(changes, columns, tmp_path / "changes.png")
    assert cv2.imread(str(tmp_path / "changes.png")).std() > 5
    assert all((change.size_D > 0).all() for change in changes.values())


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


def test_rows_are_checked_before_work_starts(tmp_path: Path) -> None:
    rows = read_rows(ROWS)
    assert list(rows.chosen(["base"]).rows) == ["base", "control"]
    quick = rows.chosen(None, quick=True).rows.values()
    assert {dpo_config(row).objective for row in quick if row.pairs} == set(get_args(Preferences))
    with pytest.raises(ValueError, match="no such row: dpo, theirs"):
        rows.chosen(["dpo, theirs"])
    for bad in (
        "rows: {a: {pairs: b}}",
        "rows: {a: {dpo: {betta: 1}}}",
        "pairs: {a: {rejected: nobody}}\nrows: {}",
        "rows: {a: {sampler: {guidance: strong}}}",
        "rows: [",
    ):
        (tmp_path / "rows.yaml").write_text(bad)
        with pytest.raises(ValueError, match=r"a|YAML"):
            read_rows(tmp_path / "rows.yaml")


def test_intervals_are_those_of_students_t() -> None:
    values = np.array([0.1, 0.2, 0.3])
    assert half_interval(values) == pytest.approx(4.303 * 0.1 / np.sqrt(3), rel=1e-3)
    assert np.isnan(half_interval(values[:1]))
    random = np.random.default_rng(0)
    drawn = random.normal(1.0, 2.0, (2000, 3))
    covered = [abs(each.mean() - 1.0) < half_interval(each) for each in drawn]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


def test_a_change_is_told_from_what_seeds_share() -> None:
    """Seeds differ more than rows do; held against the control at the same seed, the row is surely better."""
    keys = ("recall", "gain", "jaw", "alarms_min", "rpcc_expression")
    control = [dict.fromkeys(keys, value) for value in (0.3, 0.5, 0.4)]
    better = [dict.fromkeys(keys, value) for value in (0.41, 0.6, 0.5)]
    found = against(better, control, dict.fromkeys(keys, 0.7))
    assert found["recall_change"] == pytest.approx(0.31 / 3)
    assert 0 < found["recall_change_ci"] < found["recall_change"]
    assert over_seeds(better)["recall_ci"] > found["recall_change_ci"]
    assert found["recall_left"] == pytest.approx((0.7 - 1.51 / 3) / 0.3)
