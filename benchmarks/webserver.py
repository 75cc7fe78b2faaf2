"""A web server on loopback whose files are there, late, forbidden or cut off."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Behaviour:
    """How a file is served.

    status: 0: it is; else this answer, to the first `times` requests (−1: to all). cut: share of the body after which
    the connection breaks. ranges, head, length: whether the server knows of parts, HEAD, and its files' sizes.
    pause: seconds before each of ten parts of the body.
    """

    status: int = 0
    times: int = -1
    cut: float = 1.0
    ranges: bool = True
    head: bool = True
    length: bool = True
    pause: float = 0.0
    after: str = ""
    to: str = ""


@dataclass
class Host:
    """files: by path. behaviour: by path; fine without. asked: requests by path."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    behaviour: dict[str, Behaviour] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""


@contextmanager
def web(port: int = 0) -> Iterator[Host]:
    """Serves until the end of the block."""
    host = Host()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _answer(self, *, body: bool) -> None:
            host.asked[self.path] += 1
            now = host.behaviour.get(self.path, Behaviour())
            data = host.files.get(self.path)
            bad = now.times < 0 or host.asked[self.path] <= now.times
            if bad and (now.status or data is None):
                self._say(now.status or 404, now)
            elif data is None:
                self._say(404, now)
            elif not body and not now.head:
                self._say(405, now)
            else:
                self._send(data, now if bad else Behaviour(), body=body)

        def _say(self, status: int, now: Behaviour) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            if now.after:
                self.send_header("Retry-After", now.after)
            if now.to:
                self.send_header("Location", now.to)
            self.end_headers()

        def _send(self, data: bytes, now: Behaviour, *, body: bool) -> None:
            part = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if now.ranges else None
            whole = len(data)
            if part:
                first, last = int(part[1]), min(int(part[2] or whole - 1), whole - 1)
                if first >= whole:
                    self._say(416, now)
                    return
                data = data[first : last + 1]
            self.send_response(206 if part else 200)
            if part:
                self.send_header("Content-Range", f"bytes {first}-{last}/{whole}")
            if now.length:
                self.send_header("Content-Length", str(len(data)))
            else:
                self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            if body:
                self._write(data, now)

        def _write(self, data: bytes, now: Behaviour) -> None:
            end = int(len(data) * now.cut)
            step = max(1, len(data) // 10) if now.pause else max(1, end)
            for at in range(0, end, step):
                time.sleep(now.pause)
                piece = data[at : min(at + step, end)]
                self.wfile.write(piece if now.length else b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
            if end < len(data):
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
            elif not now.length:
                self.wfile.write(b"0\r\n\r\n")

    server = _Server(("127.0.0.1", port), Handler)
    host.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield host
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
