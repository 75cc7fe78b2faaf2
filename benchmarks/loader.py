"""The loader against a bare loop over the same tars, in one run, in turns.

    python -m benchmarks.loader [--quick] [--samples 4096] [--repeat 5] [--seconds 60] [--steps 20] [--device cuda]

bare    tarfile, numpy.load and soundfile.read, member by member: nothing is checked, grouped, shuffled or batched
loader  what the trainer iterates: sha256 of every shard, order, thinning, checks of every sample, batches of 8; one
        loader for all turns, an epoch in each, as it reads ahead beyond their ends
beside  the same from a process for each class (`training.readers`), as a trainer on a GPU has it

Windows are as `build` writes them (50 frames, 32 dimensions, two voices in turns, all of their metadata), sixteen
shards of four classes. Both sides see every sample once a turn, and read from the page cache. `ratio` is of samples per
second of the processor's time, `ratio_wall` of the clock. `beside` is of this process alone: `trainer_ms` is what a
sample takes of the trainer's own time, with a thread and with processes, and bounds what can be fed to it.

`batches_s` says how many steps of 8 windows a second one rank's loader feeds. `wait_share` is the share of the time for
which somebody who takes a batch `--steps` times a second waits for it, over `--seconds` and at least one change of
shards, which are of full size here (4,096 windows; the clock starts 1,200 before the change); 0 seconds leave it out.

`--device cuda`: the loader's batches are copied to the GPU as well.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from benchmarks.processes import alone, say
from visavis.pipeline.engine.memory import peak_mb
from visavis.schemas import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.schemas.dyads import WindowClass
from visavis.schemas.face_rows import Figures
from visavis.schemas.manifest import MANIFEST_NAME, BalancePlan, Manifest, ShardEntry, dump_manifest
from visavis.schemas.sample import Sample, SampleMeta, encode_sample
from visavis.schemas.storage.store import Store
from visavis.schemas.voice_rows import VoiceFigures
from visavis.stages.face.codec import motion_spec
from visavis.stages.shard import write_shard
from visavis.training.dataset import Dataset
from visavis.training.loader import Batch, Loader, prefetch

FRAMES, DIM, BATCH, SHARDS = 50, 32, 8, 4
FULL = 4096  # windows of a shard
CHANGE = 1200  # windows that are left of one when the clock starts
DISTINCT = 64  # windows of a class; more are the same under other keys
SPEAKS = {WindowClass.SPEAKING: 0b01, WindowClass.LISTENING: 0b10, WindowClass.OVERLAP: 0b11, WindowClass.SILENCE: 0b00}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--steps", type=float, default=20)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if options.quick:
        options.samples, options.repeat, options.seconds = 1024, 3, min(30, options.seconds)
    with tempfile.TemporaryDirectory(prefix="visavis-loader-") as folder:
        result = alone(compared, f"{folder}/small", options.samples, options.repeat, options.device)
        if options.seconds:
            result |= alone(waiting, f"{folder}/large", options.seconds, options.steps)
    print(json.dumps(result))


def compared(folder: str, samples: int, repeat: int, device: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    megabytes = write_windows(folder, tuple(SPEAKS), samples // (SHARDS * len(SPEAKS)), SHARDS)
    say(f"{samples} windows, {megabytes:.0f} MB")
    batches = iter(Loader(Dataset(folder), BATCH))
    others = Loader(Dataset(folder), BATCH, beside=True)
    theirs = iter(others)
    sides: dict[str, Callable[[], int]] = {
        "bare": lambda: bare(folder),
        "loader": lambda: ours(batches, samples, device),
        "beside": lambda: ours(theirs, samples, device),
    }
    assert {side() for side in sides.values()} == {samples}  # both are warm
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    wall: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeat):
        for name, side in sides.items():
            began, began_cpu = time.perf_counter(), time.process_time()
            assert side() == samples
            wall[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - began_cpu)
        say(f"turn {turn + 1}: " + ", ".join(f"{n} {cpu[n][-1]:.2f} s CPU, {wall[n][-1]:.2f} s" for n in sides))
    others.close()
    rate = {name: samples / statistics.median(cpu[name]) for name in sides}
    wall_rate = {name: samples / statistics.median(wall[name]) for name in sides}
    return {
        "name": "loader",
        "ratio": round(statistics.median(b / o for b, o in zip(cpu["bare"], cpu["loader"], strict=True)), 3),
        "ratio_wall": round(statistics.median(b / o for b, o in zip(wall["bare"], wall["loader"], strict=True)), 3),
        "samples_s": round(rate["loader"]),
        "samples_s_wall": round(wall_rate["loader"]),
        "bare_samples_s": round(rate["bare"]),
        "beside_samples_s_wall": round(wall_rate["beside"]),
        "trainer_ms": {name: round(1000 / rate[name], 3) for name in ("loader", "beside")},
        "batches_s": round(wall_rate["loader"] / BATCH),
        "device": device,
        "against": "tarfile, numpy.load and soundfile.read over the same shards",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def waiting(folder: str, seconds: float, steps: float) -> dict[str, Any]:
    """The share of the time for which a trainer of so many steps a second waits, and the memory it takes."""
    write_windows(folder, (WindowClass.LISTENING,), FULL, 2)
    before, longest, waited = peak_mb(), 0.0, 0.0
    state = {"bad": {}, WindowClass.LISTENING.value: [0, 0, FULL - CHANGE]}
    with closing(prefetch(Loader(Dataset(folder), BATCH, state=state))) as batches:
        next(batches)  # the first has to be waited for, once in a run
        began = due = time.perf_counter()
        while due < began + seconds:
            asked = time.perf_counter()
            next(batches)
            longest = max(longest, time.perf_counter() - asked)
            waited += time.perf_counter() - asked
            due = max(due, time.perf_counter() - 1 / steps) + 1 / steps
            time.sleep(max(0.0, due - time.perf_counter()))
        took = time.perf_counter() - began
    say(f"{steps:g} steps a second: waited {waited:.2f} s of {took:.1f} s, {longest:.2f} s at most")
    return {
        "steps": steps,
        "wait_share": round(waited / took, 4),
        "wait_s": round(longest, 3),
        "loader_mb": round(peak_mb() - before),
    }


def bare(folder: str) -> int:
    """Samples seen."""
    seen = 0
    for path in sorted(Path(folder).rglob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                data = io.BytesIO(file.read())
                if member.name.endswith(".npy"):
                    np.load(data, allow_pickle=False)
                elif member.name.endswith(".flac"):
                    soundfile.read(data, dtype="float32")
                else:
                    seen += 1
    return seen


def ours(batches: Iterator[tuple[Batch, Any]], samples: int, device: str) -> int:
    """Samples seen, and copied where they are wanted."""
    return sum(len(batch.to(torch.device(device)).keys) for batch, _ in islice(batches, samples // BATCH))


def write_windows(folder: str, classes: Sequence[WindowClass], count: int, shards: int) -> float:
    """A dataset of `shards` shards of each class, `count` windows in each. Returns its size in MB."""
    store, entries = Store(folder), []
    for label in classes:
        distinct = [encode_sample(window(label, i)) for i in range(min(DISTINCT, count * shards))]
        for number in range(shards):
            path = f"train/{label.value}-{number:06d}.tar"
            windows = (
                (f"{label.value}-{i:06d}", distinct[i % len(distinct)])
                for i in range(number * count, (number + 1) * count)
            )
            size, digest, _ = write_shard(store, path, windows)
            entries.append(ShardEntry(path=path, split="train", label=label, samples=count, bytes=size, sha256=digest))
    seconds = dict.fromkeys(classes, count * shards * FRAMES / FPS)
    manifest = Manifest(
        kind="windows",
        fingerprint="benchmark",
        fps=FPS,
        sample_rate=SAMPLE_RATE,
        window=FRAMES,
        motion=motion_spec("benchmark", DIM, np.zeros(DIM), np.ones(DIM)),
        conversations=1,
        participants=2,
        plan=BalancePlan(
            mixture=dict.fromkeys(classes, 1 / len(classes)),
            keep=dict.fromkeys(classes, 1.0),
            seconds_before=seconds,
            seconds_after=seconds,
        ),
        shards=tuple(entries),
    )
    store.write(MANIFEST_NAME, dump_manifest(manifest))
    return sum(e.bytes for e in entries) / 1e6


def window(label: WindowClass, number: int) -> Sample:
    """A window of the size and the metadata that `build` writes; sounds that FLAC finds as hard as speech."""
    random = np.random.default_rng((SPEAKS[label], number))
    seen = Figures(
        visible=0.97,
        face_size=211.5,
        sharpness=412.25,
        luminance=121.5,
        confidence=0.94,
        yaw=12.1,
        pitch=6.3,
        jitter=0.21,
    )
    heard = VoiceFigures(method="mask", overlapped=0.04, residual_db=-31.5)
    return Sample(
        key=f"{label.value}-{number:06d}",
        avatar_motion=random.standard_normal((FRAMES, DIM)).astype(np.float32),
        user_motion=random.standard_normal((FRAMES, DIM)).astype(np.float32),
        avatar_audio=voice(random, loud=bool(SPEAKS[label] & 1)),
        user_audio=voice(random, loud=bool(SPEAKS[label] & 2)),
        state=np.full(FRAMES, SPEAKS[label], np.uint8),
        valid=np.ones((FRAMES, 2), bool),
        reference=np.zeros(DIM, np.float32),
        meta=SampleMeta(
            conversation="0123456789abcdef0123456789abcdef",
            avatar="0123456789abcdef-0",
            user="0123456789abcdef-1",
            start=25 * number,
            label=label,
            expressiveness=1.25,
            weight=1.0,
            binding=0.93,
            codec="benchmark",
            avatar_figures=seen,
            user_figures=seen,
            avatar_voice=heard,
            user_voice=heard,
        ),
    )


def voice(random: np.random.Generator, *, loud: bool) -> np.ndarray:
    """Harmonics of a gliding pitch under a slow envelope, breath, and the noise of a room; float32 [T · 640]."""
    time_N = np.arange(FRAMES * SAMPLES_PER_FRAME) / SAMPLE_RATE
    pitch_N = 2 * np.pi * np.cumsum(140 + 30 * np.sin(2 * np.pi * (time_N + random.random()))) / SAMPLE_RATE
    spoken_N = sum(np.sin(k * pitch_N + 6.28 * random.random()) / k for k in range(1, 16))
    envelope_N = np.clip(np.sin(2 * np.pi * 3 * (time_N + random.random())), 0, 1)
    room_N = 0.001 * random.standard_normal(len(time_N))
    breath_N = 0.01 * random.standard_normal(len(time_N))
    sound_N = room_N + loud * envelope_N * (0.15 * spoken_N + breath_N)
    return np.clip(sound_N, -1, 1).astype(np.float32)


if __name__ == "__main__":
    main()
