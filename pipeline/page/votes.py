"""The two files of a study beside its page: the key, which says whose clip is whose, and a person's votes.

Votes come back from people by mail: they are strangers' files, read as such.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from visavis.schemas.errors import UsageError
from visavis.schemas.names import ItemId
from visavis.schemas.plain import fitted, read_strict
from visavis.schemas.storage.files import locate, read_whole
from visavis.schemas.untrusted import parsing
from visavis.schemas.words import counted

KEY_NAME = "key.json"
KEY_BYTES, VOTES_BYTES = 64 << 20, 4 << 20
MOST_TRIALS, MOST_QUESTIONS, MOST_SYSTEMS = 1000, 10, 10
RECORDED = "recorded"

M = TypeVar("M", bound=BaseModel)
Code = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8,32}$")]
"""Random letters that say nothing: of studies, people, clips."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Answer = Literal["left", "right", "same"]
Kind = Literal["", "jumbled"]
"""Of a trial: nothing of a real one, else what is wrong with one side of an attention check."""


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Clip(_File):
    """A clip of a trial: its code names its file; figures were measured of its motion."""

    code: Code
    system: Name
    figures: dict[Name, float | None] = Field(default_factory=dict, max_length=50)


class Trial(_File):
    """Two clips of one window. `check`: which motion is wrong, if this trial only asks for attention; that clip is the
    second one. `margins`: what the gate of pairs measured, chosen less rejected. `shard`: of the dataset, in which the
    window is; empty in studies before pairs were made of votes."""

    code: Code
    window: ItemId
    shard: Annotated[str, StringConstraints(max_length=500)] = ""
    clips: tuple[Clip, Clip]
    check: Kind = ""
    margins: dict[Name, float | None] = Field(default_factory=dict, max_length=50)


class Question(_File):
    code: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,40}$")]
    text: Annotated[str, StringConstraints(min_length=1, max_length=500)]


class Key(_File):
    """What the page must not know. `origin`: digests of what the clips were made of, by name."""

    format: Literal["visavis-study-key"] = "visavis-study-key"
    version: Literal[1, 2] = 2
    study: Code
    seed: int
    ties: bool
    systems: tuple[Name, ...] = Field(min_length=2, max_length=MOST_SYSTEMS)
    questions: tuple[Question, ...] = Field(min_length=1, max_length=MOST_QUESTIONS)
    trials: tuple[Trial, ...] = Field(min_length=1, max_length=MOST_TRIALS)
    origin: dict[Name, Name] = Field(default_factory=dict, max_length=50)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        codes = [clip.code for trial in self.trials for clip in trial.clips]
        for what, found in (
            ("clip", codes),
            ("trial", [trial.code for trial in self.trials]),
            ("question", [question.code for question in self.questions]),
            ("system", list(self.systems)),
        ):
            if len(set(found)) < len(found):
                raise ValueError(f"a {what} comes twice")
        for trial in self.trials:
            if not trial.check and not {clip.system for clip in trial.clips} <= set(self.systems):
                raise ValueError(f"trial {trial.code} shows a system that is not listed")
        return self


class Vote(_File):
    """One answer. left: code of the clip that was on the left side. seconds: from when the clips could be played."""

    trial: Code
    question: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,40}$")]
    left: Code
    answer: Answer
    seconds: float = Field(ge=0, le=1e7)
    plays: int = Field(ge=0, le=1_000_000)


class Votes(_File):
    """Of one person, in the order in which trials were shown. Times are ISO 8601; ended: "" where they were saved
    before the last trial."""

    format: Literal["visavis-votes"]
    version: Literal[1]
    study: Code
    person: Code
    sheet: int = Field(ge=0, le=1000)
    begun: Annotated[str, StringConstraints(max_length=40)]
    ended: Annotated[str, StringConstraints(max_length=40)]
    votes: tuple[Vote, ...] = Field(max_length=MOST_TRIALS * MOST_QUESTIONS)


@dataclass(frozen=True)
class Ballot:
    """A person's votes, and the file that they came in."""

    file: str
    votes: Votes


def read_key(path: Path) -> Key:
    """Raises UsageError: not there, or not a key."""
    return _read(path, Key, KEY_BYTES, "not the key of a study")


def read_votes(files: Iterable[Path], key: Key) -> list[Ballot]:
    """Votes of a study, each file checked against the key.

    Raises:
        UsageError: a file that is not there, is none of votes, of another study, or says what its page cannot.
    """
    return [
        Ballot(str(path), _fits(path, _read(path, Votes, VOTES_BYTES, "not a file of votes"), key)) for path in files
    ]


def _read(path: Path, kind: type[M], most: int, what: str) -> M:
    def refuse(why: str) -> UsageError:
        return UsageError(f"{path}: {what} ({why})")

    with parsing(refuse):
        try:
            return fitted(kind, read_strict(read_whole(*locate(str(path)), str(path), most), most))
        except OSError as error:
            raise refuse(error.strerror or "cannot be read") from error


def _fits(path: Path, votes: Votes, key: Key) -> Votes:
    if votes.study != key.study:
        raise UsageError(f"{path}: votes of study {votes.study}, and the key is of study {key.study}")
    trials = {trial.code: {clip.code for clip in trial.clips} for trial in key.trials}
    questions, seen = {question.code for question in key.questions}, set[tuple[str, str]]()
    for n, vote in enumerate(votes.votes, 1):
        if vote.trial not in trials or vote.question not in questions or vote.left not in trials[vote.trial]:
            raise UsageError(f"{path}: vote {n} is on a trial, clip or question that the study does not have")
        if vote.answer == "same" and not key.ties:
            raise UsageError(f"{path}: vote {n} says `same`, which the study does not offer")
        if (vote.trial, vote.question) in seen:
            raise UsageError(f"{path}: vote {n} is the second one on trial {vote.trial}, question {vote.question}")
        seen.add((vote.trial, vote.question))
    return votes


def one_of_each(ballots: Iterable[Ballot]) -> tuple[list[Ballot], list[str]]:
    """A ballot of each person: of several files the one with most votes, then the one that ended last; and what is left
    out, in words."""
    by_person: dict[str, list[Ballot]] = {}
    for ballot in ballots:
        by_person.setdefault(ballot.votes.person, []).append(ballot)
    kept, said = [], []
    for found in by_person.values():
        best, *others = sorted(found, key=lambda each: (len(each.votes.votes), each.votes.ended), reverse=True)
        kept.append(best)
        for other in others:
            same = (
                "the same votes" if other.votes.votes == best.votes.votes else counted(len(other.votes.votes), "vote")
            )
            said.append(f"{other.file}: of the same person as {best.file}, left out ({same})")
    return kept, said


def checks_failed(ballot: Ballot, key: Key) -> tuple[int, int]:
    """Of the attention checks of a ballot: how many were answered wrongly, by the first question, and how many there
    were. No difference is wrong, too."""
    wrong = {trial.code: trial.clips[1].code for trial in key.trials if trial.check}
    answers = [v for v in ballot.votes.votes if v.trial in wrong and v.question == key.questions[0].code]
    right = sum(v.answer == ("right" if v.left == wrong[v.trial] else "left") for v in answers)
    return len(answers) - right, len(answers)


def scores(ballots: Iterable[Ballot], key: Key, question: str) -> np.ndarray:
    """For each person and real trial what the first clip got: 1, 0.5 or 0; NaN where there is no vote. [P, C]."""
    real = [trial for trial in key.trials if not trial.check]
    column = {trial.code: n for n, trial in enumerate(real)}
    rows = []
    for ballot in ballots:
        row = np.full(len(real), np.nan)
        for vote in ballot.votes.votes:
            if vote.question == question and vote.trial in column:
                n = column[vote.trial]
                left = {"left": 1.0, "same": 0.5, "right": 0.0}[vote.answer]
                row[n] = left if vote.left == real[n].clips[0].code else 1 - left
        rows.append(row)
    return np.array(rows).reshape(len(rows), len(real))
