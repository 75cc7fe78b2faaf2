"""How alike two prints (unit embeddings of a voice or a face) are of one person, and of two.

Both cosines are taken as Gaussian with one variance. What one person's are like falls with how little was heard or
seen, as noise attenuates a correlation: by √(s / (s + S₀)) for each side of weight s. Two of N participants are one
person as rarely as once in N, so the evidence must exceed ln N before any two are joined: in a corpus a thousand times
larger chance makes a thousand times as many false friends for everybody.

Of voices the encoder is known, and its constants were fitted by `python -m benchmarks.people`, on half of its people.
Of faces the network is the user's, so the corpus itself has to tell (`of_faces`): the two of a conversation are two
people, and the two halves of what is seen of one are one. Halves of one recording are more alike than two recordings
of one person, so the bound that follows is strict: it misses people rather than mixing them. For the same reason a
name is doubted there only where faces are as unlike as those of strangers.

Shape suffixes: C conversations, N participants, E embedding.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

FEWEST = 10
"""Conversations from which there is something to tell from."""
_CLEAR = 2.0  # deviations between one person and two, below which nothing tells them apart
_LEAST_DEVIATION = 0.02
_NAMED_ONE = 4.6  # nats against one person before a name is doubted: a hundred names are right for one that is not
_NORMAL = 1.4826  # of a normal distribution, deviation over median absolute deviation


class Likeness(NamedTuple):
    """same, other: cosine of two prints of one person of whom much is known, and of two people. deviation: how far
    both stray. half: weight of which half of the variance is noise. threshold: a cosine that was given as the bound,
    whatever the number of people. within: `same` is of single recordings, and lower from one to another."""

    same: float
    other: float
    deviation: float
    half: float
    threshold: float | None = None
    within: bool = False

    @property
    def doubt(self) -> float:
        """Nats below which two of one name are doubted to be one person."""
        if not self.within:
            return -_NAMED_ONE
        apart = self.same - self.other  # strangers are seldom alike by one deviation more than they mostly are
        return min(-_NAMED_ONE, apart * (self.deviation - apart / 2) / self.deviation**2)

    def share(self, weight_N: np.ndarray) -> np.ndarray:
        """Of a print's variance, what is no noise: how much it counts in a mean of several."""
        share_N: np.ndarray = weight_N / (weight_N + self.half)
        return share_N

    def evidence(self, cosine_N: np.ndarray, one_N: np.ndarray, other_N: np.ndarray) -> np.ndarray:
        """Nats for one person rather than two. one_N, other_N: weights of the prints of each pair, above 0."""
        same_N = self.same * np.sqrt(self.share(one_N) * self.share(other_N))
        nats_N: np.ndarray = (same_N - self.other) * (cosine_N - (same_N + self.other) / 2) / self.deviation**2
        return nats_N

    def bound(self, count: int) -> float:
        """Nats that the evidence must exceed among so many participants."""
        return math.log(max(count, 2)) if self.threshold is None else 0.0

    def cosine(self, count: int) -> float:
        """The cosine at which it does, where much is known of both."""
        return (self.same + self.other) / 2 + self.bound(count) * self.deviation**2 / (self.same - self.other)


OF_VOICES = Likeness(same=0.80, other=0.07, deviation=0.11, half=1.0)
"""Of CAM++, weighed by the seconds that were heard."""
_ANY = 1e-6  # pictures of which half of the variance is noise: nothing was fitted, and nobody has fewer than four


def from_threshold(cosine: float) -> Likeness:
    """What a given threshold says: with any weight, one person from that cosine on."""
    return Likeness(same=1.0, other=2 * cosine - 1, deviation=0.2, half=_ANY, threshold=cosine)


def of_faces(
    prints_C2E: np.ndarray, agreement_C2: np.ndarray, threshold: float | None = None
) -> tuple[Likeness | None, str]:
    """What a corpus says of a network of faces, and that in words; None: nobody can be told to be one with another.

    Args:
        prints_C2E: of both partners, unit, zeros where there is none.
        agreement_C2: cosine of what the two halves of their pictures give, NaN where there is none.
        threshold: a cosine that was given; the corpus is not asked then.
    """
    if threshold is not None:
        return from_threshold(threshold), f"one person from a cosine of {threshold:.2f} on, as set"
    known_C2 = np.any(prints_C2E, axis=2)
    both_C = np.all(known_C2, axis=1)
    count = int(np.count_nonzero(both_C))
    if count < FEWEST:
        return None, f"{count} conversations with both faces are too few to tell how alike one person's are"
    pairs_CE, others_CE = (prints_C2E[both_C, place].astype(np.float32) for place in (0, 1))
    other, strays = _middle(np.einsum("ce,ce->c", pairs_CE, others_CE))
    same, wavers = _middle(agreement_C2[np.isfinite(agreement_C2)])
    found = Likeness(same, other, max(strays, wavers, _LEAST_DEVIATION), _ANY, within=True)
    said = f"partners are alike by {other:.2f} ± {found.deviation:.2f}, halves of one person by {found.same:.2f}"
    if found.same - found.other <= _CLEAR * found.deviation:
        return None, f"{said}: this network does not tell people apart"
    bound = found.cosine(participants := int(np.count_nonzero(known_C2)))
    if bound >= 1:
        return None, f"{said}: this network does not tell {participants} people apart"
    return found, f"{said}; one person from a cosine of {bound:.2f} on"


def _middle(values_N: np.ndarray) -> tuple[float, float]:
    """Median, and deviation by the median absolute one: a few wrong pairs change little."""
    middle = float(np.median(values_N))
    return middle, _NORMAL * float(np.median(np.abs(values_N - middle)))
