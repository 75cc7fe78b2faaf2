"""Are names at one with voices and faces? Several names for one, several under one name, one in both splits.

Who is one person by voice or face is `stages.crowd.linking`'s answer. What nobody named has no name here: a build
makes one of the conversation's id.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from visavis.stages.crowd.likeness import OF_VOICES, Likeness, of_faces
from visavis.stages.crowd.linking import linked
from visavis.stages.doctor.findings import Findings, Item
from visavis.stages.doctor.kinds import Kind

_SHOWN = 6  # conversations that a finding names


class Appearance(NamedTuple):
    """A participant of a conversation. where: what people call it. split: empty where there is none."""

    talk: str
    where: str
    name: str
    split: str

    @property
    def given(self) -> str:
        """The name, if somebody gave one."""
        return "" if self.name in (f"{self.talk}-0", f"{self.talk}-1") else self.name


class Print(NamedTuple):
    """embedding_E: float32 of unit length, zeros where too little is known. weight: seconds, or pictures.

    agreement: of a face, cosine of what the halves of its pictures give.
    """

    embedding: np.ndarray
    weight: float
    agreement: float = math.nan


class Prints:
    """The voices or faces of a corpus: of each participant a kilobyte or less, and what is said of them.

    Args:
        what: "voice" or "face". threshold: a cosine from which two faces are one person's; none: the corpus tells.
    """

    def __init__(self, what: str, threshold: float | None = None) -> None:
        self.what, self._threshold = what, threshold
        self.said = ""
        self._who: list[Appearance] = []
        self._prints: list[np.ndarray] = []
        self._more: list[tuple[float, float]] = []

    def add(self, who: Appearance, print_: Print) -> None:
        """Who is hardly heard or seen is passed over."""
        if print_.embedding.any():
            self._who.append(who)
            self._prints.append(print_.embedding.astype(np.float16))
            self._more.append((print_.weight, print_.agreement))

    def judge(self, findings: Findings) -> int:
        """Put what is wrong into `findings`. Returns how many people there are; 0: nobody can tell, `said` says why."""
        if not self._who:
            self.said = f"of nobody enough is known by {self.what}"
            return 0
        prints_NE, (weight_N, agreement_N) = np.stack(self._prints).astype(np.float32), np.array(self._more).T
        likeness = OF_VOICES if self.what == "voice" else self._of_faces(prints_NE, agreement_N)
        if likeness is None:
            return 0
        crowd = _Crowd(prints_NE, weight_N, self._who, likeness, self.what)
        person_N = crowd.linked(np.arange(len(self._who)))
        for members in _together(person_N.tolist()):
            _one_person(members, crowd, findings)
        for members in _together([who.given for who in self._who]):
            _one_name(members, crowd, findings)
        count = len(np.unique(person_N))
        findings.of(Kind.SEVERAL_NAMES, count)
        findings.of(Kind.SEVERAL_PEOPLE, len({who.given for who in self._who} - {""}))
        return count

    def _of_faces(self, prints_NE: np.ndarray, agreement_N: np.ndarray) -> Likeness | None:
        """How alike faces are, by conversations of which both are known."""
        first = [n for n in range(len(self._who) - 1) if self._who[n].talk == self._who[n + 1].talk]
        pairs_C2 = np.array(first, np.int64)[:, None] + (0, 1)
        likeness, self.said = of_faces(prints_NE[pairs_C2], agreement_N[pairs_C2], self._threshold)
        return likeness


class _Crowd(NamedTuple):
    """Unit prints, their weights, whose they are, how alike one person's are, and what they are of."""

    prints_NE: np.ndarray
    weight_N: np.ndarray
    who: Sequence[Appearance]
    likeness: Likeness
    what: str

    def linked(self, members_M: np.ndarray, bound: float | None = None) -> np.ndarray:
        """Who of some is whom: int64 [M]."""
        numbers: dict[str, int] = {}
        talk_M = np.array([numbers.setdefault(self.who[n].talk, len(numbers)) for n in members_M.tolist()])
        return linked(self.prints_NE[members_M], self.weight_N[members_M], talk_M, bound, self.likeness)

    def against(self, some_M: np.ndarray, others_M: np.ndarray) -> np.ndarray:
        """Nats by which each print is that of the others together, without itself: float64 [M]."""
        own_M = np.isin(some_M, others_M)
        rest_ME = self._weighed(others_M).sum(axis=0) - own_M[:, None] * self._weighed(some_M)
        known_M = self.weight_N[others_M].sum() - own_M * self.weight_N[some_M]
        length_M = np.linalg.norm(rest_ME, axis=1).clip(1e-9)
        cosine_M = (self.prints_NE[some_M] * rest_ME).sum(axis=1) / length_M
        return self.likeness.evidence(cosine_M, self.weight_N[some_M], known_M)

    def _weighed(self, members_M: np.ndarray) -> np.ndarray:
        """Prints of some, each by how much it counts among several."""
        return self.prints_NE[members_M] * self.likeness.share(self.weight_N[members_M])[:, None]

    def places(self, members_M: np.ndarray) -> str:
        """The conversations of some, as people call them."""
        names = list(dict.fromkeys(self.who[n].where or self.who[n].talk for n in members_M.tolist()))
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return f"{', '.join(names[:_SHOWN])}{more}"


def _together(keys: Sequence[Hashable]) -> Iterator[np.ndarray]:
    """Numbers with one key, where there are two and more."""
    found: dict[Hashable, list[int]] = {}
    for number, key in enumerate(keys):
        found.setdefault(key, []).append(number)
    return (np.array(members) for key, members in found.items() if len(members) > 1 and key != "")


def _one_person(members_M: np.ndarray, crowd: _Crowd, findings: Findings) -> None:
    """Of one person by voice or face: under how many names, in how many splits."""
    who = [crowd.who[n] for n in members_M.tolist()]
    if len({each.given or each.talk for each in who}) < 2:
        return
    names = sorted({each.given or f"someone in {each.where or each.talk}" for each in who})
    sure = _sure(float(crowd.against(members_M, members_M).min()) - crowd.likeness.bound(len(crowd.who)))
    where, name = crowd.places(members_M), _listed(names)

    def told(detail: str) -> Item:
        return Item(id=who[0].talk, name=name, detail=detail, certainty=sure)

    findings.put(Kind.SEVERAL_NAMES, told(f"one {crowd.what} in {where}"))
    splits = sorted({split for each in who for split in each.split.split()})
    if len(splits) > 1:
        findings.put(Kind.SPLIT_LEAK, told(f"one {crowd.what} in {' and '.join(splits)}: {where}"))


def _one_name(members_M: np.ndarray, crowd: _Crowd, findings: Findings) -> None:
    """Whether somebody of a name sounds or looks unlike most others of it."""
    person_M = crowd.linked(members_M, crowd.likeness.doubt)
    people, count_P = np.unique(person_M, return_counts=True)
    if len(people) < 2:
        return
    most_M = person_M == people[count_P.argmax()]
    nats_K = crowd.against(members_M[~most_M], members_M[most_M])
    detail = (
        f"{len(people)} {crowd.what}s: {crowd.places(members_M[~most_M])} against {crowd.places(members_M[most_M])}"
    )
    name = crowd.who[int(members_M[0])].name
    item = Item(id=name, name=name, detail=detail, certainty=_sure(crowd.likeness.doubt - float(nats_K.min())))
    findings.put(Kind.SEVERAL_PEOPLE, item)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _sure(nats: float) -> float:
    """A probability, between a half and .99."""
    return round(min(max(1 / (1 + math.exp(-max(nats, 0.0))), 0.5), 0.99), 3)
