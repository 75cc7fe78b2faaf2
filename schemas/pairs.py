"""Preference pairs, in TRL's words: which windows, how the chosen and the rejected motion are made, what the gate lets
through, and the record that each pair has."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from visavis.schemas.config import StageResources
from visavis.schemas.dyads import WindowClass
from visavis.schemas.labels import has_any
from visavis.schemas.markers import ByDigest, Runtime
from visavis.schemas.names import ItemId, Sha256
from visavis.schemas.plain import Words
from visavis.schemas.sampling import SamplingConfig
from visavis.schemas.section import Device, Section
from visavis.schemas.train import Drop, SamplerConfig

Chosen = Literal["ground_truth", "full", "best"]
"""The chosen motion: recorded, generated under every condition, or the best of several that were so generated."""
Rejected = Literal["dropped", "own", "checkpoint"]
"""Who makes the rejected motion: the generator without some conditions, the generator, or another model."""
REACTIVITY = "reactivity"
"""The scorer of pairs whose maker brought none (`stages.pairing.reactivity`)."""
SHORTFALL_WINDOWS = 4000
"""Enough to tell a shortfall of a tenth from noise where one window in three has a reaction."""

_DROPPED: dict[Drop, tuple[str, ...]] = {
    "full": (),
    "no_user": ("user_audio", "user_motion"),
    "no_avatar": ("avatar_audio",),
    "none": ("avatar_audio", "user_audio", "user_motion"),
}


class GateConfig(Section):
    """A pair that fails one of these is left out and counted by reason."""

    min_reactivity_margin: float | None = Field(
        0.0,
        description="how much better chosen fits the corpus' reactions to this user than rejected: lagged correlation"
        " (-1…1) and response to the ends of phrases (-1…1), added; at or below: not_less_reactive; none: not asked,"
        " the default with a scorer or scores",
    )
    min_score_margin: float | None = Field(
        None,
        description="how much higher chosen is scored than rejected; at or below: not_scored_higher; none: not asked;"
        " with a scorer or scores 0 unless something else is said",
    )
    min_energy_margin: float | None = Field(
        None, description="log ratio of motion energy, chosen over rejected; below: less_motion_energy; none: not asked"
    )
    min_distance: float = Field(
        0.05,
        ge=0,
        description="root mean square difference of the two motions in corpus deviations; below: too_similar",
    )
    max_jerk_ratio: float = Field(
        20.0, gt=0, description="jerk of either motion over the truth's; above: broken_motion"
    )
    max_off_manifold: float = Field(
        2.0,
        gt=0,
        description="Mahalanobis distance of either motion from the corpus' frames, over that which 1 % of the truth's"
        " windows exceed; above: off_manifold",
    )


class VotesConfig(Section):
    """Which comparisons of a study become pairs (`visavis pairs --votes`)."""

    question: str | None = Field(None, description="code of the study's question that counts; none: the first one")
    min_votes: int = Field(3, ge=1, description="votes on a comparison; fewer: too_few_votes")
    min_share: float = Field(
        0.6,
        gt=0.5,
        le=1,
        description="share of the votes that the preferred side has, no difference counting half; less: no_agreement",
    )
    failed_checks: int | None = Field(
        None, ge=0, description="attention checks that a person may fail; none: a quarter, as `visavis study --count`"
    )


class WhereConfig(Section):
    """Which windows, by what happens in them (`schemas.labels`); a kind alone is either side's."""

    labels: tuple[str, ...] = Field((), description="windows with one of these at least; none named: all")
    without: tuple[str, ...] = Field((), description="windows with none of these")

    def wants(self, labels: tuple[str, ...] | None) -> bool:
        """Whether a window with such labels is taken."""
        found = labels or ()
        return (not self.labels or has_any(found, self.labels)) and not has_any(found, self.without)


class PairsConfig(SamplingConfig):
    chosen: Chosen = Field(
        "ground_truth",
        description="ground_truth: recorded motion; full: generated under every condition; best: with rejected=own, of"
        " `per_window` motions of the model's the one that is scored highest, against that which is scored lowest",
    )
    rejected: Rejected = Field(
        "dropped",
        description="dropped: the same model without the user; own: the same model under every condition, so that only"
        " what it still does less well is taught; checkpoint: another model's motion",
    )
    rejected_checkpoint: Annotated[str | None, ByDigest] = Field(None, description="rejected=checkpoint: its file")
    rejected_conditions: Literal["full", "no_user", "none"] | None = Field(
        None,
        description="what the rejected motion is generated under: full: every condition; no_user: all but the user's"
        " audio and motion; none: none; not given: no_user where it is `dropped`, else full",
    )
    per_window: int = Field(
        1,
        ge=1,
        le=100,
        description="pairs per window, with the sampler's seed and those after it; chosen=best: motions, of which one"
        " pair is made",
    )
    scorer: Annotated[str | None, ByDigest] = Field(
        None,
        description="FILE.py:FUNCTION of yours that scores motion: (samples, motion [W, T, D]) to [W] numbers; without"
        " it and scores motion is scored by its reactivity",
    )
    scores: Annotated[str | None, ByDigest] = Field(
        None, description="file of scores (.csv, .jsonl, .parquet), with columns key, chosen, rejected"
    )
    classes: tuple[WindowClass, ...] = Field((WindowClass.LISTENING,), description="windows taken, in this order")
    where: WhereConfig = WhereConfig()
    min_expressiveness: float = Field(
        0.0, ge=0, lt=1, description="share of each class that is passed over, the least expressive windows"
    )
    shortfall_share: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of windows for which the model's own motion is made, too, to tell in which reactions it"
        " falls short of the recorded listeners (dpo.group_weights); of chosen=ground_truth; not given: all, but of a"
        " large corpus about 4,000 windows; rejected=own: all of them",
    )
    unit: int = Field(512, ge=1, description="windows per task and output shard")
    sampler: SamplerConfig = SamplerConfig()
    gate: GateConfig = GateConfig()
    votes: VotesConfig = VotesConfig()
    encoder: Annotated[str | None, ByDigest] = Field(
        None, description="file of the weights of the checkpoints' audio encoder"
    )
    rejected_encoder: Annotated[str | None, ByDigest] = Field(
        None, description="the same of rejected_checkpoint, where it has another one"
    )
    device: Device = "auto"
    resources: Annotated[StageResources, Runtime] = StageResources()

    @property
    def conditions(self) -> Drop:
        """Those that the rejected motion is generated under."""
        return self.rejected_conditions or ("no_user" if self.rejected == "dropped" else "full")

    @property
    def dropped(self) -> tuple[str, ...]:
        """Names of the conditions that the rejected motion does not get."""
        return _DROPPED[self.conditions]

    @property
    def asks_shortfall(self) -> bool:
        """Whether pairs tell what the model does too little of."""
        return self.chosen == "ground_truth" and (self.rejected == "own" or self.shortfall_share != 0)

    def of_windows(self, count: int) -> PairsConfig:
        """The same with what depends on how many windows there are."""
        share = min(1.0, SHORTFALL_WINDOWS / max(count, 1))
        return self if self.shortfall_share is not None else self.model_copy(update={"shortfall_share": share})

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the noise, one for each pair of a window."""
        return tuple(range(self.sampler.seed, self.sampler.seed + self.per_window))

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, values: Any) -> Any:
        if isinstance(values, dict) and "drop" in values:
            raise ValueError(
                "drop is now rejected_conditions, with the same values: what is left to the rejected motion"
            )
        return values

    @model_validator(mode="before")
    @classmethod
    def _gated_by_its_scorer(cls, values: Any) -> Any:
        """Who brings a reward of their own is asked for that one, not for reactivity."""
        if not isinstance(values, dict) or not (values.get("scorer") or values.get("scores")):
            return values
        gate = values.get("gate", {})
        return values | {"gate": _OTHER_REWARD | gate} if isinstance(gate, dict) else values

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.rejected == "checkpoint") != (self.rejected_checkpoint is not None):
            raise ValueError("rejected=checkpoint and rejected_checkpoint=FILE come together")
        if self.rejected == "dropped" and self.conditions == "full":
            raise ValueError("rejected_conditions=full drops nothing; rejected=own rejects the model's own motion")
        if self.chosen == "best" and (self.rejected != "own" or self.per_window < 2):
            raise ValueError(
                "chosen=best goes with rejected=own and per_window of 2 or more, of which one pair is made"
            )
        if self.rejected == "own" and (self.conditions != "full" or self.chosen == "full"):
            raise ValueError("rejected=own is the model under every condition, against recorded motion or its own best")
        if self.scorer and self.scores:
            raise ValueError("scorer and scores: one of them")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes: each once")
        return self


_OTHER_REWARD: dict[str, float | None] = {"min_reactivity_margin": None, "min_score_margin": 0.0}


class PairOrigin(BaseModel):
    """How the two motions of pairs were made: what every pair of a set has in common, but for the sampler's seed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dataset: Sha256  # of the manifest that the windows came from
    generator: Sha256  # of the checkpoint that the pairs are for; made what was generated, unless…
    rejected_generator: Sha256  # …the rejected motion is another's: of its checkpoint
    chosen: Literal["ground_truth", "full", "best", "voted"]  # voted: the motion that people preferred…
    rejected: Literal["dropped", "own", "checkpoint", "voted"]  # …and the one that they did not
    dropped: tuple[str, ...]  # names of the conditions that the rejected motion did not get
    solver: Literal["euler"]
    sampler: SamplerConfig  # function evaluations per block, guidance, and the seed of the first pair of a window
    # Who scored: `reactivity`, or `function:`, `scores:` or `votes:` and a sha256; nothing: nobody, before version 5.
    scorer: str = Field("", pattern=r"^(reactivity|(function|scores|votes):[0-9a-f]{64})?$", max_length=80)

    @classmethod
    def of(
        cls, config: PairsConfig, dataset: str, generator: str, rejected_generator: str, scorer: str = REACTIVITY
    ) -> PairOrigin:
        said: dict[str, Any] = {name: getattr(config, name) for name in ("chosen", "rejected", "dropped", "sampler")}
        digests = {"dataset": dataset, "generator": generator, "rejected_generator": rejected_generator}
        if scorer.startswith("votes:"):
            said |= {"chosen": "voted", "rejected": "voted", "dropped": ()}
        return PairOrigin(solver="euler", scorer=scorer, **digests, **said)


class PairRecord(PairOrigin):
    """How a pair was made, and how its two motions differ: `pair.json`. The sampler's seed is that of the rejected
    motion's noise.

    Measurements of one motion are (chosen, rejected). `stages.pairing.measurements` says how they are taken.
    """

    window: ItemId  # key of the window in its dataset
    dropped: Words
    reactivity_margin: float  # fit to the corpus' reactions to this user, chosen minus rejected: the two below, added
    lagged_margin: float  # lagged correlation with the user, −2…2
    event_margin: float | None  # response to the ends of the user's phrases, −2…2; none where none ends in time
    energy_margin: float  # log ratio of motion energy, chosen over rejected
    distance: float  # root mean square difference, in units of the corpus deviation
    jerk_ratio: tuple[float, float]  # over the recorded motion's
    off_manifold: tuple[float, float]  # distance from the corpus' frames, over that which 1 % of its windows exceed
    scores: tuple[float, float] | None = None  # by the scorer, in its own unit; none in pairs from before version 5
    chosen_seed: int | None = None  # of the chosen motion's noise; none where it is recorded, or voted

    @property
    def score_margin(self) -> float | None:
        """How much higher chosen is scored."""
        return None if self.scores is None else self.scores[0] - self.scores[1]
