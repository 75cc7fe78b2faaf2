"""Opening files wherever they lie, through fsspec, so that what a store does wrong is noticed and told.

HTTP is not left to fsspec alone, whose client takes every failure for an absent file, asks by HEAD, which some servers
forbid, and gives up on files over 5 MB where a server gives no parts of files. Here the first request asks for the
first part: a server that gives it is read in parts, one that sends the whole file instead is read into a temporary
file. A body that breaks off, and a server slower than SLOWEST, are errors. Where a server may lead to is for
`schemas.access` to say; what it sends has an end (`_MOST_TOLD`, `_MOST_UNTOLD`), whatever it says.
"""

from __future__ import annotations

import asyncio
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
from functools import cache, partial
from pathlib import Path
from typing import IO, Any, cast

import fsspec
from fsspec.asyn import sync

from visavis.schemas.access import Access, Refused, allowed
from visavis.schemas.errors import UsageError
from visavis.schemas.extras import absent
from visavis.schemas.storage.faults import about, retried
from visavis.schemas.untrusted import bounded, first_line
from visavis.schemas.uris import is_shortened, located, printable, shown

CONNECT_SECONDS = 10.0
"""Until a server accepts a connection."""
SILENT_SECONDS = 20.0
"""Without a byte, after which a server counts as not answering."""
ANSWER_SECONDS = 60.0
"""Until a server's answer begins, however much it says before that, and wherever it leads on."""
SLOWEST = 4096.0
"""Bytes a second, on average over a request of more than SILENT_SECONDS."""

_PART = 1 << 20  # bytes; smaller files come with the first request
_IN_MEMORY = 5 << 20  # bytes of a file that comes whole; more goes to a temporary file
_RESERVE = 1 << 30  # bytes that must stay free beside temporary files
_MOST_TOLD = 64 << 30  # bytes of a file that comes whole, by its server's word …
_MOST_UNTOLD = 4 << 30  # … and where that has not said how many there are
_NO_PARTS = (400, 405, 416, 501)  # answers to a request for a part that say nothing of the file


def locate(url: str, access: Access | None = None, **options: Any) -> tuple[Any, str]:
    """File system and path of a path or URL. access: where a web server may lead to; None: as `allowed` says.

    Raises:
        UsageError: a URL of a kind that is not known or not installed, or settings of the user's that do not fit.
    """
    if is_shortened(url):
        raise UsageError(f"{url}: stored without its keys, so it cannot be opened: name the whole address again")
    if "http" in url:
        _set_up_web()
    if access is not None and url.startswith(("http://", "https://")):
        options["get_client"] = partial(client_of, access=access)
    try:
        files, path = located(url, **options)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{printable(shown(url))}: {absent(error) or first_line(error)}") from error
    return files, str(path)


def read_whole(files: Any, path: str, name: str, most: int | None = None) -> bytes:
    """A file's bytes, tried again as `retried` does.

    Raises:
        OSError: with `filename` = name.
        TooLarge: there are more than `most`. No more than one is read of those.
    """
    if _is_web(files):
        return retried(lambda: _got_whole(files, path, most), name)
    if most is None:
        return retried(lambda: bytes(files.cat_file(path)), name)
    data = retried(lambda: _begin(files, path, most + 1), name)
    bounded(len(data), most, "bytes")
    return data


def _begin(files: Any, path: str, size: int) -> bytes:
    """The first bytes of a file. Stores refuse to give the first ones of none."""
    return bytes(files.cat_file(path, start=0, end=size)) if files.info(path)["size"] != 0 else b""


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
def open_file(url: str, access: Access | None = None, *, most: int | None = None) -> Iterator[Reader]:
    """A file's bytes, to be read in any order. What breaks off is tried again, as one file of many.

    Args:
        access: as of `locate`.
        most: bytes that are taken of a server that sends a file only whole.

    Raises:
        OSError: with `errno`, `strerror` and `filename`, also from reads inside the block. The data is to blame for
            what `schemas.access` refuses (`schemas.storage.faults.blame_of`).
        UsageError: as `locate`.
    """
    try:
        (access or allowed()).check_kind(url)
    except ValueError as error:
        raise OSError(errno.EPERM, f"expected {error}", url) from Refused(str(error))
    files, path = locate(url, access)
    with _open_web(files, path, url, most) if _is_web(files) else _open_any(files, path, url) as file:
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
        try:
            return self._file.seek(offset, whence)
        except (OSError, OverflowError) as error:
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            # Its bytes say so and not the disk, hence no number; readers of archives go on after an OSError.
            raise OSError(f"a place outside of the file ({offset})") from error

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
def _set_up_web() -> None:
    """For every HTTP file system of this process, as long as the user's own fsspec settings do not say otherwise."""
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=300, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
    settings = fsspec.config.conf.setdefault("http", {})
    settings.setdefault("client_kwargs", {}).setdefault("timeout", timeout)
    settings.setdefault("get_client", client_of)


async def client_of(**options: Any) -> Any:
    """`schemas.storage.web.client`, imported where the web is used."""
    from visavis.schemas.storage.web import client

    return await client(**options)


def _is_web(files: Any) -> bool:
    return "http" in (files.protocol if isinstance(files.protocol, tuple | list) else (files.protocol,))


@contextmanager
def _open_web(files: Any, url: str, name: str, most: int | None) -> Iterator[IO[bytes]]:
    with tempfile.SpooledTemporaryFile(_IN_MEMORY, prefix="visavis-") as spool:
        size = retried(lambda: sync(files.loop, _first_part, files, url, spool, most), name, of_item=True)
        if size is None:
            spool.seek(0)
            yield cast(IO[bytes], spool)
            return
    with files.open(url, "rb", size=size) as file:
        yield file


class _Bounded(io.BytesIO):
    """No more than so many bytes."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def write(self, data: Any) -> int:
        bounded(self.tell() + len(data), self._most, "bytes")
        return super().write(data)


def _got_whole(files: Any, url: str, most: int | None) -> bytes:
    sink = io.BytesIO() if most is None else _Bounded(most)
    sync(files.loop, _transfer, files, url, sink, "")
    return sink.getvalue()


async def _first_part(files: Any, url: str, sink: IO[bytes], most: int | None) -> int | None:
    """Size of a file that its server gives in parts; or None, and the whole file is in the sink."""
    status, size = await _transfer(files, url, sink, f"bytes=0-{_PART - 1}", most)
    if status in _NO_PARTS or (status == 206 and size is None):
        await _transfer(files, url, sink, "", most)
        return None
    return None if status != 206 or size == sink.tell() else size


async def _transfer(
    files: Any, url: str, sink: IO[bytes], part: str, most: int | None = None
) -> tuple[int, int | None]:
    """The server's status, and the size that it tells of a file of which it sent a part."""
    import aiohttp

    session = await files.set_session()
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
    options = {"timeout": timeout, **files.kwargs}
    headers = {"Accept-Encoding": "identity", **options.pop("headers", {}), **({"Range": part} if part else {})}
    sink.seek(0)
    sink.truncate()
    async with asyncio.timeout(ANSWER_SECONDS):
        answer = await session.get(files.encode_url(url), headers=headers, **options)
    async with answer:
        if part and answer.status in _NO_PARTS:
            return answer.status, None
        answer.raise_for_status()
        began = time.monotonic()
        encoded = answer.headers.get("Content-Encoding", "identity") != "identity"  # its length is not the file's
        length = 0 if encoded else answer.content_length or 0
        async for chunk in answer.content.iter_chunked(1 << 18):
            if answer.status == 206 and sink.tell() + len(chunk) > _PART:
                answer.close()
                return 206, None  # more than was asked for: no server of parts
            if most is not None and max(sink.tell() + len(chunk), length) > most:
                raise OSError(errno.EFBIG, f"the server sends more than the {most} bytes that are read")
            _keep(sink, chunk, length)
            seconds = time.monotonic() - began
            if seconds > SILENT_SECONDS and sink.tell() < SLOWEST * seconds:
                raise TimeoutError(f"slower than {SLOWEST / 1024:g} kB/s")
        told = re.match(r"bytes 0-(\d+)/(\d+)$", answer.headers.get("Content-Range", ""))
        size = int(told[2]) if told and int(told[1]) + 1 == sink.tell() else None
        return answer.status, size


def _keep(sink: IO[bytes], chunk: bytes, size: int) -> None:
    """Append to what came so far. size: of the whole, 0 where the server does not tell."""
    done = sink.tell() + len(chunk)
    if max(done, size) > (_MOST_TOLD if size else _MOST_UNTOLD):
        raise Refused(f"the server sends this file only whole, and {max(done, size) >> 30} GB or more of it")
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
