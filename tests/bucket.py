"""A real S3 server for tests: moto's, on loopback, over HTTP."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs

import boto3
import pytest
import s3fs
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

BUCKET = "corpus"
Hook = Callable[[str, str, dict[str, list[str]]], str | None]


class S3Server:
    """An S3 server. It decides one request at a time: S3 orders the writes of a key, and moto alone does not.

    before: called with method, path and query of each request; what it returns is the error code answered instead.
    """

    def __init__(self) -> None:
        self.before: Hook = lambda *_: None
        self._app = DomainDispatcherApplication(create_backend_app)
        self._turn = threading.Lock()
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=MotoRequestHandler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        query = parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
        code = self.before(environ["REQUEST_METHOD"], environ["PATH_INFO"], query)
        if code is None:
            with self._turn:
                return self._app(environ, start_response)
        if code == "InternalError":  # it comes after the deed, as when a connection breaks
            with self._turn:
                list(self._app(environ, lambda *_: None))
        known = {
            "InternalError": "500 Internal Server Error",
            "SlowDown": "503 Slow Down",
            "NotImplemented": "501 Not Implemented",
            "PreconditionFailed": "412 Precondition Failed",
            "ConditionalRequestConflict": "409 Conflict",
        }
        status = known.get(code, "403 Forbidden")
        body = f"<Error><Code>{code}</Code><Message>{code} it is</Message></Error>".encode()
        start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A server with an empty bucket, found by this process and its children through the environment alone."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = S3Server()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        s3fs.S3FileSystem.clear_instance_cache()
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield server
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()
