"""Every command ends with one line: what came of it, how long it took, and what comes next."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.conftest import SECONDS, Built
from tests.pipeline.test_cli import CONFIG, visavis
from visavis.pipeline.plan.sizing import ARTIFACT_GB, CORE_HOURS, DATASET_GB, sizing_of
from visavis.pipeline.plan.sources import find_sources

LAST = re.compile(r".+, in [\d.]+ (s|min|h|days); (next: .+|look at .+|.+ stays; .+)")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "result"),
    [
        (["status", "{run}"], "finished: "),
        (["report", "{run}"], " windows in "),
        (["verify", "{run}"], "0 findings, every byte and sample was looked at"),
        (["export", "{run}", "-o", "{tmp}/x.parquet"], " windows exported"),
        (["draw", "{run}", "together", "-o", "{tmp}/x.png", "--moments", "2"], "drawn: together.mp4"),
        (["clean", "{run}"], "nothing was deleted; 0 bytes of earlier settings"),
        (["config", "pairs"], "settings, each also with --set"),
        (["assets"], "at hand"),
        (["assets", "check"], "damaged or absent"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_a_command_ends_with_its_result_its_time_and_the_next_one(
    words: list[str],
    result: str,
    built: Built,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    filled = [word.format(run=built[0], tmp=tmp_path) for word in words]
    code, _, err = visavis(capsys, monkeypatch, *filled)
    last = " ".join(err.splitlines()[-1:])
    assert code == 0
    assert result in last
    assert LAST.fullmatch(last), last


def test_a_dry_run_says_what_the_corpus_takes(
    dialogues: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = str(dialogues / "together.mp4")
    code, out, err = visavis(capsys, monkeypatch, "build", CONFIG, source, "-o", str(tmp_path / "run"), "--dry-run")
    assert code == 0
    assert "about 10 s of video, by the headers of 1 of 1 file: " in out
    assert LAST.fullmatch(err.splitlines()[-1])
    found = sizing_of(find_sources([source] * 3))
    assert (found.files, found.read) == (3, 3)
    assert found.hours is not None
    assert np.isclose(found.hours * 3600, 3 * SECONDS, atol=0.5)
    plain = found.plain()
    assert np.isclose(plain["core_hours"] or 0, CORE_HOURS * found.hours, atol=1e-5)
    assert np.isclose(plain["artifacts_tb"] or 0, ARTIFACT_GB * found.hours / 1e3, atol=1e-5)
    assert np.isclose(plain["dataset_tb"] or 0, DATASET_GB * found.hours / 1e3, atol=1e-5)
