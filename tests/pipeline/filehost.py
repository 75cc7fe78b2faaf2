"""A file host and model hub on loopback, as far as fetching needs one: files, model pages, tokens, and faults."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FileHost:
    """What it has: files by path, and by model id the files of models. `members` are tokens that may read `gated`."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    models: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    members: set[str] = field(default_factory=set)
    strangers: set[str] = field(default_factory=set)  # valid tokens without access
    cut_off: bool = False  # connections end half-way
    asked: list[str] = field(default_factory=list)


@contextmanager
def file_host() -> Iterator[FileHost]:
    """Serves until the end of the block."""
    host = FileHost()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _answer(self, *, body: bool) -> None:
            path = self.path.partition("?")[0]
            host.asked.append(f"{self.command} {path}")
            for model, files in host.models.items():
                if path == f"/api/models/{model}/revision/main":
                    names = [{"rfilename": name} for name in files]
                    self._send(json.dumps({"id": model, "sha": COMMIT, "siblings": names}).encode(), body=body)
                    return
                name = path.removeprefix(f"/{model}/resolve/{COMMIT}/")
                if name in files:
                    self._member(model, name, files[name], body=body)
                    return
            if path.startswith("/api/models/"):
                self._refuse(401, "RepoNotFound")
            elif path in host.files:
                self._send(host.files[path], body=body)
            else:
                self._refuse(404, "EntryNotFound")

        def _member(self, model: str, name: str, data: bytes, *, body: bool) -> None:
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            if model in host.gated and token not in host.members:
                if token in host.strangers or not token:
                    self._refuse(403 if token else 401, "GatedRepo")
                else:
                    self._refuse(401, "", message="Invalid credentials in Authorization header")
                return
            headers = {"X-Repo-Commit": COMMIT}
            if name.endswith((".bin", ".safetensors")):  # kept as large files are
                headers |= {"X-Linked-Size": str(len(data))}
                headers |= {"X-Linked-ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
            git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            self._send(data, body=body, **(headers | {"ETag": f'"{git}"'}))

        def _send(self, data: bytes, *, body: bool, **headers: str) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(data[: len(data) // 2] if host.cut_off else data)

        def _refuse(self, status: int, code: str, message: str = "no") -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", message)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    host.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield host
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
