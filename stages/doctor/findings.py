"""What a doctor says: findings as typed data, each with how sure it is, which items, and what to do."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from visavis.stages.doctor.kinds import REMEDIES, Kind, Severity

MOST_ITEMS = 50
"""Items that a finding names, the surest first; all are counted."""


class Sign(NamedTuple):
    """What speaks for a kind in one item. certainty: 0.5 … 1. person: 0 or 1, None: of both."""

    kind: Kind
    certainty: float
    detail: str
    person: int | None = None


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Item(_Model):
    """One place where a finding holds. name: what a person calls it, empty where nobody knows. kept: of one too many,
    the id of the one that stays."""

    id: str
    name: str = ""
    detail: str
    certainty: float = Field(ge=0, le=1)
    kept: str = ""


class Finding(_Model):
    """What is wrong, with how many of how many items; certainty: of the surest."""

    kind: Kind
    severity: Severity
    what: str
    advice: str
    count: int = Field(ge=1)
    of: int = Field(ge=0)
    certainty: float = Field(ge=0, le=1)
    items: tuple[Item, ...] = Field(max_length=MOST_ITEMS)


class Diagnosis(_Model):
    """looked_at: items by what they are. unknown: what could not be asked, and why. notes: what is no finding."""

    corpus: str
    looked_at: dict[str, int]
    findings: tuple[Finding, ...]
    unknown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ill(self) -> bool:
        """Whether something must be mended."""
        return any(finding.severity == "mend" for finding in self.findings)


def certainty(value: float, bound: float, clear: float) -> float:
    """How sure a figure is that crossed its bound: a half there, 0.99 from `clear` on."""
    share = (value - bound) / (clear - bound)
    return round(0.5 + 0.49 * min(max(share, 0.0), 1.0), 3)


class Findings:
    """Counts signs by kind, and keeps the surest items."""

    def __init__(self) -> None:
        self._counts: dict[Kind, int] = {}
        self._items: dict[Kind, list[tuple[float, int, Item]]] = {}
        self._of: dict[Kind, int] = {}

    def add(self, id_: str, name: str, signs: Iterable[Sign], people: tuple[str, str] = ("", "")) -> None:
        """Signs of one item; of several of a kind the details are joined."""
        by_kind: dict[Kind, list[Sign]] = {}
        for sign in signs:
            by_kind.setdefault(sign.kind, []).append(sign)
        for kind, found in by_kind.items():
            told = "; ".join(_told(sign, people) for sign in found)
            self.put(kind, Item(id=id_, name=name, detail=told, certainty=max(sign.certainty for sign in found)))

    def put(self, kind: Kind, item: Item) -> None:
        self._counts[kind] = number = self._counts.get(kind, 0) + 1
        items = self._items.setdefault(kind, [])
        heapq.heappush(items, (item.certainty, -number, item))  # of equally sure ones the first stay
        if len(items) > MOST_ITEMS:
            heapq.heappop(items)

    def of(self, kind: Kind, total: int) -> None:
        """Of how many a kind's items are, where these are no conversations."""
        self._of[kind] = total

    def all(self, total: int) -> Iterator[Finding]:
        """What must be mended first; then by how many items it touches."""
        order = sorted(self._counts, key=lambda k: (REMEDIES[k].severity != "mend", -self._counts[k], k))
        for kind in order:
            remedy, ranked = REMEDIES[kind], sorted(self._items[kind], key=lambda each: each[:2], reverse=True)
            yield Finding(
                kind=kind,
                severity=remedy.severity,
                what=remedy.what,
                advice=remedy.advice,
                count=self._counts[kind],
                of=max(self._of.get(kind, total), self._counts[kind]),
                certainty=ranked[0][0],
                items=tuple(item for _, _, item in ranked),
            )


def _told(sign: Sign, people: tuple[str, str]) -> str:
    if sign.person is None:
        return sign.detail
    return f"{people[sign.person] or f'participant {sign.person}'}: {sign.detail}"
