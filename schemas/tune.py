"""Rounds of preference tuning: pairs of what the model does now, steps against it, and again."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from visavis.schemas.markers import Runtime
from visavis.schemas.pairs import PairsConfig
from visavis.schemas.section import Section
from visavis.schemas.train import TrainConfig


class TuneConfig(Section):
    """Each round makes its pairs from noise of its own, with the seeds after those of the round before."""

    rounds: Annotated[int, Runtime] = Field(3, ge=1, le=1000, description="rounds at most; may be raised later")
    max_rise: float | None = Field(
        0.1,
        ge=0,
        description="rounds end, and the last one is left, where the error on the chosen side has risen by more than"
        " this share over all rounds; none: they go on whatever happens (within a round dpo.max_chosen_rise holds)",
    )
    pairs: PairsConfig = Field(
        default_factory=PairsConfig, description="as of `visavis pairs`; without it the defaults and the base's sampler"
    )
    train: TrainConfig = Field(
        default_factory=TrainConfig, description="as of `visavis train`; without it the settings of the base"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.train.dpo.group_weights == "shortfall" and not self.pairs.asks_shortfall:
            raise ValueError(
                "train.dpo.group_weights=shortfall wants pairs.chosen=ground_truth, and pairs.shortfall_share above 0"
            )
        return self
