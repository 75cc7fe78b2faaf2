"""Drivers, workers and a machine are killed while a corpus is built. Is anything lost, doubled or different?

    python -m benchmarks.faults [--quick] [--clips 40] [--drivers 25] [--workers 10] [--seed 0]

A corpus of distinct short clips is built once undisturbed. Then again, with

    drivers   the driver killed (SIGKILL) at random moments after it began to commit, and started again each time; when
              a build came to its end before the kills are through, it is compared, and another one is begun
    workers   random worker processes killed, supervisors and children alike, while one build goes on
    node      one of a cluster's two nodes killed, with everything on it

Every build that came to its end is compared with the undisturbed one: all bytes of the dataset, exactly one ok row in
the ledger for each item of each stage, no temporary file left. `--quick`: 12 clips, 4 drivers, 3 workers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.clips import make_clips
from benchmarks.processes import family_of, say
from visavis.pipeline.state.ledger import Ledger
from visavis.schemas.storage.store import TEMPORARY, Store

RECIPE = Path(__file__).parents[1] / "configs" / "demo.yaml"
SECONDS = 6.0
PATIENCE = 600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--drivers", type=int, default=25)
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for clips and builds, instead of a temporary one")
    options = parser.parse_args()
    if options.quick:
        options.clips, options.drivers, options.workers = 12, 4, 3
    with tempfile.TemporaryDirectory(prefix="visavis-faults-") as folder:
        result = measure(options.keep or Path(folder), options)
    print(json.dumps(result))


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    rng = random.Random(options.seed)
    corpus = folder / "clips.jsonl"
    clips = make_clips(folder / "clips", options.clips, SECONDS)
    corpus.write_text("".join(json.dumps({"uri": str(clip)}) + "\n" for clip in clips))
    calm = folder / "calm"
    began = time.monotonic()
    finish(corpus, calm)
    say(f"undisturbed build of {len(clips)} clips: {time.monotonic() - began:.0f} s, {len(digests(calm))} files")

    finished: list[tuple[str, Path]] = []
    kills = {"driver": 0, "worker": 0, "node": 0}
    while kills["driver"] < options.drivers:
        run = folder / f"drivers{len(finished)}"
        while kills["driver"] < options.drivers and kill_driver(corpus, run, rng):
            kills["driver"] += 1
            say(f"driver killed, {kills['driver']} of {options.drivers}")
        finish(corpus, run)
        finished.append(("driver", run))
    kills["worker"] = kill_workers(corpus, folder / "workers", rng, options.workers)
    finished.append(("worker", folder / "workers"))
    kills["node"] = kill_node(corpus, folder / "node")
    finished.append(("node", folder / "node"))

    rows = [{"killed": kind, **compare(calm, run)} for kind, run in finished]
    for row in rows:
        say(str(row))
    return {
        "name": "faults",
        "items": len(clips),
        "kills": sum(kills.values()),
        "kills_by_kind": kills,
        "lost": sum(row["lost"] for row in rows),
        "duplicated": sum(row["duplicated"] for row in rows),
        "byte_identical": all(row["byte_identical"] for row in rows),
        "temporary_files": sum(row["temporary_files"] for row in rows),
        "rows": rows,
        "against": "an undisturbed build of the same clips",
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
    }


def start(corpus: Path, run: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "visavis", "build", str(RECIPE), str(corpus), "--out", str(run), *more]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(corpus: Path, run: Path, *more: str) -> None:
    """Build to the end, again where items failed for good because their workers were killed."""
    for _ in range(5):
        driver = start(corpus, run, *more)
        _, errors = driver.communicate(timeout=PATIENCE)
        if driver.returncode == 0:
            return
    raise SystemExit(errors.decode())


def kill_driver(corpus: Path, run: Path, rng: random.Random) -> bool:
    """Start a driver and kill it a while after its first commit. False if it came to its end before that."""
    before = len(commits(run))
    driver = start(corpus, run)
    with family_of(driver):
        wait_for(lambda: len(commits(run)) > before or driver.poll() is not None)
        time.sleep(rng.uniform(0.0, 8.0))
        if driver.poll() is not None:
            return False
        driver.kill()
    return True


def kill_workers(corpus: Path, run: Path, rng: random.Random, count: int) -> int:
    """Kill workers of one build (and of those that go on with it) one by one."""
    killed = 0
    while killed < count:
        driver = start(corpus, run, "--set", "run.attempts=4")
        with family_of(driver) as family:
            while killed < count and driver.poll() is None:
                time.sleep(rng.uniform(1.0, 4.0))
                victims = family.workers()
                if victims and commits(run):
                    rng.choice(victims).kill()
                    killed += 1
                    say(f"worker killed, {killed} of {count}")
            driver.wait(PATIENCE)
        if driver.returncode == 0 and killed < count:
            shutil.rmtree(run)
    finish(corpus, run)
    return killed


def kill_node(corpus: Path, run: Path) -> int:
    """Kill one of two nodes, where a third of the clips is done."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1}, shutdown_at_exit=False)
    second = cluster.add_node(num_cpus=1)
    try:
        driver = start(corpus, run, "--address", cluster.address)
        wait_for(lambda: len(commits(run)) > 40 or driver.poll() is not None)
        if driver.poll() is not None:
            raise SystemExit("the build ended before a node could be killed")
        cluster.remove_node(second, allow_graceful=False)
        say("node killed")
        _, errors = driver.communicate(timeout=PATIENCE)
        if driver.returncode:
            raise SystemExit(errors.decode())
    finally:
        cluster.shutdown()
    return 1


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("nothing happens")
        time.sleep(0.05)


def commits(run: Path) -> list[str]:
    return list(Store(str(run)).names("artifacts"))


def compare(calm: Path, run: Path) -> dict[str, Any]:
    expected, found = ok_rows(calm), ok_rows(run)
    return {
        "byte_identical": digests(calm) == digests(run),
        "lost": sum((expected - found).values()),
        "duplicated": sum((found - expected).values()),
        "temporary_files": sum(1 for _ in run.rglob(f"{TEMPORARY}*")),
        "ok_rows": found.total(),
        "runs": max(r for table in Ledger(Store(str(run))).tables(["run"]) for r in table["run"].to_pylist()),
    }


def digests(run: Path) -> dict[str, str]:
    files = (p for p in (run / "dataset").rglob("*") if p.is_file())
    return {str(p.relative_to(run)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def ok_rows(run: Path) -> Counter[tuple[str, str]]:
    """How many ok rows there are of each item of each stage, of all rows that were ever written."""
    table = pa.concat_tables(Ledger(Store(str(run))).tables(["stage", "key", "status"]))
    return Counter((r["stage"], r["key"]) for r in table.to_pylist() if r["status"] == "ok")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
