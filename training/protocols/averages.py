"""Part by part, and clip by clip, then the mean: how protocols go through sequences."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from visavis.training.metrics.windows import mean_defined
from visavis.training.protocols.clips import Clip, Parts

FEW = 64
"""Sequences that are scored sooner than other processes have begun."""


class Mean(NamedTuple):
    """A figure, NaN where it is defined in no sequence. left_out: in how many it is not."""

    value: float
    left_out: int = 0

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        return cls(mean_defined(np.array(values)), int(np.isnan(values).sum()))


def by_part(parts: Parts, of_part: Callable[[str, slice], Iterator[tuple[str, Mean]]]) -> dict[str, Mean]:
    """What a function says of each part, as FIGURE_PART."""
    return {f"{figure}_{name}": value for name, part in parts.items() for figure, value in of_part(name, part)}


def each_then_mean(clips: Sequence[Clip], figures: Mapping[str, Callable[[Clip], float]]) -> Iterator[tuple[str, Mean]]:
    """The mean of every figure over the clips in which it is defined.

    In processes, one a core: k-means of a few hundred frames is mostly Python, so threads wait for each other.
    """
    if len(clips) <= FEW:
        each = [_of_clip(list(figures.values()), clip) for clip in clips]
    else:
        from joblib import Parallel, delayed

        each = Parallel(n_jobs=-1)(delayed(_of_clip)(list(figures.values()), clip) for clip in clips)
    for name, values in zip(figures, zip(*each, strict=True), strict=True):
        yield name, Mean.of(values)


def _of_clip(figures: Sequence[Callable[[Clip], float]], clip: Clip) -> list[float]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Number of distinct clusters")  # of a face that holds still
        return [figure(clip) for figure in figures]


def exact(figures: Mapping[str, Callable[[Clip], float]]) -> dict[str, Callable[[Clip], float]]:
    """The same in float64, one clip at a time: all of a large test set would not fit into 1 GB."""
    return {name: lambda clip, figure=figure: figure(clip.double()) for name, figure in figures.items()}  # type: ignore[misc]
