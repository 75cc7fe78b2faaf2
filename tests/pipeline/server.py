"""A web server that answers as a test says, and remembers what it was asked; and why ingest refuses what it sends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from visavis.schemas.access import Access, allowing
from visavis.schemas.config import IngestConfig
from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.rows import Source
from visavis.stages.ingest import IngestStage


@dataclass
class Server:
    """answers: path → bytes, a place to redirect to, or what writes an answer. asked: path and headers."""

    address: str = ""
    port: int = 0
    answers: dict[str, bytes | str | Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def serving(host: str = "127.0.0.1") -> Iterator[Server]:
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            server.asked.append(path)
            server.headers.append(dict(self.headers))
            answer = server.answers.get(path)
            if callable(answer):
                answer(self)
                return
            if isinstance(answer, str):
                self.send_response(302)
                self.send_header("Location", answer)
                answer = b""
            else:
                self.send_response(404 if answer is None else 200)
            self.send_header("Content-Length", str(len(answer or b"")))
            self.end_headers()
            self.wfile.write(answer or b"" if self.command == "GET" else b"")

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Threads(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass

    with Threads((host, 0), Handler) as listening:
        server.port = listening.server_address[1]
        server.address = f"http://{host}:{server.port}"
        thread = threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()


def refusal(url: str, by: Access | None = None) -> str:
    """Why ingest leaves a row out."""
    with allowing(by or Access()), pytest.raises(Rejected) as error:
        list(IngestStage(IngestConfig()).process(Source(uris=(url,), participants=(None,))))
    assert error.value.reason is Reason.UNREADABLE
    return error.value.detail
