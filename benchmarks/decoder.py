"""Decoders side by side: speed, memory, exactness, and which files they open.

    python -m benchmarks.decoder [--quick] [--media FOLDER] [--more FOLDER]

pyav    `stages.media.video` as it is by default: PyAV, streaming
decord  the other decoder behind the same seam (decord2), which maps frame numbers to time stamps first
bare    the floor: PyAV's own loop over all pictures to RGB arrays, no grid, no seeking

Each measurement is a process of its own with one decoding thread. `fps_per_core` counts the time of all threads: decord
converts pictures in a second one, and a machine's other cores are at work on other pieces.

Clips are made here: every picture carries its number in black and white squares, so it is known which one a decoder
gave for a frame of the 25 fps grid, and what it should look like. `right` is the share of grid frames with the right
picture, in a clip of 29.97 frames a second that begins with 0.3 s of sound and whose pictures hang together over ten
seconds, read from the start and from the middle; `difference` is the mean one, in levels of 255.

Files are those of the media folder beside the project (and of `--more`, such as what `make_awkward.sh` writes) in
which the bare loop finds a picture; where there are none, the same clip in five containers. A file counts as opened if
its first second comes out.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import json
import os
import platform
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from benchmarks.processes import alone, say
from visavis.pipeline.engine.memory import peak_mb
from visavis.schemas import FPS
from visavis.schemas.errors import Rejected
from visavis.stages.media.video import frames_on_grid

SIBLING = Path(__file__).parents[1] / ".." / "shared" / "media"
DECODERS = ("pyav", "decord", "bare")
SIZES = {"720p": (1280, 720), "1080p": (1920, 1080)}
BITS = 12
SOUND_FIRST = 0.3  # seconds
NTSC = Fraction(30_000, 1001)
FORMS = {"mp4": "libx264", "mkv": "libx264", "webm": "libvpx", "ts": "mpeg2video", "avi": "mpeg4"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4 s of video instead of 20, each measured once")
    parser.add_argument("--media", type=Path, default=SIBLING, help="folder with awkward/ and conversation/")
    parser.add_argument("--more", type=Path, help="folder with more files to open")
    options = parser.parse_args()
    seconds, repeat = (4, 1) if options.quick else (20, 3)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, size in SIZES.items():
            clip = write_numbered(Path(scratch) / f"{name}.mp4", size, Fraction(FPS), seconds)
            rows += [{"decoder": d, "what": name} | fastest(d, clip, seconds * FPS, repeat) for d in DECODERS]
        clip = write_numbered(Path(scratch) / "exact.mp4", (640, 360), NTSC, 12, sound_first=SOUND_FIRST)
        for decoder in DECODERS[:2]:
            rows.append({"decoder": decoder, "what": "29.97"} | alone(exactness, decoder, clip, 12 * FPS))
        files = media_files(options.media, options.more) or synthetic(Path(scratch))
        readable = alone(opened, "bare", files)
        for decoder in DECODERS[:2]:
            found = alone(opened, decoder, readable)
            missed = sorted({file.name for file in readable} - {file.name for file in found})
            rows.append({"decoder": decoder, "what": "files", "opened": len(found), "of": len(readable)})
            rows[-1]["missed"] = missed
    for row in rows:
        say("  ".join(f"{key} {value}" for key, value in row.items()))
    speed = {(row["decoder"], row["what"]): row["fps_per_core"] for row in rows if "fps" in row}
    result = {
        "name": "decoder",
        "ratio": round(min(speed["pyav", size] / speed["bare", size] for size in SIZES), 3),
        "rows": rows,
        "against": "PyAV's own loop over all pictures, frames per second of CPU; the smaller of 720p and 1080p",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    print(json.dumps(result))


def fastest(decoder: str, clip: Path, frames: int, repeat: int) -> dict[str, float]:
    """The best of several runs, and the largest memory."""
    runs = [alone(speed_and_memory, decoder, clip, frames) for _ in range(repeat)]
    return {field: max(run[field] for run in runs) for field in runs[0]}


def speed_and_memory(decoder: str, clip: Path, frames: int) -> dict[str, float]:
    deque(pictures(decoder, clip, 0, 2), maxlen=0)  # libraries are loaded
    began, began_cpu = time.perf_counter(), time.process_time()
    count = sum(1 for _ in pictures(decoder, clip, 0, frames))
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    return {
        "fps": round(count / seconds, 1),
        "fps_per_core": round(count / cpu_seconds, 1),
        "peak_mb": round(peak_mb(), 1),
    }


def exactness(decoder: str, clip: Path, frames: int) -> dict[str, float]:
    """Share of right pictures, and how far they are from what was drawn (levels of 255)."""
    with av.open(str(clip)) as file:
        shown_from = sorted(float(p.pts * p.time_base) for p in file.demux(video=0) if p.pts is not None)
    right, total, differences = 0, 0, []
    for first in (0, frames // 2 + 3):
        for n, rgb in frames_on_grid(str(clip), first, frames, decoder=decoder):  # type: ignore[arg-type]
            wanted = max(0, bisect.bisect_right(shown_from, (n + 0.5) / FPS) - 1)
            right += number_in(rgb) == wanted
            total += 1
            drawn = numbered(wanted, (rgb.shape[1], rgb.shape[0])).astype(np.int16)
            differences.append(float(np.abs(rgb - drawn).mean()))
    return {"right": round(right / total, 4), "difference": round(float(np.mean(differences)), 2)}


def opened(decoder: str, files: list[Path]) -> list[Path]:
    """The files of which the first second comes out."""
    found = []
    for file in files:
        with contextlib.suppress(Rejected, av.error.FFmpegError):
            if sum(1 for _ in pictures(decoder, file, 0, FPS)):
                found.append(file)
    return found


def pictures(decoder: str, clip: Path, first: int, last: int) -> Iterator[np.ndarray]:
    if decoder != "bare":
        for _, rgb in frames_on_grid(str(clip), first, last, decoder=decoder):  # type: ignore[arg-type]
            yield rgb
        return
    av.logging.set_level(None)
    with av.open(f"file:{clip}") as container:
        moving = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        for stream in moving[:1]:
            stream.thread_type = "NONE"
            reformatter = VideoReformatter()
            for _, frame in zip(range(last - first), container.decode(stream), strict=False):
                yield reformatter.reformat(frame, format="rgb24").to_ndarray()


def media_files(media: Path, more: Path | None) -> list[Path]:
    folders = [media / "awkward", media / "conversation", *([more] if more else [])]
    return sorted(file for folder in folders if folder.is_dir() for file in folder.iterdir() if file.is_file())


def synthetic(folder: Path) -> list[Path]:
    return [
        write_numbered(folder / f"form.{form}", (320, 180), Fraction(FPS), 2, codec=codec)
        for form, codec in FORMS.items()
    ]


def numbered(number: int, size: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W, 3]: squares that say the number, over slopes that move."""
    width, height = size
    x, y = np.arange(width)[None], np.arange(height)[:, None]
    slopes = 90 + 60 * np.sin((x + 3 * number) * 6.3 / width) + 40 * np.cos((y - 2 * number) * 12.6 / height)
    picture = np.repeat(slopes[..., None], 3, axis=2)
    bits = [(number >> bit & 1) for bit in range(BITS)]
    strip = np.repeat(np.array(bits) * 200.0 + 20, -(-width // BITS))[:width]
    picture[: height // 8] = strip[None, :, None]
    return picture.astype(np.uint8)


def number_in(rgb_HW3: np.ndarray) -> int:
    height, width, _ = rgb_HW3.shape
    cell = -(-width // BITS)
    row = rgb_HW3[height // 16].mean(axis=1)
    return sum(int(row[min(width - 1, bit * cell + cell // 2)] > 120) << bit for bit in range(BITS))


def write_numbered(
    path: Path, size: tuple[int, int], fps: Fraction, seconds: int, *, codec: str = "libx264", sound_first: float = 0.0
) -> Path:
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"crf": "16", "preset": "veryfast", "g": "300", "bf": "3"} if codec == "libx264" else {}
        sound = file.add_stream("aac", rate=48_000, layout="mono") if sound_first else None
        offset = round(sound_first * fps * 1000)
        tick = 1 / (fps * 1000) if codec == "libx264" else 1 / fps
        if codec == "libx264":
            stream.codec_context.time_base = tick
        for number in range(int(seconds * fps)):
            frame = av.VideoFrame.from_ndarray(numbered(number, size), format="rgb24")
            frame.pts = offset + number * 1000 if codec == "libx264" else number
            frame.time_base = tick
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        if sound is not None:
            for at in range(0, seconds * 48_000, 1024):
                block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                block.sample_rate, block.pts, block.time_base = 48_000, at, Fraction(1, 48_000)
                file.mux(sound.encode(block))
            file.mux(sound.encode(None))
    return path


if __name__ == "__main__":
    main()
