"""The import of a public corpus: from given motion and voices to a dataset, with the ledger and the shards of a build.

    recording   each conversation   motion of both on one grid
    speech      each conversation   who speaks when
    voices      each conversation   a track each
    dyad        each conversation   windows from both sides
    census, shard                   as in a build

Nobody is looked for, tracked or separated. What is done stays done; a file that has changed is read again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from visavis.pipeline.engine.executor import Engine
from visavis.pipeline.engine.paths import in_full
from visavis.pipeline.engine.progress import Reporter
from visavis.pipeline.engine.run import Run, Workflow
from visavis.pipeline.plan.dataset import MotionKind, build_dataset, collect
from visavis.pipeline.plan.file_names import DATASET
from visavis.pipeline.plan.graph import Graph, step
from visavis.pipeline.plan.run_folder import opened
from visavis.pipeline.plan.summary import BuildSummary, held_out_seconds, nothing_left
from visavis.pipeline.state.account import account_of, rejections
from visavis.pipeline.state.index import parse_facts
from visavis.pipeline.state.tasks import Artifact, Task, artifact_path, content_digest
from visavis.schemas import FPS
from visavis.schemas.coefficients import coefficient_columns, coefficient_spec, groups_of, scale_by_group
from visavis.schemas.errors import UsageError
from visavis.schemas.imports import ImportConfig
from visavis.schemas.manifest import MotionSpec
from visavis.schemas.markers import shaping
from visavis.schemas.recordings import Recorded, RecordingFacts
from visavis.stages.balance import held_out, name_number
from visavis.stages.census import CensusStage
from visavis.stages.corpora.layouts import codec_of
from visavis.stages.recorded_dyad import RecordedDyadStage
from visavis.stages.recorded_voices import SpeechStage, VoicesStage
from visavis.stages.recording import RecordingStage
from visavis.stages.shard import ShardStage

STEPS = (
    step(RecordingStage, "recording", by_content=True),
    step(SpeechStage, "speech", takes="recording=recording"),
    step(VoicesStage, takes="recording=recording diarization=speech"),
    step(RecordedDyadStage, "windows", takes="recording=recording diarization=speech"),
    step(CensusStage, each="chunk", takes="dyads=dyad"),
    step(ShardStage, "shard", "balance", each="shard", takes="dyads=dyad voices=voices census=census",
         also=("recording",)),
)  # fmt: skip
_OF_A_FILM = re.compile(r"(?:.*/)?([^/]+)_sub_video_[^/]*")  # DualTalk's clips, by the film that they were cut from
_TOLD = 0.5 / FPS  # seconds by which lengths differ and nothing is cut


@dataclass(frozen=True)
class ImportSummary(BuildSummary):
    """Of what was kept: differ, how many have motion and voices of different lengths, and by how much at most;
    one_sided, how many have the motion of one person only."""

    differ: tuple[int, float]
    one_sided: int


class Import:
    """One import of a corpus into a run's folder."""

    def __init__(self, config: ImportConfig, root: str, engine: Engine, reporter: Reporter) -> None:
        self.config, self.root = config, in_full(root)
        self._engine, self._reporter = engine, reporter
        self.graph = Graph(config, STEPS)
        self.stages = self.graph.stages(config, f"{self.root.rstrip('/')}/{DATASET}")
        self.fingerprints = self.graph.fingerprints
        self.codec = codec_of(config.layout, config.recording.exp)

    def run(self, recorded: Sequence[Recorded], *, reconfigure: bool = False) -> ImportSummary:
        """Import what is not imported yet.

        Raises:
            UsageError: the folder is in use, or belongs to other settings; none of the splits that are asked for.
            RunFailed: too many failures, or nothing left to train on.
        """
        settings = {"config": shaping(self.config), "fingerprints": self.fingerprints}
        chosen = self.chosen(recorded)
        limits = self.config.run
        with opened(
            self.root, self._engine, self.stages, limits, settings, self._reporter, reconfigure=reconfigure
        ) as run:
            return self._import(run, chosen)

    def chosen(self, recorded: Sequence[Recorded]) -> Sequence[Recorded]:
        """Those of the splits that are asked for.

        Raises:
            UsageError: there are none; or one of the splits is not there.
        """
        there = {each.split for each in recorded}
        if absent := [split for split in self.config.splits if split not in there]:
            said = ", ".join(sorted(split or "(none)" for split in there))
            raise UsageError(f"no conversation of split {', '.join(absent)}; there are: {said}")
        return [each for each in recorded if not self.config.splits or each.split in self.config.splits]

    def _import(self, run: Run, recorded: Sequence[Recorded]) -> ImportSummary:
        facts: list[RecordingFacts] = []
        ended = run.follow("recordings", (self._one(each, facts) for each in recorded), len(recorded))
        dyads = collect(
            (made for made in ended if made),
            lambda identity: self._task("dyad", identity, "").path,
            lambda identity: self._task("voices", identity, "").path,
        )
        if not len(dyads):
            raise nothing_left(run, self.fingerprints, "conversation")
        manifest = build_dataset(
            run, dyads, self._motion(), self.config, self._task, self.graph, self._held(recorded, dyads.rows)
        )
        run.ledger.flush()
        apart = [each.differ for each in facts if each.differ > _TOLD]
        return ImportSummary(
            dataset=f"{self.root.rstrip('/')}/{DATASET}",
            sources=len(recorded),
            kept=len(dyads),
            rejected=rejections(account_of(run.ledger, self.fingerprints)),
            plan=manifest.plan,
            held_out=held_out_seconds(manifest),
            samples=sum(shard.samples for shard in manifest.shards),
            processed=run.processed,
            differ=(len(apart), max(apart, default=0.0)),
            one_sided=0 if self.config.layout == "solo" else sum(each.missing == 1 for each in facts),
        )

    def _one(self, recorded: Recorded, facts: list[RecordingFacts]) -> Workflow[tuple[str, Artifact, Artifact] | None]:
        """A conversation's way to its windows. Returns its id, them, and its voices."""
        make = partial(self._task, key=recorded.id, item=recorded.name)
        inline = {"recorded": recorded.model_dump(mode="json")}
        made: dict[str, tuple[Artifact, ...]] = {}
        seconds, known = 0.0, list[RecordingFacts]()
        for name in ("recording", "speech", "voices", "dyad"):
            here = inline if "recorded" in self.graph.steps[name].fields else {}
            inputs = self.graph.steps[name].inputs(made)
            (artifact,) = yield [make(name, inputs=inputs, inline=here, seconds=seconds, guessed=not seconds)]
            if artifact is None:
                return None
            made[name] = (artifact,)
            if name == "recording":
                known = [parse_facts(artifact.facts, RecordingFacts)]
                seconds = known[0].frames / FPS
        facts.extend(known)
        return recorded.id, made["dyad"][0], made["voices"][0]

    def _motion(self) -> MotionKind:
        by = self.config.scale.by

        def spec(mean_D: np.ndarray, std_D: np.ndarray) -> MotionSpec:
            scaled = scale_by_group(std_D, groups_of(self.codec)) if by == "group" else std_D
            return coefficient_spec(self.codec, mean_D, scaled)

        return MotionKind(content_digest(f"{self.codec} {by}".encode()), spec, coefficient_columns)

    def _held(self, recorded: Sequence[Recorded], rows: np.ndarray) -> np.ndarray:
        """Which dyads are held out: those of a split that is. Where their corpus says nothing, or all is of splits for
        training, by participant; of clips of one film, which have the same people, all or none."""
        by_id = {int(each.id, 16): each for each in recorded}
        each_of = [by_id[identity] for identity in rows["id"].tolist()]
        held = np.array([each.split in self.config.held_out for each in each_of])
        free = np.array([not each.split for each in each_of]) | (not held.any())
        if free.any():
            people = rows["names"].copy()
            for number, each in enumerate(each_of):
                if found := _OF_A_FILM.fullmatch(each.name):
                    people[number] = name_number(found[1])
            held[free] = held_out(people[free], self.config.balance.val_share)
        return held

    def _task(
        self,
        stage: str,
        key: str,
        item: str,
        inputs: Mapping[str, tuple[Artifact, ...]] | None = None,
        **more: Any,
    ) -> Task:
        print_ = self.fingerprints[stage]
        path = artifact_path(stage, self.stages[stage].version, print_, key)
        return Task(stage, key, item, path, print_, inputs=inputs or {}, **more)


def splits_of(recorded: Sequence[Recorded]) -> Counter[str]:
    """How many conversations each split has."""
    return Counter(each.split or "no split" for each in recorded)
