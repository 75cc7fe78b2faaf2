"""Peak memory of a worker on a 60-minute 1080p video, stage by stage.

    python -m benchmarks.memory [--quick] [--minutes 60] [--media FOLDER] [--keep FOLDER]

`--quick` takes 6 minutes of video. The figure is a worker's largest resident set while it carries out one task in a
process of its own: libraries, networks, inputs read from artifacts, output encoded and committed. The last row is one
worker that has the models of all stages loaded and has used them, as on a laptop, and then works on the long video.

The video is 12 s of a real conversation, scaled to 1920×1080 and looped by copying packets. So two things are spared:

- Faces are tracked, and that is measured, in two pieces of 60 s: the first and the last. 60 s are five loops, so every
  piece shows the same, and the others get the first one's tracks moved in time. What follows works on all of them.
- The diarizer hears the whole hour, and that is measured; but whatever it makes of words repeated 300 times to the
  sample, what follows gets the turns of one loop, repeated.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from benchmarks.processes import alone, say
from visavis.pipeline.engine.memory import peak_mb
from visavis.pipeline.engine.worker import Worker
from visavis.pipeline.plan.graph import Graph
from visavis.pipeline.state.tasks import WHOLE, Artifact, Task, artifact_path
from visavis.schemas import FPS
from visavis.schemas.artifact import dump_rows, load_rows
from visavis.schemas.config import BuildConfig
from visavis.schemas.dyads import CodecStatistics
from visavis.schemas.face_rows import FaceTracks, Piece
from visavis.schemas.rows import Conversation, Diarization, Source, Turn
from visavis.schemas.storage.store import Store
from visavis.stages.faces import pieces_of
from visavis.stages.ingest import outline_of
from visavis.stages.media.video import frames_on_grid

SIBLING = Path(__file__).parents[1] / ".." / "shared" / "media"
CLIP = Path("conversation") / "interview.mp4"
# Words said three hundred times to the sample are nobody's dialogue: `bind` would say so, instead of going on.
CONFIG = BuildConfig.model_validate(
    {"bind": {"min_odds": -1000.0, "min_share": 0.0, "min_margin": 0.0, "max_unsynced": 0.0, "strangers": 1000.0}}
)
SIZE = (1920, 1080)
LOOP = 12  # seconds: whole pictures, whole packets of sound (AC-3, 32 ms), and a fifth of a piece
LIMIT_MB = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="6 minutes of video")
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--media", type=Path, default=SIBLING, help=f"folder with {CLIP}")
    parser.add_argument("--keep", type=Path, help="folder for the video and the run, instead of a temporary one")
    options = parser.parse_args()
    minutes = 6 if options.quick else options.minutes
    if not (options.media / CLIP).is_file():
        parser.exit(2, f"no {CLIP} in {options.media}\n")
    with tempfile.TemporaryDirectory(prefix="visavis-memory-") as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        peaks = measure(options.media / CLIP, folder, minutes)
    worst = max(peaks, key=lambda name: peaks[name])
    result = {
        "name": "memory",
        "peak_mb": peaks,
        "worst": worst,
        "worst_mb": peaks[worst],
        "limit_mb": LIMIT_MB,
        "minutes": minutes,
        "against": f"{LIMIT_MB} MB",
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
    }
    print(json.dumps(result))


def measure(clip: Path, folder: Path, minutes: int) -> dict[str, float]:
    """Peak MB by stage; artifacts go to folder/run."""
    root = str(folder / "run")
    loop, video = folder / "loop.mp4", folder / "video.mp4"
    alone(encode_loop, clip, loop)
    alone(repeat, loop, video, minutes * 60)
    peaks: dict[str, float] = {}

    def work(name: str, *tasks: Task) -> None:
        ready_mb, peaks[name], seconds, ended = alone(carry_out, root, tasks)
        say(f"{name:12} {peaks[name]:7.0f} MB, {ready_mb:5.0f} of it before the video, {seconds:6.1f} s, {ended}")

    long = {name: (_artifact(name, "long"),) for name in ("ingest", "turns", "cast", "bind", "codec")}
    work("ingest", _ingest("long", video))
    conversation = _one(root, *long["ingest"], Conversation)
    pieces = _pieces(conversation)
    work("diarize", _task("diarize", "long", {WHOLE: long["ingest"]}))
    work("faces_first", _faces("long", 0, pieces[0]))
    work("faces_last", _faces("long", len(pieces) - 1, pieces[-1]))
    alone(spread_faces, root, pieces)
    practice = (_ingest("loop", loop), _task("diarize", "loop", {WHOLE: (_artifact("ingest", "loop"),)}))
    alone(carry_out, root, practice)
    alone(repeat_turns, root, conversation)

    faces = tuple(_artifact("faces", f"long-{number:04d}") for number in range(len(pieces)))
    cast = _task("cast", "long", {"conversation": long["ingest"], "faces": faces})
    work("cast", cast)
    bind = _task("bind", "long", {"conversation": long["ingest"], "diarization": long["turns"], "cast": long["cast"]})
    work("bind", bind)
    heard: dict[str, tuple[Artifact, ...]] = {"conversation": long["ingest"], "binding": long["bind"]}
    separate = _task("separate", "long", heard)
    work("separate", separate)
    work("fit", _task("fit", "long", {"bindings": long["bind"], "faces": faces}))
    alone(fit_codec_of, root)
    seen = {"codec": long["codec"], "binding": long["bind"], "faces": faces}
    motion = tuple(_task("motion", f"long-{i}", seen, {"participant": i}) for i in (0, 1))
    work("motion", motion[0])
    alone(carry_out, root, motion[1:])
    moved = {"codec": long["codec"], "motion": tuple(_artifact("motion", task.key) for task in motion)}
    windows = _task("windows", "long", {**heard, **moved})
    work("windows", windows)

    (whole_loop,) = _pieces(_one(root, _artifact("ingest", "loop"), Conversation))
    for task in (*practice, cast, bind, separate, motion[0], windows):
        (Path(root) / task.path).unlink()  # or it would be found and not made
    work("all_in_one", *practice, _faces("loop", 0, whole_loop), cast, bind, separate, motion[0], windows)
    return peaks


def carry_out(root: str, tasks: tuple[Task, ...]) -> tuple[float, float, float, str]:
    """Peak MB of this process with the first task's models loaded, and at the end; seconds; how the last one ended."""
    worker = Worker(Graph(CONFIG).stages(CONFIG, f"{root}/dataset"), root)
    worker.set_up(tasks[0].stage)
    ready_mb, began = peak_mb(), time.monotonic()
    for task in tasks:
        outcome = worker.run(task)
        if outcome.status != "ok" and task.stage != "diarize":
            raise RuntimeError(f"{task.stage} {outcome.status}: {outcome.reason} {outcome.detail}")
    return ready_mb, peak_mb(), time.monotonic() - began, " ".join((outcome.status, outcome.reason))


def encode_loop(clip: Path, path: Path) -> None:
    """The clip's first 12 s as 1080p H.264 with a key frame every 4 s, and AC-3 at 48 kHz."""
    with av.open(str(clip)) as source, av.open(str(path), "w") as target:
        video = target.add_stream("libx264", rate=FPS)
        video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        video.options = {"preset": "veryfast", "crf": "26", "g": str(4 * FPS), "sc_threshold": "0"}
        sound = target.add_stream("ac3", rate=48_000, layout="stereo")
        for n, rgb in frames_on_grid(str(clip), 0, LOOP * FPS):
            picture = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(*SIZE, format="yuv420p")
            picture.pts, picture.time_base = n, Fraction(1, FPS)
            target.mux(video.encode(picture))
        target.mux(video.encode(None))
        resampler = av.AudioResampler(format="fltp", layout="stereo", rate=48_000)
        for frame in itertools.takewhile(lambda f: f.time < LOOP, source.decode(source.streams.audio[0])):
            for block in resampler.resample(frame):
                target.mux(sound.encode(block))
        target.mux(sound.encode(None))


def repeat(loop: Path, path: Path, seconds: int) -> None:
    """Copy the packets of `encode_loop` again and again, their time stamps moved."""
    with av.open(str(loop)) as source, av.open(str(path), "w") as target:
        packets = [p for p in source.demux() if p.size and p.pts is not None and 0 <= p.pts * p.time_base < LOOP]
        packets.sort(key=lambda p: p.dts * p.time_base)
        streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
        stamped = [(p, streams[p.stream.index], p.pts, p.dts, round(LOOP / p.time_base)) for p in packets]
        for number in range(seconds // LOOP):
            for packet, stream, pts, dts, length in stamped:
                packet.stream, packet.pts, packet.dts = stream, pts + number * length, dts + number * length
                target.mux(packet)


def spread_faces(root: str, pieces: tuple[Piece, ...]) -> None:
    """The first piece's tracks for all pieces but the last."""
    first = _one(root, _artifact("faces", "long-0000"), FaceTracks)
    for number, piece in enumerate(pieces[1:-1], 1):
        if piece.last - piece.first != first.piece.last or piece.first % (LOOP * FPS):
            raise ValueError(f"{piece} does not show what the first piece does")
        tracks = tuple(t.model_copy(update={"first": t.first + piece.first}) for t in first.tracks)
        cuts = tuple(cut + piece.first for cut in first.cuts)
        row = first.model_copy(update={"piece": piece, "cuts": cuts, "tracks": tracks})
        Store(root).write(_artifact("faces", f"long-{number:04d}").path, dump_rows([row]))


def repeat_turns(root: str, conversation: Conversation) -> None:
    """The turns of one loop for the whole conversation, as `turns`."""
    once = _one(root, _artifact("diarize", "loop"), Diarization)
    turns = tuple(
        Turn(speaker=turn.speaker, start=turn.start + start, end=min(turn.end, LOOP) + start)
        for start in range(0, conversation.frames // FPS, LOOP)
        for turn in once.turns
    )
    row = once.model_copy(update={"conversation": conversation.id, "turns": turns})
    Store(root).write(_artifact("turns", "long").path, dump_rows([row]))


def fit_codec_of(root: str) -> None:
    """What the driver does between fit and motion."""
    from visavis.stages.face.codec import fit_codec

    codec = fit_codec(_one(root, _artifact("fit", "long"), CodecStatistics), CONFIG.motion)
    Store(root).write(_artifact("codec", "long").path, dump_rows([codec]))


def _pieces(conversation: Conversation) -> tuple[Piece, ...]:
    return pieces_of(outline_of(conversation), [m.uri for m in conversation.media], CONFIG.faces)


def _ingest(key: str, video: Path) -> Task:
    return _task("ingest", key, inline=Source(uris=(str(video),)).model_dump(mode="json"))


def _faces(key: str, number: int, piece: Piece) -> Task:
    return _task("faces", f"{key}-{number:04d}", inline=piece.model_dump(mode="json"))


def _task(
    stage: str, key: str, inputs: dict[str, tuple[Artifact, ...]] | None = None, inline: dict[str, Any] | None = None
) -> Task:
    return Task(stage, key, key, _artifact(stage, key).path, "", inputs=inputs or {}, inline=inline or {})


def _artifact(name: str, key: str) -> Artifact:
    return Artifact(artifact_path(name, 0, "memory", key), digest="")


def _one(root: str, artifact: Artifact, kind: type[Any]) -> Any:
    (row,) = load_rows(Store(root).read(artifact.path), kind)
    return row


if __name__ == "__main__":
    main()
