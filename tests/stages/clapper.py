"""Clips that tell the time: a white flash in the picture and a beep in the sound at the same moments."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream

from visavis.stages.media.audio import read_audio
from visavis.stages.media.video import frames_on_grid

_LENGTH = 0.12  # seconds of a flash and a beep: three frames of the grid
_TICK = Fraction(1, 90_000)
_BLOCK = 1024


def write_clapper(
    path: Path,
    events: Sequence[float],
    times: Sequence[float],
    *,
    video: str = "libx264",
    audio: str = "aac",
    rate: int = 48_000,
    sound: tuple[float, float] | None = None,
    drift: float = 1.0,
    size: tuple[int, int] = (96, 64),
    aspect: Fraction | None = None,
    decoys: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """Write a clip.

    Args:
        events: seconds at which it flashes and beeps.
        times: when each picture is shown, in seconds.
        sound: first and last second of the sound; none: those of the picture.
        drift: sample i of the sound is stamped drift · i / rate: a sound card's clock that is off.
        aspect: of a pixel.
        decoys: smaller video streams beside, that never flash; in mp4 and mkv cover art, too.
    """
    first, last = map(float, sound or (times[0], times[-1] + times[1] - times[0]))
    with av.open(str(path), "w") as file:
        others = [_video_stream(file, "libx264", (48, 32), {})] if decoys else []
        main = _video_stream(file, video, size, options or {})
        if aspect is not None:
            main.codec_context.sample_aspect_ratio = aspect
        heard = file.add_stream(audio, rate=rate, layout="mono")
        for stream, dark in [*((s, True) for s in others), (main, False)]:
            for at in times:
                flash = not dark and any(0 <= at - event + 1e-6 < _LENGTH for event in events)
                picture = np.full((stream.height, stream.width, 3), 235 if flash else 20, np.uint8)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = round(float(at) / _TICK), _TICK
                file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
        _write_sound(file, heard, events, first, last, drift)
    return path


def _video_stream(file: OutputContainer, codec: str, size: tuple[int, int], options: dict[str, str]) -> VideoStream:
    stream: VideoStream = file.add_stream(codec, rate=25)
    stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
    stream.codec_context.time_base = stream.time_base = _TICK
    fast = {"preset": "veryfast", "bf": "2"} if codec == "libx264" else {}
    stream.options = {"g": "40", **fast, **options}
    return stream


def _write_sound(
    file: OutputContainer, stream: AudioStream, events: Sequence[float], first: float, last: float, drift: float
) -> None:
    rate = stream.codec_context.sample_rate
    heard_at = first + np.arange(math.ceil((last - first) / drift * rate)) / rate * drift
    beep = np.zeros(len(heard_at), np.float32)
    for event in events:
        beep[(heard_at >= event) & (heard_at < event + _LENGTH)] = 0.5
    beep *= np.sin(2 * np.pi * 1000 * heard_at).astype(np.float32)
    block = stream.codec_context.frame_size or _BLOCK
    for at in range(0, len(beep), block):
        samples = beep[None, at : at + block]
        stored = stream.codec_context.format.name
        if stored not in ("flt", "fltp"):
            samples, stored = (samples * 32767).astype(np.int16), "s16"
        frame = av.AudioFrame.from_ndarray(samples, format=stored, layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, round(heard_at[at] / _TICK), _TICK
        file.mux(stream.encode(frame))
    file.mux(stream.encode(None))


def seen_and_heard(path: Path, frames: int) -> tuple[list[int], list[int]]:
    """Grid frames on which flashes and beeps begin."""
    bright_T = np.array([rgb.mean() > 128 for _, rgb in frames_on_grid(str(path), 0, frames)])
    level_T = np.abs(read_audio(str(path), frames)).reshape(frames, -1).max(axis=1)
    return _onsets(bright_T), _onsets(level_T > 0.15)


def _onsets(on_T: np.ndarray) -> list[int]:
    return (np.flatnonzero(np.diff(on_T.astype(int)) == 1) + 1).tolist()


def ffmpeg(*arguments: str | Path) -> None:
    """Run the ffmpeg that lies in imageio-ffmpeg's wheel."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, timeout=120, stdin=subprocess.DEVNULL)
