"""How far a model's own reactions fall short of the recorded ones, by group of dimensions (head, mouth, brows, …).

Pairs of recorded motion against the model's own differ in many things that are no fault of the model: a nod comes seven
times in ten, so three recorded listeners of ten did not nod where the model did. On average over windows such
differences cancel, and what is left is what the model does too little of. The reaction to be expected of a user
(`stages.pairing.measurements.Expected`) is a direction in motion, and a response how far motion goes along it:

    response  = Σ ⟨motion, expected⟩                     over all windows, of one group of dimensions
    shortfall = 1 − response of the model / response of the recorded listeners        … 1, below 0 beyond them

for reactions at a lag and for those to the ends of phrases. What is short counts before what is beyond, and of two the
larger one. What is not `CERTAIN` standard errors from 0, over windows, is not told: the recorded response, without
which nobody knows whether a group reacts at all; and the difference, which is 0 only where the same standard errors are
no more than `EXACT` of the recorded response, so that the model's is right as far as it matters. Where neither kind is
told, the group's shortfall is none. Several motions that a model makes of one window are one observation of it: their
mean.

The trainer weighs groups by it (`training.preferences.groups`), so that smiles which are right are left alone while
nods are taught, and rounds (`visavis tune`) end by themselves: what is right weighs nothing. No rule of the reaction
enters: which dimensions react, and when, comes from the corpus. It must come from other conversations than those of the
windows: recorded motion fits what it taught itself, noise included, and the model's would seem to fall short.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from visavis.stages.pairing.measurements import Expected, Motions

Groups = Mapping[str, Sequence[int]]
"""Columns of the motion, by the group's name."""
Responses = Mapping[str, np.ndarray]
"""By group [2, 4] float64: for lagged reactions and those to events, the sums over windows of the recorded response, of
its square, of its difference from the model's, and of that square."""
CERTAIN = 3.0
EXACT = 0.25
MOST_BEYOND = 10.0
"""A response eleven times the recorded one is no answer any more, whatever its size."""
_DIGITS = 6


@np.errstate(invalid="ignore", over="ignore")
def responses(expected: Expected, motions: Motions, groups: Groups) -> Responses:
    """Sums over windows of what both sides of pairs do of the reactions that are expected.

    Args:
        motions: recorded and the model's own, [W, T, D] normalised by the corpus. Windows of which one is not finite
            count as nothing.

    Returns: nothing where there were no other conversations to learn the reactions from, or few.
    """
    if not expected.reference.held_out:
        return {}
    finite_W = np.all([np.isfinite(motion).all(axis=(1, 2)) for motion in motions], axis=0)
    found = {}
    for group, columns in groups.items():
        sums = []
        for reaction_WTD in (expected.lagged_WTD, expected.event_WTD):
            of_group_WTD = reaction_WTD[..., list(columns)][finite_W].astype(np.float64)  # centred over valid frames
            recorded_W, own_W = (
                (motion[..., list(columns)][finite_W] * of_group_WTD).sum(axis=(1, 2)) for motion in motions
            )
            less_W = recorded_W - own_W
            sums.append([recorded_W.sum(), np.square(recorded_W).sum(), less_W.sum(), np.square(less_W).sum()])
        found[group] = np.array(sums)
    return found


def rounded(found: Responses) -> dict[str, tuple[tuple[float, ...], ...]]:
    """As rows have them: machines differ in the last digits."""
    return {
        group: tuple(tuple(float(f"{x:.{_DIGITS}g}") for x in row) for row in sums) for group, sums in found.items()
    }


def shortfall(parts: Iterable[Mapping[str, object]]) -> dict[str, float | None]:
    """By group, at most 1, from the sums of all tasks; none where it is not told."""
    total: dict[str, np.ndarray] = {}
    for part in parts:
        for group, sums in part.items():
            total[group] = total.get(group, 0.0) + np.asarray(sums, np.float64)
    return {group: _of_group([_short(each) for each in sums]) for group, sums in sorted(total.items())}


def shortfall_line(found: Mapping[str, float | None]) -> str:
    """In words, the largest first; nothing where it was not asked for, or cannot be told."""
    if not found:
        return ""
    known = [(group, share) for group, share in found.items() if share]
    known.sort(key=lambda each: (-each[1], each[0]))
    short = [f"{group} {share:.0%}" if share >= 0.01 else f"{group} under 1%" for group, share in known if share > 0]
    beyond = [f"{group} {-share:.0%}" for group, share in known if share < 0]
    if not known:
        return "reactions fall short of the recorded ones by nothing certain"
    others = ["others nothing certain"] if len(known) < len(found) else []
    said = [f"fall short of the recorded ones by: {', '.join(short)}"] if short else []
    said += [f"go beyond the recorded ones by: {', '.join(beyond)}"] if beyond else []
    return ", ".join([f"reactions {' and '.join(said)}", *others])


def _short(sums: np.ndarray) -> float | None:
    recorded, recorded_squared, less, less_squared = sums
    if not recorded > CERTAIN * np.sqrt(recorded_squared):
        return None
    error = CERTAIN * np.sqrt(less_squared)
    if abs(less) > error:
        return float(np.clip(less / recorded, -MOST_BEYOND, 1))
    return 0.0 if error <= EXACT * recorded else None


def _of_group(found: Sequence[float | None]) -> float | None:
    """Of both kinds of reaction: what is short before what is beyond."""
    told = [each for each in found if each is not None]
    if not told:
        return None
    return round(max(told) if max(told) > 0 else min(told), 4)
