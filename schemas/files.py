"""Opening files wherever they lie, through fsspec, so that what a store does wrong is noticed and told.

HTTP is not left to fsspec alone, whose client takes every failure for an absent file, asks by HEAD, which some servers
forbid, and gives up on files over 5 MB where a server gives no parts of files. Here the first request asks for the
first part: a server that gives it is read in parts, one that sends the whole file instead is read into a temporary
file. A body that breaks off, and a server slower than SLOWEST, are errors.
"""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any, cast

import fsspec
from fsspec.asyn import sync

from schemas.errors import UsageError
from schemas.faults import about, retried
from schemas.uris import located

CONNECT_SECONDS = 10.0
"""Until a server accepts a connection."""
SILENT_SECONDS = 20.0
"""Without a byte, after which a server counts as not answering."""
SLOWEST = 4096.0
"""Bytes a second, on average over a request of more than SILENT_SECONDS."""

_PART = 1 << 20  # bytes; smaller files come with the first request
_IN_MEMORY = 5 << 20  # bytes of a file that comes whole; more goes to a temporary file
_RESERVE = 1 << 30  # bytes that must stay free beside temporary files
_NO_PARTS = (400, 405, 416, 501)  # answers to a request for a part that say nothing of the file


def locate(url: str, **options: Any) -> tuple[Any, str]:
    """File system and path of a path or URL.

    Raises:
        UsageError: a URL of a kind that is not known or not installed, or settings of the user's that do not fit.
    """
    if "http" in url:
        _set_timeouts()
    try:
        files, path = located(url, **options)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{url}: {str(error).splitlines()[0]}") from error
    return files, str(path)


def read_whole(files: Any, path: str, name: str) -> bytes:
    """A file's bytes, tried again as `retried` does.

    Raises:
        OSError: with `filename` = name.
    """
    if _is_web(files):
        return retried(lambda: _got_whole(files, path), name)
    return retried(lambda: bytes(files.cat_file(path)), name)


def is_there(files: Any, path: str, name: str) -> bool:
    """Whether there is such a file or folder. (fsspec's own `exists` takes a store that is away for an empty one.)

    Raises:
        OSError: nobody can tell.
    """
    try:
        retried(lambda: files.info(path), name)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


@contextmanager
def open_file(url: str) -> Iterator[Reader]:
    """A file's bytes, to be read in any order. What breaks off is tried again, as one file of many.

    Raises:
        OSError: with `errno`, `strerror` and `filename`, also from reads inside the block.
        UsageError: as `locate`.
    """
    files, path = locate(url)
    opened = _open_web if _is_web(files) else _open_any
    with opened(files, path, url) as file:
        yield Reader(file, url)


@contextmanager
def open_path(path: str) -> Iterator[Reader]:
    """The same of a local file, whatever its name looks like."""
    with retried(lambda: open(path, "rb", opener=_regular), path, of_item=True) as file:
        yield Reader(file, path)


def _regular(path: str, flags: int) -> int:
    """Open a file that is one. Pipes, devices and sockets would hang or do something; /proc and /sys are the kernel's.

    Raises:
        OSError: ENXIO, which is the data's fault, where it is none.
    """
    handle = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)  # a pipe would wait for somebody to write to it
    found = os.fstat(handle)
    if stat.S_ISREG(found.st_mode) and found.st_dev not in _kernel_files():
        return handle
    os.close(handle)
    if stat.S_ISDIR(found.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise OSError(errno.ENXIO, "not a regular file", path)


@cache
def _kernel_files() -> frozenset[int]:
    places = (Path(place) for place in ("/proc", "/sys"))
    return frozenset(place.stat().st_dev for place in places if place.is_mount())


class Reader(io.RawIOBase):
    """A file whose failing reads are tried again, and end as an OSError that is kept in `error`.

    For libraries that take an error for the end of the file: who gave them a Reader looks at `error` afterwards.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file, self.name, self.error = file, name, cast(OSError | None, None)
        size = getattr(file, "size", None)
        self._size = size if isinstance(size, int) else None

    def read(self, size: int | None = -1) -> bytes:
        if self.error is not None:
            return b""  # told already
        at = self._file.tell()
        try:
            return retried(lambda: self._read_at(at, -1 if size is None else size), self.name, of_item=True)
        except OSError as error:
            self.error = error
            raise

    def _read_at(self, at: int, size: int) -> bytes:
        if self._file.tell() != at:
            self._file.seek(at)
        data = self._file.read(size)
        left = 0 if self._size is None else self._size - at
        if len(data) < (left if size < 0 else min(left, 1, size)):
            raise OSError(errno.EREMOTEIO, f"ends after {at + len(data)} of {self._size} bytes", self.name)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self.read()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


@contextmanager
def _open_any(files: Any, path: str, name: str) -> Iterator[IO[bytes]]:
    with retried(lambda: files.open(path, "rb"), name, of_item=True) as file:
        yield file


# ---- HTTP ----


@cache
def _set_timeouts() -> None:
    """For every HTTP file system of this process, as long as the user's own fsspec settings do not say otherwise."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=300, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
    fsspec.config.conf.setdefault("http", {}).setdefault("client_kwargs", {}).setdefault("timeout", timeout)


def _is_web(files: Any) -> bool:
    return "http" in (files.protocol if isinstance(files.protocol, tuple | list) else (files.protocol,))


@contextmanager
def _open_web(files: Any, url: str, name: str) -> Iterator[IO[bytes]]:
    with tempfile.SpooledTemporaryFile(_IN_MEMORY, prefix="visavis-") as spool:
        size = retried(lambda: sync(files.loop, _first_part, files, url, spool), name, of_item=True)
        if size is None:
            spool.seek(0)
            yield cast(IO[bytes], spool)
            return
    with files.open(url, "rb", size=size) as file:
        yield file


def _got_whole(files: Any, url: str) -> bytes:
    sink = io.BytesIO()
    sync(files.loop, _transfer, files, url, sink, "")
    return sink.getvalue()


async def _first_part(files: Any, url: str, sink: IO[bytes]) -> int | None:
    """Size of a file that its server gives in parts; or None, and the whole file is in the sink."""
    status, size = await _transfer(files, url, sink, f"bytes=0-{_PART - 1}")
    if status in _NO_PARTS or (status == 206 and size is None):
        await _transfer(files, url, sink, "")
        return None
    return None if status != 206 or size == sink.tell() else size


async def _transfer(files: Any, url: str, sink: IO[bytes], part: str) -> tuple[int, int | None]:
    """The server's status, and the size that it tells of a file of which it sent a part."""
    import aiohttp

    session = await files.set_session()
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
    options = {"timeout": timeout, **files.kwargs}
    headers = {"Accept-Encoding": "identity", **options.pop("headers", {}), **({"Range": part} if part else {})}
    sink.seek(0)
    sink.truncate()
    async with session.get(files.encode_url(url), headers=headers, **options) as answer:
        if part and answer.status in _NO_PARTS:
            return answer.status, None
        answer.raise_for_status()
        began = time.monotonic()
        async for chunk in answer.content.iter_chunked(1 << 18):
            _keep(sink, chunk, answer.content_length or 0)
            seconds = time.monotonic() - began
            if seconds > SILENT_SECONDS and sink.tell() < SLOWEST * seconds:
                raise TimeoutError(f"slower than {SLOWEST / 1024:g} kB/s")
        told = re.match(r"bytes 0-(\d+)/(\d+)$", answer.headers.get("Content-Range", ""))
        size = int(told[2]) if told and int(told[1]) + 1 == sink.tell() else None
        return answer.status, size


def _keep(sink: IO[bytes], chunk: bytes, size: int) -> None:
    """Append to what came so far. size: of the whole, 0 where the server does not tell."""
    done = sink.tell() + len(chunk)
    if isinstance(sink, io.BytesIO) or max(done, size) <= _IN_MEMORY:
        sink.write(chunk)
        return
    folder = _temporary()
    if shutil.disk_usage(folder).free < max(0, size - done) + _RESERVE:
        raise OSError(errno.EFBIG, f"the server sends this file only whole, and {folder} has no room; set TMPDIR")
    with about(folder):
        sink.write(chunk)


def _temporary() -> str:
    try:
        return tempfile.gettempdir()
    except FileNotFoundError as error:  # it is not the file that was asked for that is absent
        raise OSError(errno.EROFS, "no folder for temporary files can be written; set TMPDIR") from error
