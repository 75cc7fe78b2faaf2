"""Sequences that a protocol scores, and what is laid beside them: the noise floor, and what costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

TD = Float[np.ndarray, "T D"]
KTD = Float[np.ndarray, "K T D"]
MaskT = Bool[np.ndarray, "T"]
Parts = Mapping[str, slice]
"""Columns of a part of the motion by its name: exp, jaw, pose."""


@dataclass(frozen=True)
class Clip:
    """One sequence in raw units, float [T, D] each (`score` holds them against each other).

    listening: frames in which the avatar listens. beside: the user of what was generated, where that is another than
    the truth's (`halves`). more: further motions generated for the same user, which REACT asks for.
    """

    truth: np.ndarray
    user: np.ndarray
    generated: np.ndarray
    listening: np.ndarray | None = None  # bool [T]
    beside: np.ndarray | None = None
    more: tuple[np.ndarray, ...] = ()

    @property
    def partner(self) -> TD:
        """The user of what was generated."""
        return self.user if self.beside is None else self.beside

    @property
    def samples(self) -> KTD:
        return np.stack([self.generated, *self.more])

    def part(self, columns: slice) -> Clip:
        """Some of its columns."""
        return self.each(lambda motion: motion[:, columns])

    def frames(self, chosen_T: MaskT) -> Clip:
        """Some of its frames, one after the other."""
        return replace(self, listening=None).each(lambda motion: motion[chosen_T])

    def double(self) -> Clip:
        """In float64."""
        return self.each(lambda motion: motion.astype(np.float64))

    def each(self, change: Callable[[np.ndarray], np.ndarray]) -> Clip:
        """With every side changed."""
        beside = None if self.beside is None else change(self.beside)
        sides = {"truth": change(self.truth), "user": change(self.user), "generated": change(self.generated)}
        return replace(self, **sides, beside=beside, more=tuple(map(change, self.more)))


def listening_only(clips: Sequence[Clip]) -> list[Clip]:
    """The clips' listening frames; those without any, or of which nobody says, are left out."""
    return [c.frames(c.listening) for c in clips if c.listening is not None and c.listening.any()]


def halves(clips: Sequence[Clip]) -> list[Clip]:
    """The noise floor: the second half of each truth as if it had been generated for the second half's user. What
    it scores is what a listener scores who is like the person in everything."""
    made = []
    for clip in clips:
        n = len(clip.truth) // 2
        first, second = slice(0, n), slice(n, 2 * n)
        listening = None if clip.listening is None else clip.listening[first] & clip.listening[second]
        made.append(Clip(clip.truth[first], clip.user[first], clip.truth[second], listening, clip.user[second]))
    return made


def baselines(clips: Sequence[Clip]) -> dict[str, list[Clip]]:
    """What costs nothing, by name, in place of what was generated: the truth itself, the truth half a clip later (a
    person who moves alike and hears nobody), the first frame held, the mean of all frames, the user copied."""
    mean_D = np.concatenate([c.truth for c in clips]).mean(axis=0)

    def instead(make: Callable[[Clip], np.ndarray]) -> list[Clip]:
        return [replace(clip, generated=make(clip), more=()) for clip in clips]

    return {
        "ground_truth": instead(lambda c: c.truth),
        "shifted": instead(lambda c: np.roll(c.truth, len(c.truth) // 2, axis=0)),
        "hold_still": instead(lambda c: np.broadcast_to(c.truth[:1], c.truth.shape)),
        "mean_motion": instead(lambda c: np.broadcast_to(mean_D, c.truth.shape)),
        "copy_user": instead(lambda c: c.user),
    }
