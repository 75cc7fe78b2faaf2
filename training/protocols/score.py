"""What a protocol says of sequences, by its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np

from visavis.schemas.errors import UsageError
from visavis.training.protocols.averages import Mean
from visavis.training.protocols.clips import Clip, Parts
from visavis.training.protocols.dim import dim
from visavis.training.protocols.dualtalk import dualtalk
from visavis.training.protocols.react import react
from visavis.training.protocols.unils import Upper, unils

Protocol = Literal["dim", "dualtalk", "unils", "react"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
_SCORES: dict[Protocol, Callable[[Sequence[Clip], Parts], dict[str, Mean]]] = {
    "dim": dim,
    "dualtalk": dualtalk,
    "react": react,
}


def score(protocol: Protocol, clips: Sequence[Clip], parts: Parts, upper: Upper | None = None) -> dict[str, float]:
    """The figures of a protocol by name, FIGURE_PART: `means` without what they leave out."""
    return {name: mean.value for name, mean in means(protocol, clips, parts, upper).items()}


def means(protocol: Protocol, clips: Sequence[Clip], parts: Parts, upper: Upper | None = None) -> dict[str, Mean]:
    """The figures of a protocol by name, and in how many sequences each is not defined. Sides of different types are
    all taken as the finest of them.

    upper: the upper face's vertices of a motion, which `unils` takes.

    Raises:
        UsageError: no clips, numbers that are not finite, or sides of one clip that differ in shape.
    """
    from threadpoolctl import threadpool_limits  # of the extra, as scikit-learn

    _check(clips)
    with threadpool_limits(1):  # matrices are small
        return unils(_alike(clips), parts, upper) if protocol == "unils" else _SCORES[protocol](_alike(clips), parts)


def _alike(clips: Sequence[Clip]) -> list[Clip]:
    """In one type, float32 at least, as k-means of one and its clusters of the other are refused."""
    finest = np.result_type(np.float32, *{side.dtype for clip in clips for side in _sides(clip)})
    return [clip.each(lambda motion: motion.astype(finest, copy=False)) for clip in clips]


def _sides(clip: Clip) -> list[np.ndarray]:
    return [clip.truth, clip.user, clip.generated, *clip.more, *(() if clip.beside is None else (clip.beside,))]


def _check(clips: Sequence[Clip]) -> None:
    if not clips:
        raise UsageError("there are no sequences to score")
    for number, clip in enumerate(clips):
        sides = _sides(clip)
        if len({side.shape for side in sides}) > 1:
            raise UsageError(
                f"sequence {number}: sides of {', '.join(str(side.shape) for side in sides)} do not compare"
            )
        if not all(np.isfinite(side).all() for side in sides):
            raise UsageError(f"sequence {number}: a number is not finite")
