"""How sure a share of votes is: intervals, agreement between people, Bradley–Terry scores.

Votes are not independent: a person votes many times, and many people vote on one clip. Wilson's interval of all votes
takes them as independent, so it is too narrow wherever people or clips differ. `interval` therefore asks how many
independent votes would be as sure (the effective number), from the variance between people and between clips added
(two-way clusters of Cameron, Gelbach and Miller, 2011), with Student's t for few people or clips, and takes Wilson's
interval of so many. Coverage of each, simulated: `benchmarks/study.py`.

Shape suffixes: P people, C clips (trials), V votes, K systems. `score_PC` is 1 where the first of two systems was
preferred, 0 where the second was, 0.5 where neither was, NaN where nobody voted.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit
from scipy.stats import norm, t

from visavis.training.components import groups_of

Interval = tuple[float, float]
LEVEL = 0.95


def wilson(wins: float, votes: float, level: float = LEVEL) -> Interval:
    """Wilson's score interval; also of half wins and of numbers of votes that are no integers. (0, 1) of no vote."""
    if votes <= 0:
        return 0.0, 1.0
    z = float(norm.isf((1 - level) / 2))
    share = float(wins / votes)
    centre = (share + z * z / (2 * votes)) / (1 + z * z / votes)
    half = z / (1 + z * z / votes) * float(np.sqrt(share * (1 - share) / votes + z * z / (4 * votes * votes)))
    return max(0.0, centre - half), min(1.0, centre + half)


def share(score_PC: np.ndarray) -> float:
    return float(np.nanmean(score_PC))


def interval(score_PC: np.ndarray, *, clips: bool = True, level: float = LEVEL) -> Interval | None:
    """Of the share among all people, and all clips, of whom these are a sample.

    Args:
        clips: False: among all people, on these very clips.

    Returns: none of fewer than two people (or clips): nothing says how much they differ.
    """
    votes = effective_votes(score_PC, clips=clips, level=level)
    return None if votes is None else wilson(share(score_PC) * votes, votes, level)


def effective_votes(score_PC: np.ndarray, *, clips: bool = True, level: float = LEVEL) -> float | None:
    """How many independent votes would be as sure as these; no more than there are."""
    seen_PC = np.isfinite(score_PC)
    sizes = [int(seen_PC.any(axis=axis).sum()) for axis in ((1, 0) if clips else (1,))]
    if min(sizes) < 2:
        return None
    count, found = int(seen_PC.sum()), share(score_PC)
    ratio = float(norm.isf((1 - level) / 2) / t.isf((1 - level) / 2, min(sizes) - 1)) ** 2
    rest_PC = np.where(seen_PC, score_PC - found, 0.0)
    alone = float(np.square(rest_PC).sum()) / count**2
    parts = [
        float(np.square(rest_PC.sum(axis=axis)).sum()) / count**2 * size / (size - 1)
        for axis, size in zip((1, 0), sizes, strict=False)
    ]
    # A sum of two may come out too small by chance; never take people or clips for less than either says.
    variance = max(sum(parts) - alone * (len(parts) - 1), *parts, alone)
    if variance <= 0 or not 0 < found < 1:  # all agree: nothing says how much people differ
        return count * ratio
    return min(count, found * (1 - found) / variance) * ratio


def bootstrap(
    score_PC: np.ndarray, *, clips: bool = True, draws: int = 2000, seed: int = 0, level: float = LEVEL
) -> Interval:
    """Percentiles of the share over people drawn again with replacement, and clips as well, independently."""
    random = np.random.default_rng(seed)
    people, trials = score_PC.shape
    seen_PC = np.isfinite(score_PC)
    filled_PC = np.where(seen_PC, score_PC, 0.0)
    drawn_BP = random.multinomial(people, np.full(people, 1 / people), draws).astype(np.float64)
    drawn_BC = (
        random.multinomial(trials, np.full(trials, 1 / trials), draws).astype(np.float64)
        if clips
        else np.ones((draws, trials))
    )
    won_B = ((drawn_BP @ filled_PC) * drawn_BC).sum(axis=1)
    count_B = ((drawn_BP @ seen_PC) * drawn_BC).sum(axis=1)
    shares = won_B[count_B > 0] / count_B[count_B > 0]
    low, high = np.quantile(shares, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def krippendorff_alpha(value_PC: np.ndarray) -> float | None:
    """Agreement between people on clips, nominal: 1 all alike, 0 as by chance, below it less than that.

    Args:
        value_PC: integers, −1 where nobody answered.

    Returns: none where no clip has two answers, or all answers are the same.
    """
    categories = np.unique(value_PC[value_PC >= 0])
    count_CK = (value_PC[:, :, None] == categories).sum(axis=0).astype(np.float64)
    answers_C = count_CK.sum(axis=1)
    count_CK, answers_C = count_CK[answers_C > 1], answers_C[answers_C > 1]
    total, margin_K = answers_C.sum(), count_CK.sum(axis=0)
    expected = total**2 - np.square(margin_K).sum()
    if not expected > 0:
        return None
    differing = ((answers_C**2 - np.square(count_CK).sum(axis=1)) / (answers_C - 1)).sum()
    return float(1 - (total - 1) * differing / expected)


@dataclass(frozen=True)
class Comparisons:
    """Votes between several systems: `first`, `second` are systems, `score` 1, 0.5 or 0 of the first; `person` and
    `clip` say whose vote on what. [V] each."""

    first: np.ndarray
    second: np.ndarray
    score: np.ndarray
    person: np.ndarray
    clip: np.ndarray


def bradley_terry(votes: Comparisons, systems: int, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores in log odds, with mean 0: a system that is 1 higher than another is preferred in 73 %.

    Each two systems that were compared get half a vote each way beside the votes, so that one that always wins has a
    score. The error takes votes of a person, and on a clip, as clusters, as `interval` does.

    Returns: scores [K], and their lower and upper bounds [K]; bounds are NaN for fewer than two people or clips. All
        three are NaN of systems that no chain of votes compares with most others.
    """
    pairs = np.unique(np.sort(np.stack([votes.first, votes.second], axis=1), axis=1), axis=0)
    first = np.concatenate([votes.first, pairs[:, 0]])
    second = np.concatenate([votes.second, pairs[:, 1]])
    score = np.concatenate([votes.score, np.full(len(pairs), 0.5)])
    design = np.zeros((len(first), systems))
    rows = np.arange(len(first))
    design[rows, first] = 1.0
    design[rows, second] -= 1.0
    centre = np.eye(systems) - 1 / systems
    scores = np.zeros(systems)
    for _ in range(100):
        expected = expit(design @ scores)
        hessian = (design * (expected * (1 - expected))[:, None]).T @ design
        step = np.linalg.pinv(hessian) @ (design.T @ (score - expected))
        scores = centre @ (scores + np.clip(step, -2, 2))
        if np.abs(step).max() < 1e-9:
            break
    bread = np.linalg.pinv(hessian)
    real = slice(0, len(votes.first))
    rest = design[real] * (votes.score - expected[real])[:, None]
    sizes, parts = [], []
    for group in (votes.person, votes.clip):
        names, at = np.unique(group, return_inverse=True)
        sums = np.zeros((len(names), systems))
        np.add.at(sums, at, rest)
        sizes.append(len(names))
        parts.append(bread @ (sums.T @ sums) @ bread * len(names) / max(len(names) - 1, 1))
    alone = bread @ (rest.T @ rest) @ bread
    variance = np.max([np.diag(each) for each in (sum(parts) - alone, *parts, alone)], axis=0)
    group_K = groups_of(pairs, systems)
    scores[group_K != np.bincount(group_K).argmax()] = np.nan
    half = float(t.isf((1 - level) / 2, min(sizes) - 1)) * np.sqrt(variance) if min(sizes) > 1 else np.nan
    return scores, scores - half, scores + half


def expected_half_width(
    trials: int, people: int, *, people_differ: float = 0.0, clips_differ: float = 0.0, level: float = LEVEL
) -> float:
    """Of the interval of an even share, if everybody votes on every trial.

    Args:
        people_differ, clips_differ: deviation of the share between people, and between clips; 0: as if all votes were
            independent.
    """
    within = max(0.25 - people_differ**2 - clips_differ**2, 0.0)
    variance = people_differ**2 / people + clips_differ**2 / trials + within / (people * trials)
    clustered = people_differ > 0 or clips_differ > 0
    few = min(people, trials) - 1
    factor = float(t.isf((1 - level) / 2, few)) if clustered and few else float(norm.isf((1 - level) / 2))
    return min(0.5, factor * float(np.sqrt(variance)))


def people_needed(
    trials: int, half_width: float, assumed: Sequence[float] = (0.0, 0.0), most: int = 10_000
) -> int | None:
    """The fewest people with whom the interval is no wider; none where `most` are not enough."""

    def enough(people: int) -> bool:
        width = expected_half_width(trials, people, people_differ=assumed[0], clips_differ=assumed[1])
        return width <= half_width

    found = 2 + bisect_left(range(2, most + 1), True, key=enough)  # more people never make it wider
    return found if found <= most else None
