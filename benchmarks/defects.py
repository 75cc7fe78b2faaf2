"""Defects of known kinds, injected into copies of a made corpus; which of them does `visavis doctor` find?

    python -m benchmarks.defects [--conversations N] [--seconds S] [--seed N] [--json]

A clean corpus (`benchmarks.reactive`: two people who take turns, lips that follow the voice, listeners that react) must
have no finding. Then, kind by kind, the defect is injected into every fifth conversation of a copy, with a strength
drawn from a range; a finding of the kind in such a conversation is right, in another one wrong, and so is a finding of
another kind anywhere. Bounds were set on seeds 0 and 1; the table of docs/doctor.md is of seeds 1 and 31.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping

import numpy as np

from benchmarks.injections import INJECTIONS, Talk
from benchmarks.listeners import REAL
from benchmarks.reactive import Corpus
from visavis.pipeline.plan.doctor import diagnosed
from visavis.stages.doctor.examine import Learner, measure
from visavis.stages.doctor.excerpt import Sums
from visavis.stages.doctor.findings import Diagnosis, Findings
from visavis.stages.doctor.kinds import Kind
from visavis.stages.doctor.scratch import About, Scratch

EVERY = 5
"""One of so many conversations has the defect."""
LEARN_FROM = 30
"""Clean conversations from which is learned what is usual in the motion."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=60)
    parser.add_argument("--seconds", type=int, default=180)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", choices=[*INJECTIONS], default=list(INJECTIONS))
    parser.add_argument("--told", action="store_true", help="what was missed and what was wrong, one by one")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    for row, told in table(options.conversations, options.seconds, options.seed, options.kinds):
        rows.append(row)
        if not options.json:
            print(" ".join(f"{value:>9}" if n else f"{value:<18}" for n, value in enumerate(row.values())), flush=True)
        for line in told if options.told else ():
            print("   ", line)
    if options.json:
        print(json.dumps(rows))


def table(
    conversations: int, seconds: int, seed: int, kinds: list[Kind]
) -> Iterator[tuple[dict[str, object], list[str]]]:
    """Kind, injected, found, wrong, recall, precision; first of the clean corpus. And what went wrong."""
    corpus = Corpus(train=conversations, val=0, seconds=seconds, seed=seed)
    made = [Talk.made(corpus, REAL, number) for number in range(conversations)]
    learner = Learner()
    for talk in made[:LEARN_FROM]:
        learner.add(talk.excerpt())
    voice, usual = learner.usual()
    clean = {t.dyad.conversation: (t.about(), measure(t.excerpt(), voice, usual)) for t in made}
    found = examined(clean)
    told = [f"{f.kind} {i.id} {i.detail}" for f in found.findings for i in f.items]
    yield _row("clean", 0, 0, sum(f.count for f in found.findings)), told
    for kind in map(Kind, kinds):
        ill = {}
        random = np.random.default_rng([seed, list(INJECTIONS).index(kind)])
        for number in range(EVERY - 1, conversations, EVERY):
            talk = made[number].copy()
            INJECTIONS[kind](talk, random, made[number - 1 - int(random.integers(3))])
            ill[talk.dyad.conversation] = talk.about(), measure(talk.excerpt(), voice, usual)
        yield _scored(kind, set(ill), examined(clean | ill))


def examined(measured: Mapping[str, tuple[About, Sums]]) -> Diagnosis:
    """What the doctor says of conversations that are measured."""
    scratch = Scratch()
    for id_, (about, sums) in measured.items():
        scratch.add(id_, about, sums)
    return diagnosed("made", scratch, Findings(), ())


def _scored(kind: Kind, ill: set[str], found: Diagnosis) -> tuple[dict[str, object], list[str]]:
    items = sorted({(f.kind, i.id, i.detail) for f in found.findings for i in f.items})
    right = {id_ for each, id_, _ in items if each is kind and id_ in ill}
    wrong = [item for item in items if item[0] is not kind or item[1] not in ill]
    told = [f"missed {id_}" for id_ in sorted(ill - right)] + [f"wrong {' '.join(item)}" for item in wrong]
    return _row(kind, len(ill), len(right), len(wrong)), told


def _row(kind: str, injected: int, found: int, wrong: int) -> dict[str, object]:
    recall = f"{found / injected:.2f}" if injected else ""
    precision = f"{found / (found + wrong):.2f}" if found + wrong else ""
    return {
        "kind": kind,
        "injected": injected,
        "found": found,
        "wrong": wrong,
        "recall": recall,
        "precision": precision,
    }


if __name__ == "__main__":
    main()
