"""Seconds of a training step: ours against the model as written from the paper (`benchmarks.plain`), in turns.

    python -m benchmarks.train_step [--quick] [--preset paper|tiny] [--device cuda] [--batch 8] [--[no-]compile]

A step is forward, backward, clipping and Adam on windows of 50 frames whose features are at hand. Ours: flow loss,
fused Adam, on a GPU compiled as `optim.compile` does. Plain: the same loss written out, torch's Adam as it comes. Both
in bfloat16 (autocast) on a GPU and in float32 on the CPU.

`mfu` is the arithmetic that the model asks for, 3 × 2 × weights of matrix products × frames and attention over the
window (once more forward for each of two backward products), over what a large matrix product reaches on this device.
`floor_s` is that arithmetic at that rate, and then Adam, which reads and writes 28 bytes a weight.

Predicted: a batch of 8 × 50 frames is 353 GFLOP at preset `paper` (147 M weights), which an H100 does in a
millisecond or two; Adam moves 4 GB, another 1.5 ms; what is left to win lies in the thousands of small kernels.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.clocks import timed
from benchmarks.plain import PlainListener
from benchmarks.processes import say
from benchmarks.roofline import TRAINED_FRAMES as FRAMES
from benchmarks.roofline import peaks, step_floor, step_flops
from benchmarks.stream import DIM, SPEC, config_of, precision, random_model
from visavis.schemas.train import FeatureConfig
from visavis.training.flow import draw_noise, flow_loss
from visavis.training.inputs import compile_network
from visavis.training.model import Conditions, Keep, Listener


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few steps")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--preset", choices=("paper", "tiny"), help="default: paper on a GPU, tiny on the CPU")
    parser.add_argument("--batch", type=int, default=8, help="windows")
    parser.add_argument("--steps", type=int, default=30, help="timed steps of each")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the CPU; 1: processor time is counted")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="default: on a GPU only")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    preset = options.preset or ("paper" if device.type == "cuda" else "tiny")
    config = config_of(preset)
    compile = device.type == "cuda" if options.compile is None else options.compile

    steps = 3 if options.quick else options.steps
    model = random_model(config).to(device).requires_grad_(True).train()
    best = peaks(device)
    flops, peak, floor = step_flops(model, options.batch), best.flops, step_floor(model, options.batch, best)
    ways = {
        "plain": plain_step(model, options.batch, device),
        "ours": our_step(model, options.batch, device, compile=compile),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for step in range(3 + steps):
        for name, run in ways.items():
            seconds = timed(run, device)
            if step >= 3:
                times[name].append(seconds)
    rows = {name: statistics.median(found) for name, found in times.items()}
    for name, seconds in rows.items():
        say(f"{name:6} {1000 * seconds:8.1f} ms a step   mfu {flops / seconds / peak:.2f}")
    say(f"floor  {1000 * floor:8.2f} ms a step")
    result = {
        "name": "train_step",
        "ratio": round(rows["plain"] / rows["ours"], 2),
        "step_s": round(rows["ours"], 5),
        "mfu": round(flops / rows["ours"] / peak, 3),
        "floor_s": round(floor, 6),
        "plain_s": round(rows["plain"], 5),
        "gflop": round(flops / 1e9, 1),
        "peak_gflops": round(peak / 1e9, 1),
        "preset": preset,
        "batch": options.batch,
        "compile": compile,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {options.threads} threads",
        "against": "the same network and loss as one would write them from the paper, in the same precision",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
    }
    print(json.dumps(result))


def batch_of(model: Listener, size: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, Conditions]:
    """Motion, reference, conditions: all normalised."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(device)

    features = model.features.size
    conditions = Conditions(
        drawn(size, FRAMES, features), drawn(size, FRAMES, features), drawn(size, FRAMES, model.motion.dim)
    )
    return drawn(size, FRAMES, DIM), drawn(size, DIM), conditions


def our_step(model: Listener, size: int, device: torch.device, *, compile: bool) -> Callable[[], None]:
    if compile:
        compile_network(model)
    x1, reference, conditions = batch_of(model, size, device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    generator = torch.Generator().manual_seed(0)
    keep, valid = Keep.all(size, device), torch.ones(size, FRAMES, dtype=torch.bool, device=device)

    def step() -> None:
        drawn = draw_noise((size, FRAMES, DIM), model.config.block, generator)
        drawn = type(drawn)(drawn.x0.to(device), drawn.t.to(device))
        with precision(device):
            loss, _ = flow_loss(model, x1, reference, conditions, keep, drawn, valid, "l2")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def plain_step(model: Listener, size: int, device: torch.device) -> Callable[[], None]:
    plain = PlainListener(model.config, FeatureConfig(), SPEC)
    plain.load_state_dict(model.state_dict())
    plain.to(device)
    x1, reference, seen = batch_of(model, size, device)
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-4)

    def step() -> None:
        x0 = torch.randn_like(x1)
        t = torch.rand(size, FRAMES // plain.config.block, device=device).repeat_interleave(plain.config.block, dim=1)
        x_t = t[..., None] * x1 + (1 - t[..., None]) * x0
        with precision(device):
            v, _ = plain(x_t, t, reference, seen.avatar_audio, seen.user_audio, seen.user_motion, (True, True))
        loss = (v.float() - (x1 - x0)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
