"""A run as a page: what is read of a run, what is written, and what is not touched."""

from __future__ import annotations

import base64
import io
import json
import re
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from tests.pipeline.corpora import FINGERPRINTS, write_corpus
from tests.training.synthetic import write_dataset
from visavis.pipeline.app import app
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.page.folder import MARK, new_folder
from visavis.pipeline.page.packed import packed_over_time
from visavis.pipeline.page.report import Wanted, write_report
from visavis.pipeline.page.report_corpus import limits_of, read_corpus
from visavis.pipeline.page.report_find import Found, find
from visavis.pipeline.page.report_media import Copies
from visavis.pipeline.page.report_training import curves_of, evaluation_of
from visavis.pipeline.plan.preview import preview
from visavis.pipeline.state.account import account_of, rejections
from visavis.pipeline.state.ledger import Ledger
from visavis.schemas.config import QualityConfig
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import UsageError
from visavis.schemas.storage.store import Store
from visavis.training.runs import runs

HOSTILE = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=40).map(
    lambda text: f"</script><script>window.ran=1</script><img src=x onerror=window.ran=1>{text}"
)


def write(found: Found, out: Path, wanted: Wanted | None = None) -> dict[str, Any]:
    return write_report(found, out, wanted or Wanted(), Reporter(Console(file=io.StringIO())))


def page_data(out: Path) -> dict[str, Any]:
    text = (out / "index.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="report">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_outcomes_of_a_page_are_those_of_the_ledger(tmp_path: Path) -> None:
    write_corpus(tmp_path, 300)
    corpus = read_corpus(Store(str(tmp_path)), FINGERPRINTS)
    account = account_of(Ledger(Store(str(tmp_path))), FINGERPRINTS)
    assert corpus.total == len(corpus.entries) == 300
    assert corpus.counts["kept"] == account["windows"]["ok"]
    left_out = Counter({reason: len(entries) for reason, entries in corpus.by_reason().items()})
    assert left_out == Counter(rejections(account)) + Counter(account["cast"]["failed"])


@pytest.mark.parametrize(
    "changed",
    [{}, {"min_face": 120.0}, {"max_yaw": 20.0, "min_sharpness": 90.5}, {"min_together": 400.0}]
    + [{"min_snr": 25.0, "min_bandwidth": 4000.0, "min_face": 80.0}],
)
def test_the_figures_of_a_page_recount_as_a_dry_run_does(tmp_path: Path, changed: dict[str, float]) -> None:
    write_corpus(tmp_path, 400)
    config = QualityConfig(**changed)
    corpus = read_corpus(Store(str(tmp_path)), FINGERPRINTS)
    limits = limits_of(corpus, config)
    told = preview(str(tmp_path), FINGERPRINTS, config)
    count = sum(bool(entry.worst) for entry in corpus.entries)
    out_N = np.zeros(count, bool)
    for limit in limits:
        for figure in limit["figures"]:
            values = np.array(figure["values"], np.float64)
            out_N |= values < limit["bound"] if limit["least"] else values > limit["bound"]
    assert (count, int(out_N.sum())) == (told["measured"], told["drops"])


def test_a_corpus_that_is_too_large_is_a_sample_and_says_so(tmp_path: Path) -> None:
    write_corpus(tmp_path, 50)
    some, whole = (read_corpus(Store(str(tmp_path)), FINGERPRINTS, most) for most in (20, 50))
    assert (some.total, len(some.entries)) == (50, 20)
    assert [e.key for e in some.entries] == [e.key for e in whole.entries][:20]


@pytest.mark.slow
@settings(max_examples=8)
@given(HOSTILE, HOSTILE)
def test_what_names_and_details_say_ends_no_element(tmp_path_factory: Any, name: str, detail: str) -> None:
    folder = tmp_path_factory.mktemp("hostile")
    write_corpus(folder / "run", 8, name=name, detail=detail)
    write(find(str(folder / "run"), (), (), ()), folder / "page", Wanted(conversations=0))
    text = (folder / "page" / "index.html").read_text(encoding="utf-8")
    assert "<img" not in text
    assert text.count("</script>") == text.count("<script")
    assert any("onerror" in said for said in page_data(folder / "page")["corpus"]["table"]["name"])


def test_a_page_takes_the_place_of_an_earlier_one_and_of_nothing_else(tmp_path: Path) -> None:
    write_corpus(tmp_path / "run", 5)
    found, out = find(str(tmp_path / "run"), (), (), ()), tmp_path / "page"
    write(found, out)
    (out / "stale.js").write_text("old")
    write(found, out)
    assert not (out / "stale.js").exists()
    assert (out / MARK).is_file()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="not touched"):
        write(found, mine)
    assert (mine / "thesis.txt").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "page", "run"]


def test_a_page_that_cannot_be_finished_leaves_the_earlier_one(tmp_path: Path) -> None:
    out = tmp_path / "page"
    with new_folder(out) as folder:
        (folder / "index.html").write_text("first")

    def fails() -> None:
        with new_folder(out) as folder:
            (folder / "index.html").write_text("second")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    assert (out / "index.html").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


def test_damaged_artifacts_cost_one_conversation_each_and_are_named(tmp_path: Path) -> None:
    write_corpus(tmp_path / "run", 30)  # there are no artifacts at all
    made = write(find(str(tmp_path / "run"), (), (), ()), tmp_path / "page")
    data = page_data(tmp_path / "page")["corpus"]
    begun = sum(bool(entry.id) for entry in read_corpus(Store(str(tmp_path / "run")), FINGERPRINTS).entries)
    assert made["opened"] == 0
    assert len(data["failures"]) == begun
    assert "talk" in data["failures"][0]


def test_packed_arrays_come_back() -> None:
    random = np.random.default_rng(0)
    array_TD = random.normal(size=(57, 3)).cumsum(axis=0) * (1.0, 50.0, 0.0) + 7
    made = packed_over_time(array_TD, 1000)
    planes = np.frombuffer(zlib.decompress(base64.b64decode(made["data"])), np.uint8).reshape(2, 3, 57).astype(int)
    folded = planes[0] + 256 * planes[1]
    whole_TD = np.cumsum((folded >> 1) ^ -(folded & 1), axis=1).T
    back_TD = np.array(made["low"]) + np.array(made["step"]) * whole_TD
    assert np.abs(back_TD - array_TD).max(axis=0) == pytest.approx(0, abs=np.ptp(array_TD, axis=0).max() / 400)
    assert runs(np.array([1, 1, 0, 0, 1], bool)) == [(0, 2), (4, 5)]
    with pytest.raises(ValueError, match="not finite"):
        packed_over_time(np.array([[np.nan]]))


def test_metrics_of_one_step_are_one_point_and_torn_lines_are_counted(tmp_path: Path) -> None:
    lines = [
        '{"step": 2, "loss": 1.0}',
        '{"step": 1, "loss": 3.0}',
        '{"step": 2, "val_loss": null, "x": 4}',
        '{"step": 3, "lo',
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    found = curves_of(tmp_path)
    assert found["steps"] == [1, 2]
    assert found["curves"]["loss"] == [3.0, 1.0]
    assert found["curves"]["x"] == [None, 4.0]
    assert found["torn"] == 1


def test_an_evaluation_is_read_in_each_of_its_forms(tmp_path: Path) -> None:
    row = {"all": {"rpcc_pose": 0.25, "fd_pose": None}}
    result = {"rows": {"model": row, "ground_truth": row}, "standard_errors": {"model": {"all": {"rpcc_pose": 0.1}}}}
    result |= {"noise_floor": {"all": {"rpcc_pose": 0.5}}, "windows": {"all": 4}, "seeds": [0], "split": "val"}
    for form, columns in (
        (result, ["model", "ground_truth"]),
        ({"checkpoints": {"base": result, "dpo": result}}, ["base", "ground_truth", "dpo"]),
        ({"base": row}, ["base"]),
    ):
        (tmp_path / "e.json").write_text(json.dumps(form))
        found = evaluation_of(tmp_path / "e.json")
        assert found["columns"] == columns
        (line,) = (each for each in found["tables"]["all"] if each["metric"] == "rpcc")
        assert line["values"][0] == 0.25
        assert line["floor"] == (0.5 if found["floors"] else None)
    for wrong in ("[1]", '{"a": 1}', "{", '{"rows": {"model": 3}}'):
        (tmp_path / "e.json").write_text(wrong)
        with pytest.raises(UsageError, match="no evaluation"):
            evaluation_of(tmp_path / "e.json")


def test_a_folder_with_all_parts_of_a_run_is_one_page(tmp_path: Path) -> None:
    write_corpus(tmp_path / "build", 5)
    (tmp_path / "pairs").mkdir()
    write_dataset(tmp_path / "pairs" / "dataset", {WindowClass.LISTENING: 4}, pairs=True)
    (tmp_path / "pairs" / "run.json").write_text(json.dumps({"config": {}, "fingerprints": {"pairs": "0" * 12}}))
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    (tmp_path / "evaluation.json").write_text(json.dumps({"base": {"all": {"fd_pose": 1.0}}}))
    found = find(str(tmp_path), (), (), ())
    assert (found.build, found.pairs) == (str(tmp_path / "build"), [str(tmp_path / "pairs")])
    write(found, tmp_path / "page")
    data = page_data(tmp_path / "page")
    assert data["pairs"][0]["total"] == 4
    assert data["training"][0]["curves"] == {"loss": [2.0]}
    assert data["evaluation"][0]["columns"] == ["base"]
    assert data["notes"] == []


def test_wrong_use_is_one_line_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for words, said in (
        ([str(tmp_path / "empty"), "--page"], "nothing to report"),
        ([str(tmp_path / "empty"), "--pairs", "x"], "--pairs is for a page, not for the summary of a dataset: add"),
        ([str(tmp_path / "empty"), "--conversations", "0"], "add --page"),
        ([str(tmp_path / "empty"), "--out", "x"], "(KEY.generated.npy) or a page, not for the summary"),
        ([str(tmp_path / "empty"), "--page", "--samples", "2"], "--samples is for the summary of a dataset, not for a"),
        ([str(tmp_path / "empty"), "--page", "--dataset", "x"], "(KEY.generated.npy), not for a page"),
        (["a.generated.npy", "--samples", "2"], "not for the picture"),
        ([str(tmp_path / "empty"), "--page", "--training", str(tmp_path)], "no folder of `visavis train`"),
    ):
        answer = CliRunner().invoke(app, ["report", *words])
        assert isinstance(answer.exception, UsageError)
        assert said in str(answer.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_files_that_a_run_cannot_have_ingested_are_not_shown(tmp_path: Path) -> None:
    """A run that somebody else made could name any file of this machine, and say nothing of what was in it."""
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(b"not for a page")
    copies = Copies(tmp_path / "page", tmp_path / "page", 1)
    place = copies.place(str(secret), "", "a", copied=True)
    assert not place.source
    assert "does not say what the file was" in place.why
    assert not (tmp_path / "page").exists()


def test_what_cannot_be_read_beside_a_run_is_said_and_costs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    (tmp_path / "evaluation.json").write_text('{"rows": {}}')
    found = find(str(tmp_path), (), (), ())
    write_report(found, tmp_path / "page", Wanted(), Reporter())
    assert any("evaluation.json: no evaluation" in note for note in found.notes)
