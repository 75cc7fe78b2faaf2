"""What people read: how a run stands, what would be refused, what could have been meant, what things took."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from tests.pipeline.test_cli import CONFIG, visavis
from tests.pipeline.test_run import STAGES, tasks
from visavis.pipeline.cli.commands import summary_table
from visavis.pipeline.cli.status import read_status, status_line
from visavis.pipeline.engine.executor import Engine, Executor, local_engine
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.engine.run import Run
from visavis.pipeline.engine.worker import Stages
from visavis.pipeline.plan.pairs_preview import trial_lines
from visavis.pipeline.plan.run_folder import opened
from visavis.pipeline.plan.summary import BuildSummary
from visavis.schemas.config import RunConfig
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import RunFailed, UsageError
from visavis.schemas.manifest import BalancePlan

SETTINGS = {"config": {}, "fingerprints": {"letters": "f"}}


@contextmanager
def run_in(root: Path, engine: Engine = local_engine, console: Console | None = None) -> Iterator[Run]:
    reporter = Reporter(console or Console(file=io.StringIO()))
    with opened(str(root), engine, STAGES, RunConfig(max_failure_share=1.0), SETTINGS, reporter) as run:
        yield run


def letters(root: Path, texts: Sequence[str], engine: Engine = local_engine, console: Console | None = None) -> int:
    """Count the letters of texts; how many had to be counted."""
    with run_in(root, engine, console) as run:
        run.execute("letters", tasks(*texts), len(texts))
        return run.processed


def end_with(root: Path, error: BaseException) -> None:
    with run_in(root) as run:
        run.execute("letters", tasks("a", "b"), 2)
        assert state(root)[0] == "running"
        raise error


def state(root: Path) -> tuple[str, str]:
    """As scripts and as people read it."""
    status = read_status(str(root), "dataset")
    return status["state"]["state"], status_line(status).splitlines()[0]


@pytest.fixture
def refused_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose only item was left out."""
    (tmp_path / "text.mp4").write_text("this is not a video\n")
    words = ["build", CONFIG, str(tmp_path / "text.mp4"), "--out", str(tmp_path / "run"), "--engine", "local"]
    assert visavis(capsys, monkeypatch, *words)[0] == 1
    return tmp_path / "run"


def test_without_a_command_the_help_is_printed_as_help(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = visavis(capsys, monkeypatch)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) > 12
    assert "\n  build " in err
    assert "visavis: " not in err


def test_a_run_with_nothing_to_do_starts_nobody(tmp_path: Path) -> None:
    started = []

    @contextmanager
    def counting(stages: Stages, root: str) -> Iterator[Executor]:
        started.append(root)
        with local_engine(stages, root) as executor:
            yield executor

    assert [letters(tmp_path, ["a", "b"], counting) for _ in range(2)] == [2, 0]
    assert len(started) == 1
    assert letters(tmp_path, ["a", "b", "c"], counting) == 1
    assert len(started) == 2


def test_an_executor_that_cannot_be_had_leaves_no_trace(tmp_path: Path) -> None:
    @contextmanager
    def nobody(stages: Stages, root: str) -> Iterator[Executor]:
        raise UsageError("no cluster there")
        yield

    with pytest.raises(UsageError, match="no cluster there"):
        letters(tmp_path / "run", ["a"], nobody)
    assert list((tmp_path / "run").iterdir()) == []


def test_the_state_says_how_a_run_ended(tmp_path: Path) -> None:
    letters(tmp_path, ["a"])
    assert state(tmp_path) == ("finished", "finished")
    for error, expected in (
        (KeyboardInterrupt(), ("stopped", "stopped in letters, 2 of 2 done; the same command resumes")),
        (RunFailed("too much failed"), ("failed", "failed in letters, 2 of 2 done: too much failed")),
        (ValueError("a bug"), ("failed", "failed in letters, 2 of 2 done: ValueError: a bug")),
    ):
        with pytest.raises(type(error)):
            end_with(tmp_path, error)
        assert state(tmp_path) == expected
    letters(tmp_path, ["a"])
    assert state(tmp_path)[0] == "finished"


def test_a_run_that_was_killed_is_told_from_one_at_work_and_one_that_ended(tmp_path: Path) -> None:
    letters(tmp_path, ["a"])
    (tmp_path / "state.json").write_text('{"began": 1.0, "state": "running"}\n')  # nobody had time to say more
    assert state(tmp_path) == ("killed", "killed; the same command resumes")
    far = {"phase": "letters", "finished": 3, "total": 9, "new": 3, "seconds": 1.0}
    (tmp_path / "progress.json").write_text(json.dumps(far))
    assert "killed in letters, 3 of 9 done" in state(tmp_path)[1]
    (tmp_path / "state.json").unlink()  # of a run before there was a state
    assert state(tmp_path)[0] == "stopped"
    (tmp_path / "state.json").write_text("cut o")
    assert state(tmp_path)[0] == "stopped"


def test_status_shows_how_it_ended_and_where_the_dataset_is(
    refused_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out, _ = visavis(capsys, monkeypatch, "status", str(refused_run))
    assert "failed in conversations, 1 of 1 done: no conversation is left" in " ".join(out.split())
    assert out.splitlines()[-1] == "no dataset yet"
    (refused_run / "dataset").mkdir()
    (refused_run / "dataset" / "manifest.json").write_text("{}")
    _, out, _ = visavis(capsys, monkeypatch, "status", str(refused_run))
    assert f"dataset of an earlier run: {refused_run}/dataset" in "".join(out.splitlines())
    status = json.loads(visavis(capsys, monkeypatch, "status", str(refused_run), "--json")[1])
    assert (status["state"]["state"], status["dataset"]) == ("failed", f"{refused_run}/dataset")


def test_a_dry_run_says_that_the_run_would_be_refused(
    refused_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["build", CONFIG, str(refused_run.parent / "text.mp4"), "--out", str(refused_run), "--dry-run"]
    before = sorted((p, p.stat().st_mtime_ns) for p in refused_run.rglob("*"))
    code, out, err = visavis(capsys, monkeypatch, *words)
    assert (code, "in order" in err) == (0, True)
    stricter = ["--set", "quality.min_face=200"]
    code, out, err = visavis(capsys, monkeypatch, *words, *stricter)
    assert code == 2
    assert "was built with quality.min_face=48.0 and now has 200.0; nothing is measured again" in out
    assert "in order" not in err
    assert "without --reconfigure this build is refused" in err
    assert err.count("\n") == 1
    longer = ["--set", "windows.length=100", "--reconfigure"]
    code, out, _ = visavis(capsys, monkeypatch, *words, *longer)
    assert code == 0
    assert "windows.length=50 and now has 100; done anew: windows, census, shard" in out
    code, out, _ = visavis(capsys, monkeypatch, *words, *stricter, "--json")
    plan = json.loads(out)
    assert (code, plan["refused"], plan["changed"]) == (2, True, "quality.min_face=48.0 and now has 200.0")
    assert sorted((p, p.stat().st_mtime_ns) for p in refused_run.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["assets", "fetch", "pyanote"], r"no model is called 'pyanote'; there are \d+ models: "),
        (["draw", "{run}", "nobody"], "no such conversation in .*; there is no conversation at all"),
        (["evaluate", "x.pt", "{run}"], "is a run that has no dataset yet; `visavis status .*` says how far it is"),
        (["status", "{run}/../"], "name the --out of `visavis build`"),
    ],
)
def test_wrong_names_are_answered_with_right_ones(
    words: list[str],
    message: str,
    refused_run: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, _, err = visavis(capsys, monkeypatch, *(word.format(run=refused_run) for word in words))
    assert code == 2
    assert err.count("\n") == 1
    assert re.search(message, err), err


def test_each_stage_shows_its_own_work_and_the_phase_its_time(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    with run_in(tmp_path, console=console) as run:
        quick, slow = tasks("a", "b"), tasks("slow:0.3")

        def workflow(number: int) -> Iterator[object]:
            yield [quick[number]] if number < 2 else [slow[0]._replace(key="late")]

        list(run.follow("texts", (workflow(n) for n in range(3)), 3))  # type: ignore[misc]
        time.sleep(0.3)
        run.execute("letters", tasks("c")[:1], 1)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0].split()[:3] == ["letters", "3", "ok"]
    assert lines[1].split()[:3] == ["texts", "3", "done"]
    assert 0.3 <= float(lines[0].split()[3]) < 5
    assert "done in" not in lines[0]
    assert re.search(r"of work, done in 0\.\d s$", lines[2])  # a phase of one stage: one line


def test_the_bar_of_a_training_run_knows_its_steps_from_the_start() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    with Reporter(console).training("train", 300):
        time.sleep(0.3)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "0/300" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    assert "0/?" not in text


def test_what_a_build_kept_says_seconds_of_what() -> None:
    seconds = dict.fromkeys(WindowClass, 16.0)
    plan = BalancePlan(mixture={}, keep={}, seconds_before=seconds, seconds_after=dict.fromkeys(WindowClass, 28.0))
    held_out = {label.value: 8.0 for label in WindowClass}
    summary = BuildSummary("out/dataset", 1, 1, {}, plan, held_out, samples=1, processed=3)
    console = Console(file=io.StringIO(), width=80)
    console.print(summary_table(summary))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0].strip() == "1 conversation in, 1 kept, 1 sample"
    assert " ".join(lines[2].split()) == "class for training drawn held out"
    assert lines[4].split() == ["speaking", "16", "28", "8"]
    assert "drawn: of as many as are for training" in " ".join(" ".join(lines).split())


def test_a_trial_says_what_one_window_takes() -> None:
    found = {"windows": 1, "sampled": 1, "pairs": 1, "pairs_error": 0, "passed_over": 0, "gated": {}, "shortfall": {}}
    first, second, last = trial_lines(found | {"seconds": 9.4, "start_s": 9.3, "pairs_s": 12.0})
    assert first == "1 window, of which 1 was tried: about 1 ± 0 pairs; 0 windows passed over"
    assert second.startswith("about 9.4 s on one worker like this: 9.3 s to start, then 12 pairs a second")
    assert last == "nothing was written"


def test_status_is_shown_anew_until_the_run_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from visavis.pipeline.cli import status as module

    stages = {"ingest": {"ok": 5, "rejected": {"no_audio": 1}, "failed": {}, "items_per_second": 1.0}}
    row = {"seconds_per_item": dict.fromkeys(module.QUANTILES, 1.0), "peak_mb": dict.fromkeys(module.QUANTILES, 1.0)}
    stages["ingest"] |= row | {"media_hours_per_hour": 0.0}
    owner = {"pid": 1, "host": "here"}
    shown = {"run": str(tmp_path), "progress": None, "stages": stages, "dataset": None}
    states = iter([("running", owner), ("running", owner), ("stopped", None)])

    def read(*_: object) -> dict[str, object]:
        state, running = next(states)
        return shown | {"state": {"state": state}, "running": running}

    monkeypatch.setattr(module, "read_status", read)
    monkeypatch.setattr("time.sleep", lambda _: None)
    code, out, err = visavis(capsys, monkeypatch, "status", str(tmp_path), "--watch", "5")
    assert code == 0
    assert out.count("no dataset yet") == 3
    assert "stopped: 5 ok, 1 rejected, 0 failed, in " in err
    assert next(states, None) is None
