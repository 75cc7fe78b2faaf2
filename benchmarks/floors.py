"""What each metric says of motion that is known to be right, alike or noise: the floors of `docs/evaluation.md`.

    python -m benchmarks.floors [--dialogues FOLDER]

Windows of 2 s of the listeners of `benchmarks.reactive`, scored by `training.metrics`: the recorded avatar itself;
other windows of the truth beside their own users (for `pcc` and lags beside these users: strangers); white noise of the
truth's mean and deviation. With a folder of FLAME coefficients in DualTalk's layout also the figures of public
protocols of its first two people, each the other's user, for the truth, halves of it and noise.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.listeners import JAW, Rule
from benchmarks.processes import say
from benchmarks.reactive import AVATAR, USER, Corpus, make_motion, make_talk
from visavis.training.metrics.correlation import flat_pcc, flat_sums, pcc, rpcc, rpcc_flat
from visavis.training.metrics.distributions import CLUSTERS, fd, sid
from visavis.training.metrics.lags import lagged
from visavis.training.metrics.movement import jerk, var
from visavis.training.protocols.clips import Clip, halves
from visavis.training.protocols.score import PROTOCOLS, score

CONVERSATIONS, WINDOW, WINDOWS = 40, 50, 600
PARTS = {"expression": slice(JAW, None), "pose": slice(0, JAW)}
FLAME = {"exp": slice(0, 50), "jaw": slice(50, 53), "pose": slice(53, 56)}
Rows = dict[str, dict[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dialogues", type=Path, help="a folder with .npz of FLAME coefficients")
    options = parser.parse_args()
    rows = {part: of_windows(*made_windows(), part) for part in PARTS}
    if options.dialogues is not None:
        rows |= {protocol: of_dialogues(options.dialogues, protocol) for protocol in PROTOCOLS}
    for name, figures in rows.items():
        for figure, values in figures.items():
            say(f"{name:12}{figure:24}" + "".join(f"{row} {value:<12.4g}" for row, value in values.items()))
    plain = {
        name: {f: {r: None if np.isnan(v) else v for r, v in vs.items()} for f, vs in of.items()}
        for name, of in rows.items()
    }
    print(json.dumps({"name": "floors", "rows": plain}))


def made_windows() -> tuple[np.ndarray, np.ndarray]:
    """Normalised motion of avatars and of their users, [W, T, D] each, in an order of chance."""
    corpus, sides = Corpus(), []
    for number in range(CONVERSATIONS):
        motions = make_motion(corpus, Rule(), number, make_talk(corpus, number))
        sides.append((motions[AVATAR], motions[USER]))
    avatar, user = (np.concatenate(side) for side in zip(*sides, strict=True))
    both = np.concatenate([avatar, user])
    order = np.random.default_rng(0).permutation(len(avatar) // WINDOW)
    unit = [((side - both.mean(axis=0)) / both.std(axis=0)).reshape(len(order), WINDOW, -1) for side in (avatar, user)]
    return unit[0][order], unit[1][order]


def of_windows(avatar_WTD: np.ndarray, user_WTD: np.ndarray, part: str) -> Rows:
    """Figures by metric: the truth, other windows of it, noise."""
    truth, other = (avatar_WTD[first : first + WINDOWS, :, PARTS[part]] for first in (0, WINDOWS))
    user, others = (user_WTD[first : first + WINDOWS, :, PARTS[part]] for first in (0, WINDOWS))
    random = np.random.default_rng(1)
    noise = random.standard_normal(truth.shape) * truth.std(axis=(0, 1)) + truth.mean(axis=(0, 1))
    valid = np.ones(truth.shape[:2], bool)
    flat = [flat_pcc(flat_sums(a, b, valid).sum(axis=0)) for a, b in ((truth, user), (other, others))]
    rows = {"truth": truth, "other": other, "noise": noise}
    frames = {name: motion.reshape(-1, motion.shape[-1]) for name, motion in rows.items()}
    return {
        "pcc": {name: pcc(motion, user, valid) for name, motion in rows.items()},
        "rpcc": {
            "other": abs(pcc(truth, user, valid) - pcc(other, others, valid)),
            "noise": rpcc(truth, noise, user, valid),
        },
        "rpcc_flat": {
            "other": abs(flat[0] - flat[1]),
            "noise": rpcc_flat(truth, noise, user, valid),
        },
        "lagged_best": {name: max(lagged(motion, user, valid).correlation) for name, motion in rows.items()},
        "lagged_delay": {name: lagged(motion, user, valid).delay for name, motion in rows.items()},
        "var": {name: var(motion, valid) for name, motion in rows.items()},
        "jerk": {name: jerk(motion, valid) for name, motion in rows.items()},
        "sid": {name: sid(frames["truth"], motion, CLUSTERS[part]) for name, motion in frames.items()},
        "fd": {name: fd(frames["truth"], motion) for name, motion in frames.items()},
    }


def of_dialogues(folder: Path, protocol: str) -> Rows:
    """Figures by name: the truth itself, halves of it, noise."""
    motions = []
    for path in sorted(folder.glob("*.npz"))[:2]:
        with np.load(path, allow_pickle=False) as file:
            motions.append(np.concatenate([file["exp"], file["pose"][:, 3:], file["pose"][:, :3]], axis=1))
    one, two = (motion[: min(map(len, motions))] for motion in motions)
    listens = np.arange(len(one)) % 100 < 60  # of frames that are parted, whichever they are
    truth = [Clip(one, two, one, listens), Clip(two, one, two, listens)]
    random = np.random.default_rng(0)

    def noise_of(motion: np.ndarray) -> np.ndarray:
        made = random.standard_normal(motion.shape) * motion.std(axis=0) + motion.mean(axis=0)
        return np.asarray(made, motion.dtype)

    rows = {"truth": truth, "halves": halves(truth)}
    rows["noise"] = [replace(clip, generated=noise_of(clip.truth)) for clip in truth]
    figures = {name: score(protocol, clips, FLAME) for name, clips in rows.items()}  # type: ignore[arg-type]
    return {figure: {name: found[figure] for name, found in figures.items()} for figure in figures["truth"]}


if __name__ == "__main__":
    main()
