"""Joining: which of the faces seen at different times are one person, decided for all of a video together.

Each face (a chain of tracks, `stages.face.people`) is somebody already known or somebody new. Who is seen at the same
time is different people, so faces seen together are assigned together: all ways to do it are weighed by the sum of
their log-likelihood ratios (`stages.face.identity`), and what counts is how likely an answer is among all of them. The
surest face joins first, what is known of that person grows by it, and so on, until nothing is sure; then the face that
is likeliest to be somebody new, and much in view, is a person of its own, and so on again.

So a close-up is not joined to who looks a little like it while somebody else looks as much like it, and a face of which
nothing known can be compared stays alone: out of sight rather than the other person.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from visavis.stages.face.identity import Appearance, Scale

_SURE = 0.9  # probability
_TOGETHER = 3  # faces of one moment that are assigned together: the one in question and the most present others
_KNOWN = 4  # people that a face is compared with: those who look most like it
_GROWN = 1.25  # somebody of whom this much more is known is compared anew


def joined(
    appearances: Sequence[Appearance], presence_N: np.ndarray, apart_NN: np.ndarray, scale: Scale
) -> list[list[int]]:
    """Numbers of the faces of each person.

    Args:
        presence_N: how much of the video each face takes. apart_NN: bool, who are two people for certain.
    """
    groups = [[face] for face in range(len(appearances))]
    while True:
        merged = _Joining(
            [Appearance.sum([appearances[face] for face in group]) for group in groups],
            np.array([presence_N[group].sum() for group in groups]),
            np.array([[apart_NN[np.ix_(a, b)].any() for b in groups] for a in groups]),
            scale,
        ).people()
        if len(merged) == len(groups):
            return groups
        groups = [sorted(face for number in numbers for face in groups[number]) for numbers in merged]


class _Joining:
    """One pass over all faces."""

    def __init__(
        self, appearances: Sequence[Appearance], presence_N: np.ndarray, apart_NN: np.ndarray, scale: Scale
    ) -> None:
        self._appearances, self._presence_N, self._apart_NN, self._scale = appearances, presence_N, apart_NN, scale
        self._left = sorted(range(len(appearances)), key=lambda face: (-presence_N[face], face))
        self._people: list[list[int]] = []
        self._known: list[Appearance] = []  # what each person looks like …
        self._ratios: list[np.ndarray] = []  # … against all faces: nats [N]

    def people(self) -> list[list[int]]:
        answers: dict[int, list[float]] = {}
        stale = set(self._left)
        while self._left:
            answers |= {face: self._answers(face) for face in stale}
            sure = [(max(answers[f][1:]), -n, f) for n, f in enumerate(self._left) if len(answers[f]) > 1]
            certainty, _, face = max(sure, default=(0.0, 0, -1))
            if certainty >= _SURE:
                stale = self._join(face, int(np.argmax(answers[face][1:])))
            else:
                stale = self._begin(max(self._left, key=lambda f: answers[f][0] * self._presence_N[f]))
        return self._people

    def _begin(self, face: int) -> set[int]:
        """A person of its own. Returns: faces of which the answer may have changed."""
        self._left.remove(face)
        self._people.append([face])
        self._known.append(self._appearances[face])
        self._ratios.append(self._compared(len(self._people) - 1))
        return set(self._left)

    def _join(self, face: int, person: int) -> set[int]:
        self._left.remove(face)
        self._people[person].append(face)
        known = Appearance.sum([self._appearances[f] for f in self._people[person]])
        if known.amount < _GROWN * self._known[person].amount:
            return {f for f in self._left if self._apart_NN[f, face]}
        self._known[person] = known
        self._ratios[person] = self._compared(person)
        return set(self._left)

    def _compared(self, person: int) -> np.ndarray:
        ratio_N = np.zeros(len(self._appearances))
        for face in self._left:
            if not self._excluded(face, person):
                ratio_N[face] = self._scale.same(self._appearances[face], self._known[person])
        return ratio_N

    def _excluded(self, face: int, person: int) -> bool:
        return bool(self._apart_NN[face, self._people[person]].any())

    def _answers(self, face: int) -> list[float]:
        """How likely this face is: somebody new, and each of the people."""
        beside = [f for f in self._left if self._apart_NN[face, f]][: _TOGETHER - 1]
        faces = [face, *beside]
        total = np.full(1 + len(self._people), -np.inf)
        for chosen in itertools.product(*(self._candidates(f) for f in faces)):
            if not self._contradicts(faces, chosen):
                score = sum(self._ratios[who][f] for f, who in zip(faces, chosen, strict=True) if who >= 0)
                total[1 + chosen[0]] = np.logaddexp(total[1 + chosen[0]], score)
        likely: list[float] = np.exp(total - np.logaddexp.reduce(total)).tolist()
        return likely

    def _candidates(self, face: int) -> list[int]:
        """-1, for somebody new, and who looks most like this face."""
        possible = [who for who in range(len(self._people)) if not self._excluded(face, who)]
        return [-1, *sorted(possible, key=lambda who: -self._ratios[who][face])[:_KNOWN]]

    def _contradicts(self, faces: list[int], chosen: tuple[int, ...]) -> bool:
        """Two faces that are two people are said to be one."""
        pairs = itertools.combinations(zip(faces, chosen, strict=True), 2)
        return any(one == other >= 0 and bool(self._apart_NN[a, b]) for (a, one), (b, other) in pairs)
