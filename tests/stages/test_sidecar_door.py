"""Hostile sidecars: what they claim is held against what is there, and the rest is rejected in one line."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from visavis.schemas.errors import Reason, Rejected
from visavis.stages.media.sidecars import read_boxes, read_vad

BOX, VALID = "boxes_and_keypoints:box", "boxes_and_keypoints:is_valid_box"


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, array)
    return out.getvalue()


def headed(header: str, data: bytes = b"", version: int = 1) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text + data


GOOD = npy(np.ones((50, 4), np.float32))
TRUE = npy(np.ones(50, bool))


def archive(
    path: Path, members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_DEFLATED, comment: bytes = b""
) -> str:
    with zipfile.ZipFile(path, "w", compression) as out:
        for name, data in members:
            out.writestr(name, data)
        out.comment = comment
    return str(path)


def claims(shape: str, descr: str = "'<f4'") -> bytes:
    return headed(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}", bytes(64))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_what_numpy_writes_is_read(compression: int, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    writer = np.savez if compression == zipfile.ZIP_STORED else np.savez_compressed
    for dtype in (np.float16, np.float32, ">f8", np.int64, np.uint8):
        boxes = np.asfortranarray(np.arange(200).reshape(50, 4).astype(dtype))
        writer(path, **{BOX: boxes, VALID: np.ones((50, 1)), "other": np.array(["x"])})  # type: ignore[arg-type]
        found = read_boxes(str(path), 0.0, 2.0, 25.0)
        assert found is not None
        assert np.array_equal(found[1], boxes[25])


HOSTILE = {
    "claims 14 TiB": claims("(1000000000000, 4)"),
    "claims beyond 64 bits": claims("(10000000000000000000000000, 4)"),
    "negative": claims("(-1, 4)"),
    "objects": claims("(50, 4)", "'|O'"),
    "fields": claims("(50, 4)", "[('a', '<f4'), ('b', '|O')]"),
    "text": claims("(50, 4)", "'<U1000000000'"),
    "deep": headed("(" * 900 + ")" * 900),
    "long": headed("{'descr': '<f4', 'fortran_order': False, 'shape': (50, 4), " + " " * 60_000 + "}"),
    "longer": headed(" " * (1 << 20), version=2),
    "code": headed("__import__('os').system('true')"),
    "bytes": headed("{'descr': '<f4', 'fortran_order': False, 'shape': (\xff, 4)}"),
    "version": headed("{}", version=9),
    "empty": b"",
    "pickle": b"\x80\x04\x95cos\nsystem\n(S'true'\ntR.",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_array_is_rejected(what: str, tmp_path: Path) -> None:
    for members in ([(BOX, HOSTILE[what]), (VALID, TRUE)], [(BOX, GOOD), (VALID, HOSTILE[what])]):
        path = archive(tmp_path / "a.npz", [(f"{name}.npy", data) for name, data in members])
        refused(path)


def refused(path: str) -> str:
    with pytest.raises(Rejected) as caught:
        read_boxes(path, 0.0, 2.0, 25.0)
    assert caught.value.reason is Reason.UNREADABLE
    assert caught.value.detail.startswith(f"{path}: ")
    assert "\n" not in caught.value.detail
    return caught.value.detail


def test_the_member_that_is_measured_is_the_one_that_is_read(tmp_path: Path) -> None:
    """numpy prefers a member without `.npy`, and of two with one name the last."""
    bomb = npy(np.zeros(65 << 20, np.uint8))
    path = archive(tmp_path / "a.npz", [(BOX, bomb), (f"{BOX}.npy", GOOD), (f"{VALID}.npy", TRUE)])
    assert read_boxes(path, 0.0, 2.0, 25.0) is not None
    with pytest.warns(UserWarning, match="Duplicate"):
        path = archive(tmp_path / "b.npz", [(f"{BOX}.npy", GOOD), (f"{BOX}.npy", GOOD), (f"{VALID}.npy", TRUE)])
    assert "2 members" in refused(path)
    assert "bytes of" in refused(archive(tmp_path / "c.npz", [(f"{BOX}.npy", bomb), (f"{VALID}.npy", TRUE)]))


def test_an_archive_that_understates_a_member_gives_no_more_than_it_said(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", [(f"{BOX}.npy", npy(np.zeros((1 << 20, 4)))), (f"{VALID}.npy", TRUE)])
    data = Path(path).read_bytes()
    size = struct.pack("<L", len(npy(np.zeros((1 << 20, 4)))))
    Path(path).write_bytes(data.replace(size, struct.pack("<L", 300)))
    refused(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_not_unpacked(compression: int, tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", [(f"{BOX}.npy", GOOD), (f"{VALID}.npy", TRUE)], compression)
    assert "compressed" in refused(path)


def test_a_list_of_very_many_members_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as out:
        for n in range(30_000):
            out.writestr(f"{n}", b"")
    assert "list of members" in refused(str(path))
    data = bytearray(path.read_bytes())
    data[-6 - 4 : -6] = struct.pack("<L", 100)  # a lie about its size
    path.write_bytes(data)
    refused(str(path))


@pytest.mark.parametrize("data", [b"", b"PK\x05\x06", b"PK\x05\x06" + bytes(18), GOOD, b"\x1f\x8b" + bytes(100)])
def test_what_is_no_archive(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(data)
    if data[4:] != bytes(18):
        refused(str(path))
    else:
        assert read_boxes(str(path), 0.0, 2.0, 25.0) is None


def test_boxes_out_of_this_world_are_no_boxes(tmp_path: Path) -> None:
    boxes = np.ones((50, 4))
    boxes[25] = 1e308
    path = archive(tmp_path / "a.npz", [(f"{BOX}.npy", npy(boxes)), (f"{VALID}.npy", TRUE)])
    found = read_boxes(path, 0.0, 2.0, 25.0)
    assert found is not None
    assert np.isnan(found[1]).all()
    assert (found[0] == 1).all()


# ---- who speaks when ----

TEXTS = {
    "1e308": '{"metadata:vad": [{"start": 0, "end": 1e308}]}',
    "-1e308": '{"metadata:vad": [{"start": -1e308, "end": 1}]}',
    "1e999": '{"metadata:vad": [{"start": 0, "end": 1e999}]}',
    "long number": '{"metadata:vad": [{"start": 0, "end": ' + "9" * 100_000 + "}]}",
    "NaN": '{"metadata:vad": [{"start": NaN, "end": 1}]}',
    "deep lists": '{"x": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "deep objects": '{"x":' * 100_000 + "1" + "}" * 100_000,
    "many lists": '{"x": [' + "[]," * 500_000 + "1]}",
    "many values": '{"x": [' + "1," * 4_500_000 + "1]}",
    "large": '{"x": "' + "a" * (33 << 20) + '"}',
    "half": '{"metadata:vad": [{"start": 0',
    "surrogate": '{"metadata:vad": "\\ud800"}',
    "bytes": '{"metadata:vad": "\udcff\udcfe"}',
    "none": "",
}


@pytest.mark.parametrize("what", TEXTS)
def test_a_hostile_text_is_rejected(what: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(TEXTS[what].encode("utf-8", "surrogateescape"))
    with pytest.raises(Rejected) as caught:
        read_vad(str(path), 10.0)
    assert caught.value.reason is Reason.UNREADABLE
    assert len(caught.value.detail) < 500
    assert "\n" not in caught.value.detail


def test_spans_of_another_clock_do_not_tell(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for start, end in ((-1e11, 5.0), (-7.0, 5.0), (0.0, 1e11)):
        path.write_text(json.dumps({"metadata:vad": [{"start": start, "end": end}]}))
        assert read_vad(str(path), 10.0) is None
    path.write_text(json.dumps({"metadata:vad": [{"start": -0.1, "end": 5}]}))
    assert read_vad(str(path), 10.0) == ((-0.1, 5.0),)


@pytest.mark.slow
def test_the_largest_text_that_is_read_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    spans = b",".join([b'{"start":1,"end":2}'] * 399_000)
    path.write_bytes(b'{"metadata:vad":[' + spans + b"]}")
    code = (
        "import sys; from visavis.pipeline.engine.memory import peak_mb as peak\n"
        "from visavis.stages.media.sidecars import read_vad\n"
        "before = peak(); assert len(read_vad(sys.argv[1], 10.0)) == 399_000; print(int(peak() - before))\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code, path], cwd=root, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 400
