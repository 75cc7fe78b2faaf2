"""How made listeners react, and the listeners that preference tuning is judged on.

A `Rule` says what the avatar does, and when:

    nods    some time after a phrase of the user ends (or a smile of the user begins), with `nod_probability`; one cycle
            or several, downwards or upwards first; back-channels of the user are no phrases, and evoke nothing
    hums    its own back-channels go with a nod, with `hum_probability` in place of `nod_probability`
    smiles  `smile_gain` times the user's smile, `smile_delay` frames later, plus a smile of its own; brows likewise;
            while it speaks, it mirrors neither
    speaks  the jaw follows the loudness of its own voice
    yields  the brows go up when the user begins to speak while it speaks (`benchmarks.reactive.Corpus.barge_ins`)

Everything else drifts slowly and means nothing. `CORPORA` has four kinds of listeners:

    lively  nods as deep as they are easy to see, one cycle, and smiles
    dull    the same rule, but most of the time is speaking, and seven listeners of ten follow a fifth of it
    real    the statistics of real listeners: ranges of 4.0° on average, 51 / 33 / 16 % with one, two, three or more
            cycles, 76 % downwards first (Kato 2026); delays and ranges log-normal; smiles, brows, hummed back-channels.
            Where no figure is published (delays, gains, how fast a cycle is) values are assumed
    other   another rule in other columns, on which nothing is ever tuned: the head tilts to either side after a smile
            of the user begins, and smiles are slower and fainter
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from visavis.schemas.manifest import MotionColumn

DIM = 12
PITCH, ROLL, JAW, SMILES, BROW = 0, 2, 6, (7, 8), 9
"""Columns: the head's pitch nods, its roll tilts; two independent columns of the expression are smiles."""
LEVERS = {PITCH: {PITCH: 1.0, 4: 0.4, 5: 0.7}, ROLL: {ROLL: 1.0, 3: 0.5}}
"""A head turns about its neck, so the face moves, too: face widths per rad."""
UNITS = np.array([0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 1, 1, 1, 1, 1, 1])
"""Deviation of each column's drift: rad, face widths, and the code's own units."""
QUICK = 12
"""Frames of half a drift's memory."""
CALM = 20
"""Frames without a smile before one begins."""
_LEAST = 1.645
"""Deviations below the mean that 5 % of a normal variable are under."""


@dataclass(frozen=True)
class Rule:
    """How the avatar reacts. Times are frames of 40 ms."""

    nod_probability: float = 0.7
    nod_cause: Literal["phrase_end", "smile"] = "phrase_end"
    nod_column: int = PITCH
    nod_delay: tuple[int, int] = (8, 15)  # from the cause to the onset, both ends included
    nod_delay_spread: float = 0.0  # deviation of its logarithm around the geometric mean of the ends; 0: uniform
    nod_frames: int = 12  # of a cycle
    nod_depth: float = 0.2  # rad, mean of the first cycle, of a head that drifts by `pitch_drift`
    nod_spread: float = 0.15  # deviation of the depth, as a share of it
    nod_lognormal: bool = False  # whether the depth is, with `nod_spread` the deviation of its logarithm
    nod_cycles: tuple[float, ...] = (1.0,)  # shares of nods with one, two, … cycles
    nod_fade: float = 0.95  # depth of a cycle over that of the one before
    nod_upwards: float = 0.0  # share that begins upwards
    pitch_drift: float = 0.04
    pitch_memory: int = QUICK
    hum_probability: float | None = None  # of a nod with the avatar's own back-channel; none: hums change nothing
    smiles: tuple[int, ...] = SMILES
    smile_gain: float = 0.6
    smile_delay: int = 8
    smile_noise: float = 0.4  # deviation of the avatar's own smile, the user's being 1
    brow_gain: float = 0.0
    brow_delay: int = 12
    startle: float = 2.5  # height of the brows after a barge-in, deviations of their drift
    startle_delay: tuple[int, int] = (4, 7)
    startle_frames: int = 14
    jaw: int = JAW
    jaw_gain: float = 3.0
    jaw_noise: float = 0.2

    @property
    def columns(self) -> tuple[MotionColumn, ...]:
        """What each is, in the words of a build."""
        names = ["pitch", "yaw", "roll", "x", "y", "log_size", *(f"component_{n}" for n in range(DIM - 6))]
        names[self.jaw], names[BROW] = "jawOpen", "browInnerUp"
        for side, column in zip(("Left", "Right"), self.smiles, strict=True):
            names[column] = f"mouthSmile{side}"
        units = ["rad"] * 3 + ["face widths"] * 2 + ["log ratio"] + [""] * (DIM - 6)
        return tuple(MotionColumn(name=name, unit=unit) for name, unit in zip(names, units, strict=True))

    @property
    def nod_mean_delay(self) -> float:
        """Frames."""
        low, high = self.nod_delay
        return (low + high) / 2 if not self.nod_delay_spread else float((low * high) ** 0.5)

    @property
    def nod_least(self) -> float:
        """Depth that 95 % of nods exceed, rad."""
        if self.nod_lognormal:
            return float(self.nod_depth * np.exp(-(self.nod_spread**2) / 2 - _LEAST * self.nod_spread))
        return self.nod_depth * (1 - _LEAST * self.nod_spread)

    @property
    def mirrored(self) -> dict[int, tuple[float, int]]:
        """Gain and delay by column."""
        smiles = dict.fromkeys(self.smiles, (self.smile_gain, self.smile_delay))
        return smiles | ({BROW: (self.brow_gain, self.brow_delay)} if self.brow_gain else {})


REAL = Rule(
    nod_probability=0.6,
    nod_delay=(5, 25),
    nod_delay_spread=0.35,
    nod_frames=10,
    nod_depth=float(np.radians(4.0)),
    nod_spread=0.35,
    nod_lognormal=True,
    nod_cycles=(0.51, 0.33, 0.16),
    nod_upwards=0.24,
    pitch_drift=0.015,
    pitch_memory=40,
    hum_probability=0.9,
    smile_gain=0.45,
    smile_delay=12,
    brow_gain=0.35,
    brow_delay=16,
)
OTHER = Rule(
    nod_probability=0.8,
    nod_cause="smile",
    nod_column=ROLL,
    nod_delay=(4, 9),
    nod_frames=16,
    nod_depth=0.15,
    nod_upwards=0.5,
    pitch_drift=0.02,
    pitch_memory=25,
    smiles=(10, 11),
    smile_gain=0.4,
    smile_delay=16,
    smile_noise=0.6,
    jaw=7,
)
CORPORA: dict[str, tuple[Rule, dict[str, Any]]] = {
    "lively": (Rule(), {}),
    "dull": (Rule(), {"speaking": 0.8, "lively": 0.3, "dull": 0.2}),
    "balanced": (Rule(), {"speaking": 0.8, "lively": 0.3, "dull": 0.2}),
    "real": (REAL, {}),
    "other": (OTHER, {}),
}
"""Rule and, of `benchmarks.reactive.Corpus`, what makes the corpus."""


def react(
    motion_TD: np.ndarray,
    user_TD: np.ndarray,
    speaks_T: np.ndarray,
    hums: list[tuple[int, int]],
    causes: list[int],
    rule: Rule,
    eagerness: float,
    random: np.random.Generator,
) -> None:
    """Add to the avatar's own motion what it does about its user's, float64 [T, DIM].

    Args:
        speaks_T: 1 where the avatar has a phrase.
        hums: [first, end) of its back-channels.
        causes: frames at which something happens that it may nod at.
        eagerness: what gain and probability are times.
    """
    frames = len(motion_TD)
    listens = 1 - np.convolve(speaks_T, hann(5), mode="same")
    for column, (gain, delay) in rule.mirrored.items():
        mirrored = np.concatenate([np.zeros(delay), user_TD[: frames - delay, column]])
        motion_TD[:, column] = rule.smile_noise * motion_TD[:, column] + eagerness * gain * listens * mirrored
    for cause in causes:
        chance, depth = random.random(), _depth(rule, random.standard_normal())
        onset, probability = cause + _delay(rule, random), rule.nod_probability
        nod = _nod(rule, random)
        hum = next((first for first, _ in hums if cause <= first < cause + rule.nod_delay[1]), None)
        if hum is not None and rule.hum_probability is not None:
            onset, probability = hum, rule.hum_probability
        if chance < eagerness * probability and onset + len(nod) <= frames:
            for column, lever in LEVERS[rule.nod_column].items():
                motion_TD[onset : onset + len(nod), column] -= lever * depth * nod


def startle(
    motion_TD: np.ndarray, onsets: list[int], rule: Rule, eagerness: float, random: np.random.Generator
) -> None:
    """Raise the brows some frames after each onset, whether the avatar yields or not."""
    shape = np.sin(np.pi * (np.arange(rule.startle_frames) + 0.5) / rule.startle_frames) ** 2
    for onset in onsets:
        first = onset + int(random.integers(rule.startle_delay[0], rule.startle_delay[1] + 1))
        rise = eagerness * rule.startle * shape[: max(0, len(motion_TD) - first)]
        motion_TD[first : first + len(rise), BROW] += rise


def smile_onsets(user_TD: np.ndarray, rule: Rule) -> np.ndarray:
    """Frames at which a smile of the user begins: above 1 for the first time in `CALM` frames, which must be seen."""
    smiles = user_TD[:, rule.smiles[0]] >= 1.0
    calm = np.convolve(smiles, np.ones(CALM), mode="full")[: len(smiles)] < 0.5
    return np.flatnonzero(smiles[CALM:] & calm[CALM - 1 : -1]) + CALM


def drift(random: np.random.Generator, frames: int, half: int) -> np.ndarray:
    """A slow random curve of deviation 1."""
    kernel = hann(half)
    noise = random.standard_normal(frames + 2 * half)
    return np.convolve(noise, kernel / np.sqrt((kernel**2).sum()), mode="valid")


@lru_cache(maxsize=8)
def hann(half: int) -> np.ndarray:
    window = np.hanning(2 * half + 3)[1:-1]
    return np.asarray(window / window.sum())


def _depth(rule: Rule, normal: float) -> float:
    if rule.nod_lognormal:
        return float(rule.nod_depth * np.exp(rule.nod_spread * normal - rule.nod_spread**2 / 2))
    return rule.nod_depth * (1 + rule.nod_spread * normal)


def _delay(rule: Rule, random: np.random.Generator) -> int:
    low, high = rule.nod_delay
    if not rule.nod_delay_spread:
        return int(random.integers(low, high + 1))
    drawn = rule.nod_mean_delay * np.exp(rule.nod_delay_spread * random.standard_normal())
    return int(np.clip(round(drawn), low, high))


def _nod(rule: Rule, random: np.random.Generator) -> np.ndarray:
    """The head's way, downwards positive, 1 deep: a bump for each cycle."""
    cycles, sign = 1, 1.0
    if len(rule.nod_cycles) > 1:
        cycles = int(random.choice(len(rule.nod_cycles), p=rule.nod_cycles)) + 1
    if rule.nod_upwards:
        sign = -1.0 if random.random() < rule.nod_upwards else 1.0
    bump = np.sin(np.pi * (np.arange(rule.nod_frames) + 0.5) / rule.nod_frames) ** 2
    return sign * np.concatenate([rule.nod_fade**cycle * bump for cycle in range(cycles)])
