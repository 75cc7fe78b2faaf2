"""Windows a second of `training.rollouts`: by precision, windows together, and graphs. And whether bytes are the same.

    python -m benchmarks.sampling [--device cuda] [--preset paper] [--batch 128 256 512] [--guidance none] [--quick]

Random weights, silence, windows of 50 frames: what it costs does not depend on what is heard. A row is the median of
three runs of a full batch, once captured. Beside it:

floor_s         seconds of a batch at best (`benchmarks.roofline`), the transformer's bytes and arithmetic alone
peak_mb         of the GPU's memory that tensors took while it ran, graphs included, of each window
error           root mean square of the motion's difference to float32's, in deviations
of a GPU also:
need_mb         what `training.rollouts.need_of` measures with 8 windows, by which the batch is chosen
same_bytes      sampled anew, from capture on, the motion is the same to the bit (it must be)
as_it_comes     so is what is computed without graphs

`chosen` is what the product takes on this device where nothing is said.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from benchmarks.clocks import timed
from benchmarks.processes import say
from benchmarks.roofline import Peaks, block_floor, peaks
from benchmarks.stream import config_of, random_model
from visavis.schemas import SAMPLES_PER_FRAME
from visavis.schemas.sampling import Precision, Sampling, SamplingConfig
from visavis.schemas.train import Drop, SamplerConfig
from visavis.training.model import Listener
from visavis.training.precision import TRIED, name_of, settle
from visavis.training.rollouts import Rollouts, need_of

FRAMES = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--preset", choices=("paper", "tiny"), help="default: paper on a GPU, tiny on the CPU")
    parser.add_argument("--batch", type=int, nargs="+", help="windows together; default: 128 256 512, on the CPU 16")
    parser.add_argument("--guidance", default="none", choices=("none", "paper"))
    parser.add_argument("--quick", action="store_true", help="one run of each, two evaluations")
    options = parser.parse_args()
    device, gpu = torch.device(options.device), options.device == "cuda"
    torch.set_num_threads(1)
    preset = options.preset or ("paper" if gpu else "tiny")
    model = random_model(config_of(preset)).to(device)
    sampler = SamplerConfig(steps=2 if options.quick else 10, guidance=options.guidance)
    best = peaks(device)
    batches = options.batch or ([128, 256, 512] if gpu else [16])
    rows = [
        row(deepcopy(model), of, sampler, best, 1 if options.quick else 3, exact(model, of, sampler))
        for batch in batches
        for of in ways(device, batch)
    ]
    chosen = settle(
        SamplingConfig(),
        device,
        on_gpu="bfloat16",
        usual=64,
        need=lambda trial: measured(deepcopy(model), trial, sampler),
    )
    result = {
        "name": "sampling",
        "windows_s": max(each["windows_s"] for each in rows),
        "chosen": chosen.model_dump(),
        "rows": rows,
        "preset": preset,
        "steps": sampler.steps,
        "guidance": sampler.guidance,
        "against": "the bytes and the arithmetic of the transformer, at the rates of a large copy and a large product",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
    }
    print(json.dumps(result))


def ways(device: torch.device, batch: int) -> list[Sampling]:
    """In what can be sampled there; without graphs only what it is held against."""
    if device.type == "cpu":
        wanted: list[tuple[Precision, bool]] = [("float32", False), ("bfloat16", False)]
    else:
        wanted = [("float32", True), ("tf32", True), ("bfloat16", False), ("bfloat16", True)]
    name = name_of(device)
    return [Sampling(device=name, precision=precision, batch=batch, graphs=graphs) for precision, graphs in wanted]


def row(
    model: Listener, sampling: Sampling, sampler: SamplerConfig, best: Peaks, repeats: int, expected: Tensor
) -> dict[str, Any]:
    device, rollouts = model.mean.device, Rollouts(model, sampling)
    given, gpu = silence(model, sampling.batch), device.type == "cuda"
    if gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_reserved() if gpu else 0
    made = sampled(rollouts, given, sampler)
    again = made
    for _ in range(2 if gpu else 0):  # the last block is captured when it comes again
        again = sampled(rollouts, given, sampler)
    seconds = statistics.median(timed(lambda: sampled(rollouts, given, sampler), device) for _ in range(repeats))
    found: dict[str, Any] = sampling.model_dump() | {
        "windows_s": round(sampling.batch / seconds, 1),
        "batch_s": round(seconds, 4),
        "floor_s": round(floor(model, sampling.batch, sampler, best), 5),
        "error": float(f"{float(((made[: len(expected)] - expected) / model.std).square().mean().sqrt()):.3g}"),
    }
    if gpu:
        peak = torch.cuda.max_memory_reserved() - before
        anew = sampled(Rollouts(model, sampling), given, sampler)
        plain = sampled(Rollouts(model, sampling.model_copy(update={"graphs": False})), given, sampler)
        found |= {
            "peak_mb": round(peak / 1e6 / sampling.batch, 2),
            "need_mb": round(measured(model, sampling.model_copy(update={"batch": TRIED}), sampler) / 1e6, 2),
            "same_bytes": torch.equal(made, anew) and torch.equal(made, again),
            "as_it_comes": torch.equal(made, plain),
        }
    say(
        f"{sampling.precision:8} {sampling.batch:4} windows{' as graphs' if sampling.graphs else '':10}"
        f" {found['windows_s']:8.1f} windows/s {1000 * seconds:8.1f} ms a batch, at best {1000 * found['floor_s']:.1f}"
    )
    return found


def exact(model: Listener, sampling: Sampling, sampler: SamplerConfig) -> Tensor:
    """What float32 makes of the first windows."""
    few = sampling.model_copy(update={"precision": "float32", "batch": min(TRIED, sampling.batch), "graphs": False})
    return sampled(Rollouts(model, few), silence(model, few.batch), sampler)


def silence(model: Listener, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    zeros, dim = model.mean.new_zeros, model.motion.dim
    sound = zeros(count, FRAMES * SAMPLES_PER_FRAME)
    return sound, sound, zeros(count, FRAMES, dim), zeros(count, dim)


def sampled(rollouts: Rollouts, given: tuple[Tensor, Tensor, Tensor, Tensor], sampler: SamplerConfig) -> Tensor:
    return rollouts(*given, sampler, [str(i) for i in range(len(given[0]))], "no_user")


def floor(model: Listener, batch: int, sampler: SamplerConfig, best: Peaks) -> float:
    """Seconds of a batch at best, in the weights' precision as the peak is in a GPU's bfloat16."""
    return math.ceil(FRAMES / model.config.block) * block_floor(model, batch, sampler, best)["floor_s"]


def measured(model: Listener, trial: Sampling, sampler: SamplerConfig) -> float:
    drops: list[Drop] = ["no_user"]
    return need_of([(model, drops)], trial, FRAMES, sampler)


if __name__ == "__main__":
    main()
