"""What audio features cost: log-mel, and a wav2vec 2.0 of the real `base` size, by the history that chunks hear.

    python -m benchmarks.features [--seconds 20] [--layer 8]

whole    the encoder's own way, all of the sound at once: what chunks cost is held against this, and nothing may use it
chunked  `training.features` over the same sound, chunks of 10 frames that hear 2 more
stream   the same, chunk by chunk as the sound arrives; `ms` is what one chunk of both voices takes, the longest

Weights are random, which changes no time. One thread, and the time of the processor, so other load matters little:
`realtime` is seconds of one voice encoded in a second of one core.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torchaudio.models import wav2vec2_base

from benchmarks.processes import alone, say
from visavis.pipeline.engine.memory import peak_mb
from visavis.schemas import FPS, SAMPLES_PER_FRAME
from visavis.schemas.train import FeatureConfig, ModelConfig
from visavis.training.encoder import Encoder, load_encoder
from visavis.training.features import LEAD, Wav2Vec2, build_features

HISTORIES = (0, 12, 25, 50)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=20, help="of sound")
    parser.add_argument("--layer", type=int, default=8, help="the encoder's layer that is taken")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        weights = Path(scratch) / "base.safetensors"
        save_file(wav2vec2_base().state_dict(), weights)
        config = FeatureConfig(kind="wav2vec2", weights=str(weights), layers=(options.layer,))
        rows.append({"what": "log-mel"} | alone(measured, FeatureConfig(), options.seconds, "chunked"))
        rows.append({"what": "whole"} | alone(measured, config, options.seconds, "whole"))
        for history in HISTORIES:
            changed = config.model_copy(update={"history": history})
            for way in ("chunked", "stream"):
                found = alone(measured, changed, options.seconds, way)
                rows.append({"what": way, "history": history} | found)
    for row in rows:
        say("  ".join(f"{key} {value}" for key, value in row.items()))
    chunked = next(r for r in rows if r["what"] == "chunked" and r["history"] == FeatureConfig().history)
    result = {
        "name": "features",
        "realtime": chunked["realtime"],
        "rows": rows,
        "against": "the encoder over all of the sound at once",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    print(json.dumps(result))


def measured(config: FeatureConfig, seconds: int, way: str) -> dict[str, float]:
    """Cost of one way, in a process of its own."""
    torch.set_num_threads(1)
    _, encoder = load_encoder(config)
    features = build_features(config, ModelConfig(), encoder)
    audio = 0.1 * torch.randn(1, seconds * FPS * SAMPLES_PER_FRAME, generator=torch.Generator().manual_seed(0))
    if way == "whole":
        assert encoder is not None
        cost, _ = timed(lambda: whole(encoder, config, audio))
    elif way == "stream":
        assert isinstance(features, Wav2Vec2)
        return {"ms": streamed(features, audio.repeat(2, 1)), "peak_mb": round(peak_mb(), 1)}
    else:
        cost, _ = timed(lambda: features(audio))
    return {"realtime": round(seconds / cost, 2), "peak_mb": round(peak_mb(), 1)}


@torch.no_grad()
def whole(encoder: Encoder, config: FeatureConfig, audio_BN: torch.Tensor) -> None:
    encoder.layers(torch.nn.functional.pad(audio_BN, (LEAD, 0)), config.layers)


def streamed(features: Wav2Vec2, audio_BN: torch.Tensor) -> float:
    """The longest time of a chunk once the history is full, ms."""
    chunk, ahead = features.config.chunk, features.config.look_ahead
    first, longest = features.offset + chunk, 0.0
    end = audio_BN.shape[1] // SAMPLES_PER_FRAME
    while first + chunk + ahead <= end:
        start = max(0, first - features.history)
        given = audio_BN[:, start * SAMPLES_PER_FRAME : (first + chunk + ahead) * SAMPLES_PER_FRAME]
        cost, made = timed(lambda given=given, start=start, first=first: features(given, start, first, last=False))  # type: ignore[misc]
        assert made.shape[1] == chunk
        if first >= features.history + chunk:
            longest = max(longest, 1000 * cost)
        first += chunk
    return round(longest, 1)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the processor, and the result."""
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


if __name__ == "__main__":
    main()
