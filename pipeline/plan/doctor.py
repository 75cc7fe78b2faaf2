"""What the doctor says at the end, whatever a corpus was read from: of conversations, people and the account."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from visavis.pipeline.state.account import Account
from visavis.schemas.errors import Reason
from visavis.schemas.words import counted
from visavis.stages.doctor import people
from visavis.stages.doctor.examine import Judge
from visavis.stages.doctor.findings import Diagnosis, Findings, Item, certainty
from visavis.stages.doctor.kinds import Kind
from visavis.stages.doctor.prints import Prints
from visavis.stages.doctor.scratch import Scratch

LEARN_FROM = 400
"""Conversations, or shards, from which is learned what is usual in the motion."""
_MUCH = 0.3  # share of the conversations that are left out for one reason


def diagnosed(
    corpus: str,
    scratch: Scratch,
    findings: Findings,
    unknown: Iterable[str],
    prints: Sequence[Prints] = (),
    notes: Iterable[str] = (),
) -> Diagnosis:
    """What the sums of all conversations say, and their voices and faces where there are any."""
    judge = Judge(scratch)
    for id_, about, sums in scratch.talks():
        findings.add(id_, about.name, judge.signs(about, sums), about.people)
    total = len(scratch)
    count = people.judge(scratch, findings)
    by_print = {f"people by {each.what}": each.judge(findings) for each in prints}
    scratch.close()
    untold = list(unknown)
    if total and not judge.usual["lips"] >= 0.2:
        untold.append("lips: in this corpus no motion follows the own voice, so voices could not be held against faces")
    return Diagnosis(
        corpus=corpus,
        looked_at={"conversations": total, "people": count} | {what: n for what, n in by_print.items() if n},
        findings=tuple(findings.all(total)),
        unknown=tuple(untold),
        notes=(*notes, *(f"{each.what}s: {each.said}" for each in prints if each.said)),
    )


def left_out(account: Account, findings: Findings) -> None:
    """Reasons that leave out much, and partners that are missing."""
    counts = Counter[str]()
    total = 0
    for row in account.values():
        total = total or row["ok"] + sum(row["rejected"].values()) + sum(row["failed"].values())
        counts.update(row["rejected"])
    for reason, count in counts.most_common():
        said = f"{counted(count, 'conversation')} of {total}"
        if reason == Reason.INCOMPLETE_DYAD:
            findings.put(Kind.MISSING_PARTNER, Item(id=reason, detail=said, certainty=0.99))
        elif reason == Reason.DUPLICATE_CONTENT:
            findings.put(Kind.DUPLICATE, Item(id=reason, detail=said, certainty=0.99))
        elif total >= 10 and count > _MUCH * total:
            sure = certainty(count / total, _MUCH, 0.7)
            findings.put(Kind.LEFT_OUT, Item(id=reason, name=reason, detail=said, certainty=sure))
