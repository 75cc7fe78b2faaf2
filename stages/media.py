"""Opening media, wherever it lies: local paths go straight to FFmpeg, any other URL through fsspec.

A broken file is the data's fault (`Rejected`); a network or disk that fails is not: such an OSError passes
through and the item counts as failed.

Media time is what every stage means by seconds: PTS minus the container's own start (`time_origin`), as players
show it. Broadcast recordings start at arbitrary PTS; without this the grid would begin hours before the picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import av
import fsspec
from av.container import InputContainer

from schemas.errors import Reason, Rejected

_NOT_THE_FILES_FAULT = (MemoryError, PermissionError, TimeoutError, ConnectionError)


@contextmanager
def open_container(uri: str) -> Iterator[InputContainer]:
    """An opened container; closed at the end of the block.

    Raises:
        Rejected(UNREADABLE): no such file, or not media. Also raised for FFmpeg errors inside the block,
            so that a file that breaks half-way is the data's fault and not a crash.
        OSError: storage or network failed.
    """
    av.logging.set_level(None)  # what matters arrives as exceptions; said each time, because torchvision sets it back
    with ExitStack() as stack:
        try:
            # FFmpeg would read "-x.mp4" as an option and "concat:x" as a protocol: name the protocol.
            source = f"file:{local_path(uri)}" if is_local(uri) else stack.enter_context(open_bytes(uri))
            yield stack.enter_context(av.open(source, "r"))
        except av.error.FFmpegError as error:
            if isinstance(error, _NOT_THE_FILES_FAULT):
                raise
            raise Rejected(Reason.UNREADABLE, f"{uri}: {error.strerror or error}") from error


@contextmanager
def open_bytes(uri: str) -> Iterator[IO[bytes]]:
    """A file's bytes.

    Raises:
        Rejected(UNREADABLE): no such file, or a folder.
        OSError: storage or network failed.
    """
    with ExitStack() as stack:
        try:
            if is_local(uri):
                file = stack.enter_context(Path(local_path(uri)).open("rb"))
            else:
                filesystem, path = fsspec.core.url_to_fs(uri)
                file = stack.enter_context(filesystem.open(path, "rb"))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise Rejected(Reason.UNREADABLE, f"{uri}: {error.strerror or 'no such file'}") from error
        yield file


def is_local(uri: str) -> bool:
    return fsspec.core.split_protocol(uri)[0] in (None, "file")


def local_path(uri: str) -> str:
    """The path of a local uri, with or without `file://`."""
    path: str = fsspec.core.split_protocol(uri)[1]
    return path


def time_origin(container: InputContainer) -> float:
    """Seconds of PTS at which media time 0 lies."""
    return (container.start_time or 0) / av.time_base
