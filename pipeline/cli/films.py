"""What `visavis render` was asked for, as scenes, and those as files."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from visavis.pipeline.cli.draw import find_conversation, with_addresses
from visavis.pipeline.cli.evaluate import names_of
from visavis.pipeline.cli.flame import flame_face
from visavis.pipeline.cli.folders import dataset_folder
from visavis.pipeline.cli.generated import read_generated
from visavis.pipeline.cli.options import refuse
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.plan.file_names import GENERATED, RUN_FILE
from visavis.pipeline.view.conversation import conversation_scene, moving, span_of
from visavis.pipeline.view.encoding import check_film
from visavis.pipeline.view.film import Scene, write_film
from visavis.pipeline.view.looks import Looks, run_of
from visavis.pipeline.view.portrait_sources import read_portrait
from visavis.pipeline.view.windows import (
    GENERATED_COLOURS,
    Version,
    describe,
    find_window,
    keys_of,
    pair_versions,
    recorded,
    window_scene,
)
from visavis.schemas import FPS
from visavis.schemas.errors import DatasetError, Rejected, UsageError
from visavis.schemas.storage.store import Store
from visavis.schemas.untrusted import parsing
from visavis.schemas.words import counted
from visavis.stages.face.decode import is_key
from visavis.training.dataset import Dataset


@dataclass(frozen=True)
class RenderRequest:
    """The command's words; see `pipeline.cli.render`. given: those of them that people typed (`options.typed`)."""

    what: str
    names: tuple[str, ...]
    out: str | None
    checkpoints: tuple[Path, ...]
    windows: int
    split: str | None
    seed: int | None
    start: float | None
    end: float | None
    size: int
    dataset: str | None
    media: tuple[str, ...]
    encoder: str | None
    portrait: Path | None
    user_portrait: Path | None
    wireframe: bool
    flame: Path | None
    flame_landmarks: Path | None
    given: Mapping[str, str]


@dataclass(frozen=True)
class Made:
    """seconds: that it took to draw and write `frames`."""

    paths: tuple[Path, ...]
    frames: int
    seconds: float


def summary(made: Made) -> str:
    """`125 frames, 31 a second`."""
    rate = made.frames / max(made.seconds, 1e-3)
    return f"{counted(made.frames, 'frame')} ({made.frames / FPS:g} s), {rate:.0f} a second"


def make_films(request: RenderRequest, reporter: Reporter) -> Made:
    """Write what was asked for.

    Raises:
        UsageError: words that do not go together, or name what is not there; before anything is written.
        DatasetError: what is there cannot be read.
    """
    if request.what.endswith(GENERATED):
        return _of_generated(request, reporter)
    if request.dataset:
        raise UsageError(f"--dataset is of a KEY{GENERATED}; {request.what} is named first")
    if request.names and not any(map(is_key, request.names)):
        return _of_conversation(request, reporter)
    return _of_windows(request, reporter)


def _of_generated(request: RenderRequest, reporter: Reporter) -> Made:
    """User, recorded, generated."""
    if request.names:
        raise UsageError(f"{request.names[0]} does not go with a KEY{GENERATED}, which is one window")
    refuse(
        request.given, f"a KEY{GENERATED}",
        "checkpoint", "windows", "split", "seed", "start", "end", "media", "encoder",
    )  # fmt: skip
    path = Path(request.what)
    key, place, made_TD = read_generated(path, request.dataset)
    data = Dataset(dataset_folder(place))
    target = _file(request.out, path.with_name(f"{key}.mp4"))
    check_film(target)
    sample, people = find_window(data, key, _looks(request, run_of(data.location), reporter))
    if made_TD.shape != sample.avatar_motion.shape:
        raise UsageError(f"{path} is motion {made_TD.shape}, the window's in {place} is {sample.avatar_motion.shape}")
    versions = [recorded(sample), Version("avatar, generated", made_TD, GENERATED_COLOURS[0])]
    scene = window_scene(sample, people, versions, title=describe(sample), side=request.size)
    return _write(target, [scene], scene.frames, request, reporter)


def _of_conversation(request: RenderRequest, reporter: Reporter) -> Made:
    refuse(
        request.given, "a conversation", "checkpoint", "windows", "split", "seed", "encoder", "flame", "flame_landmarks"
    )
    if len(request.names) > 1:
        raise UsageError(f"one conversation at a time, not {' and '.join(request.names)}; keys look like ID-0-0000120")
    if not Store(request.what).exists(RUN_FILE):
        raise UsageError(
            f"{request.what} is no run, so it has no conversation {request.names[0]}; keys look like ID-0-0000120"
        )
    conversation = with_addresses(find_conversation(request.what, request.names[0]), request.media)
    target = _file(request.out, Path(f"{conversation.id}.mp4"))
    check_film(target)
    looks = _looks(request, request.what, reporter)
    first, last = span_of(conversation, request.start, request.end)
    with parsing(lambda why: DatasetError(f"{request.what}: {conversation.id} does not fit together ({why})")):
        people = moving(request.what, conversation, looks)
        scene = conversation_scene(request.what, conversation, people, first=first, last=last, side=request.size)
        try:
            return _write(target, [scene], scene.frames, request, reporter)
        except Rejected as rejected:  # the video itself
            raise UsageError(f"{conversation.id} cannot be shown: {rejected}") from rejected


def _of_windows(request: RenderRequest, reporter: Reporter) -> Made:
    """User and recorded, chosen and rejected, or what checkpoints make of them."""
    refuse(request.given, "windows", "start", "end", "media")
    if request.names:
        refuse(request.given, "a KEY", "windows", "split")
    if not request.checkpoints:
        refuse(request.given, "windows as they were recorded", "seed", "encoder")
    if request.names and not all(map(is_key, request.names)):
        raise UsageError(f"keys of windows or one conversation, not both: {' '.join(request.names)}")
    data = Dataset(dataset_folder(request.what))
    if request.split not in (None, "train", "val"):
        raise UsageError(f"--split is train or val, not {request.split}")
    split = request.split or ("val" if data.manifest.of("val") else "train")
    keys = request.names or tuple(keys_of(data, split, request.windows))
    named = keys[0] if len(keys) == 1 else "evaluation" if request.checkpoints else data.manifest.kind
    folder = _folder(request.out)
    target = _file(request.out, Path(f"{named}.mp4"))
    if not folder:
        check_film(target)
    looks = _looks(request, run_of(data.location), reporter)
    scenes = _scenes(data, keys, request, looks)
    if not folder:
        return _write(target, scenes, len(keys) * data.manifest.window, request, reporter)
    folder.mkdir(parents=True, exist_ok=True)
    began, frames, paths = time.monotonic(), 0, [folder / f"{key}.mp4" for key in keys]
    with reporter.items("render", len(keys) * data.manifest.window) as advance:
        for path, scene in zip(paths, scenes, strict=True):
            frames += write_film(path, [scene], side=request.size, advance=advance)
    return Made(tuple(paths), frames, time.monotonic() - began)


def _scenes(data: Dataset, keys: Sequence[str], request: RenderRequest, looks: Looks) -> Iterator[Scene]:
    """A scene for each key, made when it is needed; models are loaded once, at the first."""
    models = {}
    if request.checkpoints:
        from visavis.training.generate import generator

        for name, path in zip(names_of(request.checkpoints), request.checkpoints, strict=True):
            models[name] = generator(path, data.location, seed=request.seed, encoder=request.encoder)
    for key in keys:
        sample, people = find_window(data, key, looks)
        if models:
            made = enumerate(models.items())
            versions = [recorded(sample)] + [
                Version(name, model(sample), GENERATED_COLOURS[i % len(GENERATED_COLOURS)]) for i, (name, model) in made
            ]
        else:
            versions = [recorded(sample)] if sample.pair is None else pair_versions(sample)
        yield window_scene(sample, people, versions, title=describe(sample), side=request.size)


def _write(
    path: Path, scenes: Sequence[Scene] | Iterator[Scene], frames: int, request: RenderRequest, reporter: Reporter
) -> Made:
    began = time.monotonic()
    with reporter.items("render", frames) as advance:
        written = write_film(path, scenes, side=request.size, advance=advance)
    return Made((path,), written, time.monotonic() - began)


def _looks(request: RenderRequest, run: str | None, reporter: Reporter) -> Looks:
    """Raises UsageError: a portrait that is no picture with a face."""
    if request.wireframe and (request.portrait or request.user_portrait):
        raise UsageError("--wireframe draws meshes: it does not go with a portrait")
    user = read_portrait(request.user_portrait) if request.user_portrait else None
    avatar = read_portrait(request.portrait) if request.portrait else None
    flame = flame_face(request.flame, request.flame_landmarks)
    return Looks((user, avatar), None if request.wireframe or flame else run, reporter.line, flame)


def _folder(out: str | None) -> Path | None:
    """A folder that was named as --out: one that is there, or ends in a slash, or in nothing that a file ends in."""
    if out is None or not (out.endswith("/") or Path(out).is_dir() or not Path(out).suffix):
        return None
    return Path(out)


def _file(out: str | None, otherwise: Path) -> Path:
    return Path(out) if out else otherwise
