"""Files of models that a recipe or an option names: read whole, within bounds, and told apart from other ones.

What is read is what was hashed: one read, whose bytes are used. A local file may come without a digest. Anything that
comes over a network has to be named by its sha256 as well: neither the other end nor the way there is ours.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from visavis.schemas.errors import RunFailed, UsageError
from visavis.schemas.storage.faults import Blame, blame_of
from visavis.schemas.storage.files import Reader, open_file, open_path
from visavis.schemas.uris import is_local, local_path, shown

_BLOCK = 1 << 22
GB = 1 << 30


def read_given(
    setting: str,
    uri: str,
    sha256: str | None = None,
    remedy: str = "",
    *,
    most: int = GB,
    look: Callable[[Any], object] | None = None,
) -> bytes:
    """The file that a setting names, a path or URL.

    Args:
        sha256: what its content must have, from the setting of the same name with `_sha256`. remedy: where to get it.
        most: bytes that are read.
        look: is shown the open file before the rest of it is read, and may refuse it.

    Raises:
        UsageError: it is not there, may not be read, is larger, or is another file; a URL without `sha256`.
        RunFailed: its store cannot be reached now.
    """
    if not sha256 and not is_local(uri):
        raise UsageError(f"{setting}: {shown(uri)} is no local file: give its sha256, too ({setting}_sha256)")
    with open_given(setting, uri, remedy, most=most) as file:
        if look is not None:
            look(file)
            file.seek(0)
        data = _read(setting, uri, file, most)
    digest = hashlib.sha256(data).hexdigest()
    if sha256 and digest != sha256:
        raise UsageError(
            f"{setting}: {shown(uri)} has sha256 {digest[:12]}…, not {sha256[:12]}…;"
            f" fetch it again, or set {setting}_sha256 if it is another one on purpose"
        )
    return data


def check_size(size: int, most: int) -> None:
    """Refuse what is larger than anybody needs, or than this machine's memory, before any of it is read.

    Raises:
        ValueError: one of the two.
    """
    if size > most:
        raise ValueError(f"is larger than {_in_words(most)}")
    if size > psutil.virtual_memory().available:
        raise ValueError(f"takes {_in_words(size)} of memory, which this machine does not have now")


def check_file(path: str) -> None:
    """Refuse pipes and devices, which may never end, before they are opened.

    Raises:
        OSError: no such file. ValueError: a folder, a pipe or a device.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - any bytes may be its name
        raise ValueError("is no file")


@contextmanager
def open_given(setting: str, uri: str, remedy: str = "", *, most: int = GB) -> Iterator[Reader]:
    """The file that a setting names, open for those who read it piece by piece.

    Raises:
        UsageError, RunFailed: as `read_given`.
    """
    try:
        if is_local(uri):
            check_file(local_path(uri))
        with open_path(local_path(uri)) if is_local(uri) else open_file(uri, most=most) as file:
            yield file
    except ValueError as error:
        raise UsageError(f"{setting}: {shown(uri)} {error}") from error
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        waits = blame_of(error) is Blame.MACHINE and error.errno != errno.EFBIG
        if waits and not isinstance(error, PermissionError):
            raise RunFailed(f"{setting}: {shown(uri)} cannot be read now ({reason})") from error
        advice = f"; {remedy}" if remedy else ""
        raise UsageError(f"{setting}: cannot read {shown(uri)} ({reason}){advice}") from error


def _read(setting: str, uri: str, file: Reader, most: int) -> bytes:
    """Piece by piece: a server may send more than it said, and without end."""
    check_size(file.seek(0, os.SEEK_END), most)
    file.seek(0)
    data = bytearray()
    while block := file.read(_BLOCK):
        data += block
        if len(data) > most:
            raise UsageError(f"{setting}: {shown(uri)} is larger than {_in_words(most)}")
    return bytes(data)


def _in_words(size: int) -> str:
    return f"{size / GB:.3g} GB"


def short_digest(data: bytes) -> str:
    """What a file is, wherever it lies: 16 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()[:16]
