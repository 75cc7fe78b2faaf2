"""What is said of a build or an import when it ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from visavis.pipeline.engine.run import Run
from visavis.pipeline.state.account import account_of, rejections
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import RunFailed
from visavis.schemas.manifest import BalancePlan, Manifest


@dataclass(frozen=True)
class BuildSummary:
    """What a build or an import made.

    held_out: seconds by class. processed: how many items needed work this time.
    """

    dataset: str
    sources: int
    kept: int
    rejected: dict[str, int]
    plan: BalancePlan
    held_out: dict[str, float]
    samples: int
    processed: int


def held_out_seconds(manifest: Manifest) -> dict[str, float]:
    """Of windows that are held out, by class."""
    windows = {label: sum(shard.samples for shard in manifest.of("val", label)) for label in WindowClass}
    return {label.value: round(n * manifest.window / manifest.fps, 3) for label, n in windows.items()}


def nothing_left(run: Run, fingerprints: Mapping[str, str], what: str) -> RunFailed:
    """The failure of a run that has no conversation, or no window, to train on; it says why each was left out."""
    run.ledger.flush()
    found = rejections(account_of(run.ledger, fingerprints))
    reasons = ", ".join(f"{n} × {reason}" for reason, n in found.items()) or "nothing was given"
    return RunFailed(f"no {what} is left to train on ({reasons}); see `visavis status {run.root}`")
