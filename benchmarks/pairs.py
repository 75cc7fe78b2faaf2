"""Pairs per second beside the bare sampler's rate on the same windows, in one run, in turns.

    python -m benchmarks.pairs [--quick] [--windows 2048] [--batch N] [--repeat 3] [--device cpu] [--preset tiny]

bare   `rollout` of the rejected motion, batch by batch, of windows decoded in memory: nothing is read or written
pairs  the stage: reads a shard, decodes, samples with the same batches, judges, encodes and writes a shard

Both sample alike: as the product does where nothing is said (`sampling` in the result), or as `--precision` and
`--batch` say. `floor_s` is what all windows take at best (`benchmarks.roofline`: the transformer alone).

Both take one thread of the processor, as a worker with one CPU does (reading ahead has a thread of its own). Weights
are random: what a model costs does not depend on what it knows. The gate lets every pair through, so that all are
written.
With `--kills` a run on the command line is killed so many times, resumed, and compared byte for byte with one that was
not (`byte_identical`). `done_before`: shards that the last run found done; the ledger is written every 5 s.

`ratio` is the median of those within a turn, of seconds of the clock; `ratio_cpu` of the processor's time.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.loader import write_windows
from benchmarks.processes import alone, say
from benchmarks.roofline import peaks
from benchmarks.sampling import floor
from visavis.pipeline.engine.executor import local_engine
from visavis.pipeline.engine.memory import peak_mb
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.plan.pairs import build_pairs
from visavis.pipeline.plan.pairs_order import PairsRequest, plan_pairs
from visavis.schemas.dyads import WindowClass
from visavis.schemas.pairs import GateConfig, PairsConfig
from visavis.schemas.recipes import load_config
from visavis.schemas.train import FeatureConfig, ModelConfig, SamplerConfig, TrainConfig
from visavis.stages.pairing.reference_statistics import learn_from
from visavis.stages.pairs import PairsInput, PairsStage
from visavis.training.checkpoint import Checkpoint, load_checkpoint, load_model, save_checkpoint
from visavis.training.dataset import Dataset
from visavis.training.loader import Batch, collate
from visavis.training.model import build_model
from visavis.training.rollouts import Rollouts

OPEN = GateConfig(min_reactivity_margin=-10, min_distance=0, max_jerk_ratio=1e9, max_off_manifold=1e9)


TINY = ModelConfig(width=32, depth=2, heads=2, encoder_width=16, encoder_heads=2)
_LEDGER_SECONDS = 6.0  # the ledger is written every 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--windows", type=int, default=2048)
    parser.add_argument("--batch", type=int, help="windows together; default: the product's")
    parser.add_argument("--precision", choices=("auto", "float32", "tf32", "bfloat16"), default="auto")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--preset", default="tiny", help="of configs/train")
    options = parser.parse_args()
    if options.quick:
        options.windows, options.repeat, options.kills = 256, 6, min(options.kills, 1)
    with tempfile.TemporaryDirectory(prefix="visavis-pairs-") as folder:
        result = alone(compared, f"{folder}/speed", vars(options))
        if options.kills:
            result |= alone(killed_and_resumed, Path(folder) / "kills", options.windows, options.kills)
        print(json.dumps(result))


def compared(folder: str, options: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(1)
    megabytes = write_windows(f"{folder}/windows", (WindowClass.LISTENING,), options["windows"], 1)
    say(f"{options['windows']} windows, {megabytes:.0f} MB")
    recipe = load_config(Path("configs/train") / f"{options['preset']}.yaml", TrainConfig)
    data = Dataset(f"{folder}/windows")
    checkpoint = Path(folder) / "checkpoint.safetensors"
    untrained(checkpoint, recipe, data)
    sampler = SamplerConfig(steps=recipe.sampler.steps, guidance="none")
    config = PairsConfig(
        gate=OPEN,
        sampler=sampler,
        batch=options["batch"],
        precision=options["precision"],
        unit=options["windows"],
        shortfall_share=0,
        device=options["device"],
    )
    stage = PairsStage(config, data.location, str(checkpoint), f"{folder}/pairs")
    stage.setup()
    reference = learn_from(data, WindowClass.LISTENING, config)
    (plan,) = plan_pairs(data, config)
    item = PairsInput(**dict(plan), reference=reference)
    if (sampling := stage.sampling) is None:
        raise RuntimeError("the stage does not sample")
    model = load_model(load_checkpoint(checkpoint), options["device"])
    rollouts = Rollouts(model, sampling)
    batches = decoded(data, sampling.batch, options["device"])

    def ours() -> int:
        stage.forget()  # reading and unpacking the shard is a part of it
        (row,) = stage.process(item)
        return row.entry.samples

    sides: dict[str, Callable[[], int]] = {"bare": lambda: bare(rollouts, batches, sampler), "pairs": ours}
    bare(rollouts, batches[:2], sampler)  # warm
    wall: dict[str, list[float]] = {name: [] for name in sides}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(options["repeat"]):
        for name, side in list(sides.items())[:: 1 if turn % 2 else -1]:
            began, began_cpu = time.perf_counter(), time.process_time()
            assert side() == options["windows"]
            wall[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - began_cpu)
        say(f"turn {turn + 1}: " + ", ".join(f"{n} {wall[n][-1]:.1f} s ({cpu[n][-1]:.1f} s CPU)" for n in sides))

    def ratio(times: dict[str, list[float]]) -> float:
        return round(statistics.median(b / p for b, p in zip(times["bare"], times["pairs"], strict=True)), 3)

    return {
        "name": "pairs",
        "ratio": ratio(wall),
        "ratio_cpu": ratio(cpu),
        "pairs_s": round(options["windows"] / statistics.median(wall["pairs"]), 1),
        "bare_s": round(options["windows"] / statistics.median(wall["bare"]), 1),
        "windows": options["windows"],
        "sampling": sampling.model_dump(),
        "floor_s": round(floor(model, options["windows"], sampler, peaks(model.mean.device)), 3),
        "preset": options["preset"],
        "steps": sampler.steps,
        "device": options["device"],
        "peak_mb": round(peak_mb(), 1),
        "against": "rollout of the rejected motion of the same windows, decoded in memory, in the same batches",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def killed_and_resumed(folder: Path, windows: int, kills: int, model: ModelConfig = TINY) -> dict[str, Any]:
    """A run that was killed after every other few shards, beside one that was not."""
    unit = max(1, windows // 16)
    write_windows(str(folder / "windows"), (WindowClass.LISTENING,), windows // 2, 2)
    data = Dataset(str(folder / "windows"))
    untrained(folder / "checkpoint.safetensors", TrainConfig(model=model, features=FeatureConfig(n_mels=8)), data)
    sampler = SamplerConfig(steps=1, guidance="none")
    config = PairsConfig(sampler=sampler, gate=OPEN, unit=unit, device="cpu")
    recipe = folder / "pairs.yaml"
    recipe.write_text(config.model_dump_json(), encoding="utf-8")  # JSON is YAML
    words = [sys.executable, "-m", "visavis", "pairs", data.location, str(folder / "checkpoint.safetensors")]
    words += ["--out", str(folder / "killed"), "--engine", "local", "--config", str(recipe)]
    shards = folder / "killed" / "dataset" / "train"
    for number in range(kills):
        wanted = len(list(shards.glob("*.tar"))) + max(1, 12 // kills)
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        _until(shards, wanted - 2, process)
        process.send_signal(signal.SIGSTOP)  # so that the ledger is written, however fast the machine
        time.sleep(_LEDGER_SECONDS)
        process.send_signal(signal.SIGCONT)
        _until(shards, wanted, process)
        process.kill()
        if process.wait() != -signal.SIGKILL:
            raise RuntimeError(f"the run ended with {process.returncode} before it could be killed")
        say(f"kill {number + 1}: {len(list(shards.glob('*.tar')))} of 16 shards were written")
    quiet = Reporter(Console(file=io.StringIO()))
    request = PairsRequest(data.location, str(folder / "checkpoint.safetensors"), config)
    killed, whole = (build_pairs(request, str(folder / name), local_engine, quiet) for name in ("killed", "whole"))
    files = [
        {path.relative_to(made.dataset): path.read_bytes() for path in Path(made.dataset).rglob("*") if path.is_file()}
        for made in (killed, whole)
    ]
    return {
        "kills": kills,
        "killed_windows": windows,
        "killed_kept": killed.kept,
        "done_before": whole.processed - killed.processed,
        "byte_identical": files[0] == files[1],
    }


def _until(shards: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    """Wait for so many shards, or for the end of what makes them."""
    while len(list(shards.glob("*.tar"))) < count and process.poll() is None:
        time.sleep(0.005)


def untrained(path: Path, recipe: TrainConfig, data: Dataset) -> None:
    """A checkpoint of random weights."""
    model = build_model(recipe.model, recipe.features, data.manifest.motion, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.02 * torch.randn(weight.shape, generator=generator))
    weights = model.state_dict()
    made = Checkpoint(
        config=recipe, motion=data.manifest.motion, manifest=data.hash, step=0, model=weights, ema=weights, optimizer={}
    )
    save_checkpoint(made, path)


def decoded(data: Dataset, size: int, device: str) -> list[Batch]:
    samples = list(data.samples("train"))
    return [collate(samples[i : i + size]).to(torch.device(device)) for i in range(0, len(samples), size)]


def bare(rollouts: Rollouts, batches: list[Batch], sampler: SamplerConfig) -> int:
    """Windows sampled."""
    for b in batches:
        given = b.avatar_audio, b.user_audio, b.user_motion, b.reference
        rollouts(*given, sampler, b.keys, "no_user").cpu().numpy()
    return sum(len(b.keys) for b in batches)


if __name__ == "__main__":
    main()
