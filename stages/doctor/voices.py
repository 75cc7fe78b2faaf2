"""Are names and voices at one? Several names for one voice, several voices under one name, one voice in both splits.

Who is one person by voice is `stages.voice.linking`'s answer. What nobody named has no name here: a build makes one of
the conversation's id.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from visavis.stages.doctor.findings import Findings, Item
from visavis.stages.doctor.kinds import Kind
from visavis.stages.voice.linking import bound_of, evidence, linked
from visavis.stages.voice.voiceprints import Voiceprint

_NAMED_ONE = 4.6
"""Nats against one person before a name is doubted: a hundred names are right for one that is not."""
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


class Voices:
    """The voices of a corpus: of each participant 400 bytes, and what is said of them."""

    def __init__(self) -> None:
        self._who: list[Appearance] = []
        self._prints: list[np.ndarray] = []
        self._seconds: list[float] = []

    def add(self, who: Appearance, voice: Voiceprint) -> None:
        """Who is hardly heard is passed over."""
        if voice.embedding.any():
            self._who.append(who)
            self._prints.append(voice.embedding.astype(np.float16))
            self._seconds.append(voice.seconds)

    def judge(self, findings: Findings) -> int:
        """Put what is wrong into `findings`. Returns how many people there are by voice."""
        if not self._who:
            return 0
        crowd = _Crowd(np.stack(self._prints).astype(np.float32), np.array(self._seconds), self._who)
        person_N = crowd.linked(np.arange(len(self._who)))
        for members in _together(person_N.tolist()):
            _one_voice(members, crowd, findings)
        for members in _together([who.given for who in self._who]):
            _one_name(members, crowd, findings)
        count = len(np.unique(person_N))
        findings.of(Kind.SEVERAL_NAMES, count)
        findings.of(Kind.SEVERAL_PEOPLE, len({who.given for who in self._who} - {""}))
        return count


class _Crowd(NamedTuple):
    """Unit voiceprints, the seconds they were made of, and whose they are."""

    prints_NE: np.ndarray
    seconds_N: np.ndarray
    who: Sequence[Appearance]

    def linked(self, members_M: np.ndarray, bound: float | None = None) -> np.ndarray:
        """Who of some is whom: int64 [M]."""
        numbers: dict[str, int] = {}
        talk_M = np.array([numbers.setdefault(self.who[n].talk, len(numbers)) for n in members_M.tolist()])
        return linked(self.prints_NE[members_M], self.seconds_N[members_M], talk_M, bound)

    def against(self, some_M: np.ndarray, others_M: np.ndarray) -> np.ndarray:
        """Nats by which each voice is that of the others together, without itself: float64 [M]."""
        weighed_ME = self.prints_NE[others_M] * self.seconds_N[others_M, None]
        own_M = np.isin(some_M, others_M)[:, None]
        rest_ME = weighed_ME.sum(axis=0) - own_M * self.prints_NE[some_M] * self.seconds_N[some_M, None]
        heard_M = self.seconds_N[others_M].sum() - own_M[:, 0] * self.seconds_N[some_M]
        length_M = np.linalg.norm(rest_ME, axis=1).clip(1e-9)
        cosine_M = (self.prints_NE[some_M] * rest_ME).sum(axis=1) / length_M
        return evidence(cosine_M, self.seconds_N[some_M], heard_M)

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


def _one_voice(members_M: np.ndarray, crowd: _Crowd, findings: Findings) -> None:
    """Of one person by voice: under how many names, in how many splits."""
    who = [crowd.who[n] for n in members_M.tolist()]
    if len({each.given or each.talk for each in who}) < 2:
        return
    names = sorted({each.given or f"someone in {each.where or each.talk}" for each in who})
    sure = _sure(float(crowd.against(members_M, members_M).min()) - bound_of(len(crowd.who)))
    where, name = crowd.places(members_M), _listed(names)

    def told(detail: str) -> Item:
        return Item(id=who[0].talk, name=name, detail=detail, certainty=sure)

    findings.put(Kind.SEVERAL_NAMES, told(f"one voice in {where}"))
    splits = sorted({split for each in who for split in each.split.split()})
    if len(splits) > 1:
        findings.put(Kind.SPLIT_LEAK, told(f"one voice in {' and '.join(splits)}: {where}"))


def _one_name(members_M: np.ndarray, crowd: _Crowd, findings: Findings) -> None:
    """Whether somebody of a name sounds unlike most others of it."""
    person_M = crowd.linked(members_M, -_NAMED_ONE)
    people, count_P = np.unique(person_M, return_counts=True)
    if len(people) < 2:
        return
    most_M = person_M == people[count_P.argmax()]
    nats_K = crowd.against(members_M[~most_M], members_M[most_M])
    detail = f"{len(people)} voices: {crowd.places(members_M[~most_M])} against {crowd.places(members_M[most_M])}"
    name = crowd.who[int(members_M[0])].name
    item = Item(id=name, name=name, detail=detail, certainty=_sure(-_NAMED_ONE - float(nats_K.min())))
    findings.put(Kind.SEVERAL_PEOPLE, item)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _sure(nats: float) -> float:
    """A probability, between a half and .99."""
    return round(min(max(1 / (1 + math.exp(-max(nats, 0.0))), 0.5), 0.99), 3)
