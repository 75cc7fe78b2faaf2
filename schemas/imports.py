"""Settings of `visavis import`: what is taken of a corpus, and how windows, mixture and shards are made of it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from visavis.schemas.config import RunConfig
from visavis.schemas.markers import Runtime
from visavis.schemas.recordings import CorpusLayout
from visavis.schemas.section import Section
from visavis.schemas.windows_config import BalanceConfig, ShardConfig, WindowsConfig, check_labels


class RecordingConfig(Section):
    exp: int | None = Field(
        None, ge=1, le=1000, description="coefficients of expression; none: as the layout usually has them"
    )
    min_duration: float = Field(3.0, gt=0, description="seconds; shorter conversations are rejected")
    max_length_mismatch: float = Field(
        1.0, ge=0, description="seconds by which motion and voice, or the motion of the two, may differ in length"
    )
    max_hours: float = Field(6.0, gt=0, description="longer recordings are rejected")
    largest: float = Field(64.0, gt=0, description="absolute value of a coefficient; larger ones are no motion")


class SpeechConfig(Section):
    min_turn: float = Field(0.2, ge=0, description="seconds; shorter turns are dropped")
    max_pause: float = Field(0.3, ge=0, description="seconds; a speaker's pauses up to this do not end a turn")


class ScaleConfig(Section):
    by: Literal["group", "column"] = Field(
        "group", description="what shares a deviation: the columns of a group (expression, jaw, pose …), or none"
    )


class ImportConfig(Section):
    """A whole import."""

    layout: CorpusLayout
    splits: tuple[str, ...] = Field((), description="of the corpus that are taken; none named: all")
    held_out: tuple[str, ...] = Field(
        ("test", "ood", "val", "valid", "dev"),
        description="splits of the corpus that are held out; where it has none, people are, by balance.val_share",
    )
    recording: RecordingConfig = RecordingConfig()
    speech: SpeechConfig = SpeechConfig()
    scale: ScaleConfig = ScaleConfig()
    windows: WindowsConfig = WindowsConfig()
    balance: BalanceConfig = BalanceConfig()
    shard: ShardConfig = ShardConfig()
    run: Annotated[RunConfig, Runtime] = RunConfig()

    @model_validator(mode="after")
    def _known_labels(self) -> Self:
        check_labels(self.balance, self.shard)
        return self
