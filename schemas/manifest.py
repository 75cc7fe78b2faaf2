"""The manifest of a dataset: written last, read first.

No manifest, no dataset. It holds no time stamp and no absolute path: the same data gives the same bytes.
"""

from __future__ import annotations

import hashlib
import math
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import DatasetError
from visavis.schemas.names import LARGEST_FILE, CodecId, Count, FileSize, Sha256, Text
from visavis.schemas.pairs import PairOrigin
from visavis.schemas.plain import fitted, read_strict, to_json
from visavis.schemas.sample import LONGEST_WINDOW
from visavis.schemas.sampling import Sampling
from visavis.schemas.untrusted import parsing

SCHEMA_VERSION = 6
"""2: `state.npy` tells back-channels (bits 2 and 3) from turns (bits 0 and 1). 3: what a sample's JSON does not know is
named in `unknown` instead of being null, and what decodes the motion lies in the dataset (`codec`, and `faces` of each
shard); a dataset of version 2 is read, and cannot be drawn. 4: names and units of the motion's columns (`columns`).
5: scores of a pair's sides, and who gave them (`scores`, `chosen_seed`, `scorer`). 6: what happens in each window
(`labels`, `events`, blinks a minute)."""
READABLE = (2, 3, 4, 5, 6)
"""Versions that this program reads."""
MANIFEST_NAME = "manifest.json"
MANIFEST_BYTES = 128 << 20
"""More are not read. A shard takes some 450: this is room for 70 TB of them."""

_MOST_DIMS = 4096
_MOST_SAMPLES = 1_000_000  # of a shard
_SMALLEST_SAMPLE = 512  # bytes: the header of one member
_ENTRIES = 1000  # of the small lists and tables

Share = Annotated[float, Field(ge=0, le=1)]
Shortfall = Annotated[float, Field(ge=-10, le=1)]
Seconds = Annotated[float, Field(ge=0)]
Column = Annotated[int, Field(strict=True, ge=0, le=_MOST_DIMS)]

Split = Literal["train", "val"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FileEntry(_Model):
    """A safetensors file beside the shards: rows as `schemas.artifact` writes them."""

    path: str = Field(pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*\.safetensors$", max_length=500)
    bytes: FileSize
    sha256: Sha256


class ShardEntry(_Model):
    """One tar file. All its samples share a class and a split.

    faces: `NeutralFaces` of its conversations, which decode their motion; none in a dataset of schema version 2.
    """

    # Relative to the manifest, and never outside its folder: manifests may come from others.
    path: str = Field(pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*\.tar$", max_length=500)
    split: Split
    label: WindowClass
    samples: int = Field(strict=True, ge=0, le=_MOST_SAMPLES)
    bytes: FileSize
    sha256: Sha256
    faces: FileEntry | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.samples * _SMALLEST_SAMPLE > self.bytes:
            raise ValueError(f"{self.samples} samples do not fit into {self.bytes} bytes")
        return self


class MotionSpec(_Model):
    """The motion latents: who made them, what their columns are, and their scale over the training split."""

    codec: CodecId
    dim: int = Field(strict=True, ge=1, le=_MOST_DIMS)
    rotation: tuple[Column, Column]  # column range [first, last)
    translation: tuple[Column, Column]
    expression: tuple[Column, Column]
    mean: tuple[float, ...]
    std: tuple[float, ...]  # above 0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not len(self.mean) == len(self.std) == self.dim or min(self.std, default=1.0) <= 0:
            raise ValueError(f"mean and std must be {self.dim} numbers each, those of std above 0")
        for first, last in (self.rotation, self.translation, self.expression):
            if not first <= last <= self.dim:
                raise ValueError(f"columns [{first}, {last}) of {self.dim}")
        return self


class MotionColumn(_Model):
    """What a column of the motion is. unit: empty where it has none."""

    name: Text
    unit: Text


class AudioSpec(_Model):
    """What a model's audio features are, and how far they hear. Times are in ms of sound.

    history: heard before a chunk. chunk: encoded together (a frame, where each is encoded for itself). look_ahead:
    heard after a chunk. horizon: how far a feature hears beyond the end of its own frame, at most. stream_wait: what
    a stream waits for, from the start of a block to its generation; none where the model cannot stream.
    """

    kind: Literal["log_mel", "wav2vec2"]
    weights_sha256: Sha256 | None  # of the frozen encoder, where there is one
    layers: tuple[int, ...] = Field(max_length=_ENTRIES)
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

    mixture: dict[WindowClass, Share]
    keep: dict[WindowClass, Share]
    seconds_before: dict[WindowClass, Seconds]
    seconds_after: dict[WindowClass, Seconds]


class Histogram(_Model):
    """How a figure is distributed: counts of equal bins from low to high; what lies beyond is in the outer ones.

    undefined: how many more there are for which the figure is not defined.
    """

    low: float
    high: float
    counts: tuple[Count, ...] = Field(min_length=1, max_length=_ENTRIES)
    undefined: Count = 0

    def quantile(self, share: float) -> float:
        """Where so much lies below, to within a bin; NaN of nothing."""
        total, below = sum(self.counts), 0
        width = (self.high - self.low) / len(self.counts)
        for number, count in enumerate(self.counts):
            if count and below + count >= share * total:
                return self.low + width * (number + (share * total - below) / count)
            below += count
        return math.nan


class PairsInfo(PairOrigin):
    """How a set of preference pairs was made, and what the gate left out.

    windows: looked at. passed_over: of these, not expressive enough. figures: measurements of every pair that was made,
    whether the gate left it out or not; of two motions the worse. shortfall: by group of dimensions, how far the
    model's own reactions fall short of the recorded ones: at most 1, below 0 where they go beyond; none where too
    few windows, or too small reactions, tell nothing. Of pairs whose chosen side is recorded. sampling: how motion was
    sampled; of a run on unlike machines each way that there was.
    """

    dropped: tuple[Text, ...] = Field(max_length=_ENTRIES)
    audio: AudioSpec  # what the generator heard
    rejected_audio: AudioSpec  # what the generator of the rejected motion heard
    seeds: tuple[int, ...] = Field(max_length=_ENTRIES)  # one for each pair of a window
    classes: tuple[WindowClass, ...] = Field(max_length=_ENTRIES)
    min_expressiveness: float
    gate: dict[Text, float | None] = Field(max_length=_ENTRIES)  # its thresholds
    windows: Count
    passed_over: Count
    kept: Count
    gated: dict[Text, Count] = Field(max_length=_ENTRIES)
    figures: dict[Text, Histogram] = Field(max_length=_ENTRIES)
    shortfall: dict[Text, Shortfall | None] = Field({}, max_length=_ENTRIES)
    sampling: tuple[Sampling, ...] = Field((), max_length=_ENTRIES)


class Manifest(_Model):
    """codec: the `Codec` that decodes the motion; none in a dataset of schema version 2.

    columns: of the motion, in order; none before schema version 4. labels: samples of each split with each label that
    could be told (`schemas.labels`); none where nobody looked.
    """

    schema_version: int = SCHEMA_VERSION
    kind: Literal["windows", "pairs"]
    fingerprint: Text  # of every setting that shaped the data
    fps: int = Field(strict=True, ge=1, le=1000)
    sample_rate: int = Field(strict=True, ge=1, le=1_000_000)
    window: int = Field(strict=True, ge=1, le=LONGEST_WINDOW)  # frames per sample
    motion: MotionSpec
    columns: tuple[MotionColumn, ...] | None = Field(None, max_length=_MOST_DIMS)
    codec: FileEntry | None = None
    conversations: Count
    participants: Count
    plan: BalancePlan
    shards: tuple[ShardEntry, ...]
    pairs: PairsInfo | None = None
    labels: dict[Text, dict[Split, Count]] | None = Field(None, max_length=_ENTRIES)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len({shard.path for shard in self.shards}) < len(self.shards):
            raise ValueError("a shard is listed twice")  # a small file that is read for ever
        return self

    @model_validator(mode="after")
    def _named(self) -> Self:
        names = [column.name for column in self.columns or ()]
        if self.columns is not None and not len(set(names)) == len(names) == self.motion.dim:
            raise ValueError(f"columns must have {self.motion.dim} names that differ, as the motion has columns")
        return self

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
    with parsing(lambda why: DatasetError(f"{where}: not a manifest ({why})")):
        raw = read_strict(data, MANIFEST_BYTES)
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if type(version) is not int or version not in READABLE:
        found = version if type(version) is int and abs(version) < LARGEST_FILE else "unknown"
        raise DatasetError(
            f"{where}: schema version {found}, this program reads {', '.join(map(str, READABLE))};"
            " rebuild the dataset with `visavis build`"
        )
    with parsing(lambda why: DatasetError(f"{where}: {why}")):
        return fitted(Manifest, raw)
