"""Who is in the corpus, how much of it, and in which splits."""

from __future__ import annotations

from visavis.schemas import FPS
from visavis.schemas.words import counted
from visavis.stages.doctor.findings import Findings, Item, certainty
from visavis.stages.doctor.kinds import Kind
from visavis.stages.doctor.scratch import Person, Scratch

_SHARE, _TIMES = 0.2, 4.0  # of all that people say and hear, and times an even share
_FEWEST = 8  # people, of fewer some have much anyhow


def judge(scratch: Scratch, findings: Findings) -> int:
    """People in two splits, and people who make much of the corpus. Returns how many there are."""
    count, total = scratch.totals()
    for person in scratch.people():
        splits = sorted(set(person.splits.split()))
        if len(splits) > 1:
            said = f"in {' and '.join(splits)}, {counted(person.conversations, 'conversation')}"
            findings.put(Kind.SPLIT_LEAK, Item(id=person.name, name=person.name, detail=said, certainty=0.99))
        if _much(person, count, total):
            share = person.frames / total
            minutes = f"{person.frames / FPS / 60:.0f} min in {person.conversations} conversations"
            said = f"{100 * share:.0f} % of the corpus, {minutes}"
            sure = certainty(share, _SHARE, 0.5)
            findings.put(Kind.IMBALANCE, Item(id=person.name, name=person.name, detail=said, certainty=sure))
    for kind in (Kind.SPLIT_LEAK, Kind.IMBALANCE):
        findings.of(kind, count)
    return count


def _much(person: Person, count: int, total: int) -> bool:
    return count >= _FEWEST and person.frames > max(_SHARE, _TIMES / count) * total
