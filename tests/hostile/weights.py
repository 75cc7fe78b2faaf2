"""Hostile checkpoints, weights and codecs."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from tests.hostile.media import Elsewhere


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mknod, (str(self._path),)


def pickles(mark: Path, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """What `torch.load` would read."""

    def saved(thing: object) -> bytes:
        buffer = io.BytesIO()
        torch.save(thing, buffer)
        return buffer.getvalue()

    yield "plain.pt", pickle.dumps(Touch(mark))
    yield "saved.pt", saved({"format": 2, "header": "{}", "model": Touch(mark), "ema": {}, "optimizer": {}})
    yield "legacy.pt", pickle.dumps(119547037146038801333356, 2) + pickle.dumps(1001, 2) + pickle.dumps(Touch(mark), 2)
    yield "deep.pt", b"\x80\x02" + b"(" * 500_000 + b"l" * 100
    yield "empty.pt", b""
    yield "random.pt", rng.bytes(100_000)
    good = saved({"format": 2, "header": "{}", "model": {"a": torch.zeros(4)}, "ema": {}, "optimizer": {}})
    yield "none.pt", good
    yield "claim.pt", good.replace(struct.pack("<I", 4), struct.pack("<I", 0x7FFF_FFFF))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 29))
    yield "bomb.pt", buffer.getvalue()
    for i in range(6):
        data = bytearray(good)
        for _ in range(5):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        yield f"mutant_{i}.pt", bytes(data)


def safetensors(good: bytes, elsewhere: Elsewhere, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Checkpoints in the present form. good: one that is fine."""
    size = int.from_bytes(good[:8], "little")
    header = json.loads(good[8 : 8 + size])
    body = good[8 + size :]

    def built(changed: object, data: bytes = body) -> bytes:
        text = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
        return struct.pack("<Q", len(text)) + text + data

    yield "claim", struct.pack("<Q", 2**62) + good[8:]
    yield "claim_100mb", struct.pack("<Q", 99_000_000) + good[8:]
    yield "header_long", built(b'{"x":"' + b"a" * 90_000_000 + b'"}')
    yield "deep", built(b'{"a":' * 200_000)
    yield "empty", b""
    yield "cut", good[: len(good) // 2]
    yield "none", built({}, b"")
    name = next(key for key in header if key.startswith("model."))
    yield "huge", built(header | {name: {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, len(body)]}})
    yield (
        "overlap",
        built(
            {
                key: value | {"data_offsets": header[name]["data_offsets"]} if key != "__metadata__" else value
                for key, value in header.items()
            }
        ),
    )
    yield "text", built(header | {name: header[name] | {"dtype": "\x1b[2J"}})
    told = header.get("__metadata__", {})
    for key, text in told.items():
        yield f"metadata_deep_{key}", built(header | {"__metadata__": told | {key: "[" * 200_000}})
        yield f"metadata_null_{key}", built(header | {"__metadata__": told | {key: "null"}})
        try:
            inner = json.loads(text)
        except ValueError:
            continue
        if not isinstance(inner, dict) or "config" not in inner:
            continue
        for what, changes in (
            ("width", {"model": inner["config"]["model"] | {"width": 2**30, "heads": 1}}),
            ("depth", {"model": inner["config"]["model"] | {"depth": 10**9}}),
            ("block", {"model": inner["config"]["model"] | {"block": 10**9, "context": 10**9}}),
            ("mels", {"features": inner["config"]["features"] | {"n_mels": 10**9}}),
            (
                "weights",
                {
                    "features": {
                        "kind": "wav2vec2",
                        "weights": f"{elsewhere.address}/w.safetensors",
                        "weights_sha256": "0" * 64,
                    }
                },
            ),
            (
                "weights_file",
                {"features": {"kind": "wav2vec2", "weights": str(elsewhere.file), "weights_sha256": "0" * 64}},
            ),
            ("weights_chain", {"features": {"kind": "wav2vec2", "weights": f"reference://?fo={elsewhere.file}"}}),
        ):
            changed = inner | {"config": inner["config"] | changes}
            yield f"config_{what}", built(header | {"__metadata__": told | {key: json.dumps(changed)}})
        for what, changes in (
            ("step", {"step": 10**30}),
            ("step_negative", {"step": -1}),
            ("manifest", {"manifest": "\x1b[2J"}),
            ("dim", {"motion": inner["motion"] | {"dim": 10**9}}),
            ("loaders", {"loaders": {"windows": [{}] * 100_000}}),
        ):
            yield f"told_{what}", built(header | {"__metadata__": told | {key: json.dumps(inner | changes)}})
    for i in range(8):
        data = bytearray(good)
        for _ in range(4):
            data[int(rng.integers(8 + size))] = int(rng.integers(256))
        yield f"mutant_{i}", bytes(data)
