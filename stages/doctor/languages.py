"""Which languages a corpus is in, where there are transcripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from visavis.stages.doctor.findings import Findings, Item, certainty
from visavis.stages.doctor.kinds import Kind

_NEARLY_ALL = 0.9  # of the conversations: from there on the others are looked at
_SHOWN = 8  # languages that are named

Spoken = tuple[str, str]
"""A conversation's id, and what people call it."""


def judge(spoken: Mapping[str, Sequence[Spoken]], findings: Findings) -> str:
    """Languages with their shares, in words; conversations in another one than nearly all are findings.

    Args:
        spoken: conversations by the code of their language; those without a word are left out.
    """
    total = sum(len(talks) for talks in spoken.values())
    if not total:
        return "languages: no conversation has a word in its transcript"
    ranked = sorted(spoken.items(), key=lambda each: (-len(each[1]), each[0]))
    main, most = ranked[0]
    if len(most) >= _NEARLY_ALL * total:
        sure = certainty(len(most) / total, _NEARLY_ALL, 1.0)
        for language, talks in ranked[1:]:
            for id_, name in talks:
                detail = f"in {language}, {len(most) / total:.0%} of the corpus in {main}"
                findings.put(Kind.OTHER_LANGUAGE, Item(id=id_, name=name, detail=detail, certainty=sure))
        findings.of(Kind.OTHER_LANGUAGE, total)
    shares = [f"{language} {len(talks) / total:.1%} ({len(talks)})" for language, talks in ranked[:_SHOWN]]
    more = f" and {len(ranked) - _SHOWN} more" if len(ranked) > _SHOWN else ""
    return f"languages: {', '.join(shares)}{more}"
