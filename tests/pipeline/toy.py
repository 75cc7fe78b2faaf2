"""A small stage for tests of the machinery: it counts letters, and fails on request."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence

import numpy as np

from visavis.schemas.errors import Reason, Rejected
from visavis.schemas.rows import Array, Row
from visavis.schemas.section import Section
from visavis.stages.base import Stage


class Text(Row):
    text: str


class Letters(Row):
    count: int
    codes: Array


class CountLetters(Stage[Text, Letters]):
    """`bad` is rejected, `bug…` raises, `slow:2` takes two seconds.

    `kill`, `segv`, `hang`, `eat` and `claim` (memory) do what they say, `stop` suspends the worker and
    `stop supervisor` who watches it; with `:MARK` only once, as a mark that they leave tells.
    """

    name = "letters"
    version = 1

    def __init__(self, config: Section | None = None) -> None:
        super().__init__(config or Section())

    def process(self, item: Text) -> Iterator[Letters]:
        what, _, mark = item.text.partition(":")
        if what == "bad":
            raise Rejected(Reason.TOO_SHORT, "three letters")
        if what.startswith("bug"):
            raise ZeroDivisionError("a bug")
        if what.startswith("slow"):
            time.sleep(float(mark))
        elif not mark or not os.path.exists(mark):  # noqa: PTH110
            if mark:
                os.mkdir(mark)  # noqa: PTH102
            misbehave(what)
        yield Letters(count=len(item.text), codes=np.frombuffer(item.text.encode(), np.uint8))

    def facts(self, rows: Sequence[Letters]) -> str:
        return str(rows[0].count)


def misbehave(how: str) -> None:
    if how == "kill":
        os.kill(os.getpid(), 9)
    elif how == "segv":
        os.kill(os.getpid(), 11)
    elif how == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif how == "stop supervisor":
        os.kill(os.getppid(), signal.SIGSTOP)
        time.sleep(600)
    elif how == "hang":
        time.sleep(600)
    elif how == "claim":
        bytearray(20_000_000_000)  # zeros, which take no room until somebody writes
    elif how == "eat":
        eaten = bytearray(600_000_000)
        eaten[::4096] = b"x" * len(eaten[::4096])
        time.sleep(600)


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


class Broken(CountLetters):
    """Its model is not there."""

    name = "broken"

    def setup(self) -> None:
        raise FileNotFoundError("no weights here")


STAGES = {stage.name: stage for stage in (CountLetters(), Add(), Broken())}
