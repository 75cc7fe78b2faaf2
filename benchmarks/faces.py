"""The faces stage beside the bare loop that anybody would write first.

    python -m benchmarks.faces [--quick] [--media FOLDER]

stage  `stages.faces.FacesStage` as a build runs it: grid, cuts, tracks, looks, confidence
bare   `container.decode` to RGB arrays of full size, and MediaPipe's `FaceMesh(refine_landmarks=True)` on each of them,
       told to look for as many faces as the stage does
told   the same loop, told how many faces there are (two): FaceMesh then looks for new ones only when it lost one. The
       stage cannot know that; this is the hardest floor there is

Clips are `interview.mp4` of the media folder beside the project, or two rendered heads where it is absent, encoded
anew at 25 fps. Each side is a process of its own, all on the same core, models loaded before the clock starts. They
take turns, for neighbours may be busy, and a ratio is the median of those within a turn. `ratio` is the stage's frames
per second over the bare loop's, by wall clock, the smaller of 720p and 1080p; `cpu_ratio` is the same by CPU time. A
piece of 12 s is shorter than those of a build, so what each costs once weighs more here.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation

from benchmarks.processes import new_process, say
from visavis.schemas import FPS
from visavis.schemas.config import FacesConfig
from visavis.schemas.face_rows import Piece
from visavis.stages.models.native import silent_stderr

SIBLING = Path(__file__).parents[1] / ".." / "shared" / "media"
SIZES = {"720p": (1280, 720), "1080p": (1920, 1080)}
SIDES = ("stage", "bare", "told")
PEOPLE = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4 s of video instead of 12, two turns instead of five")
    parser.add_argument("--media", type=Path, default=SIBLING, help="folder with conversation/interview.mp4")
    options = parser.parse_args()
    frames, turns = (4 * FPS, 2) if options.quick else (12 * FPS, 5)
    source = options.media / "conversation" / "interview.mp4"
    rows = []
    with tempfile.TemporaryDirectory(prefix="visavis-faces-") as scratch, ExitStack() as stack:
        processes = {side: stack.enter_context(new_process()) for side in SIDES}
        for name, size in SIZES.items():
            clip = Path(scratch) / f"{name}.mp4"
            write(clip, size, real(source, size, frames) if source.exists() else rendered(size, frames))
            measured = [
                {side: processes[side].submit(measure, side, clip, frames).result() for side in SIDES}
                for _ in range(1 + turns)
            ]
            rows += [summary(name, side, measured[1:]) for side in SIDES]  # the first turn is for warming up
            for row in rows[-len(SIDES) :]:
                say("  ".join(f"{key} {value}" for key, value in row.items()))

    def least(field: str, floor: str) -> float:
        return min(float(row[field]) for row in rows if row["side"] == floor)

    result = {
        "name": "faces",
        "ratio": least("stage_fps_by_this", "bare"),
        "cpu_ratio": least("stage_fps_per_core_by_this", "bare"),
        "told_ratio": least("stage_fps_by_this", "told"),
        "told_cpu_ratio": least("stage_fps_per_core_by_this", "told"),
        "fps_per_core": {row["size"]: row["fps_per_core"] for row in rows if row["side"] == "stage"},
        "rows": rows,
        "source": "interview.mp4" if source.exists() else "rendered heads",
        "against": "container.decode to RGB + mediapipe FaceMesh on every frame, one core each; smaller of both sizes",
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
    }
    print(json.dumps(result))


def summary(size: str, side: str, turns: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Medians over the turns, of this side's figures and of the stage's divided by them."""
    row: dict[str, Any] = {"side": side, "size": size}
    for field in ("fps", "fps_per_core"):
        row[field] = round(statistics.median(turn[side][field] for turn in turns), 1)
        row[f"stage_{field}_by_this"] = round(
            statistics.median(turn["stage"][field] / turn[side][field] for turn in turns), 3
        )
    return row


def measure(side: str, clip: Path, frames: int) -> dict[str, float]:
    """Frames per second, by wall clock and by CPU time."""
    work = loaded(side)
    wall, cpu = time.perf_counter(), time.process_time()
    seen = work(clip, frames)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if seen < 0.95 * frames * PEOPLE:
        raise SystemExit(f"{side} saw {seen} faces in {frames} frames with {PEOPLE} each")
    return {"fps": frames / wall, "fps_per_core": frames / cpu}


@cache
def loaded(side: str) -> Callable[[Path, int], int]:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # before any library counts the cores
    config = FacesConfig()
    return stage(config) if side == "stage" else bare(config.max_faces if side == "bare" else PEOPLE, config)


def stage(config: FacesConfig) -> Callable[[Path, int], int]:
    """As `pipeline` runs it on a clip that is one piece. Counts faces in valid frames."""
    from visavis.stages.faces import FacesStage

    faces = FacesStage(config)
    faces.setup()

    def work(clip: Path, frames: int) -> int:
        piece = Piece(conversation="clip", media=0, uri=str(clip), first=0, last=frames)
        [found] = faces.process(piece)
        return sum(int(track.valid.sum()) for track in found.tracks)

    return work


def bare(max_faces: int, config: FacesConfig) -> Callable[[Path, int], int]:
    with silent_stderr():
        from mediapipe.python.solutions.face_mesh import FaceMesh

        mesh = FaceMesh(
            max_num_faces=max_faces,
            refine_landmarks=True,
            min_detection_confidence=config.min_confidence,
            min_tracking_confidence=config.min_confidence,
        )

    def work(clip: Path, frames: int) -> int:
        seen = 0
        with av.open(str(clip)) as container, silent_stderr():
            for _, frame in zip(range(frames), container.decode(video=0), strict=False):
                seen += len(mesh.process(frame.to_ndarray(format="rgb24")).multi_face_landmarks or ())
        return seen

    return work


def real(source: Path, size: tuple[int, int], frames: int) -> Iterator[np.ndarray]:
    with av.open(str(source)) as container:
        for _, frame in zip(range(frames), container.decode(video=0), strict=False):
            yield frame.to_ndarray(format="rgb24", width=size[0], height=size[1], interpolation=Interpolation.BICUBIC)


def rendered(size: tuple[int, int], frames: int) -> Iterator[np.ndarray]:
    from visavis.pipeline.demo.people import make_person
    from visavis.pipeline.demo.render import Pose, Renderer

    renderers = [
        Renderer(make_person(i, long_hair=bool(i)), size[0] // 2, size[1], size[1] / 40) for i in range(PEOPLE)
    ]
    for n in range(frames):
        sway = 0.1 * np.sin(2 * np.pi * 0.4 * n / FPS + np.arange(4))
        pose = Pose(float(sway[0]), float(sway[1]), 0.0, 0.0, 0.0, 0.0, float(abs(sway[2]) * 5), 0.0, 0.0)
        yield np.hstack([renderer.frame(pose) for renderer in renderers])


def write(path: Path, size: tuple[int, int], pictures: Iterator[np.ndarray]) -> None:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=FPS, options={"crf": "20", "preset": "fast"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number, rgb in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts = number
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


if __name__ == "__main__":
    main()
