"""R-DGG: how much the user says of what the avatar does next, beyond the avatar's own past (arXiv 2609.22913).

    log(E_own / E_both), less the mean of the same over circular shifts of the user

E_own, E_both: squared errors of two ridge regressions of the avatar's motion, on its own past, and on that and the
user's; each is fitted on other people than it judges. Motion is projected on principal components of the recorded
avatars' and users', so that what was generated is judged in the truth's space. A listener that answers nobody gets 0
but for noise; how large the truth's is depends on the corpus. The lags, the ridge and the number of components are
ours: figures stand beside each other, not beside a published table.

`p` is of a test beside it. One frame ahead a face goes on as it goes, so little is left for the user to say, and that
little is spread over 137 inputs: at 60 windows of 4 s the value itself is mostly noise. The test asks the same of the
past that ends `AHEAD` frames earlier, so that a whole reaction is new; holds the user's weights down by a ridge of
their own; and sums over components what each gains, so that one that no past predicts does not drown the others:

    Σ_c log(E_own,c / E_both,c)

`p` is the share of shifts with as much of it, and `ahead` is it less its mean over shifts.

All sequences lie one after the other on one timeline, round which the user is shifted; so short windows serve, too.

Shape suffixes: N frames of the timeline, D columns, C components, G groups (people, or sequences), S shifts, X inputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from visavis.schemas.sample import USER_SPEAKS
from visavis.training.reactions import SHIFTS, p_value, wrong_times
from visavis.training.sequences import Recorded

FOLDS = 5
_COMPONENTS = 8
_OWN_LAGS = (1, 2, 3, 5, 8, 13, 21)
_USER_LAGS = tuple(range(0, 25, 3))
_RIDGE = 0.01  # times the number of frames, of inputs with deviation 1
AHEAD = 8
"""Frames from the last of the avatar's own past to what the test predicts: a third of a second, the rise of a nod."""
_AHEAD_LAGS = tuple(AHEAD + lag for lag in (0, 1, 2, 4, 7, 12))
_USER_RIDGE = 3.0  # of the test: the user's inputs are many, alike, and each says little
_DRAWS = 1000  # of groups, for the interval

TD = Float[np.ndarray, "T D"]


@dataclass(frozen=True)
class Space:
    """What recorded motion is projected on: mean and components of avatars and of users, scaled to deviation 1."""

    avatar: tuple[np.ndarray, np.ndarray]
    user: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, recorded: Sequence[Recorded]) -> Space:
        sides = ([each.truth[each.valid] for each in recorded], [each.user[each.valid] for each in recorded])
        avatar, user = (_components(np.concatenate(side).astype(np.float64)) for side in sides)
        return cls(avatar, user)


@dataclass(frozen=True)
class Gain:
    """value: R-DGG, nats. low, high: 95 % of draws of people. ahead: what the test is of, nats. p: share of shifts, the
    found one counted in, with as much of it."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    ahead: float = math.nan
    p: float = math.nan


def user_gain(
    recorded: Sequence[Recorded], motions: Sequence[np.ndarray], space: Space, shifts: int = SHIFTS, seed: int = 0
) -> Gain:
    """R-DGG of motions [T, D], one for each sequence.

    Formula: log(E_own / E_both), squared errors of all components and frames, less its mean over shifts; `ahead` and
        `p`: Σ_c log(E_own,c / E_both,c) from a past that ends 8 frames earlier, held against shifts.
    Source: arXiv 2609.22913; lags, ridge, the number of components and the test are ours.
    Space: principal components of the recorded motion's columns, each column of deviation 1; all columns together.
    Floor: 0 but for noise; `p`, `low` and `high` of this very row; the row `shifted`.
    Edges: one frame NaN, as fewer than 25 with a past; a constant dimension adds nothing, all constant NaN; no frames
        NaN.

    NaN where fewer than two sequences or people have frames with a past, of what does not move, and of a timeline too
    short to shift.
    """
    lead = max(*_OWN_LAGS, *_USER_LAGS)
    if not any(each.valid.any() for each in recorded):
        return Gain()
    made_NC = np.concatenate(
        [_seen(each, motion, space.avatar) for each, motion in zip(recorded, motions, strict=True)]
    )
    user_NC = _unit(np.concatenate([_of_user(each, space) for each in recorded]))
    people = sorted({each.side.avatar for each in recorded})
    groups = [people.index(each.side.avatar) for each in recorded] if len(people) > 1 else list(range(len(recorded)))
    used_N = np.concatenate([_whole(each.valid, lead) for each in recorded])
    ends = np.cumsum([len(motion) for motion in motions])
    judged = sorted(set(np.repeat(groups, np.diff(ends, prepend=0))[used_N].tolist()))
    times = wrong_times([len(motion) for motion in motions], shifts)
    if len(judged) < 2 or not times or not (made_NC[used_N].std(axis=0) > 1e-6).any():
        return Gain()
    groups = [judged.index(group) if group in judged else 0 for group in groups]  # of the others no frame is used
    near, far = (
        _Sums(made_NC, _lagged(made_NC, lags), used_N, ends, groups, ridge)
        for lags, ridge in ((_OWN_LAGS, _RIDGE), (_AHEAD_LAGS, _USER_RIDGE))
    )
    both = [(near.errors(users), far.errors(users)) for users in _shifted(user_NC, (0, *times))]
    nobody = user_NC[:, :0]
    own_C = far.errors(nobody).of_components
    gains_S = np.array([np.log(own_C / beyond.of_components).sum() for _, beyond in both])
    value = _gain(near.errors(nobody).of_groups, np.array([each.of_groups for each, _ in both]), seed)
    return replace(value, ahead=float(gains_S[0] - gains_S[1:].mean()), p=p_value(float(gains_S[0]), gains_S[1:]))


def _shifted(user_NC: np.ndarray, shifts: Sequence[int]) -> Iterator[np.ndarray]:
    """The user's inputs, at one wrong time after the other."""
    for shift in shifts:
        yield np.concatenate([np.roll(user_NC, shift + lag, axis=0) for lag in _USER_LAGS], axis=1)


def _lagged(made_NC: np.ndarray, lags: Sequence[int]) -> np.ndarray:
    return _unit(np.concatenate([np.roll(made_NC, lag, axis=0) for lag in lags], axis=1))


def _whole(valid_T: Bool[np.ndarray, "T"], lead: int) -> np.ndarray:
    """Frames that have as many valid ones before them in their sequence."""
    past = np.concatenate([np.zeros(lead + 1), np.cumsum(valid_T)])  # valid ones before each frame
    return np.asarray(past[lead + 1 :] - past[: -lead - 1] > lead)


def _gain(own_G: np.ndarray, both_SG: np.ndarray, seed: int) -> Gain:
    """both: of no shift, then of every shift."""

    def ratios(weight_BG: np.ndarray) -> np.ndarray:
        return np.log((weight_BG @ own_G)[:, None] / (weight_BG @ both_SG.T))  # [B, S]

    found = ratios(np.ones((1, len(own_G))))[0]
    draws = np.random.default_rng(seed).multinomial(len(own_G), np.full(len(own_G), 1 / len(own_G)), _DRAWS)
    drawn = ratios(draws.astype(np.float64))
    low, high = np.quantile(drawn[:, 0] - drawn[:, 1:].mean(axis=1), (0.025, 0.975))
    return Gain(float(found[0] - found[1:].mean()), float(low), float(high))


class _Errors(NamedTuple):
    """Squared errors of each group [G], all components together, and of each component [C], all groups together."""

    of_groups: np.ndarray
    of_components: np.ndarray


class _Sums:
    """Regressions on own past and user, each fitted on the other folds. Frames that are not used are left out."""

    def __init__(
        self,
        made_NC: np.ndarray,
        own_NX: np.ndarray,
        used_N: np.ndarray,
        ends: np.ndarray,
        groups: Sequence[int],
        user_ridge: float,
    ) -> None:
        group_N = np.repeat(groups, np.diff(ends, prepend=0))
        self._groups = max(groups) + 1
        self._folds = min(FOLDS, self._groups)
        self._rows = [np.flatnonzero(used_N & (group_N % self._folds == fold)) for fold in range(self._folds)]
        self._group_N, self._own, self._target, self._user_ridge = group_N, own_NX, made_NC, user_ridge

    def errors(self, user_NX: np.ndarray) -> _Errors:
        inputs = np.concatenate([self._own, user_NX], axis=1)
        ridge_X = np.repeat([_RIDGE, self._user_ridge], [self._own.shape[1], user_NX.shape[1]])
        parts = [(inputs[rows], self._target[rows]) for rows in self._rows]
        inner, outer = [x.T @ x for x, _ in parts], [x.T @ y for x, y in parts]
        all_inner, all_outer, frames = sum(inner), sum(outer), sum(map(len, self._rows))
        found_G, found_C = np.zeros(self._groups), np.zeros(self._target.shape[1])
        for rows, (x, y), own_inner, own_outer in zip(self._rows, parts, inner, outer, strict=True):
            ridge = np.diag(ridge_X * (frames - len(rows)))
            weights = np.linalg.solve(all_inner - own_inner + ridge, all_outer - own_outer)
            squares = (y - x @ weights) ** 2
            found_G += np.bincount(self._group_N[rows], squares.sum(axis=1), self._groups)
            found_C += squares.sum(axis=0)
        return _Errors(np.maximum(found_G, 1e-12), np.maximum(found_C, 1e-12))


def _unit(inputs_NX: np.ndarray) -> np.ndarray:
    """Mean 0 and deviation 1; 0 of what is constant."""
    deviation = inputs_NX.std(axis=0)
    return np.asarray((inputs_NX - inputs_NX.mean(axis=0)) / np.where(deviation > 1e-9, deviation, np.inf))


def _of_user(recorded: Recorded, space: Space) -> np.ndarray:
    """The user's motion in components, and whether the user speaks."""
    speaks = (recorded.state & USER_SPEAKS > 0).astype(np.float64)
    return np.concatenate([_seen(recorded, recorded.user, space.user), speaks[:, None]], axis=1)


def _seen(recorded: Recorded, motion_TD: TD, onto: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Motion in components; the mean where it is not valid, which would else set the scale."""
    return np.asarray(np.where(recorded.valid[:, None], (motion_TD - onto[0]) @ onto[1], 0.0))


def _components(motion_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [D] and projection [D, C], of columns with deviation 1, onto components with deviation 1."""
    if not len(motion_ND):
        return np.zeros(motion_ND.shape[1]), np.zeros((motion_ND.shape[1], 0))
    mean, deviation = motion_ND.mean(axis=0), motion_ND.std(axis=0)
    scale = np.where(deviation > 1e-9, deviation, np.inf)
    unit = (motion_ND - mean) / scale
    values, vectors = np.linalg.eigh(unit.T @ unit / max(1, len(unit)))
    kept = np.argsort(values)[::-1][:_COMPONENTS]
    spread = np.sqrt(np.maximum(values[kept], 0))
    return mean, vectors[:, kept] / scale[:, None] / np.where(spread > 1e-6, spread, np.inf)
