"""What happens to one conversation: the steps of the graph, one after the other, each for all of its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from visavis.pipeline.engine.run import Run, Workflow
from visavis.pipeline.plan.graph import Step
from visavis.pipeline.plan.quality import MEASURED, faults
from visavis.pipeline.state.index import parse_facts
from visavis.pipeline.state.tasks import Artifact, Task
from visavis.schemas import FPS
from visavis.schemas.config import QualityConfig
from visavis.schemas.face_rows import Piece
from visavis.schemas.rows import Address, DiarizationFacts, Source
from visavis.schemas.uris import file_name
from visavis.stages.diarize import DiarizeStage
from visavis.stages.glance import GlanceStage
from visavis.stages.ingest import IngestStage

MakeTask = Callable[..., Task]
"""(stage, key, what people call the item, inputs, a `Task`'s other fields) → task."""

Made = dict[str, tuple[Artifact, ...]]
"""What was made of a conversation, by stage; of several parts in their order."""


@dataclass(frozen=True)
class Subject:
    """A conversation on its way. addresses: none where no later stage opens files. pieces: none once it is bound."""

    id: str
    item: str
    seconds: float
    addresses: tuple[Address, ...] = ()
    pieces: tuple[Piece, ...] = ()


PLACES = ("uri", "witness")  # fields that say where a file lies, and not what it is


class _Part(NamedTuple):
    """What one task works on. plain: values that its stage may take. number: of the piece."""

    key: str
    item: str
    seconds: float
    plain: Mapping[str, Any] = {}
    number: int | None = None


@dataclass(frozen=True)
class Judge:
    """Decides what of a listed conversation goes on. run: where that is recorded."""

    source: Source
    quality: QualityConfig
    run: Run | None

    def wants(self, step: Step, made: Made) -> bool:
        """Pictures are glanced at where the diarizer does not hear two people in one file."""
        if step.stage is not GlanceStage:
            return True
        return (
            len(self.source.uris) == 1 and parse_facts(made[DiarizeStage.name][0].facts, DiarizationFacts).speakers != 2
        )

    def passes(self, task: Task, made: Artifact) -> bool:
        """Hold what was measured against the thresholds: that changes with them, and nothing is measured again."""
        if task.stage not in MEASURED:
            return True
        uris = self.source.uris
        names = ("left", "right") if len(uris) == 1 else [file_name(uri) for uri in uris]
        fault = next(faults(parse_facts(made.facts, MEASURED[task.stage]), names, self.quality), None)
        if self.run and fault:
            self.run.reject(task, *fault)
        elif self.run:
            self.run.keep(task)
        return fault is None


def follow(
    steps: Iterable[Step], subject: Subject, made: Made, make: MakeTask, judge: Judge | None = None
) -> Workflow[bool]:
    """Go the steps, and put what they make into `made`. Returns whether it came to the end."""
    for step in steps:
        if judge and not judge.wants(step, made):
            continue
        tasks = [_task(step, subject, part, made, make) for part in _parts(step, subject)]
        answers = yield tasks
        found = tuple([artifact for artifact in answers if artifact])
        if len(found) < len(tasks) or not (judge is None or judge.passes(tasks[0], found[0])):
            return False
        made[step.name] = found
    return True


def _parts(step: Step, subject: Subject) -> Iterator[_Part]:
    if step.each == "piece":
        for number, piece in enumerate(subject.pieces):
            key = f"{piece.conversation}-{piece.media}-{piece.first:07d}"
            plain = piece.model_dump(mode="json") | {"number": number}
            yield _Part(key, subject.item, (piece.last - piece.first) / FPS, plain, number)
    elif step.each == "participant":
        for number in (0, 1):
            item = f"{subject.item}, participant {number}"
            yield _Part(f"{subject.id}-{number}", item, subject.seconds, {"participant": number})
    else:
        yield _Part(subject.id, subject.item, subject.seconds)


def _task(step: Step, subject: Subject, part: _Part, made: Made, make: MakeTask) -> Task:
    more: dict[str, Any] = {}
    if part.plain:
        more["inline"] = {name: value for name, value in part.plain.items() if name in step.fields}
        more["places"] = tuple([name for name in PLACES if name in more["inline"]])
    if IngestStage.name in step.takes.values():
        more["addresses"] = subject.addresses
    return make(step.name, part.key, part.item, step.inputs(made, part.number), seconds=part.seconds, **more)
