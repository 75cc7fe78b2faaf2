"""Datasets of strangers: whatever lies in a shard is read right or refused in one line, and takes no more memory than
the shard has bytes. The manifest fits each of them, or their sha256 would hide what the readers do."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from tests.training.synthetic import sample, write_dataset
from visavis.pipeline.cli.verify import verify_dataset
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import DatasetError
from visavis.schemas.manifest import MANIFEST_NAME, Manifest, dump_manifest, parse_manifest
from visavis.schemas.sample import decode_sample, encode_sample
from visavis.training.dataset import Dataset

LISTENING = WindowClass.LISTENING
Members = dict[str, bytes]


@cache
def good() -> tuple[tuple[str, Members], ...]:
    return tuple((one.key, encode_sample(one)) for one in (sample(n, frames=10) for n in range(2)))


def packed(files: dict[str, bytes], change: Callable[[tarfile.TarInfo], None] | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if change:
                change(info)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def files_of(samples: tuple[tuple[str, Members], ...] | None = None) -> dict[str, bytes]:
    return {f"{key}.{ext}": data for key, members in samples or good() for ext, data in members.items()}


def publish(folder: Path, shard: bytes, samples: int = 2) -> Path:
    """A dataset whose only shard is these bytes, with a manifest that fits them."""
    write_dataset(folder, {LISTENING: 1}, frames=10)
    manifest = parse_manifest((folder / MANIFEST_NAME).read_bytes())
    (entry,) = manifest.shards
    (folder / entry.path).write_bytes(shard)
    size = max(len(shard), 512 * samples)
    made = {"bytes": size, "samples": samples, "sha256": hashlib.sha256(shard).hexdigest()}
    update = {"shards": (entry.model_copy(update=made),)}
    (folder / MANIFEST_NAME).write_bytes(dump_manifest(manifest.model_copy(update=update)))
    return folder


def read(folder: Path) -> list[str]:
    """The keys of all samples. Raises DatasetError where one is not as it should be."""
    data = Dataset(str(folder))
    keys = []
    for one in data.samples("train"):
        assert one.avatar_audio.shape == (10 * 640,)
        assert np.isfinite(one.avatar_motion).all()
        keys.append(one.key)
    return keys


def refused(folder: Path, why: str) -> None:
    with pytest.raises(DatasetError, match=why) as caught:
        read(folder)
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()
    findings = verify_dataset(str(folder))
    assert findings
    assert all(line.isprintable() for line in findings)


def test_what_the_helpers_write_is_read(tmp_path: Path) -> None:
    plain = files_of()
    for number, data in enumerate((packed(plain), packed(plain, format=tarfile.GNU_FORMAT))):
        assert read(publish(tmp_path / str(number), data)) == [key for key, _ in good()]


def linked(kind: bytes) -> Callable[[tarfile.TarInfo], None]:
    def change(info: tarfile.TarInfo) -> None:
        if info.name.endswith("state.npy"):
            info.type, info.linkname, info.size = kind, "/etc/passwd", 0

    return change


def resized(size: bytes) -> bytes:
    """The first header claims another size, and its checksum fits."""
    block = bytearray(packed(files_of())[:512])
    block[124:136] = size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + packed(files_of())[512:]


def pax(**headers: str) -> bytes:
    return packed(files_of(), lambda info: info.pax_headers.update(headers), format=tarfile.PAX_FORMAT)


_plain = packed(files_of())
_first = _plain[: 512 + -(-len(next(iter(files_of().values()))) // 512) * 512]  # a header and its content
_end = _plain.rstrip(b"\0")
_NAME = "no member of a sample"
SHARDS: dict[str, tuple[bytes, str]] = {
    "gzip": (gzip.compress(_plain), "not an uncompressed tar"),
    "bzip2": (bz2.compress(_plain), "not an uncompressed tar"),
    "xz": (lzma.compress(_plain), "not an uncompressed tar"),
    "gzip bomb": (gzip.compress(bytes(16 << 20)), "not an uncompressed tar"),
    "zip": (b"PK\3\4" + bytes(1000), "not an uncompressed tar"),
    "nothing": (b"", "ends without a mark"),
    "zeros": (bytes(10240), "holds 0 samples"),
    "truncated in a member": (_plain[:2000], "claims|truncated|ends without"),
    "truncated in a header": (_plain[: len(_end) - len(_end) % 512 - 300], "."),
    "no end": (_plain[: -(-len(_end) // 512) * 512], "ends without a mark"),
    "trailing": (_plain + b"#!/bin/sh", "follows its end"),
    "a second archive": (_plain + _plain, "follows its end"),
    "symbolic link": (packed(files_of(), linked(tarfile.SYMTYPE)), "not a plain file"),
    "hard link": (packed(files_of(), linked(tarfile.LNKTYPE)), "not a plain file"),
    "device": (packed(files_of(), linked(tarfile.CHRTYPE)), "not a plain file"),
    "pipe": (packed(files_of(), linked(tarfile.FIFOTYPE)), "not a plain file"),
    "folder": (packed({"a/": b""}, linked(tarfile.DIRTYPE)), "not a plain file|no member"),
    "sparse": (packed(files_of(), linked(tarfile.GNUTYPE_SPARSE)), "not a plain file"),
    "long name": (packed({"a" * 5000 + ".npy": b""}, format=tarfile.GNU_FORMAT), "not a plain file"),
    "pax": (pax(comment="x" * 10_000), "not a plain file"),
    "pax size": (pax(size="99999999999999"), "not a plain file"),
    "pax sparse": (pax(**{"GNU.sparse.major": "1", "GNU.sparse.realsize": "9" * 12}), "not a plain file"),
    "huge size": (resized(b"77777777777\0"), "claims 8589934591 bytes"),
    "base-256 size": (resized(b"\x80" + b"\0" * 3 + b"\x7f" * 8), "claims"),
    "negative size": (resized(b"\xff" * 11 + b"\0"), "claims -"),
    "no size": (resized(b"not octal..."), "."),
    "twice": (_first + _plain, "comes twice"),
    "sample again": (packed(files_of() | {f"{good()[0][0]}.extra": b"1"}), "comes twice"),
    "another sample": (packed(files_of() | {"more-1.txt": b"1"}), "holds more than 2 samples"),
    "many members": (packed({f"k.m{n}": b"" for n in range(100)}), "too many members"),
    "path": (packed({f"../../{name}": data for name, data in files_of().items()}), _NAME),
    "absolute": (packed({f"/tmp/{name}": data for name, data in files_of().items()}), _NAME),
    "escape": (packed({f"\x1b[2J{name}": data for name, data in files_of().items()}), _NAME),
    "dots": (packed({name.replace(".", "..", 1): data for name, data in files_of().items()}), _NAME),
    "no extension": (packed({"key": b"1"}), _NAME),
    "bytes that are no text": (packed({"\udcff\udcfe.npy": b"1"}, format=tarfile.GNU_FORMAT), _NAME),
}  # fmt: skip


@pytest.mark.parametrize("name", SHARDS)
def test_a_shard_that_is_no_plain_tar_is_refused(tmp_path: Path, name: str) -> None:
    data, why = SHARDS[name]
    refused(publish(tmp_path, data), why)


def npy(header: str, payload: bytes = b"", version: int = 1) -> bytes:
    text = header.encode()
    size = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + payload


def flac(samples: int, rate: int = 16000, channels: int = 1, kind: str = "FLAC", claim: int | None = None) -> bytes:
    buffer = io.BytesIO()
    quiet = np.zeros((samples, channels), np.int16)
    soundfile.write(buffer, quiet, rate, format=kind, subtype="VORBIS" if kind == "OGG" else "PCM_16")
    data = bytearray(buffer.getvalue())
    if claim is not None:  # the last 36 of the 64 bits that begin with the rate
        packed_fields = int.from_bytes(data[18:26], "big") >> 36 << 36 | claim
        data[18:26] = packed_fields.to_bytes(8, "big")
    return bytes(data)


_f4 = "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }"
_meta = good()[0][1]["meta.json"]
MEMBERS: dict[str, tuple[str, bytes, str]] = {
    "claims terabytes": ("user.motion.npy", npy(_f4 % "(4398046511104,)", bytes(480)), "with 480 bytes"),
    "no bytes, many rows": ("avatar.motion.npy", npy(_f4 % "(1000000000000, 0)"), "expected float32"),
    "many dimensions": ("state.npy", npy(_f4 % f"({'1, ' * 200})", bytes(4)), "."),
    "negative": ("user.motion.npy", npy(_f4 % "(-1, 12)", bytes(480)), "shape"),
    "long window": ("avatar.motion.npy", npy(_f4 % "(20000, 1)", bytes(80000)), "at most 15000 are read"),
    "object": ("state.npy", npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"cos\nsystem\n"), "."),
    "structured": ("state.npy", npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }"), "."),
    "subarray": ("state.npy", npy("{'descr': '(9999999,)f4', 'fortran_order': False, 'shape': (1,), }"), "."),
    "empty items": ("state.npy", npy("{'descr': '|S0', 'fortran_order': False, 'shape': (99999999999,), }"), "."),
    "other order of bytes": ("user.motion.npy", npy(_f4.replace("<", ">") % "(10, 12)", bytes(480)), "expected"),
    "token": ("state.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1L,"), "."),
    "open string": ("state.npy", npy("{'descr': '''"), "."),
    "deep": ("state.npy", npy("(" * 900), "."),
    "deeper": ("state.npy", npy("-" * 900 + "1"), "."),
    "long header": ("state.npy", npy(" " * 60000), "bytes of an .npy header"),
    "version 2, long": ("state.npy", npy(" " * 100_000, version=2), "bytes of an .npy header"),
    "version 3": ("state.npy", npy(_f4 % "(10,)", bytes(40), version=3), "."),
    "cut short": ("state.npy", b"\x93NUMPY", "ends within its header"),
    "wav": ("avatar.audio.flac", flac(6400, kind="WAV"), "not FLAC"),
    "ogg": ("avatar.audio.flac", flac(6400, kind="OGG"), "not FLAC"),
    "aiff": ("avatar.audio.flac", flac(6400, kind="AIFF"), "not FLAC"),
    "rate": ("avatar.audio.flac", flac(6400, rate=48000), "expected FLAC, 16000 Hz"),
    "channels": ("avatar.audio.flac", flac(6400, channels=2), "mono"),
    "long sound": ("user.audio.flac", flac(16000 * 60), "960000 samples, expected 6400"),
    "claims hours": ("user.audio.flac", flac(6400, claim=2**36 - 1), "expected 6400"),
    "claims nothing": ("user.audio.flac", flac(6400, claim=0), "."),
    "short sound": ("user.audio.flac", flac(100, claim=6400), "."),
    "only a mark": ("user.audio.flac", b"fLaC", "."),
    "deep json": ("meta.json", b"[" * 60_000, "nested too deeply"),
    "large json": ("meta.json", b'"' + b"x" * 70_000 + b'"', "bytes of JSON"),
    "twice": ("meta.json", _meta[:-1] + b', "weight": 0.1}', "twice"),
    "nan": ("meta.json", _meta.replace(b'"weight": 1.0', b'"weight": NaN'), "not JSON"),
    "infinite": ("meta.json", _meta.replace(b'"weight": 1.0', b'"weight": 1e999'), "no finite number"),
    "huge number": ("meta.json", _meta.replace(b'"start": 0', b'"start": ' + b"9" * 5000), "."),
    "negative start": ("meta.json", _meta.replace(b'"start": 0', b'"start": -1'), "start"),
    "weight": ("meta.json", _meta.replace(b'"weight": 1.0', b'"weight": 1e300'), "weight"),
    "not an object": ("meta.json", b"[]", "."),
    "unknown that is not there": ("meta.json", b'{"unknown": "a.b.c"}', "."),
    "unknown that is a number": ("meta.json", b'{"unknown": 5}', "."),
    "an escape in a name": ("meta.json", _meta.replace(b'"avatar": "a"', b'"avatar": "\\u001b[2J"'), "avatar"),
    "a path in a name": ("meta.json", _meta.replace(b'"conversation": "c0"', b'"conversation": "../x"'), "versation"),
    "a long name": ("meta.json", _meta.replace(b'"avatar": "a"', b'"avatar": "' + b"a" * 5000 + b'"'), "avatar"),
    "half a character": ("meta.json", _meta.replace(b'"avatar": "a"', b'"avatar": "\\ud800"'), "avatar"),
    "an unknown field": ("meta.json", _meta[:-1] + b', "\\u001b[2J' + b"x" * 5000 + b'": 1}', "."),
    "not text": ("meta.json", b"\xff\xfe\x00", "."),
}  # fmt: skip


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_that_is_not_what_it_should_be_is_refused(tmp_path: Path, name: str) -> None:
    member, data, why = MEMBERS[name]
    key, members = good()[0]
    assert members[member] != data
    refused(publish(tmp_path, packed(files_of(((key, members | {member: data}), good()[1])))), why)


MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "dim": (lambda m: m["motion"].update(dim=10**12), "motion.dim"),
    "window": (lambda m: m.update(window=10**9), "window"),
    "one shard many times": (lambda m: m.update(shards=m["shards"] * 1000), "listed twice"),
    "no window": (lambda m: m.update(window=0), "window"),
    "samples": (lambda m: m["shards"][0].update(samples=10**12), "samples"),
    "more samples than bytes": (lambda m: m["shards"][0].update(samples=100_000), "do not fit"),
    "bytes": (lambda m: m["shards"][0].update(bytes=10**15), "bytes"),
    "negative": (lambda m: m["shards"][0].update(bytes=-1), "bytes"),
    "fps": (lambda m: m.update(fps=0), "fps"),
    "text for a number": (lambda m: m.update(window="10"), "window"),
    "sha256": (lambda m: m["shards"][0].update(sha256="\x1b[2J"), "sha256"),
    "mixture": (lambda m: m["plan"]["mixture"].update(listening=-1), "mixture"),
    "class": (lambda m: m["plan"]["mixture"].update(x=1), "mixture"),
    "columns": (lambda m: m["motion"].update(expression=[6, 10**6]), "expression"),
    "columns beyond": (lambda m: m["motion"].update(expression=[6, 4000]), "columns"),
    "codec": (lambda m: m["motion"].update(codec="../../x"), "codec"),
    "version": (lambda m: m.update(schema_version="\x1b[2J" * 1000), "schema version unknown"),
    "version as a huge number": (lambda m: m.update(schema_version=10**4000), "."),
    "unknown key": (lambda m: m.update({"\x1b[2J" + "x" * 5000: 1}), "."),
    "deep": (lambda m: m.update(pairs=json.loads("[" * 500 + "]" * 500)), "nested too deeply"),
    **{
        f"path {path[:20]!r}": (lambda m, path=path: m["shards"][0].update(path=path), "path")  # type: ignore[misc]
        for path in (
            "../x.tar", "/etc/x.tar", "a/../../x.tar", "a\\..\\x.tar", "C:x.tar", "a//x.tar", "./x.tar", "x.tar\n",
            "x\0.tar", "\x1b[2J.tar", "a" * 600 + ".tar", "http://127.0.0.1/x.tar", "x.tar::y.tar", "train/", "",
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_claims_what_cannot_be_is_refused(tmp_path: Path, name: str) -> None:
    change, why = MANIFESTS[name]
    file = write_dataset(tmp_path, {LISTENING: 1}, frames=10) / MANIFEST_NAME
    plain = json.loads(file.read_bytes())
    change(plain)
    file.write_text(json.dumps(plain))
    refused(tmp_path, why)


@pytest.mark.parametrize("data", [b"[" * 10**6, b"", b"null", b"[1]", b'{"a":1,"a":2}', b"\xff", b"9" * 10**5, b"{}"])
def test_what_is_no_manifest_is_refused(tmp_path: Path, data: bytes) -> None:
    (write_dataset(tmp_path, {LISTENING: 1}, frames=10) / MANIFEST_NAME).write_bytes(data)
    refused(tmp_path, "not a manifest|schema version")


def test_a_shard_or_manifest_larger_than_it_says_is_not_read(tmp_path: Path) -> None:
    folder = publish(tmp_path, _plain)
    with (folder / "train-listening-00000.tar").open("ab") as file:
        file.truncate(1 << 42)  # a hole of 4 TB
    refused(folder, "at most .* are read")
    with (folder / MANIFEST_NAME).open("ab") as file:
        file.truncate(1 << 42)
    refused(folder, "not a manifest")


# ---- any damage ----


@contextmanager
def one_outcome() -> Iterator[None]:
    """What is read in the block is right, or refused in one line."""
    said = ""
    try:
        yield
    except DatasetError as error:
        said = str(error)
    assert said.isprintable()
    assert len(said) < 600


_bytes = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8)


def damaged(data: bytes, changes: list[tuple[int, int]], end: int | None) -> bytes:
    spoilt = bytearray(data)
    for at, value in changes:
        if spoilt:
            spoilt[at % len(spoilt)] = value
    return bytes(spoilt if end is None else spoilt[:end])


@given(_bytes, st.none() | st.integers(0, len(_plain)))
def test_any_damage_to_a_shard_has_one_outcome(tmp_path: Path, changes: list[tuple[int, int]], end: int | None) -> None:
    folder = publish(tmp_path, damaged(_plain, changes, end))
    with one_outcome():
        assert len(read(folder)) == 2


@given(st.sampled_from(sorted(good()[0][1])), _bytes, st.none() | st.integers(0, 2000), st.binary(max_size=40))
def test_any_damage_to_a_member_has_one_outcome(
    name: str, changes: list[tuple[int, int]], end: int | None, tail: bytes
) -> None:
    """Most of it hits headers: those are at the beginning."""
    key, members = good()[0]
    close = [(at % 200, value) for at, value in changes]
    with one_outcome():
        decode_sample(key, members | {name: damaged(members[name], close, end) + tail})


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
def test_any_value_anywhere_in_a_manifest_has_one_outcome(data: st.DataObject) -> None:
    place: Any = json.loads(dump_manifest(_manifest()))
    plain = place
    while True:
        names: list[Any] = sorted(place) if isinstance(place, dict) else list(range(len(place)))
        name = data.draw(st.sampled_from(names))
        if isinstance(place[name], dict | list) and place[name] and data.draw(st.booleans()):
            place = place[name]
            continue
        place[name] = data.draw(_json)
        break
    with one_outcome():
        assert isinstance(parse_manifest(json.dumps(plain).encode()), Manifest)


@cache
def _manifest() -> Manifest:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return Dataset(str(write_dataset(Path(folder), {LISTENING: 1}, frames=10, pairs=True))).manifest


# ---- memory ----

_IN_LITTLE = """
import sys
from visavis.pipeline.engine.memory import peak_mb
from visavis.training.dataset import Dataset
from visavis.schemas.errors import VisavisError

for folder in sys.argv[1:]:
    try:
        list(Dataset(folder).samples("train"))
        print("read")
    except VisavisError as error:
        print(type(error).__name__)
    print(peak_mb())
"""


@pytest.mark.slow
def test_no_bomb_takes_memory(tmp_path: Path) -> None:
    """All of them in one process, whose peak stays near that of the good ones alone."""
    key, members = good()[0]
    sound = flac(16000 * 900)  # 58 MB decoded, from some 50 kB
    bombs = [
        gzip.compress(bytes(64 << 20), 1),
        lzma.compress(bytes(64 << 20), preset=0),
        packed({f"{key}.{ext}": sound if ext.endswith("flac") else data for ext, data in members.items()}),
        packed(files_of(((key, members | {"user.motion.npy": MEMBERS["claims terabytes"][1]}),))),
        packed(files_of(((key, members | {"user.audio.flac": MEMBERS["claims hours"][1]}),))),
        SHARDS["sparse"][0],
        SHARDS["pax size"][0],
    ]
    fine = publish(tmp_path / "fine", _plain)
    folders = [publish(tmp_path / str(n), data, 1) for n, data in enumerate(bombs)]
    run = subprocess.run(
        [sys.executable, "-c", _IN_LITTLE, *map(str, [fine, *folders])], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2], env=os.environ,
    )  # fmt: skip
    outcomes, peaks = run.stdout.split()[::2], [float(mb) for mb in run.stdout.split()[1::2]]
    assert outcomes == ["read", *["DatasetError"] * len(bombs)]
    assert peaks[-1] < peaks[0] + 20
