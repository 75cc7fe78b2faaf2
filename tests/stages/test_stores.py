"""Media on stores that are away, slow, forbidding, or without ranges: whose fault is it?"""

from __future__ import annotations

import errno
import hashlib
import io
import tempfile
import time
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.webserver import Behaviour, Host, closed_port, web
from tests.stages.test_ingest import write_clip
from visavis.schemas.errors import Reason, Rejected, UsageError
from visavis.schemas.storage import faults, files
from visavis.schemas.storage.files import open_file
from visavis.stages.ingest import probe
from visavis.stages.media.audio import read_audio
from visavis.stages.media.opening import open_bytes, open_container
from visavis.stages.media.sidecars import read_boxes

BIG = bytes(range(256)) * (7 * 4096)  # 7 MB


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "ITEM_WAITS", (0.01, 0.02, 0.03))
    monkeypatch.setattr(faults, "_AWAY", {})


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_clip(path)
    return path.read_bytes()


@pytest.fixture
def host(clip: bytes) -> Iterator[Host]:
    with web() as running:
        running.files |= {"/clip.mp4": clip, "/big.bin": BIG}
        yield running


def failure(uri: str) -> tuple[type[BaseException], str]:
    with pytest.raises((Rejected, OSError)) as caught:
        probe(uri)
    return type(caught.value), str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("status", [404, 410])
def test_what_is_not_there_is_the_datas_fault(host: Host, status: int) -> None:
    host.behaviour["/clip.mp4"] = Behaviour(status=status)
    assert failure(f"{host.address}/clip.mp4") == (
        Rejected,
        f"unreadable: {host.address}/clip.mp4: the server answers {status} {'Not Found' if status == 404 else 'Gone'}",
    )
    assert host.asked["/clip.mp4"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "requests"), [(401, 1), (403, 1), (407, 1), (451, 1), (429, 4), (500, 4), (502, 4), (503, 4), (504, 4)]
)
def test_any_other_answer_is_not(host: Host, status: int, requests: int) -> None:
    host.behaviour["/clip.mp4"] = Behaviour(status=status)
    kind, said = failure(f"{host.address}/clip.mp4")
    assert issubclass(kind, OSError)
    assert f"the server answers {status}" in said
    assert host.asked["/clip.mp4"] == requests


def test_nor_is_a_server_that_is_away(clip: bytes) -> None:
    port = closed_port()
    url = f"http://127.0.0.1:{port}/clip.mp4"
    assert failure(url)[0] is ConnectionRefusedError
    began = time.monotonic()
    assert failure(url)[0] is ConnectionRefusedError  # known by now: nobody waits again
    assert time.monotonic() - began < 0.05
    kind, said = failure("http://nobody.invalid/clip.mp4")
    assert issubclass(kind, OSError)
    assert "host not found" in said
    with web(port) as back:
        back.files["/clip.mp4"] = clip
        assert probe(url).width > 0


def test_a_server_that_speaks_no_tls(host: Host) -> None:
    kind, _ = failure(f"{host.address.replace('http', 'https')}/clip.mp4")
    assert issubclass(kind, OSError)


def test_what_is_no_url_is_the_datas_fault() -> None:
    assert failure("http:///clip.mp4")[0] is Rejected


@pytest.mark.parametrize("times", [1, 2, 3])
def test_what_passes_is_waited_for(host: Host, clip: bytes, times: int) -> None:
    host.behaviour["/clip.mp4"] = Behaviour(status=503, times=times)
    assert probe(f"{host.address}/clip.mp4").sha256 == hashlib.sha256(clip).hexdigest()


@pytest.mark.slow
def test_a_server_is_waited_for_as_long_as_it_asks(host: Host) -> None:
    host.behaviour["/big.bin"] = Behaviour(status=429, times=1, after="1")
    began = time.monotonic()
    with open_bytes(f"{host.address}/big.bin") as file:
        assert file.read() == BIG
    assert time.monotonic() - began > 1


@pytest.mark.slow
@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("cut", [0.0, 0.3, 0.99])
def test_a_body_that_is_cut_is_noticed(host: Host, cut: float, ranges: bool, length: bool) -> None:
    host.behaviour["/clip.mp4"] = Behaviour(cut=cut, ranges=ranges, length=length)
    kind, said = failure(f"{host.address}/clip.mp4")
    assert issubclass(kind, OSError), said


def test_a_connection_that_breaks_halfway_does_not_end_the_file(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_PART", 1000)
    monkeypatch.setitem(fsspec.config.conf.setdefault("http", {}), "block_size", 100_000)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(500_000, np.int16), 16_000, format="WAV")
    host.files["/sound.wav"] = buffer.getvalue()

    def use() -> int:
        with open_container(f"{host.address}/sound.wav") as container:
            host.behaviour["/sound.wav"] = Behaviour(cut=0.5)
            return sum(packet.size for packet in container.demux())

    for _ in range(2):
        host.behaviour.clear()
        with pytest.raises(OSError, match="broke before the end"):
            use()
    host.behaviour.clear()
    assert len(read_audio(f"{host.address}/sound.wav")) == 500_000  # nothing of it is left for the next file


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(),
        Behaviour(head=False),
        Behaviour(ranges=False),
        Behaviour(ranges=False, head=False),
        Behaviour(ranges=False, length=False),
        Behaviour(ranges=False, length=False, head=False),
    ],
    ids=["fine", "no head", "no ranges", "neither", "chunked", "nothing"],
)
def test_any_server_can_be_read_in_any_order(
    host: Host, behaviour: Behaviour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    host.behaviour["/big.bin"] = behaviour
    with open_bytes(f"{host.address}/big.bin") as file:
        for at, size in ((6_500_000, 70_000), (3, 10), (7_000_000, -1), (0, 1 << 20)):
            file.seek(at)
            data = file.read(size)
            assert data == BIG[at : at + size if size >= 0 else None]
        file.seek(0)
        assert hashlib.sha256(file.read()).digest() == hashlib.sha256(BIG).digest()
    assert list(tmp_path.iterdir()) == []
    host.behaviour["/clip.mp4"] = behaviour
    assert probe(f"{host.address}/clip.mp4").width > 0


@pytest.mark.slow
@given(size=st.integers(0, 5000), reads=st.lists(st.tuples(st.integers(0, 5000), st.integers(-1, 3000)), max_size=6))
@settings(max_examples=25, deadline=None)
def test_parts_are_those_of_the_file(size: int, reads: list[tuple[int, int]]) -> None:
    data = hashlib.shake_128(b"x").digest(size)
    with web() as host, pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_PART", 1000)
        host.files["/x"] = data
        with open_bytes(f"{host.address}/x") as file:
            for at, count in reads:
                file.seek(min(at, size))
                assert file.read(count) == data[min(at, size) :][: count if count >= 0 else None]


def test_redirects_are_followed(host: Host, clip: bytes) -> None:
    host.behaviour["/old.mp4"] = Behaviour(status=302, to="/clip.mp4")
    assert probe(f"{host.address}/old.mp4").sha256 == hashlib.sha256(clip).hexdigest()


@pytest.mark.slow
def test_a_server_that_falls_silent_or_trickles_holds_nobody_up(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(files, "SLOWEST", 1e8)
    monkeypatch.setattr(faults, "ITEM_SECONDS", 0.1)
    host.behaviour["/clip.mp4"] = Behaviour(pause=3.0)
    began = time.monotonic()
    assert failure(f"{host.address}/clip.mp4")[0] is TimeoutError
    host.behaviour["/clip.mp4"] = Behaviour(pause=0.3)
    kind, said = failure(f"{host.address}/clip.mp4")
    assert kind is TimeoutError
    assert "slower than" in said
    assert time.monotonic() - began < 10


def test_a_file_that_comes_whole_leaves_room_on_the_disk(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.behaviour["/big.bin"] = Behaviour(ranges=False)
    monkeypatch.setattr(files, "_RESERVE", 1 << 60)
    with pytest.raises(OSError, match="sends this file only whole") as caught, open_bytes(f"{host.address}/big.bin"):
        pass
    assert caught.value.errno == errno.EFBIG
    assert host.asked["/big.bin"] == 1


def test_a_sidecar_whose_read_breaks_off_is_not_a_broken_archive(host: Host) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.bin", bytes(3 << 20))
    host.files["/boxes.npz"] = buffer.getvalue()
    with open_file(f"{host.address}/boxes.npz"):
        host.behaviour["/boxes.npz"] = Behaviour(cut=0.5)
    with pytest.raises(OSError, match="broke"):
        read_boxes(f"{host.address}/boxes.npz", 0, 1, 25)


def test_other_file_systems(clip: bytes, tmp_path: Path) -> None:
    name = uuid.uuid4().hex
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("clip.mp4", clip)
    fsspec.filesystem("memory").pipe(f"/{name}/clip.mp4", clip)
    for uri in (f"memory://{name}/clip.mp4", f"zip://clip.mp4::{tmp_path}/a.zip"):
        assert probe(uri).sha256 == hashlib.sha256(clip).hexdigest()
    for uri in (f"memory://{name}/absent.mp4", f"zip://absent.mp4::{tmp_path}/a.zip", str(tmp_path), f"{tmp_path}/b"):
        assert failure(uri)[0] is Rejected, uri
    with pytest.raises(UsageError, match="nosuch"):
        probe("nosuch://x/y.mp4")


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EMFILE, errno.EACCES, errno.ENOMEM])
def test_a_disk_in_trouble_does_not_make_a_file_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """FFmpeg's error says nothing of it; Python's does. (The disk is played by a patched `open`.)"""
    broken = tmp_path / "clip.mp4"
    broken.write_bytes(b"not media" * 100)
    assert failure(str(broken))[0] is Rejected

    def fails(*_: Any, **__: Any) -> Any:
        raise OSError(number, "no", str(broken))

    monkeypatch.setattr(files, "open", fails, raising=False)
    assert failure(str(broken))[0] is not Rejected


def test_a_broken_file_on_a_well_server_is_the_datas_fault(host: Host) -> None:
    host.files["/clip.mp4"] = b"not media" * 1000
    with pytest.raises(Rejected) as caught:
        probe(f"{host.address}/clip.mp4")
    assert caught.value.reason is Reason.UNREADABLE
