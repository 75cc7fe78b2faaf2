"""Opening media, wherever it lies: FFmpeg is given a file's bytes, and opens nothing itself (`stages.media.ffmpeg`).

A broken file is the data's fault (`Rejected`), whatever reading it raises; a network or disk that fails is not
(`schemas.storage.faults`): such an OSError passes through and the item counts as failed. So does a lack of memory where
the machine has none left; where it has, the file claimed too much.

Media time is what every stage means by seconds: PTS minus the container's own start (`time_origin`), as players
show it. Broadcast recordings start at arbitrary PTS; without this the grid would begin hours before the picture.
"""

from __future__ import annotations

import errno
import mmap
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from visavis.schemas.errors import Reason, Rejected, VisavisError
from visavis.schemas.storage.faults import Blame, blame_of
from visavis.schemas.storage.files import Reader, open_file, open_path
from visavis.schemas.untrusted import parsing
from visavis.schemas.uris import is_local, local_path, shown
from visavis.stages.media.ffmpeg import FORMATS, claims_options, decoding_options, opening_options, unread
from visavis.stages.media.file_identity import Unchanged

_AT_ONCE = 1 << 16  # bytes that FFmpeg asks for
_ENOUGH_MEMORY = 256 << 20  # bytes; who has them left is not short of memory


@contextmanager
def open_container(
    uri: str, same: Unchanged | None = None, admit: Callable[[InputContainer], None] | None = None
) -> Iterator[InputContainer]:
    """An opened container; closed at the end of the block.

    Args:
        same: what the file is held against first.
        admit: looks at what headers claim, and may refuse it, before any decoder is begun: FFmpeg decodes while it
            opens a file, and bounds pictures then only in formats whose headers name all streams.

    Raises:
        Rejected: UNREADABLE, no such file, or no media of a kind that is read. Also raised for whatever reading its
            bytes raises inside the block, so that a file that breaks half-way is the data's fault and not a crash.
            CHANGED, it is another file.
        OSError: storage or network failed; also at the end of a block that ended well, where FFmpeg took that for the
            end of the file.
    """
    av.logging.set_level(None)  # what matters arrives as exceptions; said each time, because torchvision sets it back
    with open_bytes(uri) as reader, judged(uri, reader):
        if same is not None:
            same.check(reader)
        given = _Given(reader)
        if admit is not None:
            with _container(given, claims_only=True) as claimed:
                admit(claimed)
            given.seek(0)
        with _container(given) as container:
            for stream in container.streams:
                if stream.codec_context is not None:
                    stream.codec_context.options = decoding_options()
            yield container


@contextmanager
def judged(uri: str, reader: Reader) -> Iterator[None]:
    """Whose fault it is that reading a file's bytes raises something in this block.

    Raises:
        Rejected: UNREADABLE, the file's.
        OSError: storage or network failed, whatever the library made of that.
        MemoryError: there is none left.
    """
    try:
        yield
    except Exception as error:
        _raise_failed_read(reader)
        if isinstance(error, VisavisError) or (isinstance(error, MemoryError) and _short_of_memory()):
            raise
        if isinstance(error, av.error.FFmpegError):  # some are OSErrors; but FFmpeg opens nothing
            raise _unreadable(uri, str(error.strerror or error)) from error
        with parsing(partial(_unreadable, uri)):
            raise
    _raise_failed_read(reader)


def _unreadable(uri: str, why: str) -> Rejected:
    return Rejected(Reason.UNREADABLE, f"{shown(uri)}: {why}")


def absent(reason: Reason, uri: str, streams: Sequence[Stream]) -> Rejected:
    """Why none of a file's streams of a kind can be used: there is none, or FFmpeg may not decode it."""
    if codecs := unread(streams):
        return _unreadable(uri, f"{codecs} is not among the codecs that are read")
    return Rejected(reason, shown(uri))


def _short_of_memory() -> bool:
    try:
        mmap.mmap(-1, _ENOUGH_MEMORY).close()
    except (OSError, MemoryError):
        return True
    return False


def _raise_failed_read(reader: Reader) -> None:
    """What FFmpeg was told of, and may have kept to itself."""
    if reader.error is not None:
        with suppress(Exception):
            av.error.err_check(0)  # PyAV would raise it at the next file
        raise reader.error


class _Given:
    """A file as FFmpeg gets it: bytes to read and places to go to. Of its name only the ending counts."""

    def __init__(self, reader: Reader) -> None:
        self._reader, self.name = reader, reader.name

    def read(self, size: int) -> bytes:
        return self._reader.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._reader.seek(offset, whence)
        except (OSError, ValueError, OverflowError):  # an exception would end the file, even if FFmpeg gets by without
            return -errno.EINVAL

    def tell(self) -> int:
        return self._reader.tell()


@contextmanager
def _container(given: _Given, *, claims_only: bool = False) -> Iterator[InputContainer]:
    try:
        container = _open(given, claims_only=claims_only)
    except av.error.ArgumentError:
        if (name := _format_of(given)) and not set(name.split(",")) & set(FORMATS):
            raise ValueError(f"{name} is not among the formats that are read") from None
        raise
    with container:
        yield container


def _open(given: _Given, *, claims_only: bool = False) -> InputContainer:
    return av.open(
        given,
        "r",
        options=claims_options() if claims_only else decoding_options(),
        container_options=opening_options(),
        metadata_errors="replace",
        buffer_size=_AT_ONCE,
        io_open=_refuse,
    )


def _refuse(url: str, flags: int, options: dict[str, str]) -> None:
    raise ValueError("a list of other files, or a part of one")


def _format_of(given: _Given) -> str:
    """What FFmpeg took a file for that it refused: it says so in its log alone."""
    given.seek(0)
    av.logging.set_level(av.logging.DEBUG)
    try:
        with av.logging.Capture() as said, suppress(av.error.FFmpegError, ValueError):
            _open(given).close()
    finally:
        av.logging.set_level(None)
    probed = re.search(r"Format (\S+) (?:probed|detected)", "".join(line[2] for line in said))
    return probed[1] if probed else ""


@contextmanager
def open_bytes(uri: str) -> Iterator[Reader]:
    """A file's bytes. Reads that fail are tried again for some seconds.

    Raises:
        Rejected(UNREADABLE): no such file, or a folder.
        OSError: storage or network failed, here or at a read.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_path(local_path(uri)) if is_local(uri) else open_file(uri))
        except OSError as error:
            if blame_of(error) is Blame.DATA:
                raise _unreadable(uri, str(error.strerror)) from error
            raise
        yield file


def packets_of(container: InputContainer, *streams: Stream) -> Iterator[Packet]:
    """The packets of streams, in the file's order. A file that was cut off ends there: what came before is good."""
    try:
        yield from container.demux(*streams)
    except (av.error.InvalidDataError, IndexError):  # PyAV raises the latter at the end if a stream appeared half-way
        return


def decoded_frames(packets: Iterator[Packet], stream: AudioStream | VideoStream) -> Iterator[AudioFrame | VideoFrame]:
    """Frames of a stream's packets. Those that do not decode are skipped."""
    begun = False
    while True:
        packet = next(packets, None)
        if packet is not None and packet.size == 0:
            if stamp(packet) is not None or not begun:
                continue  # "the picture before, once more" in Theora and AVI, tables at the beginning of an FLV
            packet = None  # the demuxer's own flush
        begun = True
        try:
            yield from stream.codec_context.decode(packet)
        except av.error.MemoryError:
            if _short_of_memory():
                raise
        except av.error.FFmpegError:
            pass  # this packet is broken
        if packet is None:
            return


def stamp(packet: Packet) -> int | None:
    """When a packet is shown or heard, in units of its time base; containers without PTS tell when it is decoded."""
    return packet.pts if packet.pts is not None else packet.dts


def time_origin(container: InputContainer) -> float:
    """Seconds of PTS at which media time 0 lies."""
    return (container.start_time or 0) / av.time_base
