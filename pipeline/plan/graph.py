"""The chain of stages: what they are, what depends on what, and whether their types fit.

ingest → diarize (→ glance) ─┐      ┌→ separate (→ transcribe → windows) ─────────┐
       → faces  ─────→ cast ─┴→ bind ┴→ fit → motion → windows → census ─────────┴→ shard
                          └→ encode, for a network ──┘
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args, get_origin

from visavis.pipeline.engine.run import fingerprint
from visavis.pipeline.engine.worker import AnyStage, Stages
from visavis.pipeline.state.tasks import WHOLE
from visavis.schemas.config import BalanceConfig, BuildConfig, Section, SeparateConfig, ShardConfig
from visavis.schemas.rows import Head
from visavis.stages.bind import BindStage
from visavis.stages.cast import CastStage
from visavis.stages.census import CensusStage
from visavis.stages.diarize import DiarizeStage
from visavis.stages.encode import EncodeStage, network_digest
from visavis.stages.faces import FacesStage
from visavis.stages.glance import GlanceStage
from visavis.stages.ingest import IngestStage
from visavis.stages.motion import FitStage, MotionStage
from visavis.stages.separate import SeparateStage
from visavis.stages.shard import ShardStage
from visavis.stages.transcribe import TranscribeStage
from visavis.stages.voice.separator import weights_digest
from visavis.stages.windows import WindowsStage


def stages_of(config: BuildConfig, dataset: str) -> Stages:
    """The stages of a build, by name, in their order. dataset: folder or URL of the shards."""
    stages: tuple[AnyStage, ...] = (
        IngestStage(config.ingest),
        DiarizeStage(config.diarize),
        GlanceStage(config.faces),
        FacesStage(config.faces),
        CastStage(),
        *([EncodeStage(config.encode)] if config.motion.kind == "network" else []),
        BindStage(config.bind),
        SeparateStage(config.separate),
        TranscribeStage(config.transcribe),
        FitStage(config.motion),
        MotionStage(),
        WindowsStage(config.windows),
        CensusStage(Section()),
        ShardStage(config.shard, dataset),
    )
    return {stage.name: stage for stage in stages}


def fingerprints_of(config: BuildConfig) -> dict[str, str]:
    """Each stage's settings together with those of the stages before it.

    What ingest's settings decide is which conversations there are, and not what they are: that is in the digest of each
    task's inputs. So other limits redo ingest and shards, and nothing in between.
    """
    prints: dict[str, str] = {}

    def add(stage: type[AnyStage], settings: Section, *upstream: str) -> None:
        prints[stage.name] = fingerprint(stage, settings, *(prints[name] for name in upstream))

    faces = config.faces.model_copy(update={"landmarker": None})  # its digest is enough
    add(IngestStage, config.ingest)
    add(DiarizeStage, config.diarize)
    add(GlanceStage, faces, "diarize")
    add(FacesStage, faces)
    add(CastStage, Section(), "faces")
    add(BindStage, config.bind, "diarize", "cast")
    add(SeparateStage, _separation(config.separate), "bind")
    add(TranscribeStage, config.transcribe.model_copy(update={"folder": None}), "separate")
    codes = []
    if config.motion.kind == "network":
        digest = network_digest(config.encode)
        add(EncodeStage, config.encode.model_copy(update={"network": digest, "network_sha256": None}), "cast")
        codes = ["encode"]
    add(FitStage, config.motion, "bind", *codes)
    add(MotionStage, Section(), "bind", *codes)
    add(WindowsStage, config.windows, "motion", *(["transcribe"] if config.transcribe.enabled else []))
    add(CensusStage, Section(), "windows")
    add(ShardStage, _ShardSettings(shard=config.shard, balance=config.balance), "ingest", "census", "separate")
    return prints


def _separation(config: SeparateConfig) -> Section:
    """What of the settings shapes the voices: of the weights their content, and only where they are used."""
    network = config.backend == "convtasnet"
    return config.model_copy(update={"weights": weights_digest(config) if network else None, "weights_sha256": None})


class _ShardSettings(Section):
    shard: ShardConfig
    balance: BalanceConfig


_EDGES: tuple[tuple[type[AnyStage], str, type[AnyStage]], ...] = (
    (DiarizeStage, WHOLE, IngestStage),
    (GlanceStage, "conversation", IngestStage),
    (GlanceStage, "diarization", DiarizeStage),
    (CastStage, "conversation", IngestStage),
    (CastStage, "faces", FacesStage),
    (BindStage, "conversation", IngestStage),
    (BindStage, "diarization", DiarizeStage),
    (BindStage, "cast", CastStage),
    (SeparateStage, "conversation", IngestStage),
    (SeparateStage, "binding", BindStage),
    (TranscribeStage, "binding", BindStage),
    (TranscribeStage, "voices", SeparateStage),
    (EncodeStage, "cast", CastStage),
    (EncodeStage, "faces", FacesStage),
    (FitStage, "bindings", BindStage),
    (FitStage, "faces", FacesStage),
    (FitStage, "encoded", EncodeStage),
    (MotionStage, "binding", BindStage),
    (MotionStage, "faces", FacesStage),
    (MotionStage, "encoded", EncodeStage),
    (WindowsStage, "conversation", IngestStage),
    (WindowsStage, "binding", BindStage),
    (WindowsStage, "motion", MotionStage),
    (WindowsStage, "transcript", TranscribeStage),
    (CensusStage, "dyads", WindowsStage),
    (ShardStage, "dyads", WindowsStage),
    (ShardStage, "voices", SeparateStage),
    (ShardStage, "census", CensusStage),
)
"""(stage, field of its In, stage that makes what goes there)."""


def check_chain() -> None:
    """Assert that what a stage takes is what the stage before it makes, before anything starts."""
    for stage, name, source in _EDGES:
        takes, makes = stage.types()[0], source.types()[1]
        wanted: Any = takes if name == WHOLE else takes.model_fields[name].annotation
        if get_origin(wanted) in (tuple, Sequence):
            wanted = get_args(wanted)[0]
        if issubclass(wanted, Head):
            wanted = wanted.whole
        if wanted is not makes:
            raise TypeError(f"{stage.name}.{name} takes {wanted.__name__}, but {source.name} makes {makes.__name__}")
