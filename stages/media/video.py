"""Pictures on the 25 fps grid: what a viewer sees, frame by frame, from any file.

Grid frame n is the source frame on screen at the middle of its span: the one with the latest PTS ≤ (n + ½) / 25 s of
media time. The middle, because PTS of a 25 fps file jitter around n / 25 by rounding. Exact for variable frame
rates: time stamps decide, never frame counts. Before the first and after the last picture, and in gaps, the
nearest one that was shown is repeated.

A piece shows what the whole shows. Decoders learn from a stream's first packets (parameter sets, the encoder's name and
with it the way its errors are put right), so the first picture is decoded before any seek; after it, decoding begins
with a key frame, and what is shown before that frame refers to pictures that were not decoded and is left out. All
pictures have the size of the first: where a call's resolution changes they are scaled, and framed in black where the
shape changes, too.

The trade-off: one decoding thread and one pass. A file is split over pieces, and a machine over files, so threads
inside a decoder would only contend; a piece that starts inside a group of pictures decodes from the key frame before.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Literal, NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from visavis.schemas import FPS
from visavis.schemas.config import MOST_PIXELS
from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.untrusted import bounded, first_line
from visavis.schemas.uris import is_local, local_path, shown
from visavis.stages.media.ffmpeg import is_read
from visavis.stages.media.file_identity import Unchanged
from visavis.stages.media.opening import (
    absent,
    decoded_frames,
    open_bytes,
    open_container,
    packets_of,
    stamp,
    time_origin,
)

_SEEK_BACK = (0.0, 2.0, 10.0, 60.0)  # seconds; some demuxers land after the place that was asked for
_ODDEST = 8  # width over height of a pixel, or the other way round
_SAME_SHAPE = 0.01  # of a side
_QUICK_FORMATS = ("yuv420p", "yuvj420p")  # nearly all video; others take longer in two steps than in one
_LOST_AFTER_SEEK = ("avi", "mpeg")  # they count pictures: after a seek, stamps were up to two frames off


def frames_on_grid(
    uri: str,
    first: int,
    last: int,
    *,
    decoder: Literal["pyav", "decord"] = "pyav",
    max_side: int | None = None,
    witness: str = "",
) -> Iterator[tuple[int, np.ndarray]]:
    """Grid frames first … last − 1, in order. Memory does not grow with the span.

    Args:
        uri: path or any fsspec URL.
        decoder: `pyav` streams; `decord` maps frame numbers to time stamps first, and reads remote files whole. It has
            an FFmpeg of its own: for strangers' files, ask `stages.media.ffmpeg.check_decord` before.
        max_side: scale pictures down so that no side is longer, in pixels.
        witness: what the file was when it was ingested, if that is known (`stages.media.file_identity`).

    Yields:
        (n, rgb_HW3): uint8, as displayed: rotated, with square pixels. An array may come several times: do not
        write into it.

    Raises:
        Rejected: UNREADABLE, no file, no video, or nothing in it decodes. CHANGED, not the file that was ingested.
    """
    return _DECODERS[decoder](_Clip(uri, Unchanged(uri, witness)), first, last, max_side)


class _Clip(NamedTuple):
    uri: str
    same: Unchanged


def main_video(container: InputContainer) -> VideoStream | None:
    """The stream with the largest picture, of a codec that is read; cover art is not video."""
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    streams = [s for s in streams if is_read(s) and s.codec_context.width > 0]
    return max(streams, key=lambda s: s.codec_context.width * s.codec_context.height, default=None)


def decoded(
    container: InputContainer, stream: VideoStream, packets: Iterator[Packet] | None = None
) -> Iterator[tuple[float, VideoFrame]]:
    """(seconds of media time, frame) of packets, by default of all from the current position on."""
    origin = time_origin(container)
    step = float(1 / stream.average_rate) if stream.average_rate else 1 / FPS
    time = -origin - step
    for frame in decoded_frames(packets or packets_of(container, stream), stream):
        assert isinstance(frame, VideoFrame)
        time = frame.time - origin if frame.time is not None else time + step
        yield time, frame


def display_size(uri: str, witness: str = "") -> tuple[int, int]:
    """(width, height) of the picture as displayed: upright, in square pixels. witness: as in `frames_on_grid`.

    Raises:
        Rejected: UNREADABLE, no file, no video, or nothing in it decodes. CHANGED.
    """
    return _display_size(_Clip(uri, Unchanged(uri, witness)))


def _display_size(clip: _Clip) -> tuple[int, int]:
    with open_container(*clip) as container:
        stream = _require_video(container, clip.uri)
        frame = next((frame for _, frame in decoded(container, stream)), None)
        if frame is None:
            raise _nothing_decodes(clip.uri)
        return displayed(frame, stream)


def _nothing_decodes(uri: str) -> Rejected:
    return Rejected(Reason.UNREADABLE, f"{shown(uri)}: no picture decodes")


def displayed(frame: VideoFrame, stream: VideoStream) -> tuple[int, int]:
    """(width, height) of a frame after rotation and correction of its pixels' aspect."""
    return _upright_size(frame, stream.sample_aspect_ratio)


def _upright_size(frame: VideoFrame, aspect: Fraction | None) -> tuple[int, int]:
    width, height = max(1, round(frame.width * pixel_aspect(aspect))), frame.height
    bounded(width * height, MOST_PIXELS, "pixels of a picture as it is shown")
    return (height, width) if _quarter_turns(frame) % 2 else (width, height)


def pixel_aspect(claimed: Fraction | None) -> Fraction:
    """Width of a pixel over its height; square where the header says nothing, or what no camera makes."""
    return claimed if claimed and 1 / _ODDEST <= claimed <= _ODDEST else Fraction(1)


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
    """Turns decoded frames into displayed pictures of one size, each at most once."""

    def __init__(self, stream: VideoStream, first: VideoFrame, max_side: int | None) -> None:
        self._stream = stream
        self._aspect_at_first = stream.codec_context.sample_aspect_ratio
        width, height = displayed(first, stream)
        scale = min(1.0, max_side / max(width, height)) if max_side else 1.0
        self._size = max(1, round(width * scale)), max(1, round(height * scale))
        self._scaler, self._reformatter = VideoReformatter(), VideoReformatter()
        self._flip: bool | None = None  # asked once: a frame that was asked lives until the next garbage collection

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        own = _upright_size(frame, self._aspect())
        fit = min(side / length for side, length in zip(self._size, own, strict=True))
        inner = _fitted(own, fit, self._size)
        turns = _quarter_turns(frame)
        size = inner[::-1] if turns % 2 else inner
        interpolation = Interpolation.AREA if fit < 1 else Interpolation.BILINEAR
        sized = frame
        if fit < 1 and frame.format.name in _QUICK_FORMATS:
            # First to size, then to RGB: FFmpeg has quick ways for either, none for both at once (1.2 and 2.7 ms).
            sized = self._scaler.reformat(frame, *size, interpolation=interpolation, threads=1)
        picture = self._reformatter.reformat(sized, *size, format="rgb24", interpolation=interpolation, threads=1)
        rgb = picture.to_ndarray()
        if self._flip is None:
            self._flip = _upside_down(frame)
        if self._flip:
            rgb = rgb[::-1]
        return _framed(np.ascontiguousarray(np.rot90(rgb, turns)), self._size)

    def _aspect(self) -> Fraction | None:
        """What the container says, until the stream itself says something new."""
        now = self._stream.codec_context.sample_aspect_ratio
        return self._stream.sample_aspect_ratio if now == self._aspect_at_first else now


def _fitted(own: tuple[int, int], fit: float, size: tuple[int, int]) -> tuple[int, int]:
    """The largest size of a picture's shape inside `size`; the whole of it where the shape is nearly the same."""
    inner = max(1, round(own[0] * fit)), max(1, round(own[1] * fit))
    near = all(abs(a - b) <= max(1, _SAME_SHAPE * b) for a, b in zip(inner, size, strict=True))
    return size if near else inner


def _framed(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The picture in the middle of a black one."""
    height, width = rgb.shape[:2]
    if (width, height) == size:
        return rgb
    whole = np.zeros((size[1], size[0], 3), np.uint8)
    top, left = (size[1] - height) // 2, (size[0] - width) // 2
    whole[top : top + height, left : left + width] = rgb
    return whole


def _pyav_frames(clip: _Clip, first: int, last: int, max_side: int | None) -> Iterator[tuple[int, np.ndarray]]:
    with _opened_at(clip, first, max_side) as (picture, source):
        upcoming = next(source, None)
        assert upcoming is not None  # `_opened_at` has seen it
        shown: VideoFrame = upcoming[1]
        rgb: np.ndarray | None = None
        for n in range(first, last):
            while upcoming is not None and upcoming[0] <= (n + 0.5) / FPS:
                shown, rgb = upcoming[1], None
                upcoming = next(source, None)
            if rgb is None:
                rgb = picture(shown)
            yield n, rgb


_Timed = tuple[float, VideoFrame]


@contextmanager
def _opened_at(clip: _Clip, first: int, max_side: int | None) -> Iterator[tuple[_Picture, Iterator[_Timed]]]:
    """Frames from one on that is shown no later than grid frame `first`: from a key frame, or from the start."""
    with _opened(clip, max_side) as (container, stream, picture, source):
        sought = _sought(container, stream, (first + 0.5) / FPS) if first > 0 else source
        if sought is not None:
            yield picture, sought
            return
    with _opened(clip, max_side) as (_, _, picture, source):  # anew: not every demuxer can rewind
        yield picture, source


@contextmanager
def _opened(
    clip: _Clip, max_side: int | None
) -> Iterator[tuple[InputContainer, VideoStream, _Picture, Iterator[_Timed]]]:
    """A container of which the first picture is decoded, and all its pictures."""
    with open_container(*clip) as container:
        stream = _require_video(container, clip.uri)
        source = decoded(container, stream)
        head = next(source, None)
        if head is None:
            raise _nothing_decodes(clip.uri)
        yield container, stream, _Picture(stream, head[1], max_side), itertools.chain([head], source)


def _sought(container: InputContainer, stream: VideoStream, time: float) -> Iterator[_Timed] | None:
    """Frames from a key frame on that begins no later than `time`, or None if no such place was found."""
    if container.format.name in _LOST_AFTER_SEEK:
        stream.codec_context.flush_buffers()
        return _from_key(container, stream, _from_group_at(container, stream, time), time)
    assert stream.time_base is not None
    for back in _SEEK_BACK:
        if time - back <= 0:
            break
        target = time - back + time_origin(container)
        try:
            container.seek(int(target / stream.time_base), stream=stream, backward=True)
        except av.error.PermissionError:  # how FFmpeg says that there is nothing before
            continue
        source = _from_key(container, stream, packets_of(container, stream), time)
        if source is not None:
            return source
    return None


def _from_key(
    container: InputContainer, stream: VideoStream, packets: Iterator[Packet], time: float
) -> Iterator[_Timed] | None:
    """Frames from the next key frame on; None if that is shown, or decoded without what it needs, after `time`."""
    key = next((packet for packet in packets if packet.is_keyframe and stamp(packet) is not None), None)
    if key is None:
        return None
    begin = float((stamp(key) or 0) * key.time_base) - time_origin(container) - 1e-6
    if begin > time:
        return None
    source = decoded(container, stream, itertools.chain([key], packets))
    source = itertools.dropwhile(lambda timed: timed[0] < begin, source)  # shown before, decoded after
    head = next(source, None)
    if head is None or head[1].time is None or head[0] > time:
        return None
    return itertools.chain([head], source)


def _from_group_at(container: InputContainer, stream: VideoStream, time: float) -> Iterator[Packet]:
    """The packets from the last key frame before `time` on. Those before are read, not decoded."""
    packets = packets_of(container, stream)
    group: list[Packet] = []
    for packet in packets:
        if packet.is_keyframe and group:
            at = stamp(packet)
            if at is not None and float(at * packet.time_base) - time_origin(container) > time:
                packets = itertools.chain([packet], packets)
                break
            group = []
        group.append(packet)
    yield from group
    yield from packets


def _decord_frames(clip: _Clip, first: int, last: int, max_side: int | None) -> Iterator[tuple[int, np.ndarray]]:
    import cv2
    import decord

    decord.logging.set_level(decord.logging.FATAL)
    uri = clip.uri
    width, height = _display_size(clip)
    scale = min(1.0, max_side / max(width, height)) if max_side else 1.0
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    start = _first_picture(clip)  # decord's time stamps count from the first picture
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
        raise Rejected(Reason.UNREADABLE, f"{shown(uri)}: decord: {first_line(error)}") from error


def _first_picture(clip: _Clip) -> float:
    with open_container(*clip) as container:
        return next((time for time, _ in decoded(container, _require_video(container, clip.uri))), 0.0)


def _require_video(container: InputContainer, uri: str) -> VideoStream:
    stream = main_video(container)
    if stream is None:
        raise absent(Reason.UNREADABLE, uri, container.streams.video)
    stream.thread_type = "NONE"
    return stream


_Frames = Callable[[_Clip, int, int, int | None], Iterator[tuple[int, np.ndarray]]]
_DECODERS: dict[str, _Frames] = {"pyav": _pyav_frames, "decord": _decord_frames}
