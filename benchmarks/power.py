"""How many windows R-DGG's test needs to tell who reacts: a listener by the user's rule, and one who hears a stranger.

    python -m benchmarks.power [--rules lively real faint] [--windows 30 60] [--seeds 6] [--first-seed 200]

Conversations are those of `benchmarks.reactive`; of each one window of 4 s is taken. The listener follows the same rule
as the recorded avatar, with nods, delays, drift and own smiles drawn anew; a stranger is the listener of another
window. Shown is in how many draws p < .01, of both: the first should be all, the second one in a hundred.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

import numpy as np

from benchmarks.listeners import DIM, REAL, Rule
from benchmarks.processes import say
from benchmarks.reactive import AVATAR, Corpus, make_motion, make_talk
from visavis.stages.windows import avatar_state
from visavis.training.granger import Gain, Space, user_gain
from visavis.training.sequences import Recorded, Side

RULES = {"lively": Rule(), "real": REAL, "faint": replace(Rule(), nod_probability=0.4, smile_gain=0.3)}
FRAMES = 100
LEVEL = 0.01


def drawn(rule: Rule, seed: int, windows: int) -> tuple[list[Recorded], list[np.ndarray]]:
    """Windows as they were recorded, and a listener of the same rule with other noise."""
    corpus, unmoved = Corpus(seed=seed), replace(rule, smile_gain=0.0, brow_gain=0.0)
    random = np.random.default_rng([seed, 5])
    recorded, motions = [], []
    for number in range(windows):
        talk = make_talk(corpus, number)
        user, avatar = make_motion(corpus, rule, number, talk)
        mirrored = avatar - make_motion(corpus, unmoved, number, talk)[AVATAR]
        other = make_motion(replace(corpus, seed=seed + 5000), unmoved, number, talk)[AVATAR] + mirrored
        first = int(random.integers(0, len(user) - FRAMES))
        some = slice(first, first + FRAMES)
        state = avatar_state(talk.state(len(user)), AVATAR)[some]
        side, silence = Side(f"c{number}", f"a{number}", f"u{number}"), np.zeros(0, np.float32)
        seen, still = np.ones(FRAMES, bool), np.zeros(DIM, np.float32)
        recorded.append(Recorded(side[0], side, avatar[some], user[some], state, seen, still, silence, silence))
        motions.append(other[some])
    return recorded, motions


def judged(rule: Rule, seed: int, windows: int) -> tuple[Gain, Gain]:
    """R-DGG of the listener and of strangers."""
    recorded, motions = drawn(rule, seed, windows)
    away = max(1, windows * 2 // 5)
    space = Space.of(recorded)
    return user_gain(recorded, motions, space), user_gain(recorded, motions[away:] + motions[:away], space)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--windows", nargs="+", type=int, default=[30, 60])
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--first-seed", type=int, default=200)
    options = parser.parse_args()
    rows = []
    for name in options.rules:
        for windows in options.windows:
            seeds = range(options.first_seed, options.first_seed + options.seeds)
            found = [judged(RULES[name], seed, windows) for seed in seeds]
            told, mistaken = (sum(gain.p < LEVEL for gain in side) for side in zip(*found, strict=True))
            rows.append({"rule": name, "windows": windows, "told": told, "mistaken": mistaken, "of": len(seeds)})
            strangers = ", ".join(f"{other.p:.2f}" for _, other in found)
            say(f"{name}, {windows} windows: {told} of {len(seeds)}; strangers {mistaken}, with p {strangers}")
    print(json.dumps({"name": "power", "rows": rows}))


if __name__ == "__main__":
    main()
