"""Shards: WebDataset tars, one series per split and class, byte-identical when written again.

Windows of one dyad stay together (a shard opens few dyads) and are shuffled inside their shard by a seed;
the loader shuffles again across shards. Members have mtime 0, no owner and a fixed order.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np

from schemas import SAMPLES_PER_FRAME
from schemas.config import ShardConfig
from schemas.manifest import ShardEntry, Split
from schemas.rows import Dyad, Row, Window, WindowClass
from schemas.sample import Sample, SampleMeta, decode_audio, encode_sample
from stages.balance import PlannedWindow
from stages.base import Stage
from stages.store import Store
from stages.windows import avatar_state

_MEMBER_OVERHEAD = 8 * 1024  # tar headers and padding of a sample's eight members
_FLAC_RATIO = 0.6  # of 16-bit PCM; speech compresses better, so shards stay below their limit


class Pick(Row):
    """A window to be written, and its keep weight."""

    window: Window
    conversation: str
    weight: float


class ShardInput(Row):
    """One shard to be written at `path` of the dataset's folder, from the dyads that its windows come from."""

    path: str
    split: Split
    label: WindowClass
    picks: tuple[Pick, ...]
    dyads: tuple[Dyad, ...]


class ShardRow(Row):
    """The written shard, as the manifest lists it."""

    entry: ShardEntry


class ShardStage(Stage[ShardInput, ShardRow]):
    """Writes a tar into the dataset's folder and yields its manifest entry."""

    name = "shard"
    version = 1
    config: ShardConfig

    def __init__(self, config: ShardConfig, dataset: str) -> None:
        super().__init__(config)
        self._dataset = dataset

    def process(self, item: ShardInput) -> Iterator[ShardRow]:
        dyads = {dyad.conversation: dyad for dyad in item.dyads}
        picks = sorted(item.picks, key=lambda p: p.window.key)
        random.Random(f"{self.config.seed}:{item.path}").shuffle(picks)
        samples = (_sample(pick, dyads[pick.conversation]) for pick in picks)
        size, digest, count = write_shard(Store(self._dataset), item.path, samples)
        yield ShardRow(
            entry=ShardEntry(
                path=item.path, split=item.split, label=item.label, samples=count, bytes=size, sha256=digest
            )
        )


def write_shard(store: Store, path: str, samples: Iterator[Sample]) -> tuple[int, str, int]:
    """Commit samples as a tar. Returns its size in bytes, its sha256 and the number of samples."""
    import webdataset  # it loads torch, which driver and supervisors have no use for

    count = 0
    with store.writer(path) as file:
        hashing = _HashingFile(file)
        with webdataset.TarWriter(hashing, mtime=0, user="", group="", encoder=False) as tar:
            for sample in samples:
                tar.write({"__key__": sample.key, **encode_sample(sample)})
                count += 1
    return hashing.size, hashing.digest.hexdigest(), count


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


def _sample(pick: Pick, dyad: Dyad) -> Sample:
    avatar, user = pick.window.avatar, 1 - pick.window.avatar
    frames = slice(pick.window.first, pick.window.first + pick.window.length)
    heard = (frames.start * SAMPLES_PER_FRAME, pick.window.length * SAMPLES_PER_FRAME)  # first sample, and how many
    return Sample(
        key=pick.window.key,
        avatar_motion=dyad.motion[avatar][frames],
        user_motion=dyad.motion[user][frames],
        avatar_audio=decode_audio(dyad.audio[avatar].tobytes(), *heard),
        user_audio=decode_audio(dyad.audio[user].tobytes(), *heard),
        state=avatar_state(dyad.state[frames], avatar),
        valid=np.stack([dyad.valid[avatar][frames], dyad.valid[user][frames]], axis=1),
        reference=dyad.reference[avatar],
        meta=SampleMeta(
            conversation=dyad.conversation,
            avatar=dyad.participants[avatar],
            user=dyad.participants[user],
            start=pick.window.first,
            label=pick.window.label,
            expressiveness=pick.window.expressiveness,
            weight=pick.weight,
            binding=dyad.scores[avatar],
            codec=dyad.codec,
        ),
    )


def plan_shards(planned: Sequence[PlannedWindow], dim: int, config: ShardConfig) -> list[ShardInput]:
    """Cut every series of (split, class) into shards. The dyads are left out: they are loaded by the worker."""
    series: dict[tuple[Split, WindowClass], list[PlannedWindow]] = {}
    for entry in planned:
        series.setdefault((entry.split, entry.window.label), []).append(entry)
    shards = []
    for (split, label), entries in sorted(series.items()):
        # By hash, so that neighbours in the list of inputs do not share shards; dyads stay whole.
        entries.sort(key=lambda e: (hashlib.sha256(e.conversation.encode()).digest(), e.window.key))
        for number, part in enumerate(_cut(entries, dim, config)):
            picks = tuple(Pick(window=e.window, conversation=e.conversation, weight=e.weight) for e in part)
            path = f"{split}/{label.value}-{number:06d}.tar"
            shards.append(ShardInput(path=path, split=split, label=label, picks=picks, dyads=()))
    return shards


def _cut(entries: Sequence[PlannedWindow], dim: int, config: ShardConfig) -> Iterator[list[PlannedWindow]]:
    part: list[PlannedWindow] = []
    size = 0.0
    for entry in entries:
        motion = entry.window.length * dim * 4
        voice = entry.window.length * SAMPLES_PER_FRAME * 2 * _FLAC_RATIO
        expected = 2 * motion + 2 * voice + _MEMBER_OVERHEAD
        if part and (len(part) >= config.max_samples or size + expected > config.max_mb * 1e6):
            yield part
            part, size = [], 0.0
        part.append(entry)
        size += expected
    if part:
        yield part
