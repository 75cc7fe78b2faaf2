"""Near-duplicates among the conversations of a build: all but one are left out, and the ledger says of which they are.

It is asked when all conversations have their voices, for only then it is known which ones there are; so the same are
left out whatever order they came in, and a run that goes on asks again.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import NamedTuple, TypeVar

from visavis.pipeline.engine.run import Run
from visavis.pipeline.state.tasks import Artifact, Task
from visavis.schemas.artifact import load_row
from visavis.schemas.errors import Reason, RunFailed
from visavis.schemas.print_rows import Filmprint, Soundprint
from visavis.schemas.untrusted import parsing
from visavis.schemas.words import counted
from visavis.stages.duplicates.landmarks import Landmarks
from visavis.stages.duplicates.matches import Matches
from visavis.stages.duplicates.verdict import Duplicate, Prints, near_duplicates


class Heard(NamedTuple):
    """A conversation: its id, its place in the list, the task that made its soundprint, that, and its filmprint."""

    id: str
    place: int
    task: Task
    sound: Artifact
    film: Artifact


P = TypeVar("P", Soundprint, Filmprint)

Conversations = Callable[[], Iterator[Heard]]
"""All there are; in the same order whenever it is asked."""


def leave_out(run: Run, conversations: Conversations, count: int, min_overlap: float) -> set[str]:
    """Record which conversations are near-duplicates, and which are none any more.

    Returns:
        The ids of those that are left out.
    """
    gone = {each.number: each for each in _found(run, conversations, count, min_overlap)}
    kept = {each.kept for each in gone.values()}
    names = {number: heard.task.item for number, heard in enumerate(conversations()) if number in kept}
    out = set[str]()
    for number, heard in enumerate(conversations()):
        if duplicate := gone.get(number):
            out.add(heard.id)
            run.reject(heard.task, Reason.NEAR_DUPLICATE, duplicate.told(names[duplicate.kept]))
        else:
            run.keep(heard.task)
    return out


def _found(run: Run, conversations: Conversations, count: int, min_overlap: float) -> Sequence[Duplicate]:
    places, unseen = array("q"), 0
    with closing(Matches()) as heard, closing(Matches()) as seen, run.reporter.items("compared", count) as advance:
        prints = Prints("the sound", heard, array("d")), Prints("the pictures", seen, array("d"))
        for number, each in enumerate(conversations()):
            sound, film = _read(run, each.sound, Soundprint), _read(run, each.film, Filmprint)
            unseen += not film.pictures
            found = Landmarks(sound.hashes, sound.frames), Landmarks(film.hashes, film.frames)
            for one, landmarks in zip(prints, found, strict=True):
                one.matches.add(number, landmarks)
                one.seconds.append(landmarks.seconds)
            places.append(each.place)
            advance()
        if unseen:
            run.reporter.line(
                f"{counted(unseen, 'conversation')} tracked by an earlier version: compared by sound alone"
            )
        return near_duplicates(prints, places, min_overlap)


def _read(run: Run, made: Artifact, kind: type[P]) -> P:
    with parsing(lambda why: RunFailed(f"{made.path} is not what a run writes ({why}); remove it and run again")):
        row = load_row(run.store.read(made.path), kind)
        Landmarks.checked(row.hashes, row.frames)
        return row
