"""Balance: a plan of how training should draw the corpus. Metadata only, never copies.

Conversation corpora under-represent listening, and what there is moves less, so models learn to listen
stiffly (`method.md` §1). Two levers, both carried out by the loader:

    mixture   share of training drawn from each class; a class without windows gives its share to the others
    weight    chance of a window to be kept when its class is drawn, rising with its expressiveness from
              `dull_keep` for the dullest to 1 for the liveliest, seen from the avatar

How expressive a window is among its like is read off a histogram of its class: histograms of parts of a corpus add
up, whatever the parts, so nobody ever has to hold all windows of a corpus.

Train and validation are split by participant: people who ever talked to each other are on the same side, so
nobody is in both. The side depends on a hash of the names, so a growing corpus moves nobody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from visavis.schemas.dyads import WindowClass
from visavis.schemas.manifest import BalancePlan
from visavis.schemas.windows_config import BalanceConfig
from visavis.training.components import groups_of

_EDGES_CM = np.geomspace(1e-3, 1e2, 513)
"""Borders of the bins of expressiveness: a still face to one that fills the room, each 2.3 % above the last."""
BINS = len(_EDGES_CM) - 1


def histogram(expressiveness_N: np.ndarray) -> np.ndarray:
    """How many windows are how expressive: int64 (BINS,), the dullest first. What lies outside counts with the ends."""
    return np.bincount(_bin_of(expressiveness_N), minlength=BINS).astype(np.int64)


def keep_weights(expressiveness_N: np.ndarray, counts_B: np.ndarray, dull_keep: float) -> np.ndarray:
    """Chances to be kept, float64 (N,): `dull_keep` for the dullest of those counted, rising with the rank to 1.

    Windows of one bin share a rank. With fewer than two windows there is nothing to compare: all are kept.
    """
    total = int(counts_B.sum())
    if total < 2:
        return np.ones(len(expressiveness_N))
    bins = _bin_of(expressiveness_N)
    rank = np.cumsum(counts_B)[bins] - (counts_B[bins] + 1) / 2
    return np.round(dull_keep + (1 - dull_keep) * np.clip(rank / (total - 1), 0, 1), 6)


def _bin_of(expressiveness_N: np.ndarray) -> np.ndarray:
    return np.clip(np.searchsorted(_EDGES_CM, expressiveness_N, "right") - 1, 0, BINS - 1)


def name_number(name: str) -> int:
    """A participant's name as a number of 64 bits, the same everywhere."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def held_out(names_N2: np.ndarray, val_share: float) -> np.ndarray:
    """Which dyads are for validation: bool (N,).

    People who share a conversation form a group; a group is held out if a hash of it says so. With two groups or
    more and a positive share, each side gets at least one; a single group is for training.

    Args:
        names_N2: uint64, the participants of each dyad as `name_number` gives them.
    """
    numbers, index = np.unique(names_N2, return_inverse=True)
    index_N2 = index.reshape(names_N2.shape)
    group_of = groups_of(index_N2, len(numbers))
    _, first = np.unique(group_of, return_index=True)  # of each group the least number: any order gives the same
    draw = np.array([name_number(f"{number:016x}") / 2**64 for number in numbers[first].tolist()])
    held = draw < val_share
    if val_share > 0 and not held.any():
        held[draw.argmin()] = True
    if held.all():  # also where there is but one group
        held[draw.argmax()] = False
    return np.asarray(held[group_of[index_N2[:, 0]]])


def plan_balance(
    seconds: Mapping[WindowClass, float], keep: Mapping[WindowClass, float], config: BalanceConfig
) -> BalancePlan:
    """The corpus' mixture.

    Args:
        seconds: of training windows, by class. keep: mean weight of training windows, by class.
    """
    mixture = _normalised({c: config.mixture.get(c, 0.0) if seconds[c] else 0.0 for c in WindowClass})
    total = sum(seconds.values())
    return BalancePlan(
        mixture=mixture,
        keep={c: round(keep[c], 6) for c in WindowClass},
        seconds_before={c: round(seconds[c], 3) for c in WindowClass},
        seconds_after={c: round(total * mixture[c], 3) for c in WindowClass},
    )


def _normalised(shares: Mapping[WindowClass, float]) -> dict[WindowClass, float]:
    total = sum(shares.values())
    return {label: round(share / total, 9) if total else 0.0 for label, share in shares.items()}
