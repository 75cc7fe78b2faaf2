"""What servers of strangers send: it ends, whatever they announce."""

from __future__ import annotations

import gzip
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from http.server import BaseHTTPRequestHandler

import pytest

from tests.pipeline.server import Server, refusal, serving
from visavis.schemas.storage import faults, files
from visavis.schemas.storage.files import open_file
from visavis.stages.media.opening import open_bytes


@pytest.fixture
def web() -> Iterator[Server]:
    with serving() as web:
        yield web


def _raw(headers: bytes, *bodies: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(headers + b"\r\n\r\n")
        for body in bodies:
            handler.wfile.write(body)
        handler.close_connection = True

    return answer


@cache
def zeros() -> bytes:
    return gzip.compress(bytes(300 << 20), 9)


def _bomb(handler: BaseHTTPRequestHandler) -> None:
    _raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d" % len(zeros()), zeros())(handler)


def _nested(handler: BaseHTTPRequestHandler) -> None:
    _raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip, gzip\r\nConnection: close", zeros())(handler)


HOSTILE = {
    "a part without end": _raw(
        b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-1048575/9000000\r\nConnection: close", *[bytes(1 << 20)] * 40
    ),
    "a petabyte": _raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1125899906842624", *[bytes(1 << 20)] * 40),
    "no end": _raw(b"HTTP/1.1 200 OK\r\nConnection: close", *[bytes(1 << 20)] * 40),
    "a gzip bomb": _bomb,
    "endless headers": _raw(b"HTTP/1.1 200 OK\r\n" + b"\r\n".join(b"X-%d: %s" % (n, b"y" * 8000) for n in range(2000))),
    "no http": _raw(b"SSH-2.0-OpenSSH_9.2"),
    "nested": _nested,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_a_server_sends_has_an_end(web: Server, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(files, "_MOST_UNTOLD", 20 << 20)
    monkeypatch.setattr(faults, "ITEM_WAITS", (0.01,))
    web.answers["/x.mp4"] = HOSTILE[kind]
    said = refusal(f"{web.address}/x.mp4")
    assert said.isprintable()


def test_a_later_part_is_no_longer_than_asked(web: Server) -> None:
    def part(handler: BaseHTTPRequestHandler) -> None:
        first, last = map(int, re.findall(r"\d+", handler.headers["Range"]))
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {first}-{last}/{30 << 20}")
        handler.send_header("Content-Length", str(last - first + 1 if not first else 300 << 20))
        handler.end_headers()
        for _ in range(1 if not first else 300):
            handler.wfile.write(bytes(1 << 20))

    web.answers["/x"] = part
    with open_bytes(f"{web.address}/x") as file:
        file.seek(2 << 20)
        with pytest.raises(OSError, match="more than the"):
            file.read(1 << 20)


def test_a_server_that_never_comes_to_its_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says something all the time, so no time without a byte passes."""
    monkeypatch.setattr("visavis.schemas.storage.files.ANSWER_SECONDS", 0.5)
    monkeypatch.setattr("visavis.schemas.storage.faults.ITEM_WAITS", ())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_go_on, args=(listening,), daemon=True).start()
        with pytest.raises(TimeoutError), open_file(f"http://127.0.0.1:{listening.getsockname()[1]}/clip.mp4"):
            pass


def _go_on(listening: socket.socket) -> None:
    with listening.accept()[0] as connection, suppress(OSError):
        while True:
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
