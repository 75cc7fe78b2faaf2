"""The whole build against the bare floor, in one run, models loaded before the clock starts on either side.

    python -m benchmarks.overhead [--quick] [--clips 16] [--seconds 31]

floor   the same frames decoded and landmarked, and the same audio put through the diarizer's networks, in plain loops:
        one process per core, each takes the next clip until there is none
build   everything that `visavis build` does, on Ray, from the first look at the files to the manifest

Both go over the same clips, cut from synthetic dialogues at different points. Floor and build take turns, `--repeat`
times, and the medians count. `--quick`: 4 clips, once each.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.resampler import AudioResampler
from rich.console import Console

from benchmarks.clips import make_clips
from benchmarks.faces import bare
from benchmarks.processes import say
from visavis.pipeline.cli.status import read_status
from visavis.pipeline.engine.executor import Engine, Executor
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.engine.ray_executor import ray_engine
from visavis.pipeline.engine.worker import Stages
from visavis.pipeline.plan.build import Build
from visavis.pipeline.plan.file_names import DATASET
from visavis.pipeline.plan.sources import find_sources
from visavis.schemas import SAMPLE_RATE
from visavis.schemas.config import BuildConfig, DiarizeConfig, FacesConfig

CORES = os.cpu_count() or 1
CONFIG = BuildConfig()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=31.0)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for the clips and runs, instead of a temporary one")
    options = parser.parse_args()
    if options.quick:
        options.clips = 4
    with tempfile.TemporaryDirectory(prefix="visavis-overhead-") as temporary:
        folder = options.keep or Path(temporary)
        clips = make_clips(folder / "clips", options.clips, options.seconds)
        warm_up = make_clips(folder / "warm", 4, 14.0)
        floors, builds = [], []
        stages: dict[str, float] = {}
        for turn in range(options.repeat):
            floors.append(floor(clips))
            say(f"floor {floors[-1]:.1f} s")
            seconds, stages = build(clips, warm_up, folder / f"run{time.time_ns()}")
            builds.append(seconds)
            say(f"build {seconds:.1f} s, seconds of work by stage: {stages}, turn {turn + 1} of {options.repeat}")
    floor_s, build_s = statistics.median(floors), statistics.median(builds)
    result = {
        "name": "overhead",
        "ratio": round(build_s / floor_s, 3),
        "build_s": round(build_s, 1),
        "floor_s": round(floor_s, 1),
        "media_s": options.clips * options.seconds,
        "stages": stages,
        "floors": [round(s, 1) for s in floors],
        "builds": [round(s, 1) for s in builds],
        "against": "decode + FaceMesh + the diarizer's networks in plain loops on all cores",
        "machine": f"{platform.platform()}, {CORES} cores",
    }
    print(json.dumps(result))


def floor(clips: list[Path]) -> float:
    """Seconds that plain loops take."""
    context = multiprocessing.get_context("spawn")
    ready, go, todo = context.Barrier(CORES + 1), context.Barrier(CORES + 1), context.Queue()
    for clip in clips:
        todo.put(str(clip))
    for _ in range(CORES):
        todo.put(None)
    workers = [context.Process(target=plain_loop, args=(ready, go, todo)) for _ in range(CORES)]
    for worker in workers:
        worker.start()
    ready.wait()
    began = time.monotonic()
    go.wait()
    for worker in workers:
        worker.join()
    took = time.monotonic() - began
    if any(worker.exitcode for worker in workers):
        raise SystemExit("a plain loop broke")
    return took


def plain_loop(ready: Any, go: Any, todo: Any) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    from visavis.stages.voice.diarizer import EmbeddedDiarizer

    torch.set_num_threads(1)
    faces = bare(FacesConfig().max_faces, FacesConfig())
    diarizer = EmbeddedDiarizer(DiarizeConfig().clustering_threshold)
    ready.wait()
    go.wait()
    while (clip := todo.get()) is not None:
        faces(Path(clip), sys.maxsize)
        with av.open(clip) as container:
            resampler = AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
            pieces = [p.to_ndarray()[0] for f in container.decode(audio=0) for p in resampler.resample(f)]
        diarizer.hear(np.concatenate(pieces))


def build(clips: list[Path], warm_up: list[Path], root: Path) -> tuple[float, dict[str, float]]:
    """Seconds that a build takes, and the seconds of work of its items by stage."""
    with opened_once(ray_engine(CONFIG.run), root) as engine:
        run(warm_up, root, engine)
        before = {name: row["seconds"] for name, row in read_status(str(root), DATASET)["stages"].items()}
        began = time.monotonic()
        run(clips, root, engine)
        took = time.monotonic() - began
    after = read_status(str(root), DATASET)["stages"]
    return took, {name: round(row["seconds"] - before.get(name, 0.0), 1) for name, row in after.items()}


@contextmanager
def opened_once(engine: Engine, root: Path) -> Iterator[Engine]:
    """An engine whose workers outlive a build, so that the next one finds them with their models loaded."""
    stages = Build(CONFIG, str(root), engine, Reporter()).stages
    with engine(stages, str(root)) as executor:

        @contextmanager
        def open_again(stages: Stages, root: str) -> Iterator[Executor]:
            yield executor

        yield open_again


def run(clips: list[Path], root: Path, engine: Engine) -> None:
    Build(CONFIG, str(root), engine, Reporter(Console(file=io.StringIO()))).run(find_sources([str(c) for c in clips]))


if __name__ == "__main__":
    main()
