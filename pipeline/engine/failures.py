"""When a run is not worth going on with: many failures in a row, or more than it may have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from visavis.pipeline.engine.supervise import FAULTS
from visavis.pipeline.engine.worker import STORAGE
from visavis.pipeline.state.ledger import Outcome
from visavis.schemas.config import RunConfig
from visavis.schemas.errors import RunFailed
from visavis.schemas.words import counted

_MOST = 0.5  # share of a stage's items that failed: the run stops, whatever comes
_BAD_TOGETHER = 0.1  # share of a list's files, side by side, whose store may be away
_OF_FILES = (STORAGE, *FAULTS)
"""Reasons that may be a file's: it is away, or its bytes end, stop or swell every worker that tries them."""


class Failures:
    """Decides when a run is not worth going on with."""

    def __init__(self, limits: RunConfig) -> None:
        self._limits = limits
        self._done: Counter[str] = Counter()
        self._in_row: Counter[str] = Counter()
        self._ours: Counter[str] = Counter()  # failures that are surely not the files'
        self._well: set[str] = set()  # stages in which an item has ended otherwise
        self._failed: dict[str, list[Outcome]] = {}

    def add(self, outcome: Outcome, total: int) -> None:
        stage = outcome.stage
        self._done[stage] += 1
        if outcome.status != "failed":
            self._in_row[stage] = 0
            self._well.add(stage)
            return
        self._in_row[stage] += 1
        self._ours[stage] += outcome.reason not in _OF_FILES
        failed = self._failed.setdefault(stage, [])
        failed.append(outcome)
        row = self._limits.max_failures_in_row
        if self._in_row[stage] >= row and not self._may_be_bad_files(stage, total):
            in_row = self._in_row[stage]
            raise RunFailed(f"{stage}: {counted(in_row, 'failure')} in a row, {_likely_cause(failed[-in_row:])}")
        # It cannot end well any more: no need to go on to the end. Files that are away are no reason to leave the
        # others: those are done when the run is started again.
        ours, count, share = self._ours[stage], max(total, self._done[stage]), self._limits.max_failure_share
        if (ours >= row and ours > share * count) or len(failed) > max(row, _MOST * count, share * count):
            self._raise(stage)

    def _may_be_bad_files(self, stage: str, total: int) -> bool:
        """Whether a row of failures may be the files': such as lie together at a place that is away, or such as were
        made to end workers, where others have ended well.
        """
        reasons = {outcome.reason for outcome in self._failed[stage][-self._in_row[stage] :]}
        if reasons <= set(FAULTS):
            return stage in self._well
        return reasons <= set(_OF_FILES) and self._in_row[stage] <= _BAD_TOGETHER * total

    def check(self) -> None:
        """At the end."""
        for stage, failed in self._failed.items():
            if len(failed) > self._limits.max_failure_share * self._done[stage]:
                self._raise(stage)

    def _raise(self, stage: str) -> None:
        failed = self._failed[stage]
        raise RunFailed(
            f"{stage}: {len(failed)} of {counted(self._done[stage], 'item')} failed, {_likely_cause(failed)}"
            " (run again to retry them, or allow more with --set run.max_failure_share=…)"
        )


def _likely_cause(failed: Sequence[Outcome]) -> str:
    """What most of the failures say."""
    (reason, count), *_ = Counter(o.reason for o in failed).most_common(1)
    last = next(o for o in reversed(failed) if o.reason == reason)
    most = f"{count} of them with {reason}" if count < len(failed) else f"all with {reason}"
    return f"{most}, for example {last.item}: {last.detail.splitlines()[0] if last.detail else 'no message'}"
