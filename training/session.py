"""A stream's state as bytes: saved here, restored there, and the motion goes on as if nothing had happened.

Tensors in safetensors, plain fields as JSON in one of them: nothing in it can run as code, and the same state gives
the same bytes. Noise is a function of the block's number, so there is no random state to carry. A state belongs to
the weights that made it (`model_id`): caches of another model would give motion, but not that of a listener.

At preset `paper` with three guidance branches a session takes 11.2 MB: keys and values of 38 frames of motion (7.5 MB),
of codes and of the encoder. `model_id` reads all weights, 0.4 s there; whoever saves often computes it once.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from visavis.schemas.errors import UsageError
from visavis.schemas.markers import shaping
from visavis.schemas.train import SamplerConfig
from visavis.training.block import flat
from visavis.training.model import Listener
from visavis.training.sampler import Counts, Stream

FORMAT = 1
_PLAIN = ("start", "encoded", "done")
_CACHES = ("encoder", "codes", "past")
_TENSORS = ("avatar_audio", "user_audio", "user_motion", "mean")
_IN_PLACE = ("past", "mean")
"""What keeps its place in a stream (`training.block`)."""


def model_id(model: Listener) -> str:
    """sha256 of what the model is: configuration, motion latents, weights. It reads all of them."""
    settings = {
        "model": model.config.model_dump(mode="json"),
        "features": shaping(model.features.config),
        "motion": model.motion.model_dump(mode="json"),
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def save_stream(stream: Stream, of: str | None = None) -> bytes:
    """All that `load_stream` needs beside the model. The last block is written into the cache before.

    Args:
        of: the model's id, if it is known.
    """
    stream.remember()
    state = stream.state
    header = {
        "format": FORMAT,
        "model": of or model_id(stream.model),
        "config": stream.config.model_dump(mode="json"),
        "keys": stream.keys,
        "drop": stream.drop,
        "counts": asdict(stream.counts),
        **{name: getattr(state, name) for name in _PLAIN},
    }
    tensors = {"reference": stream.reference} | {name: getattr(state, name) for name in _TENSORS}
    for cache in _CACHES:
        for i, (keys, values) in enumerate(getattr(state, cache)):
            tensors |= {f"{cache}.{i}.keys": keys, f"{cache}.{i}.values": values}
    tensors["header"] = torch.frombuffer(bytearray(json.dumps(header, sort_keys=True).encode()), dtype=torch.uint8)
    data: bytes = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    return data


def load_stream(
    data: bytes,
    model: Listener,
    of: str | None = None,
    *,
    compile: bool = False,
    graph: bool | None = None,
    pack: bool | None = None,
) -> Stream:
    """The stream that was saved, on the model's device.

    Args:
        of: the model's id, if it is known.
        compile, graph, pack: as for `Stream`.

    Raises:
        UsageError: not a whole state, not a finite one, or that of another model. One line.
    """
    try:
        tensors: dict[str, Tensor] = load(data)
        header: dict[str, Any] = json.loads(tensors.pop("header").numpy().tobytes())
        if header["format"] != FORMAT:
            raise UsageError(f"a stream's state of format {header['format']}, this program reads {FORMAT}")
        if header["model"] != (of or model_id(model)):
            raise UsageError(
                f"this stream's state was made by model {header['model'][:12]}…, not by this one; "
                "start the session anew, or restore it with the checkpoint that it ran on"
            )
        broken = [name for name, value in tensors.items() if not torch.isfinite(value).all()]
        if broken:
            raise UsageError(
                f"this stream's state has numbers that are not finite ({broken[0]}); start the session anew"
            )
        tensors = {name: value.to(model.mean.device) for name, value in tensors.items()}
        config = SamplerConfig.model_validate(header["config"])
        how: dict[str, Any] = {"compile": compile, "graph": graph, "pack": pack}
        stream = Stream(model, tensors["reference"], config, header["keys"], header["drop"], **how)
        for name in _PLAIN:
            setattr(stream.state, name, int(header[name]))
        held: dict[str, Any] = {name: tensors[name] for name in _TENSORS}
        for cache in _CACHES:
            layers = range(len(getattr(stream.state, cache)))
            held[cache] = tuple((tensors[f"{cache}.{i}.keys"], tensors[f"{cache}.{i}.values"]) for i in layers)
        for name in held.keys() - set(_IN_PLACE):
            setattr(stream.state, name, held[name])
        _copy([stream.state.mean, *flat(stream.state.past)], [held["mean"], *flat(held["past"])])
        stream.counts = Counts(**header["counts"])
        return stream
    except (SafetensorError, ValidationError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"not a whole state of a stream ({str(error).splitlines()[0]}); start the session anew"
        ) from error


def _copy(into: list[Tensor], held: list[Tensor]) -> None:
    """Raises ValueError: their shapes differ."""
    for place, value in zip(into, held, strict=True):
        if place.shape != value.shape:
            raise ValueError(f"a tensor of {list(value.shape)} where the model keeps {list(place.shape)}")
        place.copy_(value)
