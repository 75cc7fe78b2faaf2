"""A video as camera and microphone of a Chromium: files of pictures and sound, and the flags that name them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np
import soundfile

RATE = 48_000


def flags(pictures: Path, sound: Path) -> list[str]:
    """What Chromium is started with; it plays both in a loop, each from when it is opened."""
    return [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={pictures}",
        f"--use-file-for-fake-audio-capture={sound}",
    ]


def write_pictures(
    path: Path, pictures_HW3: Iterable[np.ndarray], fps: int = 25, size: tuple[int, int] = (640, 480)
) -> int:
    """uint8 RGB pictures as an uncompressed .y4m, fitted into `size` with grey beside them; how many there were."""
    count = 0
    with path.open("wb") as file:
        file.write(b"YUV4MPEG2 W%d H%d F%d:1 Ip A1:1 C420\n" % (*size, fps))
        for rgb in pictures_HW3:
            frame = av.VideoFrame.from_ndarray(_fitted(rgb, size), format="rgb24").reformat(format="yuv420p")
            file.write(b"FRAME\n" + frame.to_ndarray().tobytes())
            count += 1
    return count


def write_sound(path: Path, samples_N: np.ndarray, rate: int) -> None:
    """Mono sound as Chromium reads it: 48 kHz, 16 bit."""
    from scipy.signal import resample_poly

    soundfile.write(path, resample_poly(samples_N, RATE, rate).clip(-1, 1), RATE, subtype="PCM_16")


def devices_of(video: Path, folder: Path) -> list[str]:
    """The flags for a video with sound, whose files are written into `folder`."""
    from visavis.stages.media.audio import read_audio

    pictures, sound = folder / "camera.y4m", folder / "microphone.wav"
    with av.open(str(video)) as container:
        rate = round(container.streams.video[0].average_rate or 25)
        frames = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
        count = write_pictures(pictures, frames, rate)
    heard_N = read_audio(str(video))
    wanted = round(count / rate * 16_000)  # both loops are of one length
    write_sound(sound, np.pad(heard_N, (0, max(0, wanted - len(heard_N))))[:wanted], 16_000)
    return flags(pictures, sound)


def _fitted(rgb_HW3: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    import cv2

    width, height = size
    scale = min(width / rgb_HW3.shape[1], height / rgb_HW3.shape[0])
    fitted = cv2.resize(rgb_HW3, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    out = np.full((height, width, 3), 96, np.uint8)
    top, left = (height - fitted.shape[0]) // 2, (width - fitted.shape[1]) // 2
    out[top : top + fitted.shape[0], left : left + fitted.shape[1]] = fitted
    return out
