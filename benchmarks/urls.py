"""A corpus of URLs of which some are dead, slow or flaky: what is built, rejected and failed, and by a second run?

    python -m benchmarks.urls [--count 1000] [--engine ray] [--grouped] [--seed 0]

A server on loopback gives valid clips of four seconds, distinct in content, in which nobody speaks: what counts is how
each is read, so the build ends for each of them after `diarize`. A tenth is dead in one of seven ways, a twentieth
slow (half a second a request), a twentieth flaky (fails the first requests, in three ways). The command line builds
the list twice: then the server is well, and what refused connections listens. Unknown hosts stay unknown.
`--grouped`: the dead ones lie side by side in the list, at its beginning.

Printed, by kind of URL: outcomes of both runs, and requests of the second run for what the first had done.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.webserver import Behaviour, Host, closed_port, web
from visavis.pipeline.state.ledger import Ledger, Outcome
from visavis.schemas.storage.store import Store

RECIPE = Path(__file__).parents[1] / "configs" / "default.yaml"
DEAD = {
    "refused": Behaviour(),
    "unknown": Behaviour(),
    "404": Behaviour(status=404),
    "410": Behaviour(status=410),
    "403": Behaviour(status=403),
    "500": Behaviour(status=500),
    "cut": Behaviour(cut=0.5),
}
SLOW = {"slow": Behaviour(pause=0.05)}
FLAKY = {
    "flaky503": Behaviour(status=503, times=2),
    "flaky429": Behaviour(status=429, times=1, after="1"),
    "flakycut": Behaviour(cut=0.3, times=1),
}
FINE = {"fine": Behaviour()}


@dataclass
class Measured:
    """Of two runs: exit codes, seconds, outcomes of ingest by kind; requests of the second for what was done."""

    codes: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    outcomes: list[dict[str, Counter[str]]] = field(default_factory=list)
    asked_again: dict[str, int] = field(default_factory=dict)


def measure(folder: Path, count: int, engine: str, *, seed: int = 0, grouped: bool = False) -> Measured:
    """Build a list of URLs twice in a folder."""
    clip = make_clip(folder / "clip.mp4")
    kinds = kinds_of(count, seed, grouped=grouped)
    measured = Measured()
    with ExitStack() as stack:
        host, port = stack.enter_context(web()), closed_port()
        urls = [_url(host, port, kind, number) for number, kind in enumerate(kinds)]
        for url, kind, number in zip(urls, kinds, range(count), strict=True):
            path = "/" + url.rpartition("/")[2]
            host.files[path] = distinct(clip, number)
            host.behaviour[path] = {**DEAD, **SLOW, **FLAKY, **FINE}[kind]
        listed = folder / "urls.jsonl"
        listed.write_text("".join(json.dumps({"uri": url}) + "\n" for url in urls))
        first = _build(listed, folder / "run", engine, measured)
        host.behaviour.clear()
        host.asked.clear()
        late = stack.enter_context(web(port))
        late.files = host.files
        _build(listed, folder / "run", engine, measured)
        done = {f"/{name}" for name, outcome in first.items() if outcome.status != "failed"}
        again: Counter[str] = Counter()
        for path in done:
            again[_kind(path)] += host.asked[path] + late.asked[path]
        measured.asked_again = dict(again)
    return measured


def kinds_of(count: int, seed: int, *, grouped: bool) -> list[str]:
    """A kind for each URL: 10 % dead, 5 % slow, 5 % flaky, and at least one of each kind."""
    dead = [list(DEAD)[n % len(DEAD)] for n in range(max(len(DEAD), count // 10))]
    other = ["slow"] * max(1, count // 20) + [list(FLAKY)[n % len(FLAKY)] for n in range(max(len(FLAKY), count // 20))]
    other += ["fine"] * (count - len(dead) - len(other))
    if grouped:
        return sorted(dead) + other
    kinds = dead + other
    random.Random(seed).shuffle(kinds)
    return kinds


def make_clip(path: Path) -> bytes:
    """Four seconds of a grey picture and silence."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("aac", rate=16_000, layout="mono")
        for n in range(100):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), n, np.uint8), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for at in range(0, 64_000, 1000):
            block = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.int16), format="s16", layout="mono")
            block.sample_rate, block.pts = 16_000, at
            container.mux(audio.encode(block))
        container.mux(audio.encode(None))
    return path.read_bytes()


def distinct(clip: bytes, number: int) -> bytes:
    """The same with a box at its end that players skip."""
    return clip + (16).to_bytes(4, "big") + b"free" + number.to_bytes(8, "big")


def _url(host: Host, port: int, kind: str, number: int) -> str:
    places = {"refused": f"http://127.0.0.1:{port}", "unknown": f"http://host{number}.invalid"}
    return f"{places.get(kind, host.address)}/{kind}-{number:04d}.mp4"


def _kind(name: str) -> str:
    return re.sub(r"-\d+\.mp4$", "", name.lstrip("/"))


def _build(listed: Path, out: Path, engine: str, measured: Measured) -> dict[str, Outcome]:
    """Outcomes of ingest by the file's name."""
    command = [sys.executable, "-m", "visavis", "build", str(RECIPE), str(listed), "--out", str(out)]
    began = time.monotonic()
    ended = subprocess.run(
        [*command, "--engine", engine], stdin=subprocess.DEVNULL, capture_output=True, text=True, env=os.environ
    )
    rows = {row.item: row for row in Ledger(Store(str(out))).latest().values() if row.stage == "ingest"}
    measured.codes.append(ended.returncode)
    measured.seconds.append(round(time.monotonic() - began, 1))
    measured.said.append((ended.stderr.strip().splitlines() or [""])[-1])
    by_kind: dict[str, Counter[str]] = defaultdict(Counter)
    for name, row in rows.items():
        by_kind[_kind(name)][" ".join(filter(None, (row.status, row.reason)))] += 1
    measured.outcomes.append(by_kind)
    return rows


def table_of(measured: Measured) -> Table:
    table = Table()
    for column in ("URLs", "first run", "second run", "requests of the second run for what was done"):
        table.add_column(column)
    first, second = measured.outcomes
    for kind in sorted({*first, *second}):
        again = measured.asked_again.get(kind)
        table.add_row(kind, _told(first[kind]), _told(second[kind]), "–" if again is None else str(again))
    return table


def _told(outcomes: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--engine", default="ray")
    parser.add_argument("--grouped", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="visavis-urls-") as folder:
        measured = measure(Path(folder), options.count, options.engine, seed=options.seed, grouped=options.grouped)
    console = Console(width=140)
    console.print(table_of(measured))
    for code, seconds, said in zip(measured.codes, measured.seconds, measured.said, strict=True):
        console.print(f"exit {code} after {seconds:g} s: {said}", soft_wrap=True)


if __name__ == "__main__":
    main()
