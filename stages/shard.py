"""Shards: WebDataset tars, one series per split and class, byte-identical when written again.

Windows of one dyad stay together, so a shard opens few dyads, and are shuffled inside their shard by a seed;
the loader shuffles again across shards. Members have mtime 0, no owner and a fixed order.

Beside each shard lie the neutral faces of its conversations, so that its motion can be decoded wherever it is copied
to: 12 kB a conversation. One that has windows of several classes has them several times; in exchange whoever writes a
shard has read them anyway, and a few shards of many are enough to work with.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import IO, Any

import numpy as np
from pydantic import Field, SkipValidation

from visavis.schemas import SAMPLES_PER_FRAME
from visavis.schemas.artifact import dump_rows
from visavis.schemas.dyads import Census, Dyad, NeutralFaces, Window, WindowClass
from visavis.schemas.labels import has_any, labels_of
from visavis.schemas.manifest import FileEntry, ShardEntry, Split, faces_path
from visavis.schemas.rows import Row
from visavis.schemas.sample import Sample, SampleMeta, decode_audio, encode_sample
from visavis.schemas.storage.store import Store
from visavis.schemas.voice_rows import VoiceFigures, Voices
from visavis.schemas.windows_config import ShardConfig
from visavis.stages.balance import keep_weights
from visavis.stages.base import Stage
from visavis.stages.models.labeller import Labeller
from visavis.stages.windows import avatar_state
from visavis.training.labels import labels_in, window_events

_MEMBER_OVERHEAD = 8 * 1024  # tar headers and padding of a sample's eight members
_FLAC_RATIO = 0.6  # of 16-bit PCM; speech compresses better, so shards stay below their limit


class Slice(Row):
    """Some of a dyad's windows of one class: `count` from number `first` on, in the order of their keys."""

    conversation: str
    first: int
    count: int


class ShardInput(Row):
    """One shard to be written at `path` of the dataset's folder, from slices of dyads and voices at the same places.

    census: of the whole training split, against which windows are weighed down to `dull_keep`. emphasis: by label, how
    many times as often windows with it are kept as others (`balance.labels`).
    Dyads and voices are read one at a time, and none is kept: those of a rare class may be many.
    """

    path: str
    split: Split
    label: WindowClass
    slices: tuple[Slice, ...]
    dull_keep: float
    emphasis: dict[str, float] = Field(default_factory=dict)
    census: Census
    dyads: SkipValidation[Sequence[Dyad]]
    voices: SkipValidation[Sequence[Voices]]


class ShardRow(Row):
    """The written shard, as the manifest lists it, the sum of its samples' keep weights, and how many samples have each
    label that could be told."""

    entry: ShardEntry
    weight: float
    labels: dict[str, int] = Field(default_factory=dict)


class ShardStage(Stage[ShardInput, ShardRow]):
    """Writes a tar and its faces into the dataset's folder and yields its manifest entry."""

    name = "shard"
    version = 6
    config: ShardConfig

    def __init__(self, config: ShardConfig, dataset: str) -> None:
        super().__init__(config)
        self._dataset = dataset
        self._labeller = Labeller(config.labeller) if config.labeller else None

    @classmethod
    def digests(cls, config: ShardConfig) -> Mapping[str, str]:
        """Of the user's own labeller."""
        return {"labeller": Labeller(config.labeller).digest} if config.labeller else {}

    def process(self, item: ShardInput) -> Iterator[ShardRow]:
        counts = item.census.counts[list(WindowClass).index(item.label)]
        encoded: list[tuple[str, dict[str, bytes]]] = []
        people: list[NeutralFaces] = []
        total, labels = 0.0, Counter[str]()
        for part, dyad, voices in zip(item.slices, item.dyads, item.voices, strict=True):
            assert part.conversation == dyad.conversation == voices.conversation
            windows = _of_class(dyad, item.label)[part.first : part.first + part.count]
            people += [faces_of(dyad)] if has_faces(dyad) else []
            weights = keep_weights(np.array([w.expressiveness for w in windows]), counts, item.dull_keep)
            tracks = (voices.audio[0].tobytes(), voices.audio[1].tobytes())
            labels.update(dict.fromkeys(labels_of(dyad.told), 0))
            made = (
                _sample(dyad, tracks, voices.figures, *each) for each in zip(windows, weights.tolist(), strict=True)
            )
            for sample in self._labeller.label(made) if self._labeller else made:
                sample = _emphasised(sample, item.emphasis)
                encoded.append((sample.key, encode_sample(sample)))
                total += sample.meta.weight
                labels.update(sample.meta.labels or ())
        random.Random(f"{self.config.seed}:{item.path}").shuffle(encoded)
        store = Store(self._dataset)
        faces = write_faces(store, item.path, people) if people else None
        size, digest, count = write_shard(store, item.path, encoded)
        entry = ShardEntry(
            path=item.path,
            split=item.split,
            label=item.label,
            samples=count,
            bytes=size,
            sha256=digest,
            faces=faces,
        )
        yield ShardRow(entry=entry, weight=round(total, 6), labels=dict(sorted(labels.items())))

    def facts(self, rows: Sequence[ShardRow]) -> str:
        """The row itself."""
        return rows[0].model_dump_json()


def write_shard(store: Store, path: str, samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> tuple[int, str, int]:
    """Commit samples, as keys and members (`encode_sample`), as a tar.

    Returns:
        Its size in bytes, its sha256 and the number of samples.
    """
    import webdataset  # it loads torch, which driver and supervisors have no use for

    count = 0
    with store.writer(path) as file:
        hashing = _HashingFile(file)
        with webdataset.TarWriter(hashing, mtime=0, user="", group="", encoder=False) as tar:
            for key, members in samples:
                tar.write({"__key__": key, **members})
                count += 1
    return hashing.size, hashing.digest.hexdigest(), count


def has_faces(dyad: Dyad) -> bool:
    """False where motion is coefficients, which no neutral face decodes."""
    return dyad.neutral[0].size > 0


def faces_of(dyad: Dyad) -> NeutralFaces:
    """What of a dyad decodes its motion."""
    return NeutralFaces(**{name: getattr(dyad, name) for name in NeutralFaces.model_fields})


def write_faces(store: Store, shard: str, people: Sequence[NeutralFaces]) -> FileEntry:
    """Commit the faces of a shard's conversations, by their ids."""
    ordered = sorted(people, key=lambda one: one.conversation)
    path, data = faces_path(shard), dump_rows(ordered)
    store.write(path, data)
    return FileEntry(path=path, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


class _HashingFile:
    """A write-only file that counts and hashes what passes through."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _of_class(dyad: Dyad, label: WindowClass) -> list[Window]:
    return sorted((w for w in dyad.windows if w.label is label), key=lambda w: w.key)


def _sample(
    dyad: Dyad, tracks: tuple[bytes, bytes], heard: tuple[VoiceFigures, VoiceFigures], window: Window, weight: float
) -> Sample:
    avatar, user = window.avatar, 1 - window.avatar
    frames = slice(window.first, window.first + window.length)
    span = (frames.start * SAMPLES_PER_FRAME, window.length * SAMPLES_PER_FRAME)  # first sample, and how many
    said: dict[str, Any] = {}
    if dyad.told:
        found = window_events(dyad.events, window.first, window.length, avatar)
        rates = dict(zip(("avatar_blinks_min", "user_blinks_min"), dyad.blinks_min[:: 1 - 2 * avatar], strict=True))
        said = {"labels": labels_in(found), "events": tuple(map(str, found)), **rates}
    return Sample(
        key=window.key,
        avatar_motion=dyad.motion[avatar][frames],
        user_motion=dyad.motion[user][frames],
        avatar_audio=decode_audio(tracks[avatar], *span),
        user_audio=decode_audio(tracks[user], *span),
        state=avatar_state(dyad.state[frames], avatar),
        valid=np.stack([dyad.valid[avatar][frames], dyad.valid[user][frames]], axis=1),
        reference=dyad.reference[avatar],
        meta=SampleMeta(
            conversation=dyad.conversation,
            avatar=dyad.participants[avatar],
            user=dyad.participants[user],
            start=window.first,
            label=window.label,
            expressiveness=window.expressiveness,
            weight=weight,
            binding=dyad.scores[avatar],
            avatar_figures=dyad.figures[avatar],
            user_figures=dyad.figures[user],
            avatar_voice=heard[avatar],
            user_voice=heard[user],
            codec=dyad.codec,
            **said,
        ),
    )


def _emphasised(sample: Sample, emphasis: Mapping[str, float]) -> Sample:
    """With the weight that its labels give it among its like: of several labels the largest counts."""
    if not emphasis:
        return sample
    labels = sample.meta.labels or ()
    own = max((factor for name, factor in emphasis.items() if has_any(labels, (name,))), default=1.0)
    weight = round(sample.meta.weight * own / max(1.0, *emphasis.values()), 6)
    return replace(sample, meta=sample.meta.model_copy(update={"weight": weight}))


def capacity(length: int, dim: int, config: ShardConfig) -> int:
    """How many windows of `length` frames and `dim` motion dimensions go into a shard."""
    motion = length * dim * 4
    voice = length * SAMPLES_PER_FRAME * 2 * _FLAC_RATIO
    expected = 2 * motion + 2 * voice + _MEMBER_OVERHEAD
    return max(1, min(config.max_samples, int(config.max_mb * 1e6 / expected)))


def cut_series(series: Iterable[tuple[str, int]], capacity: int) -> Iterator[tuple[Slice, ...]]:
    """Cut a series of windows into shards.

    Args:
        series: conversations in order, and how many windows of the series each has.
    """
    part: list[Slice] = []
    room = capacity
    for conversation, count in series:
        first = 0
        while first < count:
            taken = min(room, count - first)
            part.append(Slice(conversation=conversation, first=first, count=taken))
            first, room = first + taken, room - taken
            if not room:
                yield tuple(part)
                part, room = [], capacity
    if part:
        yield tuple(part)
