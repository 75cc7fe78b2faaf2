"""Configuration of training, sampling and preference tuning.

The defaults are the `paper` model (arXiv 2601.00664) with the decisions of this project; `configs/train/tiny.yaml`
is the same model at a size that trains on two CPU cores.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from visavis.schemas.markers import ByDigest, Runtime
from visavis.schemas.section import Device, Section

Mask = Literal["block", "frame", "full"]
Norm = Literal["l1", "l2"]
Preferences = Literal["dpo", "anchored", "adaptive", "clipped", "tracked", "segments", "groups", "contrastive", "nft"]
"""What preference tuning minimises; `training.preferences` has a file for each."""
Drop = Literal["full", "no_user", "no_avatar", "none"]
"""Which conditions are left: all, all but the user's, all but the avatar's audio, or none at all."""


class ModelConfig(Section):
    width: int = Field(1024, ge=8, le=1 << 16, description="hidden size of the transformer")
    depth: int = Field(8, ge=1, le=1024, description="transformer blocks")
    heads: int = Field(8, ge=1, description="attention heads of the transformer")
    mlp_ratio: float = Field(4.0, gt=0, le=64, description="hidden size of the MLP, in widths")
    encoder_width: int = Field(512, ge=8, le=1 << 16, description="hidden size of the dual motion encoder")
    encoder_heads: int = Field(4, ge=1, description="attention heads of the dual motion encoder")
    block: int = Field(10, ge=1, le=10_000, description="frames generated together (25 per second)")
    look_ahead: int = Field(
        2, ge=0, le=10_000, description="frames of the conditions seen beyond the block (`frame`: the frame)"
    )
    mask: Mask = Field("block", description="block: bidirectional inside a block; frame: causal; full: no mask")
    cross_window: int = Field(2, ge=0, le=10_000, description="frames to either side that cross-attention reaches")
    context: int = Field(
        38, ge=0, le=1_000_000, description="frames before the block that self-attention and the encoder reach"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name, width, heads in (
            ("heads", self.width, self.heads),
            ("encoder_heads", self.encoder_width, self.encoder_heads),
        ):
            if width % (2 * heads):
                raise ValueError(f"{name}: a width of {width} does not split into {heads} heads of even size")
        if self.look_ahead > self.block:
            raise ValueError(f"look_ahead of {self.look_ahead} frames is longer than a block of {self.block}")
        return self


class EncoderArchitecture(Section):
    """Sizes of a wav2vec 2.0 encoder (arXiv 2006.11477); the defaults are `base`. Strides and kernels are theirs."""

    norm: Literal["group", "layer"] = Field("group", description="of the convolutions; layer: sound is normalised, too")
    channels: int = Field(512, ge=1, le=1 << 14, description="of the seven convolutions")
    conv_bias: bool = Field(False, description="convolutions have a bias")
    width: int = Field(768, ge=1, le=1 << 14, description="hidden size")
    depth: int = Field(12, ge=1, le=256, description="transformer layers")
    heads: int = Field(12, ge=1, description="attention heads")
    hidden: int = Field(3072, ge=1, le=1 << 16, description="hidden size of the feed-forward layers")
    pre_norm: bool = Field(False, description="layer norm before attention and feed-forward, not after")
    position_kernel: int = Field(
        128, ge=1, le=1 << 12, description="width of the convolution that tells positions, in 20 ms"
    )
    position_groups: int = Field(16, ge=1, description="its groups")

    @model_validator(mode="after")
    def _splits(self) -> Self:
        for name, parts in (("heads", self.heads), ("position_groups", self.position_groups)):
            if self.width % parts:
                raise ValueError(f"{name}: a width of {self.width} does not split into {parts}")
        return self


class FeatureConfig(Section):
    kind: Literal["log_mel", "wav2vec2"] = Field(
        "log_mel", description="log_mel: causal log-mel spectrogram; wav2vec2: a frozen encoder, chunk by chunk"
    )
    n_mels: int = Field(32, ge=4, le=128, description="log_mel: bands per 10 ms hop; a frame is four hops")
    floor: float = Field(1e-5, gt=0, description="log_mel: added to the band energy before the logarithm")
    mean: float = Field(-5.0, description="log_mel: fixed centre of ln(energy + floor), subtracted; silence is -11.5")
    std: float = Field(4.0, gt=0, description="log_mel: fixed scale of ln(energy + floor), divided by")
    weights: Annotated[str | None, ByDigest] = Field(
        None,
        description="wav2vec2: file of torchaudio's or transformers' weights in safetensors, or a transformers folder;"
        " or a URL, with weights_sha256",
    )
    weights_sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="wav2vec2: of the weights' file; a checkpoint always has it"
    )
    architecture: EncoderArchitecture | None = Field(
        None, description="wav2vec2: none: as config.json beside the weights says, or base"
    )
    layers: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (8,),
        min_length=1,
        max_length=256,
        description="wav2vec2: transformer layers whose outputs are taken, the first is 1",
    )
    history: int = Field(25, ge=0, le=10_000, description="wav2vec2: frames before a chunk that are heard with it")
    chunk: int = Field(10, ge=1, le=10_000, description="wav2vec2: frames encoded together; divides the model's block")
    look_ahead: int = Field(2, ge=0, le=10_000, description="wav2vec2: frames after a chunk that are heard with it")


class ObjectiveConfig(Section):
    norm: Norm = Field("l2", description="l1: paper, conditional median; l2: squared error, conditional mean")
    full: float = Field(0.7, ge=0, le=1, description="share of samples that see every condition")
    no_user: float = Field(0.1, ge=0, le=1, description="share that sees no user (neither audio nor motion)")
    no_avatar: float = Field(0.1, ge=0, le=1, description="share that does not hear the avatar")
    none: float = Field(0.1, ge=0, le=1, description="share that sees no condition at all")
    level: Literal["uniform", "logit_normal"] = Field(
        "uniform", description="how noise levels are drawn; logit_normal: arXiv 2403.03206, rarely near 0 or 1"
    )
    level_mean: float = Field(0.0, description="logit_normal: mean of ln(t / (1 - t)); above 0 is less noise")
    level_std: float = Field(1.0, gt=0, description="logit_normal: deviation of ln(t / (1 - t))")
    velocity: float = Field(0.0, ge=0, description="weight of the error of motion between frames (arXiv 2209.14916)")
    user_weight: float = Field(
        0.0,
        ge=0,
        description="further steps only: how much more frames count in which the user matters to the initial checkpoint"
        " (training.effort); 0: all count the same",
    )
    groups: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict,
        description="weight of a group of columns in the flow loss, others having 1: exp, jaw, pose, eyes of FLAME; of"
        " landmarks' codecs rotation, translation, expression",
    )

    @model_validator(mode="after")
    def _sums_to_one(self) -> Self:
        total = self.full + self.no_user + self.no_avatar + self.none
        if abs(total - 1) > 1e-6:
            raise ValueError(f"full + no_user + no_avatar + none must be 1, found {total:g}")
        return self


class OptimConfig(Section):
    lr: float = Field(1e-4, gt=0, description="Adam's peak learning rate")
    betas: tuple[float, float] = Field((0.9, 0.999), description="Adam's moment decays")
    batch: int = Field(8, ge=1, description="windows that a process works on at once")
    accumulate: int = Field(1, ge=1, description="batches of each process that make a step")
    steps: int = Field(2_000_000, ge=1, description="steps of the first stage")
    warmup: int = Field(1000, ge=0, description="steps of linear warm-up")
    schedule: Literal["constant", "cosine"] = Field("constant", description="learning rate after the warm-up")
    grad_clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    ema: float = Field(0.9999, ge=0, lt=1, description="decay of the averaged weights, reached gradually")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of matrix products (autocast)")
    compile: Annotated[bool, Runtime] = Field(
        False, description="torch.compile the transformer; needs a C++ compiler, starts slowly"
    )
    activation_checkpointing: Annotated[bool, Runtime] = Field(
        False,
        description="keep what enters each transformer block for the backward pass, and compute the rest again: less"
        " memory, a forward pass more; same losses and gradients",
    )


class SamplerConfig(Section):
    steps: int = Field(10, ge=1, le=10_000, description="function evaluations per block (Euler), all of them effective")
    guidance: Literal["paper", "full", "none"] = Field(
        "paper", description="paper: eq. 14, around no condition; full: around the full condition; none: one branch"
    )
    w_a: float = Field(2.0, description="guidance weight of the avatar's audio")
    w_u: float = Field(1.0, description="guidance weight of the user")
    seed: int = Field(0, description="noise is drawn from (seed, key), whatever the batching")
    anchor: float = Field(
        0.0, ge=0, le=1, description="share of a lasting offset from the session's reference that is taken off; 0: off"
    )
    anchor_seconds: float = Field(10.0, gt=0, description="what is quicker than this is no lasting offset")


PAPER_STRENGTH = {"beta": 1000.0, "lambda_": 0.1, "max_chosen_rise": 0.01}
"""The paper's, for margins of single frames and all dimensions together. Those of a group over a span are many times as
large, so `groups` has others; and there the chosen side's error rises by some per cent while reactions become better
(docs/results-shortfall.md)."""


class DpoConfig(Section):
    objective: Preferences = Field(
        "groups", description="what is minimised (training.preferences); dpo: paper, eq. 12, with the paper's strength"
    )
    beta: float = Field(
        10.0,
        gt=0,
        description="sharpness of the preference, eq. 12; 1000 if another objective is named; nft has its own",
    )
    lambda_: float = Field(
        0.4, ge=0, description="weight of the preference loss beside the flow loss; 0.1 if another objective is named"
    )
    norm: Norm = Field("l1", description="error inside the preference loss; paper: l1; nft: always l2")
    frames: Literal["all", "listening"] = Field(
        "all",
        description="frames that count in the preference loss; listening: the user speaks and the avatar does not",
    )
    anchor: float = Field(1.0, ge=0, description="anchored: weight of the flow error of the chosen side")
    tolerance: float = Field(
        0.01,
        gt=0,
        description="adaptive: rise of a chosen side's error, as a share, at which 37 % of the push away from its"
        " rejected side are left",
    )
    clip: float = Field(0.2, ge=0, lt=1, description="clipped: how far the weight of a frame may be from 1")
    levels: tuple[float, float] = Field(
        (0.1, 0.9), description="clipped: noise levels that count, from 0 (noise) to 1 (clean motion)"
    )
    spans: Literal["equal", "turns"] = Field(
        "equal",
        description="segments, groups: equal: of so many seconds (span); turns: from where somebody begins to speak",
    )
    span: float = Field(0.8, gt=0, le=600, description="segments, groups: seconds of a span, about a reaction's")
    group_by: Literal["part", "column"] = Field(
        "part", description="groups: part: pose, mouth, brows, eyes, as columns are named; column: each by itself"
    )
    groups: tuple[str, ...] = Field((), description="groups: names of those that count; none named: all")
    group_spans: bool = Field(
        True, description="groups: margins are those of spans (spans, span), as in segments, not of frames"
    )
    group_weights: Literal["auto", "equal", "shortfall"] = Field(
        "auto",
        description="groups: equal: their mean; shortfall: each times the share by which the model's own reactions"
        " in it must grow to be the recorded ones, s / (1 − s) of the shortfall s in the pairs' manifest"
        " (chosen=ground_truth), summed; auto: likewise, and where nothing falls short, groups of which nothing is told"
        " weigh as of equal ones",
    )
    keep: float = Field(
        10.0,
        ge=0,
        description="groups: weight of what holds the groups that weigh nothing: the square of how far their velocity"
        " has moved from the reference model's",
    )
    contrast: float = Field(1.0, ge=0, description="contrastive: weight of the rejected side")
    nft_beta: float = Field(1.0, gt=0, le=10, description="nft: how far v+ and v- lie from the reference; less is more")
    reward: Literal["record", "sides"] = Field(
        "record", description="nft: record: by the pair's margin in its record; sides: 1 for chosen, 0 for rejected"
    )
    reward_scale: float = Field(0.25, gt=0, description="nft: margin from which chosen has reward 1 and rejected 0")
    steps: int = Field(5000, ge=1, description="steps of preference tuning")
    lr: float = Field(1e-4, gt=0, description="Adam's peak learning rate of preference tuning")
    warmup: int = Field(100, ge=0, description="steps of linear warm-up of preference tuning")
    max_chosen_rise: float | None = Field(
        0.1,
        ge=0,
        description="tuning ends at the last checkpoint whose error on the chosen side is no more than this share above"
        " the reference model's; 0.01 with another objective; none: it goes on whatever happens",
    )
    cache: Annotated[str | None, Runtime] = Field(
        None, description="folder of the reference model's errors, for runs that differ in beta, lambda_, lr or frames"
    )

    @model_validator(mode="before")
    @classmethod
    def _strong_as_the_objective_asks(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("objective", "groups") == "groups":
            return values
        return PAPER_STRENGTH | values

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not 0 <= self.levels[0] < self.levels[1] <= 1:
            raise ValueError(f"levels: from {self.levels[0]:g} to {self.levels[1]:g} is no range inside 0 and 1")
        return self


class DistillConfig(Section):
    evaluations: int = Field(
        0, ge=0, le=100, description="of a block, by a student of the initial checkpoint (training.distill); 0: none"
    )
    teacher: SamplerConfig | None = Field(
        None, description="how the teacher is asked, guidance too; none: as its checkpoint samples"
    )
    steps: int = Field(2000, ge=1, description="steps of distillation")
    lr: float = Field(1e-4, gt=0, description="Adam's peak learning rate of distillation")
    warmup: int = Field(100, ge=0, description="steps of linear warm-up of distillation")


class TrainConfig(Section):
    model: ModelConfig = ModelConfig()
    features: FeatureConfig = FeatureConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optim: OptimConfig = OptimConfig()
    sampler: Annotated[SamplerConfig, Runtime] = SamplerConfig()
    dpo: DpoConfig = DpoConfig()
    distill: DistillConfig = DistillConfig()
    seed: int = Field(0, description="of initial weights, order of samples, noise")
    device: Device = Field("auto", description="auto: cuda where there is one")
    log_every: Annotated[int, Runtime] = Field(50, ge=1, description="steps between lines of metrics.jsonl")
    checkpoint_every: Annotated[int, Runtime] = Field(1000, ge=1, description="steps between checkpoints")
    keep_checkpoints: Annotated[int, Runtime] = Field(
        2, ge=0, description="newest checkpoints kept beside the latest, by their step"
    )
    keep_every: Annotated[int, Runtime] = Field(
        100_000, ge=1, description="checkpoints of steps that this divides are kept for good"
    )
    val_batches: Annotated[int, Runtime] = Field(4, ge=0, description="validation batches scored at each checkpoint")
    max_bad_samples: Annotated[int, Runtime] = Field(
        10, ge=0, description="unreadable samples tolerated before training stops"
    )
    readers: Annotated[Literal["auto", "thread", "processes"], Runtime] = Field(
        "auto",
        description="who reads and decodes: a thread of the trainer, or a process for each class of windows; auto:"
        " processes beside a GPU where shared memory has room",
    )

    def steps(self, *, pairs: bool) -> int:
        """Of a run, with pairs or without."""
        if pairs:
            return self.dpo.steps
        return self.distill.steps if self.distill.evaluations else self.optim.steps

    @model_validator(mode="after")
    def _chunks_end_with_blocks(self) -> Self:
        if self.features.kind == "wav2vec2" and self.model.block % self.features.chunk:
            raise ValueError(
                f"features.chunk: blocks of {self.model.block} frames do not split into chunks of {self.features.chunk}"
            )
        return self
