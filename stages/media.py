"""Opening media, wherever it lies: local paths go straight to FFmpeg, any other URL through fsspec.

A broken file is the data's fault (`Rejected`); a network or disk that fails is not (`schemas.faults`): such an OSError
passes through and the item counts as failed.

Media time is what every stage means by seconds: PTS minus the container's own start (`time_origin`), as players
show it. Broadcast recordings start at arbitrary PTS; without this the grid would begin hours before the picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from schemas.errors import Reason, Rejected
from schemas.faults import Blame, blame_of
from schemas.files import Reader, open_file, open_path
from schemas.uris import is_local as is_local
from schemas.uris import local_path as local_path

_LISTS = ("concat", "dash", "hls", "sdp")  # what they lead to is neither hashed nor what the user listed


@contextmanager
def open_container(uri: str) -> Iterator[InputContainer]:
    """An opened container; closed at the end of the block.

    Raises:
        Rejected(UNREADABLE): no such file, or not media. Also raised for FFmpeg errors inside the block,
            so that a file that breaks half-way is the data's fault and not a crash.
        OSError: storage or network failed; also at the end of a block that ended well, where FFmpeg took that for the
            end of the file.
    """
    av.logging.set_level(None)  # what matters arrives as exceptions; said each time, because torchvision sets it back
    with ExitStack() as stack:
        # FFmpeg would read "-x.mp4" as an option and "concat:x" as a protocol: name the protocol.
        reader = None if is_local(uri) else stack.enter_context(open_bytes(uri))
        try:
            source = reader or f"file:{local_path(uri)}"
            container = stack.enter_context(av.open(source, "r", metadata_errors="replace"))
            if container.format.name in _LISTS:
                raise Rejected(Reason.UNREADABLE, f"{uri}: a list of other files ({container.format.name}), not media")
            yield container
        except (av.error.FFmpegError, Rejected) as error:
            _raise_failed_read(reader)
            if isinstance(error, Rejected | MemoryError):
                raise
            _check_disk(uri)
            raise Rejected(Reason.UNREADABLE, f"{uri}: {error.strerror or error}") from error
        _raise_failed_read(reader)


def _raise_failed_read(reader: Reader | None) -> None:
    """What FFmpeg was told of, and may have kept to itself."""
    if reader is not None and reader.error is not None:
        with suppress(OSError):
            av.error.err_check(0)  # PyAV would raise it at the next file
        raise reader.error


def _check_disk(uri: str) -> None:
    """Read a local file to its end: FFmpeg's errors do not tell a broken file from a disk or a process in trouble.

    Raises:
        Rejected(UNREADABLE): no such file, or a folder.
        OSError: it is not the file's fault.
    """
    if is_local(uri):
        with open_bytes(uri) as file:
            while file.read(1 << 20):
                pass


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
                raise Rejected(Reason.UNREADABLE, f"{uri}: {error.strerror}") from error
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
