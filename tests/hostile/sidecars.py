"""Hostile sound, annotations, turns and boxes beside a good video, under the names of the Seamless Interaction corpus
(turns and boxes are read beside any file)."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.hostile.media import Elsewhere, claims, lists
from tests.scale import some

BOX, VALID = "boxes_and_keypoints:box", "boxes_and_keypoints:is_valid_box"


def write_all(folder: Path, video: bytes, other: bytes, elsewhere: Elsewhere, seed: int) -> list[Path]:
    """A conversation of two good videos for each hostile sidecar. The videos' bytes differ from dyad to dyad."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    sidecars = [*annotations(rng), *boxes(rng), *sounds(rng, elsewhere), *given_turns(rng), *given_boxes(rng)]
    for number, (suffix, data) in enumerate(some(sidecars)):
        stem = f"V00_S{number:04d}_I00000001"
        for person, good in (("P0001", video), ("P0002", other)):
            free = struct.pack(">I4s8s", 16, b"free", f"{number:08d}".encode())
            (folder / f"{stem}_{person}.mp4").write_bytes(good + free)
        beside = folder / f"{stem}_P0001{suffix}"
        if isinstance(data, bytes):
            beside.write_bytes(data)
        else:
            data(beside)
    return sorted(folder.glob("*_P0001.mp4"))


def annotations(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """`.json`, which says when a person speaks."""

    def spans(*pairs: tuple[float, float]) -> bytes:
        return json.dumps({"metadata:vad": [{"start": a, "end": b} for a, b in pairs]}).encode()

    yield ".json", b"[" * 200_000
    yield ".json", b'{"metadata:vad":' * 20_000 + b"1" + b"}" * 20_000
    yield ".json", b'{"metadata:vad": [{"start": 1e308, "end": 1e309}]}'
    yield ".json", b'{"metadata:vad": [{"start": -1e308, "end": 1e308}]}'
    yield ".json", b'{"metadata:vad": [{"start": NaN, "end": Infinity}]}'
    yield ".json", b'{"metadata:vad": [{"start": 0, "end": ' + b"9" * 100_000 + b"}]}"
    yield ".json", spans(*((i * 1e-6, 1.0) for i in range(400_000)))
    yield ".json", b'{"x": ["' + b"\\u0000" * 8_000_000 + b'"]}'
    yield ".json", json.dumps({"metadata:transcript": [{"words": list(range(9))} for _ in range(300_000)]}).encode()
    yield ".json", b'{"metadata:vad": "' + bytes([0xFF, 0xFE]) * 1000 + b'"}'
    yield ".json", b'{"metadata:vad": [{"start": "\x1b[2J", "end": 1}]}'
    yield ".json", b""
    yield ".json", rng.bytes(100_000)
    yield ".json", b'{"metadata:vad": {"a": 1}, "metadata:vad": []}'
    yield ".json", b'{"\x1b]0;x\x07metadata:vad": 5, "metadata:vad": 5}'


def boxes(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """`.npz`, which says where the person is."""
    good = _npy("<f8", (100, 4), bytes(3200))
    for shape in ((2**40, 4), (2**62, 4), (2**31, 4), (-1, 4), (10**30, 4), (4,) * 60):
        yield (
            ".npz",
            _npz({f"{BOX}.npy": _npy("<f8", shape, bytes(100)), f"{VALID}.npy": _npy("|b1", (100,), bytes(100))}),
        )
    for dtype in ("|O", "<U99999999", "|V2147483647", "<c16", "|S4", "<M8[s]", "<f16"):
        yield ".npz", _npz({f"{BOX}.npy": _npy(dtype, (100, 4), bytes(6400)), f"{VALID}.npy": good})
    for header in (
        "(" * 5000,
        "{'descr': __import__('os')}",
        "{" * 300,
        "9" * 60_000,
        "{'descr': '<f8', 'shape': (" + "1," * 20_000 + ")}",
    ):
        yield ".npz", _npz({f"{BOX}.npy": _raw_npy(header.encode(), b""), f"{VALID}.npy": good})
    yield ".npz", _npz({f"{BOX}.npy": b"\x93NUMPY\x02\x00" + struct.pack("<I", 0xFFFF_FFF0) + b"{"})
    bomb = _npy("<f8", (20_000_000, 4), bytes(640_000_000))
    yield ".npz", _npz({f"{BOX}.npy": bomb, f"{VALID}.npy": _npy("|b1", (20_000_000,), bytes(20_000_000))})
    # The name that numpy reads is not the one whose size was looked at.
    yield ".npz", _npz({BOX: bomb, f"{BOX}.npy": good, VALID: bomb, f"{VALID}.npy": good})
    yield ".npz", _lying(_npz({f"{BOX}.npy": bomb, f"{VALID}.npy": _npy("|b1", (100,), bytes(100))}))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for i in range(20_000):
            archive.writestr(f"{i}.npy", b"")
    yield ".npz", buffer.getvalue()
    yield ".npz", _npz({f"../../{BOX}.npy": good, f"{BOX}.npy": b"\x80\x04cos\nsystem\n(S'true'\ntR."})
    yield ".npz", b"\x80\x04cos\nsystem\n(S'touch owned'\ntR."
    yield ".npz", b"PK\x05\x06" + b"\xff" * 18
    yield ".npz", b"PK\x03\x04" + rng.bytes(9000)
    whole = _npz({f"{BOX}.npy": good, f"{VALID}.npy": _npy("|b1", (100,), bytes([1]) * 100)})
    yield ".npz", whole  # this one is good
    for _ in range(10):
        data = bytearray(whole)
        for _ in range(4):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        yield ".npz", bytes(data if rng.random() < 0.7 else data[: int(rng.integers(40, len(data) + 1))])


def given_turns(rng: np.random.Generator) -> Iterator[tuple[str, object]]:
    """`.rttm` and `.turns.json`, of anybody's diarizer."""
    line = b"SPEAKER t 1 0.5 1.5 <NA> <NA> ann <NA> <NA>\n"
    yield ".rttm", line * 900_000
    yield ".rttm", b"".join(b"SPEAKER t 1 1 1 <NA> <NA> s%d <NA> <NA>\n" % n for n in range(90_000))
    yield ".rttm", b"".join(b"SPEAKER t%d 1 1 1 <NA> <NA> s <NA> <NA>\n" % n for n in range(90_000))
    yield ".rttm", line.replace(b"0.5", b"9" * 1_000_000)
    yield ".rttm", line.replace(b"1.5", b"inf") + line.replace(b"1.5", b"-1e308")
    yield ".rttm", line.replace(b"ann", b"\x1b]0;x\x07") + line.replace(b"ann", b"\xff\xfe")
    yield ".rttm", b"SPEAKER " * 3_000_000
    yield ".rttm", b"\0" * 30_000_000
    yield ".rttm", rng.bytes(100_000)
    yield ".rttm", b""
    yield ".rttm", lambda path: os.mkfifo(path)
    yield ".rttm", lambda path: path.symlink_to("/dev/zero")
    yield ".turns.json", b"[" * 200_000
    yield ".turns.json", b'[{"speaker": "\\u001b[2J", "start": 0, "end": 1}]'
    yield ".turns.json", b'[{"speaker": 1, "start": 1e308, "end": 1e309}]'
    yield ".turns.json", b"[" + b'{"speaker":1,"start":0,"end":1},' * 300_000 + b"1]"
    yield ".turns.json", lambda path: path.symlink_to("/dev/urandom")


def given_boxes(rng: np.random.Generator) -> Iterator[tuple[str, object]]:
    """`.boxes.npz` and `.boxes.json`, of anybody's tracker."""
    time, box = _npy("<f8", (100,), bytes(800)), _npy("<f8", (100, 4), bytes(3200))
    for shape in ((2**40,), (2**62,), (-1,), (10**30,), (1,) * 60):
        yield ".boxes.npz", _npz({"time.npy": _npy("<f8", shape, bytes(100)), "box.npy": box})
        yield ".boxes.npz", _npz({"time.npy": time, "box.npy": _npy("<f8", (*shape[:1], 4), bytes(100))})
    bomb = _npy("<f8", (80_000_000,), bytes(640_000_000))
    yield ".boxes.npz", _npz({"time.npy": bomb, "box.npy": box})
    yield ".boxes.npz", _npz({"time.npy": time, "box.npy": box, "person.npy": _npy("|O", (100,), bytes(800))})
    people = np.arange(100, dtype="<i8").tobytes()
    yield ".boxes.npz", _npz({"time.npy": time, "box.npy": box, "person.npy": _npy("<i8", (100,), people)})
    yield ".boxes.npz", b"\x80\x04cos\nsystem\n(S'touch owned'\ntR."
    yield ".boxes.npz", lambda path: os.mkfifo(path)
    yield ".boxes.json", b'[{"time": 1e999, "box": [0, 0, 1, 1]}]'
    yield ".boxes.json", b'[{"time": 1, "box": [1e999, NaN, 1, 1]}]'
    yield ".boxes.json", b"[" + b'{"time":1,"box":[0,0,1,1]},' * 300_000 + b"1]"
    yield ".boxes.json", b'[{"time": 1, "box": [0, 0, 1, 1], "person": "' + b"x" * 5000 + b'"}]'
    yield ".boxes.json", lambda path: path.symlink_to("/dev/urandom")


def sounds(rng: np.random.Generator, elsewhere: Elsewhere) -> Iterator[tuple[str, object]]:
    """`.wav`, the voice alone."""
    for name, data in claims(rng):
        if name.startswith(("wav", "flac", "ogg", "box_3")):
            yield ".wav", data
    for name, data in lists(elsewhere):
        if name.startswith(("hls_file", "concat_path", "sdp", "hls_http")):
            yield ".wav", data
    yield ".wav", lambda path: os.mkfifo(path)
    yield ".wav", lambda path: path.symlink_to("/dev/zero")
    yield ".npz", lambda path: os.mkfifo(path)
    yield ".json", lambda path: path.symlink_to("/dev/urandom")


def _npz(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _npy(dtype: str, shape: tuple[int, ...], data: bytes) -> bytes:
    return _raw_npy(f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode(), data)


def _raw_npy(header: bytes, data: bytes) -> bytes:
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header + data


def _lying(archive: bytes) -> bytes:
    """The same with sizes of a few bytes in the central directory."""
    data = bytearray(archive)
    at = 0
    while (at := data.find(b"PK\x01\x02", at)) >= 0:
        data[at + 24 : at + 28] = struct.pack("<I", 1000)
        at += 4
    return bytes(data)
