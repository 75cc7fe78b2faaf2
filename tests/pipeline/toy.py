"""A small stage for tests of the machinery: it counts letters, and fails on request."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from schemas.config import Section
from schemas.errors import Reason, Rejected
from schemas.rows import Array, Row
from stages.base import Stage


class Text(Row):
    text: str


class Letters(Row):
    count: int
    codes: Array


class CountLetters(Stage[Text, Letters]):
    name = "letters"
    version = 1

    def __init__(self, config: Section | None = None) -> None:
        super().__init__(config or Section())

    def process(self, item: Text) -> Iterator[Letters]:
        if item.text == "bad":
            raise Rejected(Reason.TOO_SHORT, "three letters")
        if item.text.startswith("bug"):
            raise ZeroDivisionError("a bug")
        if item.text.startswith("kill:"):  # dies once, then finds its mark
            mark = item.text.removeprefix("kill:")
            if not os.path.exists(mark):  # noqa: PTH110
                os.mkdir(mark)  # noqa: PTH102
                os.kill(os.getpid(), 9)
        yield Letters(count=len(item.text), codes=np.frombuffer(item.text.encode(), np.uint8))


class Total(Row):
    count: int


class TotalInput(Row):
    parts: tuple[Letters, ...]


class Add(Stage[TotalInput, Total]):
    name = "add"
    version = 1

    def __init__(self, config: Section | None = None) -> None:
        super().__init__(config or Section())

    def process(self, item: TotalInput) -> Iterator[Total]:
        yield Total(count=sum(p.count for p in item.parts))
