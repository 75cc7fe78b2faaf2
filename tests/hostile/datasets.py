"""Hostile datasets: shards whose bytes are an attack while the manifest's digest fits, and hostile manifests."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import pickle
import shutil
import struct
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.hostile.sidecars import _npy, _raw_npy
from tests.scale import FEW, some
from tests.training.synthetic import write_dataset
from visavis.schemas.dyads import WindowClass

COUNTS = {WindowClass.LISTENING: 2, WindowClass.SPEAKING: 2}
SHARD = "train-listening-00000.tar"

Change = Callable[[bytes], bytes]
Damage = Callable[[dict[str, bytes]], dict[str, bytes]]


def write_all(folder: Path, secret: Path, seed: int, *, pairs: bool = False) -> Iterator[Path]:
    """Every hostile dataset, a folder each."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    good = write_dataset(folder / "good", COUNTS, val=1, pairs=pairs)
    for name, change in [] if pairs else some(shards(rng, secret), FEW):  # it is the same reader
        yield _with_shard(good, folder / f"shard_{name}", change((good / SHARD).read_bytes()))
    for name, damage in some(members(rng, pairs), FEW):
        yield write_dataset(
            folder / f"member_{name}", COUNTS, val=1, pairs=pairs, damage=lambda _, m, d=damage: d(dict(m))
        )
    for name, data in some(manifests(json.loads((good / "manifest.json").read_bytes()), secret), FEW):
        yield _with_manifest(good, folder / f"manifest_{name}", data)
    for name, place in some((("linked", secret), ("zeros_for_ever", Path("/dev/zero")), ("root", Path("/")))):
        copy = _with_manifest(good, folder / f"shard_{name}", (good / "manifest.json").read_bytes())
        (copy / SHARD).unlink()
        (copy / SHARD).symlink_to(place)
        yield copy
    copy = folder / "manifest_link"
    shutil.copytree(good, copy)
    (copy / "manifest.json").unlink()
    (copy / "manifest.json").symlink_to("/dev/zero")
    yield copy


def _with_shard(good: Path, folder: Path, data: bytes) -> Path:
    shutil.copytree(good, folder)
    (folder / SHARD).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for entry in manifest["shards"]:
        if entry["path"] == SHARD:
            entry |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def _with_manifest(good: Path, folder: Path, data: bytes) -> Path:
    shutil.copytree(good, folder)
    (folder / "manifest.json").write_bytes(data)
    return folder


def shards(rng: np.random.Generator, secret: Path) -> Iterator[tuple[str, Change]]:
    """Tars."""
    yield "gz", gzip.compress
    yield "xz", lambda data: lzma.compress(data)
    yield "bz2", bz2.compress
    yield "gz_bomb", lambda _: gzip.compress(bytes(1 << 30), 1)
    yield "xz_bomb", lambda _: lzma.compress(bytes(1 << 28), preset=0)
    yield "empty", lambda _: b""
    yield "zeros", lambda _: bytes(1 << 20)
    yield "random", lambda data: rng.bytes(len(data))
    yield "cut", lambda data: data[: len(data) // 2]
    yield "doubled", lambda data: data + data
    for name, kind in (
        ("symlink", tarfile.SYMTYPE),
        ("hardlink", tarfile.LNKTYPE),
        ("fifo", tarfile.FIFOTYPE),
        ("device", tarfile.CHRTYPE),
        ("sparse", tarfile.GNUTYPE_SPARSE),
        ("directory", tarfile.DIRTYPE),
    ):
        yield name, lambda _, kind=kind: _tar([("listening-00000.meta.json", b"{}", kind, str(secret))])
    for i, name in enumerate(
        (
            "../../escape.meta.json",
            "/etc/escape.meta.json",
            "a" * 5000 + ".meta.json",
            "\x1b[2J.meta.json",
            "-.-.json",
            "k\n.meta.json",
            ".meta.json",
            "CON.meta.json",
        )
    ):
        yield f"name_{i}", lambda _, name=name: _tar([(name, b"{}", tarfile.REGTYPE, "")])
    yield "many", lambda _: _tar([(f"k{i}.x", b"", tarfile.REGTYPE, "") for i in range(60_000)])
    yield "size", lambda data: data[:124] + b"77777777777\0" + data[136:]
    yield "size_256", lambda data: data[:124] + b"\x80" + b"\x7f" * 11 + data[136:]
    yield "size_negative", lambda data: data[:124] + b"\xff" * 12 + data[136:]
    yield "pax", lambda data: _pax({"size": "99999999999999", "path": "x" * 9000}) + data
    yield (
        "pax_sparse",
        lambda data: _pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9" * 12}) + data,
    )
    yield "pax_deep", lambda data: _pax({f"k{i}": "v" * 50 for i in range(20_000)}) + data
    for i in range(10):
        yield f"mutant_{i}", lambda data, i=i: _harmed(data, np.random.default_rng(i))


def _harmed(data: bytes, rng: np.random.Generator) -> bytes:
    from tests.stages.test_damage import harm

    return harm(data, rng)


def _tar(entries: list[tuple[str, bytes, bytes, str]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data, kind, target in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            info.size = len(data) if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _pax(fields: dict[str, str]) -> bytes:
    info = tarfile.TarInfo("x")
    return info.create_pax_global_header(fields)


def members(rng: np.random.Generator, pairs: bool) -> Iterator[tuple[str, Damage]]:
    """Members of samples."""

    def put(**data: bytes) -> Damage:
        named = {name.replace("__", "."): content for name, content in data.items()}
        return lambda m: m | named

    for name, shape in (("wide", (50, 2**40)), ("long", (2**50, 12)), ("negative", (-50, 12)), ("deep", (1,) * 70)):
        yield f"npy_{name}", put(avatar__motion__npy=_npy("<f4", shape, bytes(2400)))
    yield "npy_object", put(avatar__motion__npy=_npy("|O", (50, 12), pickle.dumps([1])))
    yield "npy_pickle", put(avatar__motion__npy=b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.")
    yield "npy_text", put(avatar__motion__npy=_npy("<U9999999", (50, 12), bytes(2400)))
    yield "npy_header", put(state__npy=_raw_npy(b"(" * 60_000, b""))
    yield "npy_claim", put(valid__npy=b"\x93NUMPY\x03\x00" + struct.pack("<I", 0xFFFF_FFF0) + b"{")
    yield "npy_nan", put(reference__npy=_npy("<f4", (12,), b"\xff" * 48))
    yield "npz", put(reference__npy=b"PK\x03\x04" + rng.bytes(500))
    streaminfo = (
        struct.pack(">HH", 4096, 4096)
        + bytes(6)
        + ((16_000 << 44) | (15 << 36) | (2**36 - 1)).to_bytes(8, "big")
        + bytes(16)
    )
    yield "flac_claim", put(avatar__audio__flac=b"fLaC\x80\x00\x00\x22" + streaminfo + rng.bytes(900))
    yield "flac_long", put(user__audio__flac=_silence(60 * 60 * 16_000))
    yield "flac_wav", put(user__audio__flac=b"RIFF\xff\xff\xff\xffWAVEfmt " + rng.bytes(500))
    yield "flac_text", put(user__audio__flac=b"#EXTM3U\n/etc/passwd\n")
    for name, text in (
        ("deep", b"[" * 100_000),
        ("number", b'{"conversation":' + b"9" * 50_000 + b"}"),
        ("nan", b'{"weight": NaN}'),
        ("long", b'{"x": "' + b"a" * (32 << 20) + b'"}'),
        ("control", b'{"conversation": "\\u001b[2J"}'),
        ("null", b"null"),
        ("list", b"[]"),
        ("twice", b'{"start": 1, "start": 2}'),
        ("bytes", rng.bytes(300)),
        ("unknown", b'{"unknown": "a.b.c d.e"}'),
    ):
        yield f"json_{name}", put(meta__json=text)
    yield "control_key", lambda m: _with_meta(m, conversation="\x1b[2J\u202e", avatar="<script>", user="x" * 100_000)
    yield "gone", lambda m: {"meta.json": m["meta.json"]}
    yield "extra", put(**{"__init____py": b"import os", "x" * 40: b""})
    if pairs:
        yield "pair_deep", put(pair__json=b'{"a":' * 50_000)
        yield "pair_shape", put(chosen__motion__npy=_npy("<f4", (2**33, 12), bytes(2400)))


def _with_meta(members: dict[str, bytes], **changes: Any) -> dict[str, bytes]:
    return members | {"meta.json": json.dumps(json.loads(members["meta.json"]) | changes).encode()}


def _silence(samples: int) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(samples, np.int16), 16_000, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def manifests(good: dict[str, Any], secret: Path) -> Iterator[tuple[str, bytes]]:
    """Manifests."""

    def changed(**changes: Any) -> bytes:
        return json.dumps(good | changes).encode()

    def shard(**changes: Any) -> bytes:
        return changed(shards=[good["shards"][0] | changes, *good["shards"][1:]])

    def motion(**changes: Any) -> bytes:
        return changed(motion=good["motion"] | changes)

    yield "deep", b"[" * 200_000
    yield "deep_object", b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    yield "empty", b""
    yield "null", b"null"
    yield "long", b'{"x": "' + b"a" * (300 << 20) + b'"}'
    yield "number", b'{"schema_version": ' + b"9" * 100_000 + b"}"
    yield "nan", json.dumps(good | {"fps": float("nan")}).encode()
    yield "control", b'{"\\u001b[2J": 1}'
    yield "window", changed(window=10**12)
    yield "window_negative", changed(window=-5)
    yield "rate", changed(sample_rate=10**12, fps=10**12)
    yield "dim", motion(dim=10**9)
    yield "dim_columns", motion(rotation=[0, 10**9], translation=[-5, 3])
    yield "std", motion(std=[1e-300] * 12, mean=[1e300] * 12)
    yield "codec", motion(codec="\x1b[2J" * 1000)
    for name, path in (
        ("up", "../../x.tar"),
        ("absolute", f"{secret}.tar"),
        ("url", "http://127.0.0.1:9/x.tar"),
        ("windows", "c:\\x.tar"),
        ("nul", "a\0.tar"),
        ("long", "a" * 5000 + ".tar"),
        ("newline", "a\n.tar"),
    ):
        yield f"path_{name}", shard(path=path)
    yield "samples", shard(samples=10**15)
    yield "samples_negative", shard(samples=-1)
    yield "bytes", shard(bytes=10**15)
    yield "bytes_few", shard(bytes=1)
    yield "sha", shard(sha256="\x1b[2J")
    yield "many", changed(shards=good["shards"][:1] * 300_000)
    yield "codec_file", changed(codec={"path": "codec.safetensors", "bytes": 10**15, "sha256": "0" * 64})
    yield "mixture", changed(plan=good["plan"] | {"mixture": {"listening": 1e308, "speaking": 1e308}})
    yield "mixture_none", changed(plan=good["plan"] | {"mixture": {}})
    yield "version", changed(schema_version=10**30)
    yield "twice", json.dumps(good).encode() * 2
