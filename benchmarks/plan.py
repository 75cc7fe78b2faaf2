"""A million conversations planned, done to the half, resumed and summarised: what it costs the driver.

    python -m benchmarks.plan [--quick] [--items N …]

The workflows, the ledger, the commits, the settled-or-not decisions and the account are the real ones, over a list of
conversations in a Parquet file. Only the stages are stubs: an executor that commits a small artifact for every task at
once (one piece of video per conversation), so the time is the driver's alone. The run's folder lies on a memory disk
where there is one; more than 100,000 conversations are left at the half, for its sake. What follows the conversations
is measured by itself: the dataset of as many dyads, from the census to the manifest. Each step is measured in a process
of its own; `--quick` stops at 100,000.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from visavis.pipeline.cli.status import read_status
from visavis.pipeline.engine.executor import Executor, InFlight
from visavis.pipeline.engine.memory import peak_mb
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.engine.worker import Stages, outcome_of
from visavis.pipeline.plan.build import Build
from visavis.pipeline.plan.dataset import build_dataset, collect, landmark_motion
from visavis.pipeline.plan.file_names import DATASET
from visavis.pipeline.plan.run_folder import opened
from visavis.pipeline.plan.sources import find_sources
from visavis.pipeline.state.ledger import Outcome
from visavis.pipeline.state.tasks import Artifact, Task, content_digest
from visavis.schemas.artifact import dump_rows
from visavis.schemas.config import BuildConfig, RunConfig
from visavis.schemas.dyads import Census, Codec, DyadFacts
from visavis.schemas.face_rows import CastFacts
from visavis.schemas.manifest import FileEntry, ShardEntry, faces_path
from visavis.schemas.rows import DiarizationFacts, Outline
from visavis.schemas.storage.store import Store
from visavis.schemas.voice_rows import VoicesFacts
from visavis.stages.balance import BINS
from visavis.stages.shard import ShardRow

SIZES = (10_000, 100_000, 1_000_000)
FINISHED = 100_000  # larger runs are left at the half: their artifacts would fill the memory disk
MEMORY_DISK = Path("/dev/shm")  # noqa: S108 - Linux' memory disk, where there is one
FRAMES = 59 * 25
PAYLOAD = b""  # of an artifact: on a memory disk a byte is a page
WORKERS = 16_000
_STAGES = 6  # on a conversation's way to its voices, one piece of video each


WINDOWS = (48, 44, 4, 20)  # of a minute's conversation: speaking, listening, overlap, silence
DIM, POSE, POINTS = 70, 6, 478 * 3
QUIET = Reporter(Console(file=io.StringIO()))


class Stopped(Exception):
    """The stub executor stops a run in its middle, as a lost driver would."""


class StubExecutor:
    """Commits an artifact for every task at once."""

    def __init__(self, root: str, stop_after: int) -> None:
        self._store = Store(root)
        self._queue: deque[Task] = deque()
        self._left = stop_after

    def submit(self, task: Task) -> None:
        self._queue.append(task)

    def has_capacity(self) -> bool:
        return len(self._queue) < 64

    def wait(self, seconds: float = 1.0) -> list[Outcome]:
        done = [self._commit(self._queue.popleft()) for _ in range(len(self._queue))]
        return done

    def in_flight(self) -> list[InFlight]:
        return []

    def waiting(self) -> str:
        return ""

    def _commit(self, task: Task) -> Outcome:
        if task.stage == "fit":  # all conversations are bound: what follows is not the planner's
            raise Stopped
        self._left -= task.stage == "separate"
        if self._left < 0:
            raise Stopped
        facts = FACTS[task.stage](task) if task.stage in FACTS else ""
        data = CENSUS if task.stage == "census" else PAYLOAD
        for path in (task.path, *task.files):
            self._store.write(path, data)
        digest = content_digest(data)
        return outcome_of(task, "ok", "", "", output=digest, facts=facts, seconds=0.1, peak_mb=500.0, attempt=1)


class BusyExecutor(StubExecutor):
    """A thousand machines' workers, each at work on a long task: takes so many, and ends none."""

    first = first_cpu = 0.0  # when it was given the first, by the clock and by this process' CPU time

    def submit(self, task: Task) -> None:
        if not self.first:
            self.first, self.first_cpu = time.monotonic(), time.process_time()
        super().submit(task)

    def has_capacity(self) -> bool:
        return len(self._queue) < 2 * WORKERS

    def wait(self, seconds: float = 1.0) -> list[Outcome]:
        if seconds:  # nothing is left that could be begun
            raise Stopped
        return []


def outline(task: Task) -> str:
    """What ingest would tell of a minute's conversation."""
    files = task.key.partition("-")[0]  # the same where they are listed once more
    return Outline(
        id=hashlib.sha256(files.encode()).hexdigest()[:16],
        identity=files,
        frames=FRAMES,
        keyframes=((500, 1000),),
        early_keyframes=((0,),),
    ).model_dump_json()


def shard_row(task: Task) -> str:
    """What shard would tell of a shard."""
    plain, digest = task.inline, hashlib.sha256(PAYLOAD).hexdigest()
    samples = sum(part["count"] for part in plain["slices"])
    entry = ShardEntry(
        path=plain["path"],
        split=plain["split"],
        label=plain["label"],
        samples=samples,
        bytes=1024 * samples,  # a sample has more than a header
        sha256=digest,
        faces=FileEntry(path=faces_path(plain["path"]), bytes=len(PAYLOAD), sha256=digest),
    )
    return ShardRow(entry=entry, weight=0.0).model_dump_json()


def cast_facts(task: Task) -> str:
    """What cast would tell of two people who can be seen well."""
    seen = (1.0, 180.5, 612.3, 121.4, 0.931, 14.2, 11.8, 0.412)
    return CastFacts(
        crowd=0.0, cuts=1.25, together=36.0, uncut=36.0, fresh=(1.0, 1.0), members=(seen, seen)
    ).model_dump_json()


def voices_facts(task: Task) -> str:
    """What separate would tell of two voices that can be heard well."""
    return VoicesFacts(
        level_db=(-20.0, -22.0),
        clipped=(0.0, 0.0),
        bandwidth_hz=(8000.0, 8000.0),
        snr_db=(31.5, 28.2),
        residual_db=(-28.13, None),
    ).model_dump_json()


def diarization_facts(task: Task) -> str:
    """What diarize would tell of two people who are heard."""
    return DiarizationFacts(speakers=2).model_dump_json()


FACTS: dict[str, Callable[[Task], str]] = {
    "ingest": outline,
    "diarize": diarization_facts,
    "cast": cast_facts,
    "separate": voices_facts,
    "shard": shard_row,
}
CENSUS = dump_rows([Census(counts=np.ones((len(WINDOWS), BINS), np.int64), moments=np.full(1 + 2 * DIM, 10.0))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--items", type=int, nargs="+", help="sizes instead of 10⁴, 10⁵ and 10⁶")
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(STEPS[options.step[0]](Path(options.step[1]))))
        return
    sizes = options.items or (SIZES[:2] if options.quick else SIZES)
    rows = [measure(items) for items in sizes]
    largest = rows[-1]
    names = ("items", "plan_s", "resume_plan_s", "resume_first_s", "resume_all_s", "status_s", "dataset_s", "peak_mb")
    figures = {name: largest[name] for name in names}
    against = "limits of 60 s to plan or resume, 10 s to the first new task, 5 s for status, 1500 MB"
    print(json.dumps({"name": "plan", **figures, "against": against, "rows": rows, "machine": platform.platform()}))


def measure(items: int) -> dict[str, Any]:
    """All steps for a corpus of so many conversations, each in a process of its own."""
    parent = MEMORY_DISK if MEMORY_DISK.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="visavis-plan-", dir=parent) as folder:
        write_list(Path(folder), items)
        fresh = step("plan", folder)
        half = step("half", folder)
        resumed, again = step("plan", folder), step("resume", folder)
        status = step("status", folder)
        dataset = step("dataset", folder)
        steps = {
            "plan": fresh,
            "half": half,
            "resume plan": resumed,
            "resume": again,
            "status": status,
            "dataset": dataset,
        }
        done_rows = _STAGES * half["bound"]
        if items <= FINISHED:
            steps |= {"rest": step("rest", folder), "final status": step("status", folder)}
            done_rows = _STAGES * items
        rows = steps.get("final status", status)["rows"]
        parts = len(list(Path(folder, "run", "ledger").iterdir()))
    row = {
        "items": items,
        "plan_s": fresh["seconds"],
        "resume_plan_s": resumed["seconds"],
        "to_do": resumed["to_do"],
        "resume_first_s": again["first_s"],
        "resume_all_s": again["seconds"],
        "cpu_s": {name: s["cpu_s"] for name, s in steps.items()} | {"resume first": again["first_cpu_s"]},
        "status_s": max(s["seconds"] for name, s in steps.items() if "status" in name),
        "dataset_s": dataset["seconds"],
        "shards": dataset["shards"],
        "run_s": {name: steps[name]["seconds"] for name in ("half", "rest") if name in steps},
        "peak_mb": max(s["peak_mb"] for s in steps.values()),
        "peak_mb_by_step": {name: s["peak_mb"] for name, s in steps.items()},
        "ledger_rows": rows,
        "ledger_parts": parts,
    }
    # What was at work when the driver was lost has its artifacts, and is asked about again.
    assert 0 <= resumed["to_do"] - (items - half["bound"]) <= 64, "half of the corpus is to do"
    assert 0 <= rows - done_rows <= 256, "one row for each item of each stage"
    print(" ".join(f"{name}={value}" for name, value in row.items()), file=sys.stderr)
    return row


def step(name: str, folder: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.plan", "--step", name, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def write_list(folder: Path, items: int) -> None:
    with pq.ParquetWriter(folder / "corpus.parquet", pa.schema([("uri", pa.string()), ("size", pa.int64())])) as file:
        for first in range(0, items, 100_000):
            uris = [f"s3://corpus/{n:08d}.mp4" for n in range(first, min(items, first + 100_000))]
            file.write_table(pa.table({"uri": uris, "size": [10**7] * len(uris)}))


def build_of(folder: Path, stop_after: int) -> Build:
    @contextmanager
    def engine(stages: Stages, root: str) -> Iterator[Executor]:
        yield StubExecutor(root, stop_after)

    return Build(BuildConfig(), str(folder / "run"), engine, QUIET)


def plan(folder: Path) -> dict[str, Any]:
    """What is left to do, for every conversation."""
    began = time.monotonic()
    left = build_of(folder, 0).remaining(find_sources([str(folder / "corpus.parquet")]))
    return done(began, to_do=left.total())


def run(folder: Path, stop_after: int) -> dict[str, Any]:
    began = time.monotonic()
    try:
        build_of(folder, stop_after).run(find_sources([str(folder / "corpus.parquet")]))
    except Stopped:
        return done(began, bound=stop_after)
    raise AssertionError("the stub executor ends a run")


def resume(folder: Path) -> dict[str, Any]:
    """From the start of a run to its first new task, and to when all that was done is settled; from the list on."""
    began, executor = time.monotonic(), BusyExecutor(str(folder / "run"), 0)
    build = Build(BuildConfig(), str(folder / "run"), lambda *_: nullcontext(executor), QUIET)
    try:
        build.run(find_sources([str(folder / "corpus.parquet")]))
    except Stopped:
        return done(began, first_s=round(executor.first - began, 2), first_cpu_s=round(executor.first_cpu, 2))
    raise AssertionError("the stub executor ends a run")


def status(folder: Path) -> dict[str, Any]:
    began = time.monotonic()
    stages = read_status(str(folder / "run"), DATASET)["stages"]
    return done(began, rows=sum(row["ok"] for row in stages.values()))


def dataset(folder: Path) -> dict[str, Any]:
    """From as many dyads as there are conversations to the manifest."""
    began = time.monotonic()
    items = pq.read_metadata(folder / "corpus.parquet").num_rows
    root = str(folder / "dataset-run")
    build = build_of(folder, 10**9)
    rng = np.random.default_rng(0)
    ids = [f"{number:016x}" for number in rng.integers(2**63, size=items).tolist()]

    def dyads() -> Iterator[tuple[str, Artifact, Artifact]]:
        for identity in ids:
            facts = DyadFacts(participants=(f"{identity}-0", f"{identity}-1"), windows=WINDOWS).model_dump_json()
            yield identity, Artifact("", identity, facts), Artifact("", identity)

    codec = dump_rows(
        [
            Codec(
                id="c",
                kind="landmark-pca",
                mean=np.zeros(POINTS, np.float32),
                basis=np.zeros((DIM - POSE, POINTS), np.float32),
                explained=1.0,
                given=0,
                network="",
            )
        ]
    )
    with opened(root, lambda *_: nullcontext(StubExecutor(root, 10**9)), {}, RunConfig(), {"config": {}}, QUIET) as run:
        run.store.write("artifacts/codec/c.safetensors", codec)
        where = Artifact("artifacts/codec/c.safetensors", "0" * 16)
        paths = [partial("artifacts/{}/v2-0/{}.safetensors".format, stage) for stage in ("windows", "separate")]
        rows = collect(dyads(), *paths)
        manifest = build_dataset(run, rows, landmark_motion(run.store, where), build.config, build._task, build.graph)
    assert sum(shard.samples for shard in manifest.shards) == items * sum(WINDOWS)
    shutil.rmtree(root)
    return done(began, shards=len(manifest.shards))


def done(began: float, **more: Any) -> dict[str, Any]:
    return {
        "seconds": round(time.monotonic() - began, 2),
        "cpu_s": round(time.process_time(), 2),
        "peak_mb": round(peak_mb()),
        **more,
    }


STEPS = {
    "plan": plan,
    "half": lambda folder: run(folder, pq.read_metadata(folder / "corpus.parquet").num_rows // 2),
    "rest": lambda folder: run(folder, 10**9),
    "resume": resume,
    "status": status,
    "dataset": dataset,
}

if __name__ == "__main__":
    main()
