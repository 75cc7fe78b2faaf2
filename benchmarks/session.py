"""Ten minutes of streaming: time and memory of a block, and what becomes of the motion.

    python -m benchmarks.session [--checkpoint FILE] [--minutes 10] [--sessions 4] [--quick]

Conversations of the reactive corpus that no model was trained on, a minute each, are given over and over again, so the
last minute hears and sees what the first did: what differs is the stream's own. Without a checkpoint a `tiny` model is
trained for 500 steps first.

    spread   deviation of the motion in a minute over that in the first, mean over dimensions and sessions
    offset   distance of a minute's mean from the first one's, in deviations, likewise

Then the anchor: the same model, made to lean (a constant in its velocity that moves every block by `LEAN` training
deviations), for three minutes with the anchor off and on. `offset` there is from the sessions' reference.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.listeners import Rule
from benchmarks.processes import say
from benchmarks.reactive import AVATAR, USER, Corpus, make_dyad, make_voices, write_corpus
from visavis.schemas import FPS, SAMPLES_PER_FRAME
from visavis.schemas.sample import decode_audio
from visavis.schemas.train import SamplerConfig, TrainConfig
from visavis.training.checkpoint import load_checkpoint, load_model
from visavis.training.model import Listener
from visavis.training.sampler import Stream
from visavis.training.session import save_stream
from visavis.training.train import train

TINY = Path(__file__).parents[1] / "configs" / "train" / "tiny.yaml"
CORPUS = Corpus(train=100, val=4)
MINUTE = 60 * FPS
LEAN = 0.1
LEANING_MINUTES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--sessions", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="two sessions, three minutes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sessions, minutes = (2, 3) if options.quick else (options.sessions, options.minutes)
    with tempfile.TemporaryDirectory() as scratch:
        loaded = load_checkpoint(options.checkpoint or trained(Path(scratch)))
    model, given = load_model(loaded), conversations(sessions)
    sampler = loaded.config.sampler
    long = streamed(model, given, sampler, minutes)
    first, last = long["minutes"][0], long["minutes"][-1]
    say(f"{minutes} minutes   spread {last['spread']:.3f}   offset {last['offset']:.3f} deviations")
    say(f"block {1000 * first['block_s']:.1f} ms in the first minute, {1000 * last['block_s']:.1f} ms in the last")
    with torch.no_grad():
        model.velocity.bias.add_(LEAN)
    leaning = []
    for anchor in (0.0, 0.5, 0.9):
        config = sampler.model_copy(update={"anchor": anchor})
        found = streamed(model, given, config, LEANING_MINUTES)
        row = {"anchor": anchor, "offset": found["from_reference"], "spread": found["spread"]}
        leaning.append(row)
        say("leaning   " + "  ".join(f"{name} {value}" for name, value in row.items()))
    result = {
        "name": "session",
        "spread": last["spread"],
        "offset": last["offset"],
        "block_s": [first["block_s"], last["block_s"]],
        "state_bytes": long["bytes"],
        "minutes": long["minutes"],
        "leaning": leaning,
        "against": "the first minute of the same stream",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    print(json.dumps(result))


def trained(folder: Path) -> Path:
    say("training a tiny model")
    write_corpus(folder / "corpus", CORPUS, Rule())
    return train(str(folder / "corpus"), folder / "run", TrainConfig.model_validate(yaml.safe_load(TINY.read_text())))


def conversations(sessions: int) -> dict[str, torch.Tensor]:
    """A minute each of conversations beyond those that any corpus here trains on."""
    numbers = range(900_000, 900_000 + sessions)
    dyads = [make_dyad(CORPUS, Rule(), number) for number in numbers]
    voices = [make_voices(CORPUS, number) for number in numbers]

    def heard(who: int) -> torch.Tensor:
        return torch.from_numpy(np.stack([decode_audio(v.audio[who].tobytes()) for v in voices]))

    return {
        "avatar_audio": heard(AVATAR),
        "user_audio": heard(USER),
        "user_motion": torch.from_numpy(np.stack([dyad.motion[USER] for dyad in dyads])),
        "reference": torch.from_numpy(np.stack([dyad.reference[AVATAR] for dyad in dyads])),
    }


def streamed(model: Listener, given: dict[str, torch.Tensor], config: SamplerConfig, minutes: int) -> dict[str, Any]:
    """Generate, and look at each minute."""
    reference = given["reference"]
    stream = Stream(model, reference, config, [f"session-{i}" for i in range(len(reference))])
    blocks, seconds, sizes = [], [], []
    while stream.state.done < minutes * MINUTE:
        frames = torch.arange(stream.state.given, stream.state.given + stream.needs) % MINUTE
        samples = (frames[:, None] * SAMPLES_PER_FRAME + torch.arange(SAMPLES_PER_FRAME)).flatten()
        voices = given["avatar_audio"][:, samples], given["user_audio"][:, samples]
        began = time.process_time()
        blocks.append(stream.step(*voices, given["user_motion"][:, frames]))
        stream.remember()
        seconds.append(time.process_time() - began)
        if stream.state.done % MINUTE == 0:
            sizes.append(len(save_stream(stream)))
    motion = model.normalise(torch.cat(blocks, dim=1))
    parts = torch.split(motion, MINUTE, dim=1)
    mean, std = parts[0].mean(dim=1), parts[0].std(dim=1)
    per_minute = len(seconds) // minutes
    rows = [
        {
            "spread": round((part.std(dim=1) / std).mean().item(), 3),
            "offset": round(((part.mean(dim=1) - mean).abs() / std).mean().item(), 3),
            "block_s": round(statistics.median(seconds[i * per_minute : (i + 1) * per_minute]), 5),
            "bytes": size,
        }
        for i, (part, size) in enumerate(zip(parts, sizes, strict=True))
    ]
    # Two minutes are enough for any anchor to have come on.
    settled = parts[-1]
    return {
        "minutes": rows,
        "bytes": max(sizes),
        "from_reference": round((settled.mean(dim=1) - model.normalise(reference)).mean().item(), 3),
        "spread": round(settled.std(dim=1).mean().item(), 3),
    }


if __name__ == "__main__":
    main()
