"""A stage of your own, in any build: how often each of the two people blinks.

    visavis build configs/default.yaml talk.mp4 --out runs/mine --plugin examples/plugin_blinks.py:CountBlinks
    visavis build … --plugin examples/plugin_blinks.py:CountBlinks --set plugins.blinks.settings.closed=0.6

Read what it made, in a notebook or anywhere:

    from visavis.pipeline.plan.outputs import read_outputs
    from visavis.pipeline.plan.plugins import load

    CountBlinks, _ = load("examples/plugin_blinks.py:CountBlinks")
    for conversation, blinks in read_outputs("runs/mine", CountBlinks):
        print(conversation, blinks.per_minute)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from pydantic import Field, SkipValidation

from visavis.schemas import FPS
from visavis.schemas.face_rows import FaceTracks
from visavis.schemas.rows import Binding, Row
from visavis.schemas.section import Section
from visavis.stages.base import Stage
from visavis.stages.bind import seen_by_piece

# Of FaceMesh: corners of an eye, and two points of its upper lid above two of its lower one.
EYES = (((33, 133), (160, 158), (144, 153)), ((362, 263), (385, 387), (380, 373)))


class BlinksConfig(Section):
    closed: float = Field(0.7, gt=0, lt=1, description="an eye is closed below this share of its usual opening")
    longest: float = Field(0.5, gt=0, description="seconds; longer ones are no blinks")


class BlinksInput(Row):
    """What the stage takes. A field is filled by the stage that makes its type; `faces` are several pieces of video,
    read one at a time."""

    binding: Binding
    faces: SkipValidation[Sequence[FaceTracks]]


class Blinks(Row):
    """What it leaves, one row for each conversation. Participants as in `Binding`; starts: seconds of media time."""

    conversation: str
    starts: tuple[tuple[float, ...], tuple[float, ...]]
    per_minute: tuple[float, float]


class CountBlinks(Stage[BlinksInput, Blinks]):
    name, version = "blinks", 1

    def __init__(self, config: BlinksConfig) -> None:
        super().__init__(config)
        self.closed, self.longest = config.closed, config.longest * FPS

    def process(self, item: BlinksInput) -> Iterator[Blinks]:
        found = [self._blinks(item, participant) for participant in (0, 1)]
        starts, minutes = zip(*found, strict=True)
        rates = tuple(len(times) / max(time, 1e-9) for times, time in zip(starts, minutes, strict=True))
        yield Blinks(conversation=item.binding.conversation, starts=starts, per_minute=rates)

    def _blinks(self, item: BlinksInput, participant: int) -> tuple[tuple[float, ...], float]:
        """When somebody blinks, and how many minutes of the face were seen."""
        seen = [each for each in seen_by_piece(item.binding, item.faces, participant) if len(each.where_V)]
        where_V = np.concatenate([each.where_V for each in seen]) if seen else np.zeros(0, np.int64)
        opening_V = np.concatenate([openings(each.landmarks()) for each in seen]) if seen else np.zeros(0)
        closed_V = where_V[opening_V < self.closed * np.median(opening_V)] if seen else where_V
        spans = np.split(closed_V, np.flatnonzero(np.diff(closed_V) > 1) + 1)
        starts = tuple(int(span[0]) / FPS for span in spans if 0 < len(span) <= self.longest)
        return starts, len(where_V) / FPS / 60


def openings(landmarks_VL3: np.ndarray) -> np.ndarray:
    """How far the eyes are open: height of an eye over its width [V], the mean of both (Soukupová and Čech 2016)."""

    def length(pair: tuple[int, int]) -> np.ndarray:
        length_V: np.ndarray = np.linalg.norm(landmarks_VL3[:, pair[0]] - landmarks_VL3[:, pair[1]], axis=-1)
        return length_V

    ratios = []
    for corners, upper, lower in EYES:
        height_V = sum(length(pair) for pair in zip(upper, lower, strict=True)) / 2
        ratios.append(height_V / np.maximum(length(corners), 1e-6))
    mean_V: np.ndarray = np.mean(ratios, axis=0)
    return mean_V
