"""Which participants of different conversations are one person, by their prints: unit embeddings of voices or faces.

People are made by merging the likeliest first (agglomerative, centroid linkage), as long as the evidence
(`stages.crowd.likeness`) exceeds its bound. Two participants of one conversation are two people. Where the evidence is
short of the bound they stay apart: who is called one person ties splits together, and a person missed is no worse than
without.

Shape suffixes: N participants (or clusters of them), E embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from visavis.stages.crowd.likeness import OF_VOICES, Likeness

_NEIGHBOURS = 8  # of each that are looked at in a round
_ROWS, _COLUMNS = 1024, 4096  # of a block of cosines: 16 MB, and a few times that while it is looked through


def linked(
    prints_NE: np.ndarray,
    weight_N: np.ndarray,
    talk_N: np.ndarray,
    bound: float | None = None,
    likeness: Likeness = OF_VOICES,
) -> np.ndarray:
    """Who is who: int64 [N], the number of the person's first participant.

    Args:
        prints_NE: unit embeddings; zeros of whom too little was heard or seen, who stay alone.
        weight_N: of each print, seconds or pictures. talk_N: int, the conversation of each; nobody is in one twice.
        bound: nats; None: of strangers (`Likeness.bound`), as many as there are prints.
    """
    bound = likeness.bound(int(prints_NE.any(axis=1).sum())) if bound is None else bound
    groups = _Groups(prints_NE, weight_N, talk_N, likeness)
    while True:
        roots, centroids_RE, weight_R = groups.centroids()
        merged = 0
        for edge in _edges(centroids_RE, weight_R, bound, likeness):
            merged += groups.join(int(roots[edge.one]), int(roots[edge.other]), bound)
        if not merged:
            return groups.first()


class _Edge(NamedTuple):
    one: int
    other: int


class _Groups:
    """A forest of participants with the sum of each tree's prints, weights and conversations."""

    def __init__(self, prints_NE: np.ndarray, weight_N: np.ndarray, talk_N: np.ndarray, likeness: Likeness) -> None:
        self._likeness = likeness
        self._known = np.linalg.norm(prints_NE, axis=1) > 0
        self._root = list(range(len(prints_NE)))
        self._sum = (prints_NE * likeness.share(weight_N)[:, None]).astype(np.float32)
        self._weight = weight_N.astype(np.float64).copy()
        self._talks = [{talk} for talk in talk_N.tolist()]

    def centroids(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Roots of those that have a print, their unit centroids, and weights."""
        roots = np.array([n for n, root in enumerate(self._root) if n == root and self._known[n]], np.int64)
        sums_RE = self._sum[roots]
        return roots, sums_RE / np.linalg.norm(sums_RE, axis=1, keepdims=True).clip(1e-9), self._weight[roots]

    def join(self, one: int, other: int, bound: float) -> bool:
        """Make two trees one, if what they have become since still is one person's."""
        one, other = sorted((self._of(one), self._of(other)))
        if one == other or not self._talks[one].isdisjoint(self._talks[other]):
            return False
        a_E, b_E = self._sum[one], self._sum[other]
        cosine = a_E @ b_E / max(float(np.linalg.norm(a_E) * np.linalg.norm(b_E)), 1e-9)
        if self._likeness.evidence(np.array(cosine), self._weight[one], self._weight[other]) <= bound:
            return False
        self._sum[one] += self._sum[other]
        self._weight[one] += self._weight[other]
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


def _edges(prints_RE: np.ndarray, weight_R: np.ndarray, bound: float, likeness: Likeness) -> list[_Edge]:
    """Pairs above the bound, of each the nearest neighbours; the likeliest first."""
    found = [np.zeros((0, 3))]
    for first in range(0, len(prints_RE), _ROWS):
        rows = slice(first, first + _ROWS)
        blocks = ((rows, columns) for columns in _columns(first, len(prints_RE)))
        near = [_above(prints_RE, weight_R, block, bound, likeness) for block in blocks]
        found.append(_nearest(np.concatenate(near)))
    edges = np.concatenate(found)
    order = np.lexsort((edges[:, 1], edges[:, 0], -edges[:, 2]))
    return [_Edge(int(one), int(other)) for one, other, _ in edges[order].tolist()]


def _columns(first: int, count: int) -> Iterator[slice]:
    """Blocks of what comes after a row: each pair is looked at once."""
    return (slice(begin, begin + _COLUMNS) for begin in range(first, count, _COLUMNS))


def _above(
    prints_RE: np.ndarray, weight_R: np.ndarray, block: tuple[slice, slice], bound: float, likeness: Likeness
) -> np.ndarray:
    """(row, column, nats) of a block's pairs above the bound, of each row the nearest."""
    rows, columns = block
    weight_R = weight_R.astype(np.float32)
    cosine_RC = prints_RE[rows] @ prints_RE[columns].T
    nats_RC = likeness.evidence(cosine_RC, weight_R[rows, None], weight_R[columns])
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
