"""Pictures on the 25 fps grid: what a viewer sees, frame by frame, from any file.

Grid frame n is the source frame on screen at the middle of its span: the one with the latest PTS ≤ (n + ½) / 25 s of
media time. The middle, because PTS of a 25 fps file jitter around n / 25 by rounding. Exact for variable frame
rates: time stamps decide, never frame counts. Before the first and after the last picture, and in gaps, the
nearest one that was shown is repeated.

The trade-off: one decoding thread and one pass. A file is split over pieces, and a machine over files, so threads
inside a decoder would only contend; a piece that starts inside a group of pictures decodes from the key frame before.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from schemas import FPS
from schemas.errors import Reason, Rejected
from stages.media import decoded_frames, is_local, local_path, open_bytes, open_container, stamp, time_origin

_SEEK_BACK = (0.0, 2.0, 10.0, 60.0)  # seconds; some demuxers land after the place that was asked for
_QUICK_FORMATS = ("yuv420p", "yuvj420p")  # nearly all video; others take longer in two steps than in one
_LOST_AFTER_SEEK = ("avi", "mpeg")  # they count pictures: after a seek, stamps were up to two frames off


def frames_on_grid(
    uri: str, first: int, last: int, *, decoder: Literal["pyav", "decord"] = "pyav", max_side: int | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Grid frames first … last − 1, in order. Memory does not grow with the span.

    Args:
        uri: path or any fsspec URL.
        decoder: `pyav` streams; `decord` maps frame numbers to time stamps first, and reads remote files whole.
        max_side: scale pictures down so that no side is longer, in pixels.

    Yields:
        (n, rgb_HW3): uint8, as displayed: rotated, with square pixels. An array may come several times: do not
        write into it.

    Raises:
        Rejected(UNREADABLE): no file, no video, or nothing in it decodes.
    """
    return _DECODERS[decoder](uri, first, last, max_side)


def main_video(container: InputContainer) -> VideoStream | None:
    """The stream with the largest picture; cover art is not video."""
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    streams = [s for s in streams if s.codec_context is not None and s.codec_context.width > 0]
    return max(streams, key=lambda s: s.codec_context.width * s.codec_context.height, default=None)


def decoded(
    container: InputContainer, stream: VideoStream, packets: Iterator[Packet] | None = None
) -> Iterator[tuple[float, VideoFrame]]:
    """(seconds of media time, frame) of packets, by default of all from the current position on."""
    origin = time_origin(container)
    step = float(1 / stream.average_rate) if stream.average_rate else 1 / FPS
    time = -origin - step
    for frame in decoded_frames(packets or container.demux(stream), stream):
        assert isinstance(frame, VideoFrame)
        time = frame.time - origin if frame.time is not None else time + step
        yield time, frame


def display_size(uri: str) -> tuple[int, int]:
    """(width, height) of the picture as displayed: upright, in square pixels.

    Raises:
        Rejected(UNREADABLE): no file, no video, or nothing in it decodes.
    """
    with open_container(uri) as container:
        stream = _require_video(container, uri)
        frame = next((frame for _, frame in decoded(container, stream)), None)
        if frame is None:
            raise Rejected(Reason.UNREADABLE, f"{uri}: no picture decodes")
        return displayed(frame, stream)


def displayed(frame: VideoFrame, stream: VideoStream) -> tuple[int, int]:
    """(width, height) of a frame after rotation and correction of its pixels' aspect."""
    width, height = _square_size(frame, stream)
    return (height, width) if _quarter_turns(frame) % 2 else (width, height)


def _square_size(frame: VideoFrame, stream: VideoStream) -> tuple[int, int]:
    aspect = stream.sample_aspect_ratio or 1
    return max(1, round(frame.width * aspect)), frame.height


def _quarter_turns(frame: VideoFrame) -> int:
    return round(frame.rotation / 90) % 4  # counter-clockwise


def _upside_down(frame: VideoFrame) -> bool:
    """Whether the display matrix mirrors, as selfie cameras' do: then top and bottom are swapped before turning."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(matrix, SideData):
        return False
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32, 5).tolist()
    return bool(a * d < b * c)


class _Picture:
    """Turns decoded frames into displayed pictures, each at most once."""

    def __init__(self, stream: VideoStream, max_side: int | None) -> None:
        self._stream = stream
        self._max_side = max_side
        self._scaler, self._reformatter = VideoReformatter(), VideoReformatter()
        self._flip: bool | None = None  # asked once: a frame that was asked lives until the next garbage collection

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        width, height = _square_size(frame, self._stream)
        scale = min(1.0, self._max_side / max(width, height)) if self._max_side else 1.0
        size = max(1, round(width * scale)), max(1, round(height * scale))
        interpolation = Interpolation.AREA if scale < 1 else Interpolation.BILINEAR
        sized = frame
        if scale < 1 and frame.format.name in _QUICK_FORMATS:
            # First to size, then to RGB: FFmpeg has quick ways for either, none for both at once (1.2 and 2.7 ms).
            sized = self._scaler.reformat(frame, *size, interpolation=interpolation, threads=1)
        picture = self._reformatter.reformat(sized, *size, format="rgb24", interpolation=interpolation, threads=1)
        rgb = picture.to_ndarray()
        if self._flip is None:
            self._flip = _upside_down(frame)
        if self._flip:
            rgb = rgb[::-1]
        return np.ascontiguousarray(np.rot90(rgb, _quarter_turns(frame)))


def _pyav_frames(uri: str, first: int, last: int, max_side: int | None) -> Iterator[tuple[int, np.ndarray]]:
    with _opened_at(uri, first) as (stream, source):
        picture = _Picture(stream, max_side)
        upcoming = next(source, None)
        if upcoming is None:
            raise Rejected(Reason.UNREADABLE, f"{uri}: no picture decodes")
        shown: VideoFrame = upcoming[1]
        rgb: np.ndarray | None = None
        for n in range(first, last):
            while upcoming is not None and upcoming[0] <= (n + 0.5) / FPS:
                shown, rgb = upcoming[1], None
                upcoming = next(source, None)
            if rgb is None:
                rgb = picture(shown)
            yield n, rgb


@contextmanager
def _opened_at(uri: str, first: int) -> Iterator[tuple[VideoStream, Iterator[tuple[float, VideoFrame]]]]:
    """Frames from one on that is shown no later than grid frame `first`: from a key frame, or from the start."""
    with open_container(uri) as container:
        stream = _require_video(container, uri)
        source = _sought(container, stream, (first + 0.5) / FPS) if first > 0 else decoded(container, stream)
        if source is not None:
            yield stream, source
            return
    with open_container(uri) as container:  # anew: not every demuxer can rewind
        stream = _require_video(container, uri)
        yield stream, decoded(container, stream)


def _sought(container: InputContainer, stream: VideoStream, time: float) -> Iterator[tuple[float, VideoFrame]] | None:
    """Frames from a key frame on that begins no later than `time`, or None if no such place was found."""
    if container.format.name in _LOST_AFTER_SEEK:
        return decoded(container, stream, _from_group_at(container, stream, time))
    assert stream.time_base is not None
    for back in _SEEK_BACK:
        if time - back <= 0:
            break
        target = time - back + time_origin(container)
        try:
            container.seek(int(target / stream.time_base), stream=stream, backward=True)
        except av.error.PermissionError:  # how FFmpeg says that there is nothing before
            continue
        source = decoded(container, stream)
        head = next(source, None)
        if head is not None and head[0] <= time:
            return itertools.chain([head], source)
    return None


def _from_group_at(container: InputContainer, stream: VideoStream, time: float) -> Iterator[Packet]:
    """The packets from the last key frame before `time` on. Those before are read, not decoded."""
    packets = container.demux(stream)
    group: list[Packet] = []
    try:
        for packet in packets:
            if packet.is_keyframe and group:
                at = stamp(packet)
                if at is not None and float(at * packet.time_base) - time_origin(container) > time:
                    packets = itertools.chain([packet], packets)
                    break
                group = []
            group.append(packet)
    except av.error.InvalidDataError:
        pass  # cut off here
    yield from group
    yield from packets


def _decord_frames(uri: str, first: int, last: int, max_side: int | None) -> Iterator[tuple[int, np.ndarray]]:
    import cv2
    import decord

    decord.logging.set_level(decord.logging.FATAL)
    width, height = display_size(uri)
    scale = min(1.0, max_side / max(width, height)) if max_side else 1.0
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    start = _first_picture(uri)  # decord's time stamps count from the first picture
    with ExitStack() as stack:
        # An absolute path, or FFmpeg would read "concat:x" as a protocol. decord takes UTF-8 only.
        path = str(Path(local_path(uri)).absolute()) if is_local(uri) else ""
        source = path if path and path.isprintable() else stack.enter_context(open_bytes(uri))
        with _decord_errors(uri):
            reader = decord.VideoReader(source, num_threads=1)
            begins = reader.get_frame_timestamp(np.arange(len(reader)))[:, 0].astype(np.float64) + start
    wanted = (np.arange(first, last) + 0.5) / FPS
    indices = np.maximum(np.searchsorted(begins, wanted, side="right") - 1, 0)
    shown, rgb = -1, np.empty(0)
    for n, index in zip(range(first, last), indices.tolist(), strict=True):
        if index != shown:
            with _decord_errors(uri):
                shown, rgb = index, reader[index].asnumpy()
            if rgb.shape[1::-1] != size:
                rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
        yield n, rgb


@contextmanager
def _decord_errors(uri: str) -> Iterator[None]:
    import decord

    try:
        yield
    except (decord.DECORDError, RuntimeError) as error:
        raise Rejected(Reason.UNREADABLE, f"{uri}: decord: {str(error).splitlines()[0]}") from error


def _first_picture(uri: str) -> float:
    with open_container(uri) as container:
        return next((time for time, _ in decoded(container, _require_video(container, uri))), 0.0)


def _require_video(container: InputContainer, uri: str) -> VideoStream:
    stream = main_video(container)
    if stream is None:
        raise Rejected(Reason.UNREADABLE, f"{uri}: no video stream")
    stream.thread_type = "NONE"
    return stream


_Frames = Callable[[str, int, int, int | None], Iterator[tuple[int, np.ndarray]]]
_DECODERS: dict[str, _Frames] = {"pyav": _pyav_frames, "decord": _decord_frames}
