"""Settings of what is made of bound conversations: windows, their labels and balance, shards."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from visavis.schemas.dyads import WindowClass
from visavis.schemas.labels import KINDS, LABELS, unknown_label
from visavis.schemas.markers import ByDigest
from visavis.schemas.section import Section
from visavis.schemas.words import candidates


class BackchannelsConfig(Section):
    """Which turns are back-channels."""

    max_seconds: float = Field(1.0, ge=0, description="longest back-channel recognised by its timing alone; 0: none is")
    max_spoken: float = Field(
        1.5, ge=0, description="seconds; longest one where a transcript has nothing but its words in it"
    )
    max_gap: float = Field(
        1.0, ge=0, description="seconds between it and the other's speech, before and after; more, and nobody listens"
    )
    quiet_before: float = Field(1.0, ge=0, description="seconds without a longer turn of one's own before it")
    quiet_after: float = Field(1.0, ge=0, description="the same after it: who goes on to speak took the turn")
    words: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="by language, what people say as back-channels; English is known",
    )


class LabelsConfig(Section):
    """How large a movement must be to be an event. Heights of a bump above what is beside it; cm: of landmarks, with
    motion.kind landmark-pca or network; score: of blendshapes."""

    enabled: bool = Field(True, description="find what happens in windows: nods, smiles, interruptions, …")
    nod_degrees: float = Field(1.5, gt=0, description="of the head's pitch")
    shake_degrees: float = Field(3.0, gt=0, description="of the head's yaw")
    smile_cm: float = Field(0.4, gt=0, description="by which the mouth grows wider")
    smile_score: float = Field(0.25, gt=0, description="mean of both mouthSmile")
    brow_cm: float = Field(0.3, gt=0, description="by which the brows rise above the eyes")
    brow_score: float = Field(0.2, gt=0, description="mean of browInnerUp and both browOuterUp")
    blink_cm: float = Field(0.4, gt=0, description="by which the lids come nearer")
    blink_score: float = Field(0.3, gt=0, description="mean of both eyeBlink")
    jaw_cm: float = Field(0.4, gt=0, description="by which the lips part, in a laugh")
    jaw_score: float = Field(0.1, gt=0, description="jawOpen, in a laugh")
    gaze_score: float = Field(0.35, gt=0, description="by which the eyes turn away from where they mostly look")


class WindowsConfig(Section):
    length: int = Field(50, ge=10, le=15_000, description="frames (25 per second); the paper trains on 50")
    hop: int = Field(25, ge=1, description="frames between the starts of two windows")
    min_valid: float = Field(0.9, ge=0, le=1, description="least share of valid frames, of each participant")
    backchannels: BackchannelsConfig = BackchannelsConfig()
    labels: LabelsConfig = LabelsConfig()


class BalanceConfig(Section):
    mixture: dict[WindowClass, float] = Field(
        default={
            WindowClass.SPEAKING: 0.4,
            WindowClass.LISTENING: 0.4,
            WindowClass.OVERLAP: 0.1,
            WindowClass.SILENCE: 0.1,
        },
        description="share of training drawn from each class; classes without samples give theirs to the others",
    )
    dull_keep: float = Field(
        0.25, gt=0, le=1, description="sampling probability of a class' window with least motion energy; with most: 1"
    )
    labels: dict[str, Annotated[float, Field(gt=0, le=1000)]] = Field(
        default_factory=dict,
        description="how many times as often a class' windows with a label are drawn as its others, as"
        " {user_interruption: 5}; interruption is either side's; of several the largest counts",
    )
    val_share: float = Field(0.1, ge=0, lt=1, description="share of participants held out")

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if not self.mixture or min(self.mixture.values()) < 0 or sum(self.mixture.values()) <= 0:
            raise ValueError("mixture needs shares that are not negative and not all zero")
        return self


class ShardConfig(Section):
    max_samples: int = Field(4096, ge=1, le=1_000_000, description="windows in a shard, at most")
    max_mb: float = Field(256.0, gt=0, le=2048, description="MB of a shard, at most")
    seed: int = Field(0, description="order of samples inside a shard")
    labeller: Annotated[str | None, ByDigest] = Field(
        None,
        pattern=r"^.+\.py:\w+$",
        description="FILE.py:FUNCTION of yours that labels windows: a batch of samples to a list of labels for each",
    )


def check_labels(balance: BalanceConfig, shard: ShardConfig) -> None:
    """Raises ValueError where a label is named that nobody gives; those of a user's own function are not known yet."""
    name = unknown_label(balance.labels, LABELS)
    if name and not shard.labeller:
        raise ValueError(f"balance.labels names {name}; {candidates(name, (*KINDS, *LABELS), 'label')}")
