"""Rendered people whose motion is known, filmed and tracked as a build does it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from visavis.pipeline.demo.dialogue import PIXELS_PER_CM, write_video
from visavis.pipeline.demo.people import Person
from visavis.pipeline.demo.render import Pose, Renderer
from visavis.pipeline.demo.script import Motion
from visavis.schemas import FPS, SAMPLE_RATE
from visavis.schemas.face_rows import FaceTracks, Piece
from visavis.stages.faces import FacesStage

SIDE = 320
"""Pixels of a picture's sides; a face is about 160 high, as in the demo."""


def poses(motion: Motion) -> list[Pose]:
    return [Pose(*map(float, values)) for values in zip(*(getattr(motion, f.name) for f in fields(Pose)), strict=True)]


def rendered(person: Person, motion: Sequence[Pose]) -> Iterator[np.ndarray]:
    """uint8 [320, 320, 3], one for each pose."""
    renderer = Renderer(person, SIDE, SIDE, PIXELS_PER_CM)
    return (renderer.frame(pose) for pose in motion)


def tracked(
    stage: FacesStage, path: Path, pictures: Iterator[np.ndarray], frames: int, *, media: int = 0
) -> FaceTracks:
    """Film pictures at `path` and track the faces in the film.

    Raises:
        AssertionError: not one face in one track, over the whole length.
    """
    write_video(path, pictures, np.zeros(frames * SAMPLE_RATE // FPS, np.float32))
    piece = Piece(conversation=path.parent.name, media=media, uri=str(path), first=0, last=frames)
    [row] = stage.process(piece)
    assert [(track.first, len(track.valid)) for track in row.tracks] == [(0, frames)]
    assert row.tracks[0].valid.all()
    return row
