"""Many distinct conversations out of few: clips cut from synthetic dialogues at different points."""

from __future__ import annotations

from pathlib import Path

import av
from av.video.frame import PictureType

from visavis.pipeline.demo.dialogue import make_dialogue

DIALOGUE_SECONDS = 36.0


def make_clips(folder: Path, count: int, seconds: float) -> list[Path]:
    """Clips of `seconds` from four dialogues (one frame with both people, 640 × 360), starting at different times."""
    folder.mkdir(parents=True, exist_ok=True)
    parents = []
    for number in range(4):
        name = f"parent{number}"
        if not (folder / f"{name}.mp4").exists():
            make_dialogue(folder, name, number, DIALOGUE_SECONDS, "one_frame")
        parents.append(folder / f"{name}.mp4")
    clips = []
    for number in range(count):
        parent = parents[number % len(parents)]
        step = (DIALOGUE_SECONDS - seconds) / max(1, -(-count // len(parents)) - 1)
        path = folder / f"clip{number:03d}.mp4"
        if not path.exists():
            cut(parent, path, step * (number // len(parents)), seconds)
        clips.append(path)
    return clips


def cut(source: Path, target: Path, start: float, seconds: float) -> None:
    """Encode a span of a video anew."""
    part = target.with_name(f".{target.name}")
    with av.open(str(source)) as reader, av.open(str(part), "w", format="mp4") as writer:
        picture, sound = reader.streams.video[0], reader.streams.audio[0]
        video = writer.add_stream("libx264", rate=25, options={"crf": "20", "preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = picture.width, picture.height, "yuv420p"
        audio = writer.add_stream("aac", rate=sound.rate)
        for frame in reader.decode(picture, sound):
            if frame.time is None or not start <= frame.time < start + seconds:
                continue
            stream = video if isinstance(frame, av.VideoFrame) else audio
            frame.pts = round((frame.time - start) / frame.time_base)
            if isinstance(frame, av.VideoFrame):
                frame.pict_type = PictureType.NONE
            writer.mux(stream.encode(frame))
        writer.mux(video.encode(None))
        writer.mux(audio.encode(None))
    part.replace(target)
