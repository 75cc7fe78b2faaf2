"""Configuration of preference pairs: which windows, who makes the sides, and what the gate lets through."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from visavis.schemas.config import Device, Section, StageResources
from visavis.schemas.dyads import WindowClass
from visavis.schemas.sample import Rejected
from visavis.schemas.train import Drop, SamplerConfig


class GateConfig(Section):
    """A pair that fails one of these is left out and counted by reason."""

    min_reactivity_margin: float = Field(
        0.0,
        description="how much better chosen fits the corpus' reactions to this user than rejected: lagged correlation"
        " (-1…1) and response to the ends of phrases (-1…1), added; at or below: not_less_reactive",
    )
    min_energy_margin: float | None = Field(
        None, description="log ratio of motion energy, chosen over rejected; below: less_lively; none: not asked"
    )
    min_distance: float = Field(
        0.05, ge=0, description="root mean square difference of the sides in corpus deviations; below: too_similar"
    )
    max_jerk_ratio: float = Field(20.0, gt=0, description="jerk of either side over the truth's; above: broken_motion")
    max_off_manifold: float = Field(
        2.0,
        gt=0,
        description="Mahalanobis distance of either side from the corpus' frames, over that which 1 % of the truth's"
        " windows exceed; above: off_manifold",
    )


class PairsConfig(Section):
    chosen: Literal["ground_truth", "full"] = Field(
        "ground_truth", description="ground_truth: recorded motion; full: generated under every condition"
    )
    rejected: Rejected = Field(
        "dropped",
        description="dropped: the same model without the user; own: the same model under every condition, so that only"
        " what it still does less well is taught; checkpoint: another model's motion",
    )
    rejected_checkpoint: str | None = Field(None, description="rejected=checkpoint: its file")
    drop: Literal["full", "no_user", "none"] | None = Field(
        None,
        description="what the losing side is left with: full drops nothing, no_user the user's audio and motion, none"
        " everything; not given: no_user where it is `dropped`, else full",
    )
    per_window: int = Field(1, ge=1, le=100, description="pairs per window, with the sampler's seed and those after it")
    classes: tuple[WindowClass, ...] = Field((WindowClass.LISTENING,), description="windows taken, in this order")
    min_expressiveness: float = Field(
        0.0, ge=0, lt=1, description="share of each class that is passed over, the least expressive windows"
    )
    batch: int = Field(64, ge=1, description="windows sampled together")
    unit: int = Field(512, ge=1, description="windows per task and output shard")
    sampler: SamplerConfig = SamplerConfig()
    gate: GateConfig = GateConfig()
    encoder: str | None = Field(None, description="file of the weights of the checkpoints' audio encoder")
    rejected_encoder: str | None = Field(None, description="the same of rejected_checkpoint, where it has another one")
    device: Device = "auto"
    resources: StageResources = StageResources()

    @property
    def left(self) -> Drop:
        """Conditions that the losing side is left with."""
        return self.drop or ("no_user" if self.rejected == "dropped" else "full")

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the noise, one for each pair of a window."""
        return tuple(range(self.sampler.seed, self.sampler.seed + self.per_window))

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.rejected == "checkpoint") != (self.rejected_checkpoint is not None):
            raise ValueError("rejected=checkpoint and rejected_checkpoint=FILE come together")
        if self.rejected == "dropped" and self.left == "full":
            raise ValueError("drop=full drops nothing; rejected=own takes the model's own motion as the losing side")
        if self.rejected == "own" and (self.left != "full" or self.chosen == "full"):
            raise ValueError("rejected=own is the model under every condition, against recorded motion")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes: each once")
        return self
