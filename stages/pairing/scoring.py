"""Who scores motion: the corpus (`stages.pairing.reactivity`), a function of the user's own, or a file of scores.

A scorer gives each side of each pair a number in a unit of its own; higher is better. Scores are in the pair's record,
rank a model's own motions (`chosen: best`), and may have to differ (`gate.min_score_margin`).

    def nods(samples, motion):  # W `visavis.schemas.sample.Sample`; float32 [W, T, D] in codec units
        return -motion[:, :, 0].min(axis=1)  # [W] finite numbers

    visavis pairs … --scorer nods.py:nods

Its code is a program that runs as the user: only the user's own command line or recipe names it, never data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from visavis.schemas.errors import UsageError
from visavis.schemas.pairs import REACTIVITY
from visavis.schemas.sample import Sample
from visavis.schemas.storage.user_function import UserFunction
from visavis.stages.pairing.measurements import Expected
from visavis.stages.pairing.reactivity import reactivity_of

SideName = Literal["chosen", "rejected"]
SIDES: tuple[SideName, SideName] = ("chosen", "rejected")


@dataclass(frozen=True)
class Side:
    """One side of a pair of each window of a batch.

    keys: of the pairs. motion: [W, T, D] float32 in codec units. normalised: the same by the corpus. expected: the
    reactions of these windows.
    """

    name: SideName
    samples: Sequence[Sample]
    keys: Sequence[str]
    motion: np.ndarray
    normalised: np.ndarray
    expected: Expected


class Scorer(Protocol):
    """name: as the pairs' origin has it. apart: up to which difference of scores the histogram of margins goes; none:
    there is none."""

    @property
    def name(self) -> str: ...

    @property
    def apart(self) -> float | None: ...

    def __call__(self, side: Side) -> np.ndarray:
        """Scores, [W] float64; NaN where there is none."""


class ReactivityScorer:
    """The reactivity of the gate, −2…2; `reactivity_margin` is the difference."""

    name = REACTIVITY
    apart = None

    def __call__(self, side: Side) -> np.ndarray:
        return reactivity_of(side.expected, side.normalised).total


class FunctionScorer:
    """A function of the user's own. Motion that is not finite is not shown to it, and has no score."""

    def __init__(self, code: str, digest: str = "", apart: float = 1.0) -> None:
        """
        Args:
            code: FILE.py:FUNCTION.
            digest: sha256 that the file must have; as it goes to another process.

        Raises:
            UsageError: there is no such function, or its file is another one.
        """
        self._function = UserFunction(code, "scorer", digest)
        self._named = self._function.named
        self.name, self.apart = f"function:{self._function.digest}", apart

    def __reduce__(self) -> tuple[Any, ...]:
        return FunctionScorer, (*self._made_of, self.apart)

    @property
    def _made_of(self) -> tuple[str, str]:
        return self._function.code, self._function.digest

    def __call__(self, side: Side) -> np.ndarray:
        return self.score(side.samples, side.motion)

    def score(self, samples: Sequence[Sample], motion_WTD: np.ndarray) -> np.ndarray:
        """Scores [W].

        Raises:
            UsageError: the function raised something, or gave anything but a finite number for each window.
        """
        finite_W = np.isfinite(motion_WTD).all(axis=(1, 2))
        scores_W = np.full(len(samples), np.nan)
        if finite_W.any():
            some = [sample for sample, finite in zip(samples, finite_W, strict=True) if finite]
            scores_W[finite_W] = self._asked(some, motion_WTD[finite_W])
        return scores_W

    def _asked(self, samples: Sequence[Sample], motion_WTD: np.ndarray) -> np.ndarray:
        scores = np.asarray(self._function(samples, motion_WTD))
        if scores.shape != (len(samples),) or scores.dtype.kind not in "biuf":
            found = f"{scores.dtype} {list(scores.shape)}"
            raise UsageError(f"{self._named} gave {found} for {len(samples)} windows, expected a number for each")
        scores_W = scores.astype(np.float64)
        broken = [sample.key for sample, score in zip(samples, scores_W, strict=True) if not np.isfinite(score)]
        if broken:
            raise UsageError(f"{self._named} gave a number that is not finite, first for window {broken[0]}")
        return scores_W

    def tried(self, samples: Sequence[Sample]) -> FunctionScorer:
        """The same, once it has scored recorded windows with their own motion and with another window's; `apart` is
        what their scores tell.

        Raises:
            UsageError: as `score`.
        """
        motion = np.stack([sample.avatar_motion for sample in samples])
        scores = [self.score(samples, each) for each in (motion, np.roll(motion, 1, axis=0))]
        return FunctionScorer(*self._made_of, apart=_rounded(2 * float(np.ptp(scores))))


class FileScorer:
    """Scores that somebody has worked out, by the keys of pairs; those that are not there have none."""

    def __init__(self, keys: Sequence[str], scores: np.ndarray, digest: str) -> None:
        """scores: [K, 2] of (chosen, rejected), NaN where there is none. digest: sha256 of the file they come from."""
        names = np.array(keys, np.bytes_)  # a tenth of the memory of a dict
        order = names.argsort()
        self._names, self._scores = names[order], scores[order]
        self.name = f"scores:{digest}"
        margins = np.abs(scores[:, 0] - scores[:, 1])
        self.apart = _rounded(float(margins[np.isfinite(margins)].max(initial=0.0)))

    def __call__(self, side: Side) -> np.ndarray:
        wanted = np.array(side.keys, np.bytes_)
        place = np.minimum(np.searchsorted(self._names, wanted), len(self._names) - 1)
        return np.where(self._names[place] == wanted, self._scores[place, SIDES.index(side.name)], np.nan)


def ranked(scores_NW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of each window's N motions is scored highest, and which lowest, [W] each: two, also where all score the
    same. Those without a score do not count; of a window with fewer than two scores it is the first two."""
    known = np.isfinite(scores_NW)
    best_W = np.where(known, scores_NW, -np.inf).argmax(axis=0)
    worst_W = len(scores_NW) - 1 - np.where(known, scores_NW, np.inf)[::-1].argmin(axis=0)
    few_W = known.sum(axis=0) < 2
    return np.where(few_W, 0, best_W), np.where(few_W, 1, worst_W)


def _rounded(apart: float) -> float:
    """Two digits that matter; 1 of nothing, and no more than a histogram can span."""
    return float(f"{min(apart, 1e300):.2g}") or 1.0
