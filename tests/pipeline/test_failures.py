"""When failures end a run, and when they may be the files' own."""

from __future__ import annotations

import pytest

from visavis.pipeline.engine.failures import Failures
from visavis.pipeline.engine.supervise import FAULTS
from visavis.pipeline.state.ledger import Outcome
from visavis.schemas.config import RunConfig
from visavis.schemas.errors import RunFailed


def outcome(number: int, status: str = "ok", reason: str = "") -> Outcome:
    return Outcome(
        stage="faces", key=f"k{number}", item=f"{number}.mp4", status=status, reason=reason, detail="", inputs="",
        output="", facts="", media=0, seconds=0, peak_mb=0, host="", attempt=2, ended=number, fingerprint="",
    )  # fmt: skip  # type: ignore[arg-type]


@pytest.mark.parametrize("reason", FAULTS)
def test_files_that_end_their_workers_do_not_end_a_run_in_which_others_end_well(reason: str) -> None:
    failures = Failures(RunConfig())
    failures.add(outcome(0), 1000)
    for number in range(1, 60):
        failures.add(outcome(number, "failed", reason), 1000)
    with pytest.raises(RunFailed, match=f"59 of 60 items failed, all with {reason}"):
        failures.check()  # they are told at the end


def test_workers_that_always_die_end_a_run() -> None:
    failures = Failures(RunConfig())
    with pytest.raises(RunFailed, match="20 failures in a row, all with OutOfMemory"):  # noqa: PT012
        for number in range(20):
            failures.add(outcome(number, "failed", "OutOfMemory"), 1000)


def test_half_of_the_files_are_too_many_whatever_they_do() -> None:
    failures = Failures(RunConfig())
    failures.add(outcome(0), 60)
    with pytest.raises(RunFailed, match="31 of 32 items failed"):  # noqa: PT012
        for number in range(1, 60):
            failures.add(outcome(number, "failed", "WorkerCrashed"), 60)


def test_an_error_of_ours_in_a_row_ends_a_run() -> None:
    failures = Failures(RunConfig())
    failures.add(outcome(0), 1000)
    with pytest.raises(RunFailed, match="20 failures in a row, all with KeyError"):  # noqa: PT012
        for number in range(1, 30):
            failures.add(outcome(number, "failed", "KeyError"), 1000)
