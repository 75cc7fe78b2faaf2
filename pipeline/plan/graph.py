"""The graph of stages, in one table: what there is, what each stage takes, and what of the settings it goes by.

From it follow the order, the check of types, the fingerprints, the inputs of every task (`workflow`, `build`,
`dataset`), what `--only` takes, the order of `visavis status`, and the drawing in the README (`drawing`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from visavis.pipeline.engine.run import fingerprint
from visavis.pipeline.engine.worker import AnyStage, Stages
from visavis.pipeline.plan.plugins import Output, Plugin, plugins_of
from visavis.pipeline.state.tasks import CENSUS, CODEC, PAIRS, REFERENCE, SAMPLING, WHOLE, Artifact
from visavis.schemas.config import BuildConfig
from visavis.schemas.dyads import Codec
from visavis.schemas.errors import UsageError
from visavis.schemas.imports import ImportConfig
from visavis.schemas.rows import Row
from visavis.schemas.section import Section
from visavis.stages.base import row_of
from visavis.stages.bind import BindStage
from visavis.stages.cast import CastStage
from visavis.stages.census import CensusStage
from visavis.stages.diarize import DiarizeStage
from visavis.stages.dnsmos import DnsmosStage
from visavis.stages.encode import EncodeStage
from visavis.stages.faceprints import FaceprintsStage
from visavis.stages.faces import FacesStage
from visavis.stages.filmprint import FilmprintStage
from visavis.stages.glance import GlanceStage
from visavis.stages.ingest import IngestStage
from visavis.stages.motion import FitStage, MotionStage
from visavis.stages.people import PeopleStage
from visavis.stages.separate import SeparateStage
from visavis.stages.shard import ShardStage
from visavis.stages.soundprint import SoundprintStage
from visavis.stages.transcribe import TranscribeStage
from visavis.stages.voiceprints import VoiceprintsStage
from visavis.stages.windows import WindowsStage

Each = Literal["conversation", "piece", "participant", "chunk", "shard"]
"""What one task works on. piece: of video, as `stages.faces` cuts it; chunk: some conversations of the corpus."""


Inputs = dict[str, tuple[Artifact, ...]]
Settings = BuildConfig | ImportConfig


@dataclass(frozen=True)
class Step:
    """A stage in the graph.

    sections: of the settings that shape what it makes; the first is the stage's own. takes: field of its In → the stage
    that makes it; a field with a default may stay empty. only_if: the setting that switches it on, by its value or by
    having one.
    by_content: those who take from it go by what it made, each by its digest, and not by its settings. makes: of all
    its parts together, where that is another type. also: stages whose settings shape it, though it takes nothing of
    theirs. beside: stages of which one that works on pieces takes the same piece.
    """

    stage: type[AnyStage]
    sections: tuple[str, ...] = ()
    each: Each = "conversation"
    takes: Mapping[str, str] = field(default_factory=dict)
    only_if: str = ""
    by_content: bool = False
    makes: type[Row] | None = None
    also: tuple[str, ...] = ()
    plugin: Plugin | None = None
    beside: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return self.stage.name

    @cached_property
    def fields(self) -> frozenset[str]:
        """Of its In."""
        return frozenset(self.stage.types()[0].model_fields)

    @property
    def output(self) -> type[Row]:
        return self.makes or self.stage.types()[1]

    @property
    def of_conversation(self) -> bool:
        """Whether it works on one conversation, and not on the corpus."""
        return self.each not in ("chunk", "shard")

    def inputs(self, made: Mapping[str, Sequence[Artifact]], number: int | None = None) -> Inputs:
        """A task's inputs by field, of what was made by stage; number: of the piece that it works on."""
        found = {}
        for name, source in self.takes.items():
            taken = made.get(source, ())
            if number is not None and source in self.beside:
                taken = taken[number : number + 1]
            if taken:
                found[name] = tuple([a.bare for a in taken])
        return found

    def build(self, config: Settings, dataset: str) -> AnyStage:
        dataset_too = [dataset] if self.each == "shard" else []
        return self.stage(self._settings(config)[0], *dataset_too)

    def fingerprint(self, config: Settings, before: Iterable[str]) -> str:
        own, *others = self._settings(config)
        settings = dict(zip(self.sections, (own, *others), strict=True)) if others else own
        code = [self.plugin.digest] if self.plugin else []
        return fingerprint(self.stage, settings, *before, *code, digests=self.stage.digests(own))

    def _settings(self, config: Settings) -> list[Section]:
        if self.plugin:
            return [self.plugin.settings]
        if absent := [name for name in self.sections if name not in type(config).model_fields]:
            raise TypeError(f"{self.name}: no section {absent[0]} in {type(config).__name__} (schemas)")
        return [getattr(config, name) for name in self.sections] or [Section()]

    def _is_on(self, config: Settings) -> bool:
        setting, _, value = self.only_if.partition("=")
        section, _, name = setting.partition(".")
        if not setting:
            return True
        found = getattr(getattr(config, section), name)
        return str(found).lower() in value.split("|") if value else bool(found)


def step(stage: type[AnyStage], *sections: str, takes: str = "", **more: Any) -> Step:
    """takes: `field=stage` by `field=stage`, or a stage alone, whose row is the whole input."""
    pairs = (part.rpartition("=") for part in takes.split())
    return Step(stage, sections, takes={name or WHOLE: source for name, _, source in pairs}, **more)


STEPS = (
    step(IngestStage, "ingest", by_content=True),
    step(SoundprintStage, takes="ingest", only_if="duplicates.enabled=true"),
    step(DiarizeStage, "diarize", takes="ingest"),
    step(GlanceStage, "faces", takes="conversation=ingest diarization=diarize"),
    step(FacesStage, "faces", each="piece"),
    step(FilmprintStage, takes="faces=faces", only_if="duplicates.enabled=true"),
    step(CastStage, takes="conversation=ingest faces=faces"),
    step(BindStage, "bind", takes="conversation=ingest diarization=diarize cast=cast"),
    step(SeparateStage, "separate", takes="conversation=ingest binding=bind"),
    step(DnsmosStage, "dnsmos", takes="binding=bind voices=separate", only_if="dnsmos.enabled=true"),
    step(TranscribeStage, "transcribe", takes="binding=bind voices=separate", only_if="transcribe.enabled=true"),
    step(
        *(VoiceprintsStage, "voiceprints"),
        takes="binding=bind voices=separate",
        only_if="voiceprints.enabled=true",
    ),
    step(
        *(FaceprintsStage, "faceprints"),
        takes="conversation=ingest binding=bind faces=faces",
        only_if="faceprints.weights",
    ),
    step(EncodeStage, "encode", each="piece", takes="cast=cast faces=faces", only_if="motion.kind=network"),
    step(
        *(FitStage, "motion"),
        each="chunk",
        takes="bindings=bind faces=faces encoded=encode",
        makes=Codec,  # of all chunks together
        by_content=True,
    ),
    step(MotionStage, each="participant", takes="codec=fit binding=bind faces=faces encoded=encode"),
    step(
        *(WindowsStage, "windows"),
        takes="conversation=ingest binding=bind motion=motion codec=fit transcript=transcribe",
    ),
    step(
        PeopleStage,
        each="chunk",
        takes="voiceprints=voiceprints faceprints=faceprints",
        only_if="split.people=voices|faces|both",
    ),
    step(CensusStage, each="chunk", takes="dyads=windows"),
    step(
        *(ShardStage, "shard", "balance"),
        each="shard",
        takes="dyads=windows voices=separate census=census",
        also=("ingest",),  # which conversations there are is in no artifact of theirs
    ),
)


_TAKEN = (PAIRS, CODEC, REFERENCE, CENSUS, SAMPLING)  # folders of artifacts that are no step's


class Graph:
    """The stages of a build, in their order, those of the user's own among them."""

    def __init__(self, config: Settings, steps: Iterable[Step] = STEPS) -> None:
        """steps: of an import there are others (`pipeline.plan.importing`).

        Raises:
            UsageError: no such stage of the user's own, or it takes what nobody makes.
        """
        self._config = config
        on = [step for step in steps if step._is_on(config)]
        each = {step.name: step.each for step in on}
        self.steps = {step.name: _linked(step, each) for step in on}
        for plugin in plugins_of(config.plugins) if isinstance(config, BuildConfig) else ():
            self._plug_in(plugin)
        check_types(self.steps)

    def of_conversation(self, *, codec: bool) -> list[Step]:
        """Steps on a conversation's way: those up to its voices and words, or those that need the corpus' codec."""
        return [s for s in self.steps.values() if s.of_conversation and self.needs_codec(s.name) == codec]

    def needs_codec(self, name: str) -> bool:
        return any(source == FitStage.name or self.needs_codec(source) for source in self.steps[name].takes.values())

    def stages(self, config: Settings, dataset: str) -> Stages:
        """By name. config: as workers need it (`engine.paths`). dataset: folder or URL of the shards."""
        return {step.name: step.build(config, dataset) for step in self.steps.values()}

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Each stage's settings together with those of the stages before it.

        What ingest's settings decide is which conversations there are, and not what they are: that is in the digest of
        each task's inputs. So other limits redo ingest and shards, and nothing in between.
        """
        prints: dict[str, str] = {}
        for step in self.steps.values():
            prints[step.name] = step.fingerprint(self._config, [prints[name] for name in self._settings_before(step)])
        return prints

    def _settings_before(self, step: Step) -> Iterator[str]:
        """Stages whose fingerprints are part of this one's: those it takes from, but for those that are part of another
        one's already."""
        direct = [name for name in step.takes.values() if not self.steps[name].by_content]
        yield from step.also
        for name in direct:
            if not any(name in self._surely_before(other) for other in direct):
                yield name

    def _surely_before(self, name: str) -> set[str]:
        """Stages without which one has no input."""
        step, found = self.steps[name], set[str]()
        for name, source in step.takes.items():
            if name == WHOLE or step.stage.types()[0].model_fields[name].is_required():
                found |= {source} | self._surely_before(source)
        return found

    def _plug_in(self, plugin: Plugin) -> None:
        """Right after the last of what it takes: what it rejects costs nobody more."""
        if plugin.stage.name in {*self.steps, *(step.name for step in STEPS), *_TAKEN}:
            raise UsageError(f"{plugin} has the name of a stage that is there already, {plugin.stage.name}")
        there = [s for s in self.steps.values() if (s.of_conversation or s.by_content) and s.stage is not GlanceStage]
        takes = plugin.takes({s.name: Output(s.output, s.each in ("piece", "participant")) for s in there})
        steps = list(self.steps.items())
        place = 1 + max(number for number, (name, _) in enumerate(steps) if name in takes.values())
        steps.insert(place, (plugin.stage.name, Step(plugin.stage, takes=takes, plugin=plugin)))
        self.steps = dict(steps)


def _linked(step: Step, each: Mapping[str, Each]) -> Step:
    """Without what is switched off; each: what the stages that are on work on."""
    takes = {name: source for name, source in step.takes.items() if source in each}
    pieces = frozenset(source for source in takes.values() if step.each == each[source] == "piece")
    return replace(step, takes=takes, beside=pieces)


def check_types(steps: Mapping[str, Step]) -> None:
    """Assert that what a stage takes is what the stage before it makes."""
    for step in steps.values():
        for name, source in step.takes.items():
            takes = step.stage.types()[0]
            wanted = takes if name == WHOLE else row_of(takes.model_fields[name].annotation)
            if wanted is not steps[source].output:
                made = steps[source].output.__name__
                raise TypeError(f"{step.name}.{name} takes {wanted.__name__}, but {source} makes {made}")


def drawing(steps: Iterable[Step] = STEPS) -> str:
    """The graph as lines of text: a stage, what it works on, whose output it takes, and what switches it on."""
    lines = []
    for step in steps:
        taken = ", ".join(step.takes.values()) or ("your files" if step.by_content else "the video itself")
        line = f"{step.name:<11} each {step.each:<13} ← {taken}"
        lines.append(f"{line:<60} if {step.only_if}" if step.only_if else line)
    return "\n".join(lines)
