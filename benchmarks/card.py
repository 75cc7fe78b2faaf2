"""All that a GPU should show, in ten minutes of its time: streams, training steps, pairs, the loader.

    python -m benchmarks.card --out FOLDER [--device cuda] [--minutes 10] [--quick]

Parts are run one after the other, the most wanted first, each as a process of its own whose result is kept in FOLDER.
What lies there already is not run again; what the minutes did not suffice for, or what failed, is run the next time.
FOLDER/card.json has everything, and is written after every part; it is printed at the end.

stream-1, stream-64   a block of one session and of 64: plain, computed as it comes, captured, compiled, in a pool
train-8, train-64     a training step of 8 and of 64 windows, compiled
sampling              windows a second by precision, windows together and graphs; whether bytes are the same
pairs                 the whole stage beside the bare sampler, preset `paper`, no guidance, as it chooses by itself
loader                windows a second of one thread, beside what a compiled step of 64 takes (`wanted_samples_s`)

The floor of each figure (weights' bytes over bandwidth, arithmetic over peak, both measured there) stands beside it.
`--quick` runs all parts small, as a test that they work: preset `tiny`, a few blocks, on whatever device.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.processes import say

PARTS = {
    "stream-1": "stream --device {device} --blocks 20",
    "train-64": "train_step --device {device} --batch 64",
    "stream-64": "stream --device {device} --sessions 64 --blocks 10",
    "train-8": "train_step --device {device} --batch 8",
    "sampling": "sampling --device {device}",
    "pairs": "pairs --device {device} --preset paper --windows 2048 --repeat 2 --kills 0",
    "loader": "loader --device {device} --samples 4096 --repeat 3 --seconds 0",
}
QUICK = {
    "stream-1": "stream --device {device} --preset tiny --quick --threads 1",
    "train-64": "train_step --device {device} --preset tiny --quick --threads 1 --batch 16",
    "stream-64": "stream --device {device} --preset tiny --quick --threads 1 --sessions 4",
    "train-8": "train_step --device {device} --preset tiny --quick --threads 1 --batch 8",
    "sampling": "sampling --device {device} --preset tiny --quick --batch 8",
    "pairs": "pairs --device {device} --batch 32 --windows 64 --repeat 1 --kills 0",
    "loader": "loader --device {device} --samples 256 --repeat 1 --seconds 0",
}
LEAST = 20.0
"""Seconds that must be left for a part to begin."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of results; what lies there is not run again")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    parts = QUICK if options.quick else PARTS
    before, over = wanted(options.out, parts, options.device), time.monotonic() + 60 * options.minutes
    for name in before:
        left = over - time.monotonic()
        if left < LEAST:
            say(f"{name}: no time left")
            continue
        say(f"--- {name}, {left:.0f} s left")
        run(options.out, name, parts[name].format(device=options.device), left)
        gather(options.out, parts, options.device)
    result = gather(options.out, parts, options.device)
    print(json.dumps(result))
    if result["left_out"]:
        sys.exit(f"left out: {', '.join(result['left_out'])}; run it again with --out {options.out}")


def wanted(out: Path, parts: dict[str, str], device: str) -> list[str]:
    """Parts that have no result of this very command yet."""
    return [name for name, words in parts.items() if kept(out, name, words.format(device=device)) is None]


def kept(out: Path, name: str, words: str) -> dict[str, Any] | None:
    """A part's result, if it was run with these words."""
    file = out / f"{name}.json"
    found: dict[str, Any] | None = json.loads(file.read_text()) if file.is_file() else None
    return found if found is not None and found["command"] == words else None


def run(out: Path, name: str, words: str, seconds: float) -> None:
    """Run a part and keep its result, or say why there is none."""
    began = time.monotonic()
    command = [sys.executable, "-m", f"benchmarks.{words.split()[0]}", *words.split()[1:]]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        say(f"{name}: not done within {seconds:.0f} s")
        return
    if done.returncode:
        say(f"{name}: ended with {done.returncode}")
        return
    result = {"command": words, "took_s": round(time.monotonic() - began, 1)}
    write(out / f"{name}.json", result | json.loads(done.stdout.decode().strip().splitlines()[-1]))


def gather(out: Path, parts: dict[str, str], device: str) -> dict[str, Any]:
    """All results there are, as card.json."""
    found = {name: kept(out, name, words.format(device=device)) for name, words in parts.items()}
    results = {name: result for name, result in found.items() if result is not None}
    if {"loader", "train-64"} <= results.keys():
        step = results["train-64"]
        results["loader"]["wanted_samples_s"] = round(step["batch"] / step["step_s"])
    made = {"name": "card", "parts": results, "left_out": [name for name in parts if name not in results]}
    write(out / "card.json", made)
    return made


def write(file: Path, content: dict[str, Any]) -> None:
    """Whole or not at all."""
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(content, indent=1) + "\n")
    unfinished.replace(file)


if __name__ == "__main__":
    main()
