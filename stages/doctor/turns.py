"""Who speaks when: do the turns go with the voices, and the two people with each other?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from visavis.schemas import FPS
from visavis.stages.doctor.excerpt import Excerpt, Sums
from visavis.stages.doctor.findings import Sign, certainty
from visavis.stages.doctor.kinds import Kind
from visavis.stages.doctor.lips import LATEST, peak
from visavis.stages.voice.turntaking import dialogue_evidence

_ENOUGH = 8 * FPS  # frames
_TELLS = 0.3  # correlation of turns and level that is usual
_SHIFT = 4.0  # frames
_STRANGERS = 6.0  # nats by which strangers are likelier
_LATE = 0.45  # seconds by which one answers later than the other, halved
_LONGEST = 5 * FPS  # frames of a change of floor
_FEWEST = 3  # changes to either side


def measure(excerpt: Excerpt) -> Sums:
    """Changes of floor: by who takes it, how many, their gaps (overlap is negative) and squares, in seconds; and by how
    many nats a dialogue is likelier than strangers, where the whole conversation is at hand."""
    whole = excerpt.first == 0 and len(excerpt.state_T) == excerpt.frames
    return {
        "floor.changes": _changes(excerpt.speaks_PT) if whole else np.zeros((2, 3)),
        "floor.evidence": np.array(dialogue_evidence(excerpt.state_T) if whole else 0.0),
    }


def fit(sums: Sums) -> np.ndarray:
    """Correlation of turns (first axis) and level (second) by delay, [2, 2, 51]; NaN where nobody speaks."""
    norm = np.sqrt(sums["turns.energy"][:, None] * sums["lips.energy"][:, 1][None])
    with np.errstate(divide="ignore", invalid="ignore"):
        found: np.ndarray = sums["turns.cross"] / norm[:, :, None]
    found[~np.isfinite(found)] = np.nan
    return found


def own_fit(sums: Sums) -> list[float]:
    return [float(curve.max()) for curve in np.einsum("iil->il", fit(sums))]


def judge(sums: Sums, usual: float) -> Iterator[Sign]:
    """usual: `own_fit` that is usual in the corpus."""
    if sums["sound.frames"] >= _ENOUGH and usual >= _TELLS:
        yield from _against_voices(sums, usual)
    yield from _between(sums)


def _against_voices(sums: Sums, usual: float) -> Iterator[Sign]:
    fits = fit(sums)
    for person in (0, 1):
        curve = fits[person, person]
        if not np.isfinite(curve).all():
            continue
        late, best = peak(curve), float(curve.max())
        if best > 0.5 * usual and abs(late) > _SHIFT and best - curve[LATEST] > 0.1:
            when = "early" if late > 0 else "late"
            yield Sign(Kind.TURNS_SHIFTED, certainty(abs(late), _SHIFT, 8), f"{abs(late) / FPS:.2f} s {when}", person)
        elif best < 0.35 * usual and sums["turns.energy"][person] > _ENOUGH / 8:
            yield Sign(
                Kind.TURNS_WRONG,
                certainty(usual - best, 0.65 * usual, usual),
                f"they fit the voice by {best:.2f}, usual are {usual:.2f}",
                person,
            )


def _between(sums: Sums) -> Iterator[Sign]:
    evidence = float(sums["floor.evidence"])
    if evidence < -_STRANGERS:
        yield Sign(
            Kind.NOT_PARTNERS,
            certainty(-evidence, _STRANGERS, 15),
            f"each speaks whatever the other does, by {-evidence:.0f} nats",
        )
        return
    count, total, squares = sums["floor.changes"].T
    if count.min() < _FEWEST:
        return
    mean = total / count
    spread = np.sqrt(np.maximum(squares.sum() - (total**2 / count).sum(), 0) / max(count.sum() - 2, 1))
    late = float(mean[1] - mean[0]) / 2
    error = max(spread, 0.15) * np.sqrt((1 / count).sum()) / 2
    if abs(late) > max(_LATE, 4.5 * error):
        who = "second" if late > 0 else "first"
        said = (
            f"the {who} answers after {mean.max():+.2f} s, the other after {mean.min():+.2f} s: {abs(late):.2f} s apart"
        )
        yield Sign(Kind.PARTNERS_SHIFTED, certainty(abs(late), _LATE, 1.0), said)


def _changes(speaks_PT: np.ndarray) -> np.ndarray:
    """By who takes the floor: [2, 3]."""
    found = np.zeros((2, 3))
    edges = []
    for person in (0, 1):
        change = np.flatnonzero(np.diff(np.concatenate([[False], speaks_PT[person], [False]]).astype(np.int8)))
        edges += [(int(first), int(last), person) for first, last in zip(change[::2], change[1::2], strict=True)]
    before: tuple[int, int, int] | None = None
    for first, last, person in sorted(edges):
        if before and before[2] != person and abs(first - before[1]) <= _LONGEST:
            gap = (first - before[1]) / FPS
            found[person] += (1, gap, gap * gap)
        if before is None or last >= before[1] or person != before[2]:
            before = (first, last, person)
    return found
