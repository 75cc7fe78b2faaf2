"""Can the gate of pairs tell a listener who reacts from one who does not, in two seconds?

    python -m benchmarks.gate [--quick] [--conversations 300]

Listening windows of the reactive corpus (`benchmarks.reactive`), whose avatars react by a known rule. The recorded
avatar is chosen, that of a window of another conversation rejected; for the null both are of other conversations. Each
row is one way to judge:

power       share of pairs with a positive margin, where the truth reacts (1 is perfect)
null        the same where neither side does (½ by construction of a fair judge)
kept_5      share that a threshold lets through which 5 % of the null pass
defined     share of windows in which the judge has an opinion (an event has to happen first)

`sample` is how many windows the reference statistics were learnt from. `largest` is the largest lagged correlation,
which knows nothing of the corpus.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.listeners import DIM, Rule
from benchmarks.processes import say
from benchmarks.reactive import AVATAR, CODEC, USER, Corpus, make_dyad
from visavis.schemas.dyads import WindowClass
from visavis.schemas.sample import Sample, SampleMeta
from visavis.stages.face.codec import motion_spec
from visavis.stages.pairing.measurements import Expected, ReferenceStatistics, Windows
from visavis.stages.pairing.reference_statistics import learn
from visavis.stages.windows import avatar_state
from visavis.training.metrics.lags import lagged

SAMPLES = (32, 128, 512, 1024, 2048)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--conversations", type=int, default=300)
    options = parser.parse_args()
    if options.quick:
        options.conversations = 100
    samples = listening(options.conversations)
    frames = np.concatenate([s.avatar_motion for s in samples])
    motion = motion_spec(CODEC, DIM, frames.mean(axis=0), frames.std(axis=0))
    windows = Windows.of(samples, motion)
    half = len(samples) // 2  # the first half is what is learnt from, the other what is judged
    judged = replace(windows, **{name: array[half:] for name, array in vars(windows).items()})
    say(f"{half} windows to learn from, {len(samples) - half} to judge")
    rows = [{"judge": "largest", "sample": 0} | _power(*_largest(judged))]
    for count in SAMPLES:
        if count > half:
            break
        reference = learn(samples[:count], motion)
        for name, (defined, scores) in _by_reference(judged, reference).items():
            rows.append({"judge": name, "sample": count} | _power(defined, scores))
    for row in rows:
        say(", ".join(f"{name} {value}" for name, value in row.items()))
    last = next(row for row in reversed(rows) if row["judge"] == "reactivity")
    print(
        json.dumps(
            {
                "name": "gate",
                "power": last["power"],
                "null": last["null"],
                "rows": rows,
                "against": "the avatar of a window of another conversation, on the reactive corpus",
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            }
        )
    )


def listening(conversations: int) -> list[Sample]:
    """Listening windows; sound has no part in this."""
    corpus, rule, found = Corpus(), Rule(), []
    for number in range(conversations):
        dyad = make_dyad(corpus, rule, number)
        for window in dyad.windows:
            span = slice(window.first, window.first + window.length)
            if window.label is WindowClass.LISTENING:
                found.append(
                    Sample(
                        key=window.key,
                        avatar_motion=dyad.motion[AVATAR][span],
                        user_motion=dyad.motion[USER][span],
                        avatar_audio=np.zeros(0, np.float32),
                        user_audio=np.zeros(0, np.float32),
                        state=avatar_state(dyad.state[span], AVATAR),
                        valid=np.ones((window.length, 2), bool),
                        reference=dyad.reference[AVATAR],
                        meta=SampleMeta(
                            conversation=dyad.conversation,
                            avatar=dyad.participants[AVATAR],
                            user=dyad.participants[USER],
                            start=window.first,
                            label=window.label,
                            expressiveness=window.expressiveness,
                            weight=1.0,
                            binding=1.0,
                            codec=CODEC,
                        ),
                    )
                )
    return found


Scores = tuple[Any, Any, Any]
"""Of the recorded avatar and of two others, float [W] each."""


def _others(windows: Windows) -> tuple[np.ndarray, np.ndarray]:
    count = len(windows.truth)
    return np.roll(windows.truth, count // 3, axis=0), np.roll(windows.truth, 2 * count // 3, axis=0)


def _by_reference(windows: Windows, reference: ReferenceStatistics) -> dict[str, tuple[Any, Scores]]:
    expected = Expected(windows, reference)
    (truth, after), (one, one_after), (two, two_after) = (
        expected.fit(side) for side in (windows.truth, *_others(windows))
    )
    always, event = np.ones(len(truth), bool), expected.event_W
    return {
        "lagged": (always, (truth, one, two)),
        "event": (event, (after, one_after, two_after)),
        "reactivity": (always, (truth + event * after, one + event * one_after, two + event * two_after)),
    }


def _largest(windows: Windows) -> tuple[np.ndarray, Scores]:
    seen = np.ones((1, windows.truth.shape[1]), bool)

    def score(sides: np.ndarray) -> np.ndarray:
        pairs = zip(sides, windows.user, strict=True)
        return np.array([max(lagged(side[None], user[None], seen).correlation) for side, user in pairs])

    truth, one, two = (score(side) for side in (windows.truth, *_others(windows)))
    return np.ones(len(truth), bool), (truth, one, two)


def _power(defined: np.ndarray, scores: Scores) -> dict[str, Any]:
    truth, one, two = (score[defined] for score in scores)
    margin, null = truth - one, two - one
    return {
        "defined": round(float(defined.mean()), 3),
        "power": round(float((margin > 0).mean()), 3),
        "null": round(float((null > 0).mean()), 3),
        "kept_5": round(float((margin > np.quantile(null, 0.95)).mean()), 3),
    }


if __name__ == "__main__":
    main()
