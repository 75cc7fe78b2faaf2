"""Opening media, wherever it lies. Local paths go straight to FFmpeg, any other URL through fsspec."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import av
import fsspec
from av.container import InputContainer

from schemas.errors import Reason, Rejected


@contextmanager
def open_container(uri: str) -> Iterator[InputContainer]:
    """An opened container; closed at the end of the block.

    Raises:
        Rejected(UNREADABLE): no such file, or not media. Also raised for FFmpeg errors inside the block,
            so that a file that breaks half-way is the data's fault and not a crash.
    """
    with ExitStack() as stack:
        try:
            protocol, path = fsspec.core.split_protocol(uri)
            # An absolute path keeps a name such as "-x.mp4" or "concat:x" from being read as an option or protocol.
            source = f"file:{path}" if protocol in (None, "file") else stack.enter_context(fsspec.open(uri, "rb"))
            yield stack.enter_context(av.open(source, "r"))
        except (av.error.FFmpegError, OSError) as error:
            raise Rejected(Reason.UNREADABLE, f"{uri}: {error.strerror or error}") from error
