"""The manifest of a dataset: written last, read first.

No manifest, no dataset. It holds no time stamp and no absolute path: the same data gives the same bytes.
"""

from __future__ import annotations

import hashlib
import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from schemas.dyads import WindowClass
from schemas.errors import DatasetError
from schemas.plain import read_strict, to_json
from schemas.sample import Rejected
from schemas.train import SamplerConfig

SCHEMA_VERSION = 3
"""2: `state.npy` tells back-channels (bits 2 and 3) from turns (bits 0 and 1). 3: what a sample's JSON does not know is
named in `unknown` instead of being null, and what decodes the motion lies in the dataset (`codec`, and `faces` of each
shard); a dataset of version 2 is read, and cannot be drawn."""
READABLE = (2, 3)
"""Versions that this program reads."""
MANIFEST_NAME = "manifest.json"

Split = Literal["train", "val"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FileEntry(_Model):
    """A safetensors file beside the shards: rows as `schemas.artifact` writes them."""

    path: str = Field(pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*\.safetensors$")
    bytes: int
    sha256: str


class ShardEntry(_Model):
    """One tar file. All its samples share a class and a split.

    faces: `NeutralFaces` of its conversations, which decode their motion; none in a dataset of schema version 2.
    """

    # Relative to the manifest, and never outside its folder: manifests may come from others.
    path: str = Field(pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*\.tar$")
    split: Split
    label: WindowClass
    samples: int
    bytes: int
    sha256: str
    faces: FileEntry | None = None


class MotionSpec(_Model):
    """The motion latents: who made them, what their columns are, and their scale over the training split."""

    codec: str
    dim: int
    rotation: tuple[int, int]  # column range [first, last)
    translation: tuple[int, int]
    expression: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]  # above 0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not len(self.mean) == len(self.std) == self.dim or min(self.std, default=1.0) <= 0:
            raise ValueError(f"mean and std must be {self.dim} numbers each, those of std above 0")
        return self


class AudioSpec(_Model):
    """What a model's audio features are, and how far they hear. Times are in ms of sound.

    history: heard before a chunk. chunk: encoded together (a frame, where each is encoded for itself). look_ahead:
    heard after a chunk. horizon: how far a feature hears beyond the end of its own frame, at most. stream_wait: what
    a stream waits for, from the start of a block to its generation; none where the model cannot stream.
    """

    kind: Literal["log_mel", "wav2vec2"]
    weights_sha256: str | None  # of the frozen encoder, where there is one
    layers: tuple[int, ...]
    history_ms: float
    chunk_ms: int
    look_ahead_ms: int
    horizon_ms: int
    stream_wait_ms: int | None


class BalancePlan(_Model):
    """How the trainer mixes the classes: a plan, never copies.

    mixture: share of training frames drawn from each class that has samples; sums to 1.
    keep: mean of the samples' keep weights per class, so that readers can predict an epoch.
    seconds_before, seconds_after: training seconds per class in the corpus, and in as many seconds drawn by the plan.
    """

    mixture: dict[WindowClass, float]
    keep: dict[WindowClass, float]
    seconds_before: dict[WindowClass, float]
    seconds_after: dict[WindowClass, float]


class Histogram(_Model):
    """How a figure is distributed: counts of equal bins from low to high; what lies beyond is in the outer ones.

    undefined: how many more there are for which the figure is not defined.
    """

    low: float
    high: float
    counts: tuple[int, ...]
    undefined: int = 0

    def quantile(self, share: float) -> float:
        """Where so much lies below, to within a bin; NaN of nothing."""
        total, below = sum(self.counts), 0
        width = (self.high - self.low) / len(self.counts)
        for number, count in enumerate(self.counts):
            if count and below + count >= share * total:
                return self.low + width * (number + (share * total - below) / count)
            below += count
        return math.nan


class PairsInfo(_Model):
    """How a set of preference pairs was made, and what the gate left out. Words are those of `PairRecord`.

    windows: looked at. passed_over: of these, not expressive enough. figures: of every pair that was made, whether the
    gate left it out or not; of two sides the worse.
    """

    dataset: str
    generator: str
    rejected_generator: str
    audio: AudioSpec  # what the generator heard
    rejected_audio: AudioSpec  # what the generator of the rejected side heard
    chosen: Literal["ground_truth", "full"]
    rejected: Rejected
    dropped: tuple[str, ...]
    solver: Literal["euler"]
    sampler: SamplerConfig
    seeds: tuple[int, ...]  # one for each pair of a window
    classes: tuple[WindowClass, ...]
    min_expressiveness: float
    gate: dict[str, float | None]  # its thresholds
    windows: int
    passed_over: int
    kept: int
    gated: dict[str, int]
    figures: dict[str, Histogram]


class Manifest(_Model):
    """codec: the `Codec` that decodes the motion; none in a dataset of schema version 2."""

    schema_version: int = SCHEMA_VERSION
    kind: Literal["windows", "pairs"]
    fingerprint: str  # of every setting that shaped the data
    fps: int
    sample_rate: int
    window: int  # frames per sample
    motion: MotionSpec
    codec: FileEntry | None = None
    conversations: int
    participants: int
    plan: BalancePlan
    shards: tuple[ShardEntry, ...]
    pairs: PairsInfo | None = None

    def of(self, split: Split, label: WindowClass | None = None) -> tuple[ShardEntry, ...]:
        """The shards of a split, of one class if asked."""
        return tuple(s for s in self.shards if s.split == split and (label is None or s.label == label))


def faces_path(shard: str) -> str:
    """Where the faces of a shard lie. No folder or file is called as a split is, or readers that look for the files of
    a split by name (Hugging Face's `datasets`) would take them for shards."""
    split, _, name = shard.removesuffix(".tar").partition("/")
    return f"faces/{split[0]}-{name.replace('/', '-')}.safetensors"


def dump_manifest(manifest: Manifest) -> bytes:
    return (to_json(manifest.model_dump(mode="json"), indent=1) + "\n").encode()


def manifest_hash(data: bytes) -> str:
    """What checkpoints and pairs record of the dataset they came from: sha256 of the manifest's bytes."""
    return hashlib.sha256(data).hexdigest()


def parse_manifest(data: bytes, where: str = MANIFEST_NAME) -> Manifest:
    """Read a manifest.

    Raises:
        DatasetError: not JSON, another schema version, or fields that do not fit. One line.
    """
    try:
        raw = read_strict(data)
    except ValueError as error:
        raise DatasetError(f"{where}: not a manifest ({error})") from error
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version not in READABLE:
        raise DatasetError(
            f"{where}: schema version {version}, this program reads {' and '.join(map(str, READABLE))};"
            " rebuild the dataset with `visavis build`"
        )
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise DatasetError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
