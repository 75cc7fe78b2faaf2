"""Balance: a plan of how training should draw the corpus. Metadata only, never copies.

Conversation corpora under-represent listening, and what there is moves less, so models learn to listen
stiffly (`method.md` §1). Two levers, both carried out by the loader:

    mixture   share of training drawn from each class; a class without windows gives its share to the others
    weight    chance of a window to be kept when its class is drawn, rising with its expressiveness from
              `dull_keep` for the dullest to 1 for the liveliest, seen from the avatar

Train and validation are split by participant: people who ever talked to each other are on the same side, so
nobody is in both. The side hangs on a hash of the names, so a growing corpus moves nobody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from schemas import FPS
from schemas.config import BalanceConfig
from schemas.manifest import BalancePlan, Split
from schemas.rows import Window, WindowClass


@dataclass(frozen=True)
class DyadSummary:
    """What balancing needs to know of a dyad: everything but its arrays."""

    conversation: str
    participants: tuple[str, str]
    windows: tuple[Window, ...]


@dataclass(frozen=True)
class PlannedWindow:
    """A window with its place in the dataset."""

    conversation: str
    window: Window
    split: Split
    weight: float


def split_participants(dyads: Iterable[tuple[str, str]], val_share: float) -> dict[str, Split]:
    """The split of every participant.

    People who share a conversation form a group; a group is held out if the hash of its first name says so.
    With two groups or more and a positive share, each side gets at least one.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for one, other in dyads:
        first, second = sorted((root(one), root(other)))
        parent[second] = first
    draw = {group: _unit_hash(group) for group in {root(name) for name in parent}}
    held_out = {group for group, value in draw.items() if value < val_share}
    if val_share > 0 and len(draw) > 1:
        if not held_out:
            held_out = {min(draw, key=lambda group: draw[group])}
        elif len(held_out) == len(draw):
            held_out -= {max(draw, key=lambda group: draw[group])}
    return {name: "val" if root(name) in held_out else "train" for name in parent}


def plan_windows(dyads: Sequence[DyadSummary], config: BalanceConfig) -> tuple[list[PlannedWindow], BalancePlan]:
    """Assign every window a split and a weight, and the corpus its mixture. Independent of the order of `dyads`."""
    ordered = sorted(dyads, key=lambda d: d.conversation)
    split = split_participants((d.participants for d in ordered), config.val_share)
    entries = [(d, w, split[d.participants[0]]) for d in ordered for w in d.windows]
    by_class: dict[WindowClass, list[Window]] = {label: [] for label in WindowClass}
    for _, window, side in entries:
        if side == "train":
            by_class[window.label].append(window)
    scales = {label: np.sort([w.expressiveness for w in windows]) for label, windows in by_class.items()}
    planned = [
        PlannedWindow(d.conversation, w, side, keep_weight(w.expressiveness, scales[w.label], config.dull_keep))
        for d, w, side in entries
    ]
    return planned, _plan(planned, config)


def keep_weight(expressiveness: float, scale: np.ndarray, dull_keep: float) -> float:
    """`dull_keep` for the least expressive window of the sorted `scale`, rising with the rank to 1 for the most."""
    if len(scale) < 2:
        return 1.0
    rank = (np.searchsorted(scale, expressiveness, "left") + np.searchsorted(scale, expressiveness, "right") - 1) / 2
    share = float(np.clip(rank / (len(scale) - 1), 0, 1))
    return round(dull_keep + (1 - dull_keep) * share, 6)


def _plan(planned: Sequence[PlannedWindow], config: BalanceConfig) -> BalancePlan:
    weights: dict[WindowClass, list[float]] = {label: [] for label in WindowClass}
    seconds = dict.fromkeys(WindowClass, 0.0)
    for entry in planned:
        if entry.split == "train":
            weights[entry.window.label].append(entry.weight)
            seconds[entry.window.label] += entry.window.length / FPS
    mixture = _normalised({c: config.mixture.get(c, 0.0) if weights[c] else 0.0 for c in WindowClass})
    total = sum(seconds.values())
    return BalancePlan(
        mixture=mixture,
        keep={c: round(float(np.mean(w)), 6) if w else 0.0 for c, w in weights.items()},
        seconds_before={c: round(s, 3) for c, s in seconds.items()},
        seconds_after={c: round(total * mixture[c], 3) for c in WindowClass},
    )


def _normalised(shares: Mapping[WindowClass, float]) -> dict[WindowClass, float]:
    total = sum(shares.values())
    return {label: round(share / total, 9) if total else 0.0 for label, share in shares.items()}


def _unit_hash(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
