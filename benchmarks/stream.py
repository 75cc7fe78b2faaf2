"""Seconds per block of a stream: ours against the model as written from the paper (`benchmarks.plain`), in turns.

    python -m benchmarks.stream [--quick] [--device cuda] [--preset paper|tiny] [--sessions 1] [--blocks 20]
        [--threads N] [--[no-]compile] [--[no-]graph] [--evaluations 2]

Preset `paper` (147 M parameters), blocks of 10 frames, 10 evaluations and a cache write, three guidance branches, one
session. Weights are random, which changes no time. On a GPU both run in bfloat16, ours is compiled and captured as
graphs, and both are rows, as is a `StreamPool`; on the CPU the ratio is of float32, ours in bfloat16 is a row, and
`--compile` adds one (it takes minutes). `--threads 1` counts processor time, which is what to do on a busy machine.
`--evaluations N` adds rows of a student (`training.distill`): N evaluations and a cache write, one branch.

`floor_s` is what the device needs at best (`benchmarks.roofline`). `graph_off` is the largest difference between the
motion of a graph and of the same work computed as it comes, over six blocks of the same conditions; `graph_off_saved`
the same for a stream that was saved and restored on the way.

Predicted, before anything was tuned: 118 M weights meet 30 tokens in each of 11 passes, 78 GFLOP a block, and the same
in 33 passes of 10 tokens for the plain one. Products with so few rows are bound by reading and packing weights, not by
arithmetic, so fewer passes and packed weights must pay; sums over attention (0.7 % of the FLOPs at 48 keys) cannot.

Latency as the paper counts it is the duration of a block and the compute. `full` has to wait for 75 frames (the
INFP-style baseline), so the ratio is (3.0 s + C75) / (0.4 s + C10), or with the look-ahead of two frames
(3.0 s + C75) / (0.48 s + C10): 7.5 and 6.25 where compute costs nothing. C10 is ten passes of 10 frames, C75 of 75:
were arithmetic all, 7.5 times as much, and the ratio 7.5 on every machine.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.clocks import timed
from benchmarks.plain import PlainListener, PlainStream
from benchmarks.processes import say
from benchmarks.roofline import block_floor, peaks
from visavis.schemas import FPS, SAMPLES_PER_FRAME
from visavis.schemas.manifest import MotionSpec
from visavis.schemas.train import FeatureConfig, ModelConfig, SamplerConfig
from visavis.training.masks import ahead
from visavis.training.model import Listener, build_model
from visavis.training.noise import noise
from visavis.training.pool import StreamPool
from visavis.training.sampler import Stream, rollout
from visavis.training.session import load_stream, save_stream

DIM = 32
SPEC = MotionSpec(
    codec="benchmark",
    dim=DIM,
    rotation=(0, 3),
    translation=(3, 6),
    expression=(6, DIM),
    mean=(0.0,) * DIM,
    std=(1.0,) * DIM,
)
FULL_FRAMES = 75
TINY = Path(__file__).parents[1] / "configs" / "train" / "tiny.yaml"
WARM_UP = 5  # blocks, until the plain one's caches are full
SAMPLER = SamplerConfig()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few blocks")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--preset", choices=("paper", "tiny"), default="paper")
    parser.add_argument("--sessions", type=int, default=1)
    parser.add_argument("--evaluations", type=int, help="of a student, as rows beside the others")
    parser.add_argument("--blocks", type=int, default=20, help="timed blocks of each")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the CPU")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="default: on a GPU only")
    parser.add_argument("--graph", action=argparse.BooleanOptionalAction, help="default: on a GPU, where alone it is")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    if options.graph and device.type != "cuda":
        parser.error("--graph needs --device cuda")
    blocks = 3 if options.quick else options.blocks
    warm_up = 1 if options.quick else WARM_UP
    compile = device.type == "cuda" if options.compile is None else options.compile
    graph = device.type == "cuda" if options.graph is None else options.graph
    with precision(device):
        config, student = config_of(options.preset), options.evaluations
        result = measured(device, blocks, warm_up, compile, graph, options.sessions, config, student)
    result["preset"] = options.preset
    result["device"] = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {options.threads} threads"
    result["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    print(json.dumps(result))


def precision(device: torch.device) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def config_of(preset: str) -> ModelConfig:
    return ModelConfig() if preset == "paper" else ModelConfig.model_validate(yaml.safe_load(TINY.read_text())["model"])


def measured(
    device: torch.device,
    blocks: int,
    warm_up: int,
    compile: bool,
    graph: bool,
    sessions: int,
    config: ModelConfig,
    student: int | None = None,
) -> dict[str, Any]:
    """The result but for the machine. student: evaluations of one."""
    model = random_model(config).to(device)
    if device.type == "cuda":
        model.use_bfloat16()
    low = copy.deepcopy(model).use_bfloat16()
    few = SAMPLER.model_copy(update={"steps": student or 1, "guidance": "none"})
    sources = {"plain": plain_stepper(model, device, sessions), "ours": stepper(model, device, sessions)}
    if device.type == "cpu":
        sources["ours, bfloat16"] = stepper(low, device, sessions)
    faster = faster_ways(model, device, sessions, compile=compile, graph=graph)
    best = ["ours", *faster][-1]
    sources |= faster
    if student:
        sources["student"] = stepper(model, device, sessions, compile=compile, graph=graph, sampler=few)
        sources["student, bfloat16"] = stepper(low, device, sessions, compile=compile, graph=graph, sampler=few)
    sources["pool"] = pooled(model, device, sessions, compile=compile, graph=graph)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sources}
    for block in range(warm_up + blocks):
        for name, (step, remember) in sources.items():
            found = timed(step, device), timed(remember, device)
            if block >= warm_up:
                times[name].append(found)
    rows = {name: round(statistics.median(sum(pair) for pair in found), 4) for name, found in times.items()}
    for name, seconds in rows.items():
        say(f"{name:21} {seconds:7.4f} s a block   {rows['plain'] / seconds:.2f}")
    best_of = peaks(device)
    floor = {name: round(s, 6) for name, s in block_floor(model, sessions, SAMPLER, best_of).items()}
    if student:
        floor |= {f"student_{name}": round(s, 6) for name, s in block_floor(low, sessions, few, best_of).items()}
    say("floor                 " + "  ".join(f"{name} {seconds:.5f}" for name, seconds in floor.items()))
    answers = statistics.median(answer for answer, _ in times[best])
    return {
        "name": "stream",
        "ratio": round(rows["plain"] / rows[best], 2),
        "block_s": rows[best],
        "answer_s": round(answers, 5),
        "sessions": sessions,
        "rows": rows,
        **floor,
        **(graphs_off(model, device) if graph else {}),
        "blocks": blocks,
        **({"latency": latency(device, answers, 1 if blocks <= 3 else 3, config)} if sessions == 1 else {}),
        "against": "the same network as one would write it from the paper, caches included, with the same weights",
    }


def random_model(config: ModelConfig) -> Listener:
    model = build_model(config, FeatureConfig(), SPEC, 0).eval().requires_grad_(False)
    for layer in (model.modulation, model.velocity):  # zero when fresh
        torch.nn.init.normal_(layer.weight, std=0.02, generator=torch.Generator().manual_seed(0))
    return model


def heard(
    frames: int, device: torch.device, sessions: int = 1, generator: torch.Generator | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    avatar, user = 0.1 * torch.randn(2, sessions, frames * SAMPLES_PER_FRAME, device=device, generator=generator)
    return avatar, user, torch.randn(sessions, frames, DIM, device=device, generator=generator)


Step = tuple[Callable[[], object], Callable[[], object]]
"""What gives a block, and what can wait until it was given."""


def keys_of(sessions: int) -> list[str]:
    return [f"session-{i}" for i in range(sessions)]


def stepper(
    model: Listener,
    device: torch.device,
    sessions: int = 1,
    *,
    compile: bool = False,
    graph: bool = False,
    sampler: SamplerConfig = SAMPLER,
) -> Step:
    reference = torch.zeros(sessions, DIM, device=device)
    stream = Stream(model, reference, sampler, keys_of(sessions), compile=compile, graph=graph)
    return lambda: stream.step(*heard(stream.needs, device, sessions)), stream.remember


def faster_ways(model: Listener, device: torch.device, sessions: int, *, compile: bool, graph: bool) -> dict[str, Step]:
    """Ours, captured or compiled, as asked for; the fastest is the last."""
    ways: tuple[tuple[str, bool, dict[str, Any]], ...] = (
        ("ours, graph", graph, {"graph": True}),
        ("ours, compiled", compile, {"compile": True}),
        ("ours, compiled, graph", compile and graph, {"compile": True, "graph": True}),
    )
    return {way: stepper(model, device, sessions, **settings) for way, asked, settings in ways if asked}


def pooled(model: Listener, device: torch.device, sessions: int, *, compile: bool, graph: bool) -> Step:
    """All sessions of a full pool; they begin together, and each is given its own conditions."""
    pool = StreamPool(model, SAMPLER, sessions, compile=compile, graph=graph)
    for key in keys_of(sessions):
        pool.join(key, torch.zeros(DIM, device=device))

    def step() -> object:
        frames = pool.needs("session-0")
        return pool.step(dict(zip(pool.keys, zip(*heard(frames, device, sessions), strict=True), strict=True)))

    return step, pool.remember


def graphs_off(model: Listener, device: torch.device) -> dict[str, float]:
    return {"graph_off": graph_off(model, device), "graph_off_saved": graph_off(model, device, saved=True)}


def graph_off(model: Listener, device: torch.device, *, saved: bool = False) -> float:
    """How far a graph's motion is from that of the same work computed as it comes, in the codec's units."""
    made = []
    for graph in (False, True):
        generator = torch.Generator(device).manual_seed(0)
        stream = Stream(model, torch.zeros(2, DIM, device=device), SAMPLER, keys_of(2), graph=graph)
        for block in range(6):
            made.append(stream.step(*heard(stream.needs, device, 2, generator)))
            if saved and graph and block == 2:
                stream = load_stream(save_stream(stream), model, graph=True)
    return float((torch.cat(made[:6]) - torch.cat(made[6:])).abs().max())


def plain_stepper(model: Listener, device: torch.device, sessions: int = 1) -> Step:
    """Its features come once in a block, as ours do."""
    plain = PlainListener(model.config, FeatureConfig(), SPEC)
    plain.load_state_dict(model.state_dict())
    plain.to(device).requires_grad_(False)
    if device.type == "cuda":
        for layer in plain.blocks.modules():
            if isinstance(layer, torch.nn.Linear):
                layer.to(torch.bfloat16)  # as `use_bfloat16`
    stream = PlainStream(plain, torch.zeros(sessions, DIM, device=device), SAMPLER.steps, SAMPLER.w_a, SAMPLER.w_u)
    block, more = model.config.block, ahead(model.config)

    def step() -> torch.Tensor:
        avatar, user, motion = heard(block + more, device, sessions)
        x = noise(SAMPLER.seed, keys_of(sessions), stream.done // block, block, DIM).to(device)
        return stream.step(x, plain.features(avatar), plain.features(user), motion)

    return step, lambda: None


def latency(device: torch.device, compute_s: float, repeats: int, config: ModelConfig) -> dict[str, float]:
    """Seconds from the start of a block to its motion, for blocks of ours and for `full` at 75 frames.

    compute_s: of a block, without the cache write, which comes after it was given.
    """
    full = random_model(config.model_copy(update={"mask": "full"})).to(device)
    if device.type == "cuda":
        full.use_bfloat16()
    reference, given = torch.zeros(1, DIM, device=device), heard(FULL_FRAMES, device)
    found = [timed(lambda: rollout(full, *given, reference, SAMPLER, ["a"]), device) for _ in range(repeats + 1)]
    full_s = statistics.median(found[1:])
    waits = {"block": config.block / FPS, "look_ahead": ahead(config) / FPS, "full": FULL_FRAMES / FPS}
    ours, theirs = waits["block"] + compute_s, waits["full"] + full_s
    result = {
        "compute_s": compute_s,
        "block_s": ours,
        "block_with_look_ahead_s": ours + waits["look_ahead"],
        "full_s": theirs,
        "full_compute_s": full_s,
        "ratio": theirs / ours,
        "ratio_with_look_ahead": theirs / (ours + waits["look_ahead"]),
        "ratio_without_compute": waits["full"] / waits["block"],
    }
    say("latency         " + "  ".join(f"{name} {value:.2f}" for name, value in result.items()))
    return {name: round(value, 3) for name, value in result.items()}


if __name__ == "__main__":
    main()
