"""A list of URLs of which some are dead, slow or flaky: everything is built that can be, and nothing twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.urls import DEAD, FINE, FLAKY, SLOW, distinct, kinds_of, make_clip
from benchmarks.webserver import Host, closed_port, web
from tests.pipeline.test_run import quiet
from visavis.pipeline.engine.executor import local_engine
from visavis.pipeline.engine.run import Run
from visavis.pipeline.state.ledger import Ledger, Outcome
from visavis.pipeline.state.lock import locked
from visavis.pipeline.state.tasks import Task, artifact_path
from visavis.schemas.config import IngestConfig, RunConfig
from visavis.schemas.errors import RunFailed
from visavis.schemas.storage import faults
from visavis.schemas.storage.store import Store
from visavis.stages.ingest import IngestStage

COUNT = 30


def build(root: Path, urls: list[str]) -> tuple[dict[str, Outcome], str]:
    """Ingest all; outcomes by URL, and how the run ended."""
    stages = {"ingest": IngestStage(IngestConfig())}
    tasks = [
        Task("ingest", f"k{n}", url, artifact_path("ingest", 1, "f", f"k{n}"), "f", inline={"uris": [url]})
        for n, url in enumerate(urls)
    ]
    said = ""
    with (
        locked(str(root)) as hold,
        local_engine(stages, str(root)) as executor,
        Run(str(root), executor, RunConfig(), quiet(), hold) as run,
    ):
        try:
            run.execute("ingest", tasks, len(tasks))
        except RunFailed as error:
            said = str(error)
    return {row.item: row for row in Ledger(Store(str(root))).latest().values()}, said


def kind(url: str) -> str:
    return url.rpartition("/")[2].partition("-")[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "grouped", [False, pytest.param(True, marks=pytest.mark.nightly("dead addresses in a row, not among others"))]
)
def test_what_can_be_built_is_built_and_the_rest_when_the_server_is_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grouped: bool
) -> None:
    monkeypatch.setattr(faults, "ITEM_WAITS", (0.01, 0.01, 0.01))
    monkeypatch.setattr(faults, "_AWAY", {})
    clip, port = make_clip(tmp_path / "clip.mp4"), closed_port()
    with web() as host:
        urls = [place(host, port, kind, n) for n, kind in enumerate(kinds_of(COUNT, 1, grouped=grouped))]
        for n, url in enumerate(urls):
            path = f"/{url.rpartition('/')[2]}"
            host.files[path] = distinct(clip, n)
            host.behaviour[path] = {**DEAD, **SLOW, **FLAKY, **FINE}[kind(url)]
        found, said = build(tmp_path / "run", urls)
        assert "5 of 30 items failed, all with storage, for example" in said
        outcomes = {kind(url): (row.status, row.reason) for url, row in found.items()}
        assert outcomes == {
            **dict.fromkeys(("refused", "unknown", "403", "500", "cut"), ("failed", "storage")),
            **dict.fromkeys(("404", "410"), ("rejected", "unreadable")),
            **dict.fromkeys((*SLOW, *FLAKY, *FINE), ("ok", "")),
        }
        host.behaviour.clear()
        host.asked.clear()
        with web(port) as late:
            late.files = host.files
            again, said = build(tmp_path / "run", urls)
        assert "1 of 5 items failed" in said
        assert [kind(url) for url, row in again.items() if row.status == "failed"] == ["unknown"]
        assert {path.strip("/").partition("-")[0] for path in host.asked} == {"403", "500", "cut"}


def place(host: Host, port: int, kind: str, n: int) -> str:
    address = {"refused": f"http://127.0.0.1:{port}", "unknown": "http://nobody.invalid"}.get(kind, host.address)
    return f"{address}/{kind}-{n:04d}.mp4"


def test_a_server_that_is_away_altogether_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "ITEM_WAITS", (0.01,))
    found, said = build(tmp_path, [f"http://127.0.0.1:{closed_port()}/{n}.mp4" for n in range(60)])
    assert len(found) < 30
    assert "20 failures in a row, all with storage" in said
    assert "Connection refused" in said
    assert Counter(row.status for row in found.values()) == {"failed": len(found)}
