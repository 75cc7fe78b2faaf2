"""Pictures and sound as a file: .mp4 or .webm with sound, .webp or .gif without. Written whole or not at all.

Sound and pictures lie on one clock: picture n is shown from n / 25 s on, sample i is heard at i / 16000 s. Where an
encoder looks ahead, the file says so, and players that honour it are in step (`tests/view/test_film.py` measures it).
Nothing of when or by what version a film was made is in the file, and one thread encodes it: same input, same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.filter import Graph

from visavis.schemas import FPS, SAMPLE_RATE
from visavis.schemas.errors import UsageError

MOVIES, ANIMATIONS = (".mp4", ".webm"), (".webp", ".gif")
LONGEST_ANIMATION = 30 * FPS
"""Frames of a film of which an animation can be made: its palette is chosen from all its pictures at once."""

_EVERY = 2  # frames: animations have 12.5 pictures a second
_SOUND_RATE = 48_000
_PICTURE_CODECS = {".mp4": ("libx264", "libopenh264"), ".webm": ("libvpx-vp9", "libvpx")}
_SOUND_CODECS = {".mp4": ("aac",), ".webm": ("libopus", "opus")}
_OPTIONS = {
    "libx264": {"preset": "veryfast", "crf": "20"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "6", "crf": "30", "b": "0"},
    "libvpx": {"deadline": "realtime", "cpu-used": "6", "crf": "10"},
    "libwebp_anim": {"quality": "60", "compression_level": "4"},
}


class Writer(Protocol):
    """Takes the pictures of a film one by one, uint8 [H, W, 3] RGB of one size with even sides, each with the sound
    that is heard with it, float32 [2, 640] in −1…1 at 16 kHz."""

    def __call__(self, picture: np.ndarray, sound: np.ndarray) -> None: ...


def check_film(path: Path) -> None:
    """See that a film can be written there, before work starts.

    Raises:
        UsageError: an ending that is none of a film, a folder that is not there, or no encoder for it.
    """
    ending = path.suffix.lower()
    if ending not in (*MOVIES, *ANIMATIONS):
        raise UsageError(f"{path}: a film ends in .mp4 or .webm, or without sound in .webp or .gif")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}")
    if path.is_dir():
        raise UsageError(f"{path} is a folder")
    _codecs(ending)


@contextmanager
def film_writer(path: Path) -> Iterator[Writer]:
    """Writes what it is given in the block; the file is there when the block ends without an error.

    Raises:
        UsageError: as `check_film`; an animation of more than `LONGEST_ANIMATION` frames.
    """
    check_film(path)
    ending = path.suffix.lower()
    partial = path.absolute().with_name(f".{path.name}.part")  # absolute, or FFmpeg would take `a:b` for a protocol
    try:
        with ExitStack() as stack:
            if ending in MOVIES:
                movie = _Movie(stack, partial, ending)
                yield movie
                movie.end()
            else:
                animation = _Animation(stack, partial, ending)
                yield animation
                animation.end()
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _codecs(ending: str) -> tuple[str, ...]:
    """The encoders of a kind of file, for pictures and sound."""
    if ending in ANIMATIONS:
        return (_first({".webp": ("libwebp_anim",), ".gif": ("gif",)}[ending], ending),)
    return _first(_PICTURE_CODECS[ending], ending), _first(_SOUND_CODECS[ending], ending)


def _first(names: tuple[str, ...], ending: str) -> str:
    for name in names:
        if name in av.codecs_available and av.codec.Codec(name, "w").is_encoder:
            return name
    others = ", ".join(other for other in (*MOVIES, *ANIMATIONS) if other != ending)
    raise UsageError(f"PyAV's FFmpeg has no encoder for {ending} here ({', '.join(names)}); name one of {others}")


class _Movie:
    """H.264 and AAC, or VP9 and Opus."""

    def __init__(self, stack: ExitStack, path: Path, ending: str) -> None:
        options = {"fflags": "+bitexact"} | ({"movflags": "+faststart"} if ending == ".mp4" else {})
        self._container = stack.enter_context(av.open(str(path), "w", format=ending[1:], container_options=options))
        picture, sound = _codecs(ending)
        self._video = self._container.add_stream(picture, rate=FPS, options=dict(_OPTIONS.get(picture, {})))
        self._audio = self._container.add_stream(sound, rate=_SOUND_RATE, layout="stereo")
        self._audio.bit_rate = 128_000
        for stream in (self._video, self._audio):
            stream.codec_context.flags |= av.codec.context.Flags.bitexact
        self._resampler = AudioResampler(format=self._audio.codec_context.format, layout="stereo", rate=_SOUND_RATE)
        self._pictures = self._samples = 0

    def __call__(self, picture: np.ndarray, sound: np.ndarray) -> None:
        if not self._pictures:
            self._video.height, self._video.width = picture.shape[:2]
            self._video.pix_fmt = "yuv420p"
            self._video.codec_context.thread_count = 1
            self._video.codec_context.colorspace = 6  # ITU-R BT.601, in which pictures are converted
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts, frame.time_base = self._pictures, Fraction(1, FPS)
        self._container.mux(self._video.encode(frame))
        piece = av.AudioFrame.from_ndarray(np.ascontiguousarray(np.clip(sound, -1, 1)), format="fltp", layout="stereo")
        piece.sample_rate, piece.pts, piece.time_base = SAMPLE_RATE, self._samples, Fraction(1, SAMPLE_RATE)
        self._hear(self._resampler.resample(piece))
        self._pictures, self._samples = self._pictures + 1, self._samples + sound.shape[1]

    def end(self) -> None:
        if not self._pictures:
            raise ValueError("a film needs at least one picture")
        self._hear(self._resampler.resample(None))
        self._container.mux(self._video.encode(None))
        self._container.mux(self._audio.encode(None))

    def _hear(self, pieces: list[av.AudioFrame]) -> None:
        for piece in pieces:
            self._container.mux(self._audio.encode(piece))


class _Animation:
    """Every second picture, without sound, shown again and again."""

    def __init__(self, stack: ExitStack, path: Path, ending: str) -> None:
        forever = {"loop": "0", "fflags": "+bitexact"}
        self._container = stack.enter_context(av.open(str(path), "w", format=ending[1:], container_options=forever))
        (codec,) = _codecs(ending)
        self._rate = Fraction(FPS, _EVERY)
        self._stream = self._container.add_stream(codec, rate=self._rate, options=dict(_OPTIONS.get(codec, {})))
        self._stream.pix_fmt = "pal8" if ending == ".gif" else "yuv420p"
        self._graph: Graph | None = None
        self._gif, self._path, self._pictures = ending == ".gif", path, 0

    def __call__(self, picture: np.ndarray, sound: np.ndarray) -> None:
        number, self._pictures = self._pictures, self._pictures + 1
        if number >= LONGEST_ANIMATION:
            seconds = LONGEST_ANIMATION // FPS
            raise UsageError(f"a .webp or .gif is of {seconds} s at most: name an .mp4, or a part with --from and --to")
        if number % _EVERY:
            return
        if not number:
            self._stream.height, self._stream.width = picture.shape[:2]
            self._graph = self._palette(picture) if self._gif else None
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts, frame.time_base = number // _EVERY, 1 / self._rate
        if self._graph:
            self._graph.push(frame)
        else:
            self._container.mux(self._stream.encode(frame))

    def end(self) -> None:
        if not self._pictures:
            raise ValueError("a film needs at least one picture")
        if self._graph:
            self._graph.push(None)
            while True:
                try:
                    self._container.mux(self._stream.encode(self._graph.pull()))
                except (av.error.EOFError, av.error.BlockingIOError):
                    break
        self._container.mux(self._stream.encode(None))

    def _palette(self, picture: np.ndarray) -> Graph:
        """One palette for all pictures, chosen from what moves in them."""
        height, width = picture.shape[:2]
        graph = Graph()
        source = graph.add_buffer(width=width, height=height, format=av.VideoFormat("rgb24"), time_base=1 / self._rate)
        split, made, used = (
            graph.add("split"),
            graph.add("palettegen", "stats_mode=full"),
            graph.add("paletteuse", "dither=bayer:bayer_scale=4:diff_mode=rectangle"),
        )
        sink = graph.add("buffersink")
        source.link_to(split)
        split.link_to(made, 0, 0)
        split.link_to(used, 1, 0)
        made.link_to(used, 0, 1)
        used.link_to(sink)
        graph.configure()
        return graph
