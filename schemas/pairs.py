"""Configuration of preference pairs: which windows, what is dropped, and what the gate lets through."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from schemas.config import Section, StageResources
from schemas.dyads import WindowClass
from schemas.train import SamplerConfig


class GateConfig(Section):
    """A pair that fails one of these is left out and counted by reason."""

    min_reactivity_margin: float = Field(
        0.0,
        description="chosen minus rejected, largest lagged correlation with the user; at or below: not_less_reactive",
    )
    min_distance: float = Field(
        0.05, ge=0, description="root mean square difference of the sides in corpus deviations; below: too_similar"
    )
    max_jerk_ratio: float = Field(20.0, gt=0, description="jerk of either side over the truth's; above: broken_motion")


class PairsConfig(Section):
    chosen: Literal["ground_truth", "full"] = Field(
        "ground_truth", description="ground_truth: recorded motion; full: generated under every condition"
    )
    drop: Literal["no_user", "none"] = Field(
        "no_user", description="the losing side: no_user drops the user's audio and motion, none drops everything"
    )
    classes: tuple[WindowClass, ...] = Field((WindowClass.LISTENING,), description="windows taken, in this order")
    batch: int = Field(64, ge=1, description="windows sampled together")
    unit: int = Field(512, ge=1, description="windows per task and output shard")
    sampler: SamplerConfig = SamplerConfig()
    gate: GateConfig = GateConfig()
    encoder: str | None = Field(
        None, description="where the weights of the checkpoint's audio encoder lie, if not where they lay in training"
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    resources: StageResources = StageResources()
