"""The same chain of stages in our engine and in Ray Data's public API: time, memory, and what kills do to either.

    python -m benchmarks.beside_ray_data [--quick] [--clips 16] [--workers 10] [--drivers 3] [--keep FOLDER]

calm      wall time, and the largest sum of the memory of all processes (proportional set sizes, looked at each second)
kills     worker processes killed at random moments, and the driver, which is started again
deadly    one file more, which kills the process that ingests it every time

Either chain goes from the files to windows and voices (`benchmarks.ray_data_chain`); ours also balances them and writes
shards, which cannot be left out. Both have the same codec, made by an undisturbed build of ours, against whose windows
bytes are compared. Lost: clips without a row that says what became of them, or failed though they are sound. Doubled:
clips with two. `--quick`: 6 clips, 4 workers, 1 driver.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from benchmarks.clips import make_clips
from benchmarks.processes import family_of, say
from benchmarks.ray_data_chain import DEADLY, DeadlyIngest, run_chain
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.engine.ray_executor import ray_engine
from visavis.pipeline.plan.build import CODECS, Build
from visavis.pipeline.plan.sources import find_sources
from visavis.pipeline.state.ledger import Ledger
from visavis.schemas.artifact import dump_rows, load_rows
from visavis.schemas.config import BuildConfig
from visavis.schemas.dyads import Dyad
from visavis.schemas.storage.store import Store

SECONDS = 6.0
PATIENCE = 900.0
ENGINES = ("ours", "ray_data")


class Corpus(NamedTuple):
    """Clips by name, and the same as Parquet files of one row each, which is what Ray Data reads."""

    clips: list[Path]
    rows: Path


class Ended(NamedTuple):
    """What became of each clip by its name (status, reason), as often as it is said; digestible windows by name."""

    said: list[tuple[str, str, str]]
    windows: dict[str, bytes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--drivers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for clips and builds, instead of a temporary one")
    parser.add_argument("--drive", choices=ENGINES, help=argparse.SUPPRESS)  # a driver, in a process of its own
    parser.add_argument("paths", nargs="*", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        {"ours": drive_ours, "ray_data": run_chain}[options.drive](*options.paths)
        return
    if options.quick:
        options.clips, options.workers, options.drivers = 6, 4, 1
    with tempfile.TemporaryDirectory(prefix="visavis-beside-") as folder:
        print(json.dumps(measure(options.keep or Path(folder), options)))


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    clips = make_clips(folder / "clips", options.clips, SECONDS)
    sound = written(clips, folder / "rows")
    reference = folder / "reference"
    Build(BuildConfig(), str(reference), ray_engine(BuildConfig().run), Reporter(Console(file=io.StringIO()))).run(
        find_sources([str(clip) for clip in clips])
    )
    import ray

    ray.shutdown()
    codec = next((reference / CODECS).iterdir())
    truth = ended_ours(reference).windows
    rows: list[dict[str, Any]] = []
    for engine in ENGINES:
        seconds, peak = calm(engine, sound, folder / f"{engine}-calm", codec)
        rows.append({"engine": engine, "run": "calm", "seconds": seconds, "peak_gb": peak})
        rows[-1] |= compared(engine, folder / f"{engine}-calm", sound, truth)
        say(str(rows[-1]))
        out = folder / f"{engine}-kills"
        kills = with_kills(engine, sound, out, codec, options, random.Random(options.seed))
        rows.append({"engine": engine, "run": "kills", **kills, **compared(engine, out, sound, truth)})
        say(str(rows[-1]))
    deadly = folder / f"{DEADLY}.mp4"
    shutil.copy(clips[0], deadly)
    mixed = written([deadly, *clips], folder / "rows-deadly")
    for engine in ENGINES:
        out = folder / f"{engine}-deadly"
        seconds, peak = calm(engine, mixed, out, codec)
        rows.append({"engine": engine, "run": "deadly", "seconds": seconds, "peak_gb": peak})
        rows[-1] |= compared(engine, out, sound, truth)
        rows[-1]["of it"] = [
            f"{status} {reason}"[:80] for name, status, reason in ended(engine, out).said if name == DEADLY
        ]
        say(str(rows[-1]))
    return {
        "name": "beside_ray_data",
        "clips": options.clips,
        "rows": rows,
        "against": "Ray Data's public API",
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
    }


def written(clips: list[Path], folder: Path) -> Corpus:
    folder.mkdir(parents=True, exist_ok=True)
    for clip in clips:
        pq.write_table(pa.table({"id": [clip.stem], "uri": [str(clip)]}), folder / f"{clip.stem}.parquet")
    return Corpus(clips, folder)


def drive_ours(listing: Path, out: Path, codec: Path) -> None:
    names = [pq.read_table(path)["uri"][0].as_py() for path in sorted(listing.iterdir())]
    config = BuildConfig.model_validate(
        {
            "motion": {"codec": str(codec)},
            "run": {"attempts": 3, "max_failure_share": 0.5},  # as often as Ray Data may
        }
    )
    build = Build(config, str(out), ray_engine(config.run), Reporter(Console(file=io.StringIO())))
    build.stages = {**build.stages, "ingest": DeadlyIngest(config.ingest)}
    build.run(find_sources(names))


def start(engine: str, corpus: Corpus, out: Path, codec: Path) -> subprocess.Popen[bytes]:
    out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.beside_ray_data", "--drive", engine]
    with (out / "driver.log").open("ab") as log:
        return subprocess.Popen([*command, str(corpus.rows), str(out), str(codec)], stdout=log, stderr=log)


def calm(engine: str, corpus: Corpus, out: Path, codec: Path) -> tuple[float | str, float]:
    """Seconds to the end ("never" after `PATIENCE`), and gigabytes at most."""
    began = time.monotonic()
    with family_of(start(engine, corpus, out, codec)) as family:
        try:
            family.driver.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            return "never", family.peak
    return round(time.monotonic() - began, 1), family.peak


def with_kills(
    engine: str, corpus: Corpus, out: Path, codec: Path, options: argparse.Namespace, rng: random.Random
) -> dict[str, Any]:
    """Kill workers and drivers in turn until all kills are done, then let it come to its end."""
    todo = ["worker"] * options.workers + ["driver"] * options.drivers
    rng.shuffle(todo)
    starts, began = 0, time.monotonic()
    while starts < 20:
        starts += 1
        with family_of(start(engine, corpus, out, codec)) as family:
            while family.driver.poll() is None and todo:
                time.sleep(rng.uniform(4.0, 10.0))
                victims = family.drivers() if todo[0] == "driver" else family.workers()
                if victims and family.driver.poll() is None:
                    with suppress(psutil.NoSuchProcess):
                        rng.choice(victims).kill()
                        say(f"{engine}: {todo.pop(0)} killed, {len(todo)} left")
            try:
                if family.driver.wait(PATIENCE) == 0:
                    break
            except subprocess.TimeoutExpired:
                break
    return {"seconds": round(time.monotonic() - began, 1), "starts": starts, "kills left": len(todo)}


def compared(engine: str, out: Path, corpus: Corpus, truth: dict[str, bytes]) -> dict[str, Any]:
    said, windows = ended(engine, out)
    names = {clip.stem for clip in corpus.clips}
    counts = Counter(name for name, _, _ in said)
    failed = {name for name, status, _ in said if status == "failed"} & names
    return {
        "lost": len(names - counts.keys() | failed),
        "doubled": sum(count - 1 for count in counts.values()),
        "bytes": "equal" if windows == truth else f"{sum(windows.get(n) != truth[n] for n in truth)} differ",
    }


def ended(engine: str, out: Path) -> Ended:
    return ended_ours(out) if engine == "ours" else ended_ray_data(out)


def ended_ours(out: Path) -> Ended:
    """By clip: its last row in the ledger, or each of them that tells of windows."""
    store = Store(str(out))
    table = pa.concat_tables(Ledger(store).tables(["stage", "item", "status", "reason"])).to_pylist()
    names = {row["item"]: Path(row["item"]).stem for row in table if row["stage"] == "ingest"}
    said: list[tuple[str, str, str]] = []
    for item, name in names.items():
        rows = [row for row in table if row["item"] == item]
        done = [row for row in rows if row["stage"] == "windows" and row["status"] == "ok"]
        said += [(name, row["status"], row["reason"]) for row in done or rows[-1:]]
    dyads = (load_rows(store.read(f"artifacts/windows/{n}"), Dyad) for n in store.names("artifacts/windows"))
    by_conversation = {dyad.conversation: dump_rows([dyad]) for (dyad,) in dyads}
    return Ended(said, by_conversation)


def ended_ray_data(out: Path) -> Ended:
    parts = [pq.read_table(path).to_pylist() for path in sorted((out / "rows").glob("*.parquet"))]
    rows = [row for part in parts for row in part]
    dyads = [row["dyad"] for row in rows if row["status"] == "ok"]
    said = [(row["id"], row["status"], row["reason"]) for row in rows]
    return Ended(said, {load_rows(data, Dyad)[0].conversation: data for data in dyads})


if __name__ == "__main__":
    main()
