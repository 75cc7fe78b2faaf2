"""Speaker linking: which participants of different conversations are one person, by their voiceprints.

    evidence   nats by which two voiceprints are one person's rather than two people's
    linked     people, by merging the likeliest first (agglomerative, centroid linkage)

The cosine of two voiceprints is taken as Gaussian in both cases, with one variance. What one person's are like falls
with how little was heard, as noise attenuates a correlation: by √(s / (s + S₀)) for each side of s seconds. Two of N
participants are one person as rarely as once in N, so the evidence must exceed ln N before any two are joined: in a
corpus a thousand times larger chance makes a thousand times as many false friends for everybody.

Two participants of one conversation are two people. Where the evidence is short of the bound they stay apart: voices
that are called one person tie splits together, and a person missed is no worse than without.

Constants were fitted by `python -m benchmarks.people`, on half of its people.

Shape suffixes: N participants (or clusters of them), E embedding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

SAME = 0.80  # cosine of two voiceprints of one person of whom much was heard, …
OTHER = 0.07  # … of two people, …
DEVIATION = 0.11  # … and how far both stray
HALF = 1.0  # seconds (S₀) of which half of the variance is noise
_NEIGHBOURS = 8  # of each that are looked at in a round
_ROWS, _COLUMNS = 1024, 4096  # of a block of cosines: 16 MB, and a few times that while it is looked through


def evidence(cosine_N: np.ndarray, one_N: np.ndarray, other_N: np.ndarray) -> np.ndarray:
    """Nats for one person rather than two, of cosines of voiceprints. one_N, other_N: seconds heard of each."""
    same_N = SAME * np.sqrt(one_N / (one_N + HALF) * other_N / (other_N + HALF))
    nats_N: np.ndarray = (same_N - OTHER) * (cosine_N - (same_N + OTHER) / 2) / DEVIATION**2
    return nats_N


def bound_of(count: int) -> float:
    """Nats that the evidence must exceed among so many participants."""
    return math.log(max(count, 2))


def linked(prints_NE: np.ndarray, seconds_N: np.ndarray, talk_N: np.ndarray, bound: float | None = None) -> np.ndarray:
    """Who is who: int64 [N], the number of the person's first participant.

    Args:
        prints_NE: unit voiceprints; zeros of whom too little was heard, who stay alone.
        talk_N: int, the conversation of each; nobody is in one twice.
        bound: nats; None: of strangers (`bound_of`), as many as are heard.
    """
    bound = bound_of(int(prints_NE.any(axis=1).sum())) if bound is None else bound
    groups = _Groups(prints_NE, seconds_N, talk_N)
    while True:
        roots, centroids_RE, heard_R = groups.centroids()
        merged = 0
        for edge in _edges(centroids_RE, heard_R, bound):
            merged += groups.join(int(roots[edge.one]), int(roots[edge.other]), bound)
        if not merged:
            return groups.first()


class _Edge(NamedTuple):
    one: int
    other: int


class _Groups:
    """A forest of participants with the sum of each tree's voiceprints, seconds and conversations."""

    def __init__(self, prints_NE: np.ndarray, seconds_N: np.ndarray, talk_N: np.ndarray) -> None:
        self._heard = np.linalg.norm(prints_NE, axis=1) > 0
        self._root = list(range(len(prints_NE)))
        # Of what was heard little, little is taken: the weight is the share of the variance that is no noise.
        self._sum = (prints_NE * (seconds_N / (seconds_N + HALF))[:, None]).astype(np.float32)
        self._seconds = seconds_N.astype(np.float64).copy()
        self._talks = [{talk} for talk in talk_N.tolist()]

    def centroids(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Roots of those that were heard, their unit centroids, and seconds."""
        roots = np.array([n for n, root in enumerate(self._root) if n == root and self._heard[n]], np.int64)
        sums_RE = self._sum[roots]
        return roots, sums_RE / np.linalg.norm(sums_RE, axis=1, keepdims=True).clip(1e-9), self._seconds[roots]

    def join(self, one: int, other: int, bound: float) -> bool:
        """Make two trees one, if what they have become since still is one person's."""
        one, other = sorted((self._of(one), self._of(other)))
        if one == other or not self._talks[one].isdisjoint(self._talks[other]):
            return False
        a_E, b_E = self._sum[one], self._sum[other]
        cosine = a_E @ b_E / max(float(np.linalg.norm(a_E) * np.linalg.norm(b_E)), 1e-9)
        if evidence(np.array(cosine), self._seconds[one], self._seconds[other]) <= bound:
            return False
        self._sum[one] += self._sum[other]
        self._seconds[one] += self._seconds[other]
        small, large = sorted((self._talks[one], self._talks[other]), key=len)
        large |= small
        self._talks[one], self._talks[other] = large, set()
        self._root[other] = one
        return True

    def first(self) -> np.ndarray:
        return np.array([self._of(n) for n in range(len(self._root))], np.int64)

    def _of(self, number: int) -> int:
        while self._root[number] != number:
            self._root[number] = self._root[self._root[number]]
            number = self._root[number]
        return number


def _edges(prints_RE: np.ndarray, seconds_R: np.ndarray, bound: float) -> list[_Edge]:
    """Pairs above the bound, of each the nearest neighbours; the likeliest first."""
    found = [np.zeros((0, 3))]
    for first in range(0, len(prints_RE), _ROWS):
        rows = slice(first, first + _ROWS)
        near = [_above(prints_RE, seconds_R, rows, columns, bound) for columns in _columns(first, len(prints_RE))]
        found.append(_nearest(np.concatenate(near)))
    edges = np.concatenate(found)
    order = np.lexsort((edges[:, 1], edges[:, 0], -edges[:, 2]))
    return [_Edge(int(one), int(other)) for one, other, _ in edges[order].tolist()]


def _columns(first: int, count: int) -> Iterator[slice]:
    """Blocks of what comes after a row: each pair is looked at once."""
    return (slice(begin, begin + _COLUMNS) for begin in range(first, count, _COLUMNS))


def _above(prints_RE: np.ndarray, seconds_R: np.ndarray, rows: slice, columns: slice, bound: float) -> np.ndarray:
    """(row, column, nats) of a block's pairs above the bound, of each row the nearest."""
    cosine_RC = prints_RE[rows] @ prints_RE[columns].T
    nats_RC = evidence(cosine_RC, seconds_R[rows, None].astype(np.float32), seconds_R[columns].astype(np.float32))
    one_P, other_P = np.nonzero(nats_RC > bound)
    # Rounded, so that the order does not hang on how a machine adds up.
    nats_P = np.round(nats_RC[one_P, other_P].astype(np.float64), 3)
    pairs = np.stack([one_P + rows.start, other_P + columns.start, nats_P], axis=1)
    return _nearest(pairs[pairs[:, 0] < pairs[:, 1]])


def _nearest(pairs_P3: np.ndarray) -> np.ndarray:
    """Of each row the pairs with most evidence."""
    pairs_P3 = pairs_P3[np.lexsort((pairs_P3[:, 1], -pairs_P3[:, 2], pairs_P3[:, 0]))]
    _, begin, count = np.unique(pairs_P3[:, 0], return_index=True, return_counts=True)
    rank_P = np.arange(len(pairs_P3)) - np.repeat(begin, count)
    return pairs_P3[rank_P < _NEIGHBOURS]
