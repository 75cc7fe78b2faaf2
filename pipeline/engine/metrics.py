"""What a run on a cluster reports to the cluster's own monitoring: Ray exports these to Prometheus as `ray_NAME`.

Only on a cluster that was joined: nobody looks at one that is started here. `docs/cluster/grafana.json` draws them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

ITEMS, AT_WORK, WORKFLOWS = "visavis_items", "visavis_items_at_work", "visavis_workflows"
EXPORTED = (f"ray_{ITEMS}_total", f"ray_{AT_WORK}", f"ray_{WORKFLOWS}")
"""As Prometheus has them: items by `stage` and `status` (ok, rejected, failed); items at work by `stage`; workflows,
usually conversations, by `phase` and `state` (finished, total)."""

_DASHBOARD = "dashboard"
_made: dict[str, Any] = {}


def begin(dashboard: str = "") -> None:
    """From now on, report. dashboard: host and port of the cluster's. Called once this process has joined a cluster."""
    from ray.util.metrics import Counter as RayCounter
    from ray.util.metrics import Gauge

    if not _made:
        _made[_DASHBOARD] = dashboard
        _made[ITEMS] = RayCounter(ITEMS, "Items that came to their end", ("stage", "status"))
        _made[AT_WORK] = Gauge(AT_WORK, "Items that workers are at", ("stage",))
        _made[WORKFLOWS] = Gauge(WORKFLOWS, "Workflows of the present phase", ("phase", "state"))


def ended(stage: str, status: str) -> None:
    """An item came to its end."""
    if _made:
        _made[ITEMS].inc(1.0, {"stage": stage, "status": status})


def at_work(stages: Iterable[str], known: Iterable[str]) -> None:
    """Of which stages the items at work are. known: stages that had some before, which may have none now."""
    if _made:
        counts = Counter(stages)
        for stage in {*known, *counts}:
            _made[AT_WORK].set(float(counts[stage]), {"stage": stage})


def reached(phase: str, finished: int, total: int) -> None:
    """How far a phase is."""
    if _made:
        for state, count in (("finished", finished), ("total", total)):
            _made[WORKFLOWS].set(float(count), {"phase": phase, "state": state})


def dashboard() -> str:
    """URL of the joined cluster's dashboard; empty where there is none, or no cluster was joined."""
    return f"http://{_made[_DASHBOARD]}" if _made.get(_DASHBOARD) else ""
