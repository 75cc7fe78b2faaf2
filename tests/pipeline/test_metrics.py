"""What a run tells a cluster's monitoring, under the names that the dashboard asks for."""

from __future__ import annotations

import io
import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from visavis.pipeline.engine import metrics

ROOT = Path(__file__).parents[2]

TOLD = """
import sys, time, ray
joined = ray.init(address="local", include_dashboard=True, _metrics_export_port=int(sys.argv[1]), num_cpus=1,
         dashboard_port=int(sys.argv[2]), log_to_driver=False)
from visavis.pipeline.engine import metrics
metrics.begin(joined.address_info["webui_url"])
metrics.ended("faces", "ok"); metrics.ended("faces", "ok"); metrics.ended("cast", "rejected")
metrics.at_work(["faces", "faces", "bind"], ["cast"]); metrics.reached("conversations", 3, 7)
print(metrics.dashboard(), flush=True)
sys.stdin.read()
"""


def test_the_dashboard_asks_for_exactly_what_is_exported() -> None:
    text = (ROOT / "docs" / "cluster" / "grafana.json").read_text()
    asked = {target["expr"] for panel in json.loads(text)["panels"] for target in panel["targets"]}
    assert {name for expr in asked for name in re.findall(r"ray_\w+", expr)} == set(metrics.EXPORTED)
    labels = {name for expr in asked for name in re.findall(r"(\w+)=|by \((\w+)\)", expr) for name in name if name}
    assert labels <= {"stage", "status", "phase", "state"}


def test_nothing_is_told_where_no_cluster_was_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_made", {})
    metrics.ended("faces", "ok")
    metrics.at_work(["faces"], [])
    metrics.reached("conversations", 1, 2)
    assert metrics.dashboard() == ""


class Recorded(dict[str, float]):
    """A metric of Ray's, as far as it is used."""

    def inc(self, by: float, tags: dict[str, str]) -> None:
        key = " ".join(tags.values())
        self[key] = self.get(key, 0.0) + by

    def set(self, value: float, tags: dict[str, str]) -> None:
        self[" ".join(tags.values())] = value


def test_progress_counts_what_ends_and_what_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from rich.console import Console

    from visavis.pipeline.engine.progress import Reporter

    made = {name: Recorded() for name in (metrics.ITEMS, metrics.AT_WORK, metrics.WORKFLOWS)}
    monkeypatch.setattr(metrics, "_made", made)
    flying: Any = [SimpleNamespace(task=SimpleNamespace(stage="faces"))]
    with Reporter(Console(file=io.StringIO())).phase("conversations", 2) as phase:
        for stage in ("faces", "faces", "cast"):
            phase.expect(stage)
        for stage, status in (("faces", "ok"), ("cast", "failed")):
            outcome: Any = SimpleNamespace(stage=stage, status=status, seconds=1.0)
            phase.advance(outcome)
        phase.beat(flying, "", 1e9)
        assert made[metrics.AT_WORK] == {"faces": 1.0, "cast": 0.0}
        phase.finish(fresh=True)
    assert made[metrics.ITEMS] == {"faces ok": 1.0, "cast failed": 1.0}
    assert made[metrics.AT_WORK] == {"faces": 0.0, "cast": 0.0}
    assert made[metrics.WORKFLOWS] == {"conversations finished": 1.0, "conversations total": 2.0}


@pytest.mark.nightly("names that Ray gives to metrics; those that we give are above")
def test_prometheus_sees_them_under_these_names() -> None:
    ports = [free_port(), free_port()]
    told = subprocess.Popen(
        [sys.executable, "-c", TOLD, *map(str, ports)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert told.stdout is not None
        url = told.stdout.readline().strip()
        assert url.endswith(f":{ports[1]}"), url
        page, until = "", time.monotonic() + 60
        while not all(f"{name}{{" in page for name in metrics.EXPORTED) and time.monotonic() < until:
            time.sleep(1)
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{ports[0]}/metrics", timeout=5) as answer:
                    page = answer.read().decode()
            except OSError:
                continue
        ours = [line for line in page.splitlines() if "visavis" in line and not line.startswith("#")]
        assert all(any(line.startswith(f"{name}{{") for line in ours) for name in metrics.EXPORTED), ours
        assert any('stage="faces"' in line and 'status="ok"' in line and line.endswith(" 2.0") for line in ours), ours
    finally:
        told.communicate(timeout=60)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
