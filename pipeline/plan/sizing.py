"""What a corpus will take: core-hours and disk, before it is built.

An hour of video is an hour of one file; a conversation of two files counts twice. `docs/sizing.md` says how the rates
were measured, and on what.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from visavis.pipeline.plan.sources import Sources
from visavis.schemas.errors import Rejected
from visavis.schemas.words import counted, duration, size
from visavis.stages.media.opening import open_container

CORE_HOURS, ARTIFACT_GB, DATASET_GB = 0.4, 1.0, 0.5
"""Of an hour of video."""
_LOOKED_AT = 3  # conversations whose headers are read


class Sizing(NamedTuple):
    """hours: of video, None where no header said how long it is. read: files whose headers were read.

    turns, boxes: files for which they are given.
    """

    files: int
    read: int
    hours: float | None
    turns: int = 0
    boxes: int = 0

    def plain(self) -> dict[str, float | int | None]:
        """With what that takes."""
        rates = {"core_hours": CORE_HOURS, "artifacts_tb": ARTIFACT_GB / 1e3, "dataset_tb": DATASET_GB / 1e3}
        return self._asdict() | {name: self.hours and round(rate * self.hours, 6) for name, rate in rates.items()}

    def line(self) -> str:
        """For people."""
        per_hour = f"{CORE_HOURS} core-hours, {ARTIFACT_GB:g} GB of artifacts and {DATASET_GB:g} GB of dataset an hour"
        if self.hours is None:
            return f"how long the video is (of {counted(self.files, 'file')}) is not known yet; about {per_hour} of it"
        space = size((ARTIFACT_GB + DATASET_GB) * self.hours * 1e9)
        return (
            f"about {duration(3600 * self.hours)} of video, by the headers of {self.read} of"
            f" {counted(self.files, 'file')}: {CORE_HOURS * self.hours:.2g} core-hours and {space} ({per_hour})"
        )


def sizing_of(sources: Sources) -> Sizing:
    """Guessed from the first few; the headers are believed, since it is a guess."""
    first: list[str] = []
    files = turns = boxes = 0
    for number, source in enumerate(sources):  # one pass: lists are read anew at each
        first += source.uris if number < _LOOKED_AT else ()
        files += len(source.uris)
        turns += sum(bool(each.turns) for each in source.given)
        boxes += sum(bool(each.boxes) for each in source.given)
    seconds = [found for found in map(_claimed, first) if found is not None]
    return Sizing(files, len(seconds), _hours(seconds, files), turns, boxes)


def _hours(seconds: Sequence[float], files: int) -> float | None:
    return float(np.mean(seconds)) * files / 3600 if seconds else None


def _claimed(uri: str) -> float | None:
    """Seconds that a header claims."""
    try:
        with open_container(uri) as container:
            return container.duration / 1e6 if container.duration and container.duration > 0 else None
    except (Rejected, OSError):
        return None
