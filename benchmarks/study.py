"""How often the interval of a study holds the truth: simulated people with known preferences vote in whole studies.

    python -m benchmarks.study            # 2000 studies of each kind, about three minutes; --quick: 100

A study is designed as `visavis study` does it, people draw its sheets, and their votes are counted as files are. A vote
for the first system is drawn from the logistic of preference + person + clip (+ side, + lapses): people and clips
deviate normally. The truth is the share among all people and clips, which is known by quadrature. Said is in how many
studies each interval holds it (nominal 95 %), how wide it is, how often the left clip was preferred, and how
often people are told apart who press at random.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from benchmarks.processes import say
from visavis.pipeline.page import shares
from visavis.pipeline.page.study import design, sheets
from visavis.pipeline.page.votes import Ballot, Key, Question, Vote, Votes, checks_failed, scores

SYSTEMS = ("one", "two")
QUESTION = Question(code="listening", text="Which avatar listens better?")


@dataclass(frozen=True)
class World:
    """Who votes on what. preference, people, clips: log odds of the first system, and deviations of them; side: log
    odds that the left clip gains; same: share of votes that prefer neither."""

    name: str
    voters: int = 10
    trials: int = 30
    preference: float = 0.6
    people: float = 0.0
    clips: float = 0.0
    side: float = 0.0
    same: float = 0.0

    @property
    def truth(self) -> float:
        """The share among all people and clips; who prefers neither counts half."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(80)
        spread = float(np.hypot(self.people, self.clips))
        sided = [expit(self.preference + spread * nodes + sign * self.side) for sign in (1, -1)]
        decided = float((weights * np.mean(sided, axis=0)).sum() / weights.sum())
        return (1 - self.same) * decided + self.same / 2


WORLDS = (
    World("everybody alike"),
    World("people differ", people=0.5),
    World("clips differ", clips=0.7),
    World("people and clips differ", people=0.5, clips=0.7),
    World("… much", people=1.0, clips=1.0),
    World("… and prefer the left", people=0.5, clips=0.7, side=0.5),
    World("… a third sees no difference", people=0.5, clips=0.7, same=0.33),
    World("… few people", voters=5, people=0.5, clips=0.7),
    World("… few clips", voters=20, trials=10, people=0.5, clips=0.7),
    World("… many people", voters=40, people=0.5, clips=0.7),
    World("… nearly all prefer one", preference=2.5, people=0.8, clips=0.8),
)


def made_study(trials: int, checks: int, seed: int, systems: tuple[str, ...] = SYSTEMS) -> tuple[Key, list[str]]:
    """The key of a study and its sheets."""
    secret = hashlib.sha256(str(seed).encode()).digest()
    windows = [f"{n:016x}-0-{n}" for n in range(trials)]
    key = design(
        windows, systems, [QUESTION], checks=windows[:checks], trials=trials, seed=seed, ties=True, secret=secret,
        origin={},
    )  # fmt: skip
    return key, sheets(key, secret)


# Votes are not validated again here: that takes most of the time, and files are read by tests.


def vote_all(key: Key, sheet: list[str], world: World, random: np.random.Generator) -> list[Ballot]:
    """The votes of attentive people."""
    listed = sorted(key.trials, key=lambda trial: trial.code)
    codes = [sorted(clip.code for clip in trial.clips) for trial in listed]
    check_C = np.array([bool(trial.check) for trial in listed])
    clip_C = world.clips * random.standard_normal(len(listed))
    ballots, asked = [], key.questions[0].code
    for person in range(world.voters):
        lean = world.preference + world.people * random.standard_normal()
        drawn = int(random.integers(len(sheet)))
        left_C = [pair[int(swapped)] for pair, swapped in zip(codes, sheet[drawn], strict=True)]
        on_left_C = np.array([left == trial.clips[0].code for left, trial in zip(left_C, listed, strict=True)])
        odds_C = np.where(check_C, 8.0, lean + clip_C + np.where(on_left_C, world.side, -world.side))
        first_C = random.random(len(listed)) < expit(odds_C)
        same_C = ~check_C & (random.random(len(listed)) < world.same)
        answer_C = np.where(same_C, "same", np.where(first_C == on_left_C, "left", "right")).tolist()
        votes = [
            Vote.model_construct(trial=t.code, question=asked, left=left, answer=answer, seconds=1, plays=1)
            for t, left, answer in zip(listed, left_C, answer_C, strict=True)
        ]
        ballots.append(Ballot(f"{person}.json", _signed(key, person, drawn, votes)))
    return ballots


def vote_blindly(key: Key, random: np.random.Generator, person: int = 0) -> Ballot:
    """Somebody who presses left or right at random."""
    votes = [
        Vote(trial=t.code, question=key.questions[0].code, left=t.clips[int(random.integers(2))].code,
             answer="left" if random.integers(2) else "right", seconds=1, plays=1)
        for t in key.trials
    ]  # fmt: skip
    return Ballot(f"blind{person}.json", _signed(key, 1000 + person, 0, votes))


def _signed(key: Key, person: int, sheet: int, votes: list[Vote]) -> Votes:
    return Votes.model_construct(
        format="visavis-votes", version=1, study=key.study, person=f"{person:016x}", sheet=sheet, begun="", ended="",
        votes=tuple(votes),
    )  # fmt: skip


def covered(world: World, studies: int, seed: int = 0) -> dict[str, float | str]:
    """Share of studies whose interval holds the truth, for each kind of interval; half their mean width, in %."""
    random = np.random.default_rng(seed)
    hits, widths, left = dict[str, int](), dict[str, float](), []
    key, drawn = made_study(world.trials, 0, seed)
    truth = world.truth
    for n in range(studies):
        ballots = vote_all(key, drawn, world, random)
        score_PC = scores(ballots, key, QUESTION.code)
        found = {
            "wilson": shares.wilson(float(score_PC.sum()), score_PC.size),
            "bootstrap of people": shares.bootstrap(score_PC, clips=False, draws=400, seed=n),
            "people": shares.interval(score_PC, clips=False),
            "bootstrap of both": shares.bootstrap(score_PC, draws=400, seed=n),
            "people and clips": shares.interval(score_PC),
        }
        for name, interval in found.items():
            low, high = interval or (0.0, 1.0)
            hits[name] = hits.get(name, 0) + (low <= truth <= high)
            widths[name] = widths.get(name, 0.0) + (high - low) / 2
        left += [v.answer == "left" for b in ballots for v in b.votes.votes if v.answer != "same"]
    row: dict[str, float | str] = {"world": world.name, "truth": round(truth, 3)}
    row |= {name: round(100 * hit / studies, 1) for name, hit in hits.items()}
    row |= {f"± {name}": round(100 * widths[name] / studies, 1) for name in ("wilson", "people and clips")}
    return row | {"left": round(100 * float(np.mean(left)), 1)}


def told_apart(studies: int, checks: int = 4, seed: int = 0) -> float:
    """Share of people pressing at random who fail more checks than are forgiven."""
    random = np.random.default_rng(seed)
    key, _ = made_study(1, checks, seed) if checks < 2 else made_study(checks, checks, seed)
    return float(np.mean([4 * checks_failed(vote_blindly(key, random), key)[0] > checks for _ in range(studies)]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="100 studies of each kind")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the kinds, from 0")
    asked = parser.parse_args()
    studies = 100 if asked.quick else 2000
    rows = []
    for world in WORLDS if asked.only is None else [WORLDS[n] for n in asked.only]:
        rows.append(covered(world, studies))
        say("  ".join(f"{key} {value}" for key, value in rows[-1].items()))
    apart = told_apart(studies)
    say(f"pressing at random is found out in {apart:.0%}")
    print(json.dumps({"name": "study", "studies": studies, "rows": rows, "random_found": round(apart, 3),
                      "machine": platform.machine()}))  # fmt: skip


if __name__ == "__main__":
    main()
