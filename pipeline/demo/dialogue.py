"""Write dialogues as mp4 files with their truth beside them.

H.264 and AAC at 25 fps, as a camera would give, but encoded on one thread and without time stamps or version strings,
so that the same seed gives the same bytes. The encoder's delay is in the file's edit list: whoever honours time
stamps gets sound and picture together (measured in the tests).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from scipy.signal import resample_poly

from visavis.pipeline.demo.people import Person, make_person, person_name
from visavis.pipeline.demo.render import Pose, Renderer
from visavis.pipeline.demo.script import Motion, Rule, Script, nod_frames, room_tone, still_motion, write_script
from visavis.pipeline.demo.voices import VOICES
from visavis.schemas import FPS, SAMPLE_RATE
from visavis.schemas.errors import UsageError
from visavis.schemas.rows import Layout, Source, Turn

AUDIO_RATE = 48_000
PANEL = {Layout.ONE_FRAME: (320, 360), Layout.PER_PARTICIPANT: (320, 320)}
"""Width and height in pixels that one person takes."""

PIXELS_PER_CM = 9.2
"""A face is about 160 pixels high."""

TOWARDS = float(np.deg2rad(6.0))
"""In one frame, the two turn this far towards each other."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ParticipantTruth(_Model):
    """One person's rendered behaviour. Sequences have one value per frame; see `script.Motion` for axes and units.

    `yaw` is without `base_yaw`, which the layout adds. cues: frames at which own phrases begin. nods: frames at
    which this person begins to nod at the other's cues.
    """

    name: str
    file: str
    side: Literal["left", "right"] | None
    base_yaw: float
    cues: tuple[int, ...]
    nods: tuple[int, ...]
    pitch: tuple[float, ...]
    yaw: tuple[float, ...]
    roll: tuple[float, ...]
    mouth: tuple[float, ...]
    smile: tuple[float, ...]
    blink: tuple[float, ...]


class DialogueTruth(_Model):
    """What a pipeline should find in a dialogue. turns: `speaker` is the participant's index, seconds of media time."""

    name: str
    seed: int
    layout: Layout
    fps: int
    frames: int
    rule: Rule
    turns: tuple[Turn, ...]
    participants: tuple[ParticipantTruth, ParticipantTruth]

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the videos beside the truth: one, or one per participant."""
        return tuple(dict.fromkeys(p.file for p in self.participants))


class Clip(_Model):
    """One entry of a demo corpus. `kind` silent: a single face that never speaks, which a build must reject."""

    name: str
    seed: int
    seconds: float
    layout: Layout
    kind: Literal["dialogue", "silent"] = "dialogue"


def demo_corpus() -> tuple[Clip, ...]:
    """The default corpus: six dialogues of 36 s, two of them in one frame, and a clip that must be rejected."""
    layouts = [Layout.PER_PARTICIPANT, Layout.ONE_FRAME, Layout.PER_PARTICIPANT] * 2
    talks = [Clip(name=f"talk{i}", seed=i, seconds=36.0, layout=layout) for i, layout in enumerate(layouts)]
    return (*talks, Clip(name="silent", seed=len(talks), seconds=6.0, layout=Layout.ONE_FRAME, kind="silent"))


def make_clip(folder: Path, clip: Clip) -> Source:
    """Write one clip and say how a build should list it. Depends on nothing but its arguments."""
    if clip.kind == "silent":
        return Source(uris=(str(make_silent_clip(folder, clip.name, clip.seed, clip.seconds)),), conversation=clip.name)
    truth = make_dialogue(folder, clip.name, clip.seed, clip.seconds, clip.layout)
    return Source(
        uris=tuple(str(folder / name) for name in truth.files),
        participants=tuple(p.name for p in truth.participants) if len(truth.files) == 2 else (),
        conversation=clip.name,
    )


def make_dialogue(
    folder: Path, name: str, seed: int, seconds: float, layout: Layout | Literal["one_frame", "per_participant"]
) -> DialogueTruth:
    """Write a dialogue's mp4 files and `<name>.truth.json`.

    The same seed and length give the same people, turns and motion in either layout.

    Raises:
        UsageError: the `demo` extra is not installed.
        ValueError: too short for one turn of each.
    """
    layout = Layout(layout)
    script = write_script(seed, seconds)
    people = cast(seed)
    base_yaws = (TOWARDS, -TOWARDS) if layout is Layout.ONE_FRAME else (0.0, 0.0)
    renderers = [Renderer(person, *PANEL[layout], PIXELS_PER_CM) for person in people]
    streams = [
        _film(renderer, motion, yaw) for renderer, motion, yaw in zip(renderers, script.motion, base_yaws, strict=True)
    ]
    names = tuple(person_name(2 * seed + i) for i in (0, 1))
    folder.mkdir(parents=True, exist_ok=True)
    if layout is Layout.ONE_FRAME:
        files = [f"{name}.mp4"] * 2
        pictures = (np.hstack(pair) for pair in zip(*streams, strict=True))
        write_video(folder / files[0], pictures, script.audio[0] + script.audio[1])
    else:
        files = [f"{name}_{participant}.mp4" for participant in names]
        for file, stream, audio in zip(files, streams, script.audio, strict=True):
            write_video(folder / file, stream, audio)
    truth = DialogueTruth(
        name=name,
        seed=seed,
        layout=layout,
        fps=FPS,
        frames=script.frames,
        rule=script.rule,
        turns=script.turns,
        participants=(
            _participant(script, 0, names[0], files[0], base_yaws[0], layout),
            _participant(script, 1, names[1], files[1], base_yaws[1], layout),
        ),
    )
    _write(folder / f"{name}.truth.json", (json.dumps(truth.model_dump(mode="json"), sort_keys=True) + "\n").encode())
    return truth


def make_silent_clip(folder: Path, name: str, seed: int, seconds: float) -> Path:
    """One person who looks into the camera and says nothing."""
    frames = round(seconds * FPS)
    rng = np.random.default_rng([seed, 3])
    renderer = Renderer(cast(seed)[0], *PANEL[Layout.PER_PARTICIPANT], PIXELS_PER_CM)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.mp4"
    write_video(path, _film(renderer, still_motion(frames, rng), 0.0), room_tone(frames, rng))
    return path


def read_truth(path: Path) -> DialogueTruth:
    """The truth beside a dialogue.

    Raises:
        UsageError: no such file, or not a truth file.
    """
    try:
        return DialogueTruth.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise UsageError(f"cannot read truth {path}: {str(error).splitlines()[0]}") from error


def cast(seed: int) -> tuple[Person, Person]:
    """The two people of a dialogue; hair goes with the voice."""
    a, b = (
        make_person(2 * seed + i, long_hair="+f" in voice.name) for i, voice in enumerate(VOICES[seed % len(VOICES)])
    )
    return a, b


def write_video(path: Path, pictures: Iterator[np.ndarray], audio: np.ndarray) -> None:
    """Encode uint8 [H, W, 3] RGB pictures at 25 fps and float32 mono audio at 16 kHz into an mp4."""
    partial = path.with_name(f".{path.name}.part")
    # bitexact: no creation time and no version strings. One thread: x264's output depends on the number of threads.
    with av.open(str(partial), "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        video = None
        # 48 kHz like a camera; the encoder's delay in samples is then a third of what it would be in time at 16 kHz.
        sound = container.add_stream("aac", rate=AUDIO_RATE, layout="mono")
        sound.bit_rate = 96_000
        sound.codec_context.flags |= av.codec.context.Flags.bitexact
        samples = resample_poly(audio, AUDIO_RATE // SAMPLE_RATE, 1).astype(np.float32)
        block = AUDIO_RATE // FPS
        for number, picture in enumerate(pictures):
            if video is None:
                video = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "20"})
                video.height, video.width = picture.shape[:2]
                video.pix_fmt = "yuv420p"
                video.codec_context.thread_count = 1
                video.codec_context.flags |= av.codec.context.Flags.bitexact
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(video.encode(frame))
            piece = av.AudioFrame.from_ndarray(
                samples[None, number * block : (number + 1) * block], format="fltp", layout="mono"
            )
            piece.sample_rate, piece.pts, piece.time_base = AUDIO_RATE, number * block, Fraction(1, AUDIO_RATE)
            container.mux(sound.encode(piece))
        if video is None:
            raise ValueError("a video needs at least one picture")
        container.mux(video.encode(None))
        container.mux(sound.encode(None))
    partial.replace(path)


def _film(renderer: Renderer, motion: Motion, base_yaw: float) -> Iterator[np.ndarray]:
    columns = {field.name: getattr(motion, field.name) for field in fields(Pose)}
    columns["yaw"] = columns["yaw"] + base_yaw
    for values in zip(*columns.values(), strict=True):
        yield renderer.frame(Pose(*map(float, values)))


def _participant(script: Script, index: int, name: str, file: str, base_yaw: float, layout: Layout) -> ParticipantTruth:
    motion = script.motion[index]
    side: Literal["left", "right"] = "left" if index == 0 else "right"
    series = {
        k: tuple(np.round(getattr(motion, k), 5).tolist()) for k in ("pitch", "yaw", "roll", "mouth", "smile", "blink")
    }
    return ParticipantTruth(
        name=name,
        file=file,
        side=side if layout is Layout.ONE_FRAME else None,
        base_yaw=base_yaw,
        cues=script.cues[index],
        nods=nod_frames(script.cues[1 - index], script.rule),
        **series,
    )


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.part")
    partial.write_bytes(data)
    partial.replace(path)
