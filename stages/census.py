"""Census: what balancing and scaling need to know of all windows of a corpus, counted part by part.

A part is a few hundred dyads of the training split. Only the heads of their artifacts are read, and what comes out is
small and adds up, so a corpus of any size is counted by its workers and summed by the driver.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from visavis.schemas.dyads import Census, DyadHead, WindowClass
from visavis.schemas.rows import Row
from visavis.stages.balance import histogram
from visavis.stages.base import Stage


class CensusInput(Row):
    """Part of the training split."""

    dyads: tuple[DyadHead, ...]


class CensusStage(Stage[CensusInput, Census]):
    """Counts the windows of some dyads by class and expressiveness, and sums up the moments of their motion."""

    name = "census"
    version = 1

    def process(self, item: CensusInput) -> Iterator[Census]:
        windows = [window for dyad in item.dyads for window in dyad.windows]
        by_class = [np.array([w.expressiveness for w in windows if w.label is label]) for label in WindowClass]
        yield Census(
            counts=np.stack([histogram(values) for values in by_class]),
            moments=np.sum([m for dyad in item.dyads for m in dyad.moments], axis=0, dtype=np.float64),
        )


def merge(parts: Iterable[Census]) -> Census:
    """The sum of one part or more, in their order."""
    first, *others = parts
    return Census(
        counts=sum((p.counts for p in others), first.counts), moments=sum((p.moments for p in others), first.moments)
    )


def scale(census: Census) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the motion, float64 (D,) each."""
    count, moments = census.moments[0], census.moments[1:]
    dim = len(moments) // 2
    mean = moments[:dim] / count
    return mean, np.sqrt(np.clip(moments[dim:] / count - mean**2, 1e-8, None))
