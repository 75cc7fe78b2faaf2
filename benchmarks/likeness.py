"""Does a corpus tell how alike one person's faces are? People linked and mixed, by how far recordings differ.

    python -m benchmarks.likeness

Faceprints are made, not seen: a direction for each person, a deviation for each recording, and one for each half of its
pictures, in 128 dimensions, everybody as unlike everybody else. What a trained network does to relatives, light and age
is not in it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from visavis.stages.crowd.likeness import of_faces
from visavis.stages.crowd.linking import linked

SIZE = 128
SEEDS = 5
HALVES = 0.3  # length of what is added to each half of a recording's pictures


class Found(NamedTuple):
    """linked: share of the pairs of one person. right: share of the linked pairs that are. bound: the cosine."""

    linked: float
    right: float
    bound: float


def main() -> None:
    """Print a table."""
    print("one person in two recordings, conversations, people: pairs linked, of these right, from a cosine of")
    for alike in (0.4, 0.5, 0.6, 0.7, 0.8):
        for talks, people in ((50, 40), (1000, 500)):
            found = Found(*np.mean([of_corpus(alike, talks, people, seed) for seed in range(SEEDS)], axis=0))
            print(f"{alike}  {talks:>5} {people:>4}: {found.linked:.1%} {found.right:.1%} {found.bound:.2f}")


def of_corpus(alike: float, talks: int, people: int, seed: int) -> Found:
    """alike: mean cosine of one person in two recordings.

    Raises:
        AssertionError: the corpus tells nothing.
    """
    rng = np.random.default_rng(seed)
    base_PE = _unit(rng.standard_normal((people, SIZE)))
    who_C2 = np.stack([rng.choice(people, 2, replace=False) for _ in range(talks)])
    strays = np.sqrt(1 / alike - 1)
    seen_C2E = _unit(base_PE[who_C2] + strays * rng.standard_normal((talks, 2, SIZE)) / np.sqrt(SIZE))
    halves = _unit(seen_C2E[:, :, None] + HALVES * rng.standard_normal((talks, 2, 2, SIZE)) / np.sqrt(SIZE))
    prints_C2E = _unit(halves.mean(axis=2))
    likeness, said = of_faces(prints_C2E, np.einsum("cpe,cpe->cp", halves[:, :, 0], halves[:, :, 1]))
    assert likeness is not None, said
    flat_NE, talk_N = prints_C2E.reshape(-1, SIZE).astype(np.float32), np.repeat(np.arange(talks), 2)
    person_N = linked(flat_NE, np.full(len(talk_N), 12.0), talk_N, likeness=likeness)
    pairs = np.triu_indices(len(talk_N), 1)
    same, one = (numbers[pairs[0]] == numbers[pairs[1]] for numbers in (who_C2.ravel(), person_N))
    right = float((same & one).sum())
    return Found(right / same.sum(), right / max(one.sum(), 1), likeness.cosine(len(talk_N)))


def _unit(vectors: np.ndarray) -> np.ndarray:
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit


if __name__ == "__main__":
    main()
