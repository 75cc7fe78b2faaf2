"""From shards to batches: manifest first, classes mixed by its plan, the same order every time.

    manifest → per class: shards → samples kept by weight, shuffled ─┐
                                                                     ├─ largest deficit next → batches
               (plan.mixture says how much of each class) ───────────┘

The class of each draw is the one that is furthest behind its share, so a batch holds the mixture as exactly as whole
numbers can, with no randomness to carry.

Which samples are whose, and in which order, is told by `training.epochs`. The position in the data is three numbers per
class, and a resumed run goes on with the very sample it would have seen. Shards are checked against their sha256 as
they are read. Memory holds one shard per class, undecoded (≤ 256 MB each as built), and for a while the next one.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from fsspec.implementations.local import LocalFileSystem
from torch import Tensor

from schemas.dyads import WindowClass
from schemas.errors import DatasetError, UsageError
from schemas.faults import Blame, blame_of, retried
from schemas.files import locate, read_whole
from schemas.inside import read_inside
from schemas.manifest import MANIFEST_BYTES, MANIFEST_NAME, Manifest, ShardEntry, Split, manifest_hash, parse_manifest
from schemas.sample import Sample, decode_sample
from schemas.untrusted import TooLarge, parsing
from schemas.words import counted
from training.epochs import ClassStream
from training.shards import Members, samples_of

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
SHARDS = 8
"""Shards of a class that are read where a few windows stand for all; those of a conversation may all lie in one."""
BAD_IN_A_ROW = 100
"""Unreadable samples in a row after which a class is given up, however few different ones they are."""


@dataclass(frozen=True)
class Batch:
    """Windows as tensors; float32 unless said otherwise. Motion is in the codec's units."""

    keys: tuple[str, ...]
    avatar_motion: Tensor  # [B, T, D]
    user_motion: Tensor  # [B, T, D]
    avatar_audio: Tensor  # [B, T · 640]
    user_audio: Tensor  # [B, T · 640]
    state: Tensor  # [B, T] uint8
    valid: Tensor  # [B, T, 2] bool: avatar, user
    reference: Tensor  # [B, D]
    chosen: Tensor | None = None  # [B, T, D], pairs only
    rejected: Tensor | None = None  # [B, T, D], pairs only

    def to(self, device: torch.device) -> Batch:
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}
        return replace(self, **{name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()})


class Dataset:
    """A dataset folder, local or behind any fsspec URL, whose manifest was read and accepted."""

    def __init__(self, location: str) -> None:
        """Raises UsageError where there is no manifest, DatasetError where it does not fit this program or its store is
        away.
        """
        self.location = str(location).rstrip("/")
        self._files, self._root = locate(self.location)
        try:
            data = self._read(MANIFEST_NAME, MANIFEST_BYTES)
        except TooLarge as error:
            raise DatasetError(f"{self.location}/{MANIFEST_NAME}: not a manifest ({error})") from error
        except OSError as error:
            why = f"cannot read its {MANIFEST_NAME} ({error.strerror})"
            if blame_of(error) is Blame.MACHINE and not isinstance(error, PermissionError):
                raise DatasetError(f"{self.location}: {why}; try again when its store is well") from error
            raise UsageError(f"{self.location} is not a dataset: {why}") from error
        self.manifest: Manifest = parse_manifest(data, f"{self.location}/{MANIFEST_NAME}")
        self.hash = manifest_hash(data)

    def fetch(self, entry: ShardEntry) -> bytes:
        """The bytes of a shard.

        A read that breaks off is tried again (`schemas.faults.WAITS`): a run of weeks outlives a store that is away
        for a minute.

        Raises:
            DatasetError: missing, not to be read, or not the bytes the manifest speaks of.
        """
        try:
            data = self._read(entry.path, entry.bytes)
        except FileNotFoundError as error:
            raise DatasetError(f"shard {entry.path} is missing") from error
        except TooLarge as error:
            raise DatasetError(f"shard {entry.path} is not the one the manifest lists ({error})") from error
        except OSError as error:
            raise DatasetError(f"shard {entry.path} cannot be read ({error.strerror})") from error
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise DatasetError(f"shard {entry.path} is not the one the manifest lists (sha256 differs)")
        return data

    def _read(self, path: str, most: int) -> bytes:
        """No more than `most` bytes, and from inside the dataset's folder only."""
        name = f"{self.location}/{path}"
        if isinstance(self._files, LocalFileSystem):
            return retried(lambda: read_inside(self._root, path, most), name)
        return read_whole(self._files, f"{self._root}/{path}", name, most)

    def groups(self, entry: ShardEntry, data: bytes) -> Iterator[tuple[str, Members]]:
        """Keys and undecoded members of a shard's samples, in its order.

        Raises:
            DatasetError: not a plain tar of as many samples as the manifest says.
        """
        seen = 0
        with parsing(lambda why: DatasetError(f"shard {entry.path} is not a readable tar: {why}")):
            for key, members in samples_of(data):
                seen += 1
                if seen > entry.samples:
                    break
                yield key, members
        if seen != entry.samples:
            found = counted(seen, "sample") if seen < entry.samples else f"more than {counted(seen - 1, 'sample')}"
            raise DatasetError(f"shard {entry.path} holds {found}, the manifest says {entry.samples}")

    def shard(self, entry: ShardEntry) -> list[tuple[str, Members]]:
        """All of `groups`. Raises DatasetError as it and `fetch` do."""
        return list(self.groups(entry, self.fetch(entry)))

    def first(self, chosen: Iterable[tuple[ShardEntry, int]]) -> Iterator[tuple[str, Members]]:
        """Keys and undecoded members of so many samples of each of some shards (`choose`)."""
        for entry, count in chosen:
            yield from islice(self.groups(entry, self.fetch(entry)), count)

    def decode(self, key: str, members: Members) -> Sample:
        """A sample that fits the manifest.

        Raises:
            DatasetError: unreadable, or of another codec, dimension or length than the manifest says.
        """
        sample = decode_sample(key, members)
        found = (sample.meta.codec, *sample.avatar_motion.shape)
        expected = (self.manifest.motion.codec, self.manifest.window, self.manifest.motion.dim)
        if found != expected:
            raise DatasetError(f"sample {key}: codec, frames, dimensions are {found}, the manifest says {expected}")
        if self.manifest.kind == "pairs" and sample.pair is None:
            raise DatasetError(f"sample {key}: member pair.json is missing")
        return sample

    def samples(self, split: Split, label: WindowClass | None = None) -> Iterator[Sample]:
        """Every sample of a split once, in the manifest's order, unweighted. For evaluation."""
        for entry in self.manifest.of(split, label):
            for key, members in self.groups(entry, self.fetch(entry)):
                yield self.decode(key, members)


class Loader:
    """Endless batches of a rank's part of a split, mixed by the manifest's plan.

    Iterating yields (batch, state): `state` is plain data (JSON) that `Loader(…, state=state)` of the same dataset,
    seed, rank and world goes on from.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        split: Split = "train",
        max_bad: int = 0,
        state: dict[str, Any] | None = None,
    ) -> None:
        """
        Args:
            batch: windows per batch of this rank.
            max_bad: unreadable samples that are skipped (and named in `bad`) before DatasetError is raised; those
                met before `state` was taken count, too.

        Raises:
            UsageError: the split has no samples of any class that the plan mixes.
        """
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} of {world}")
        self.dataset, self.batch, self.max_bad = dataset, batch, max_bad
        self.mixture = class_mixture(dataset.manifest, split)
        if not self.mixture:
            raise UsageError(f"{dataset.location} has no {split} samples to draw from")
        state = state or {"bad": {}, **{label.value: [0, 0, 0] for label in self.mixture}}
        self.bad: dict[str, str] = dict(state["bad"])
        self._drawn = {label: state[label.value][0] for label in self.mixture}
        readers = ThreadPoolExecutor(1, "shards")
        self._classes = {
            label: ClassStream(
                dataset, dataset.manifest.of(split, label), seed, rank, world, state[label.value][1:], readers
            )
            for label in self.mixture
        }

    def state(self) -> dict[str, Any]:
        """Per class: samples drawn, epoch, samples of the rank's part of it that were looked at. And `bad`."""
        drawn = {label.value: [self._drawn[label], *stream.position] for label, stream in self._classes.items()}
        return {"bad": dict(self.bad), **drawn}

    def __iter__(self) -> Iterator[tuple[Batch, dict[str, Any]]]:
        while True:
            yield collate([self._draw() for _ in range(self.batch)]), self.state()

    def _draw(self) -> Sample:
        total = sum(self._drawn.values()) + 1
        label = max(self.mixture, key=lambda c: self.mixture[c] * total - self._drawn[c])
        self._drawn[label] += 1
        for _ in range(BAD_IN_A_ROW):
            key, members = next(self._classes[label])
            try:
                return self.dataset.decode(key, members)
            except DatasetError as error:
                if key not in self.bad:
                    _LOG.warning("left out: %s", error)
                self.bad[key] = str(error)
                if len(self.bad) > self.max_bad:
                    found = counted(len(self.bad), "unreadable sample")
                    raise DatasetError(
                        f"{found} in {self.dataset.location}, {self.max_bad} tolerated; the last: {error}"
                    ) from error
        raise DatasetError(f"{self.dataset.location}: {BAD_IN_A_ROW} {label} samples in a row were unreadable")


def class_mixture(manifest: Manifest, split: Split) -> dict[WindowClass, float]:
    """Share of each class that has samples in the split; what absent classes leave goes to the others in proportion."""
    shares = {
        label: share
        for label, share in sorted(manifest.plan.mixture.items())
        if share > 0 and sum(s.samples for s in manifest.of(split, label)) > 0
    }
    total = sum(shares.values())
    return {label: share / total for label, share in shares.items()}


def choose(entries: Sequence[ShardEntry], limit: int | None) -> list[tuple[ShardEntry, int]]:
    """Which shards are read, and how many of the first samples of each: all, or about as many of each of a few."""
    entries = [entry for entry in entries if entry.samples]
    total = sum(entry.samples for entry in entries)
    if limit is None or limit >= total:
        return [(entry, entry.samples) for entry in entries]
    spread = sorted(
        {i * len(entries) // SHARDS for i in range(SHARDS)} if len(entries) > SHARDS else range(len(entries))
    )
    entries = [entries[i] for i in spread] + [entry for i, entry in enumerate(entries) if i not in spread]
    share = -(-limit // len(spread))
    while sum(min(entry.samples, share) for entry in entries) < limit:
        share *= 2
    chosen = []
    for entry in entries:
        count = min(entry.samples, share, limit)
        limit -= count
        if count:
            chosen.append((entry, count))
    return chosen


def collate(samples: Sequence[Sample]) -> Batch:
    """Decoded samples of one length as a batch."""

    def stack(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(s, name) for s in samples]))

    pairs = all(s.pair is not None for s in samples)
    return Batch(
        keys=tuple(s.key for s in samples),
        avatar_motion=stack("avatar_motion"),
        user_motion=stack("user_motion"),
        avatar_audio=stack("avatar_audio"),
        user_audio=stack("user_audio"),
        state=stack("state"),
        valid=stack("valid"),
        reference=stack("reference"),
        chosen=stack("chosen") if pairs else None,
        rejected=stack("rejected") if pairs else None,
    )


class _End:
    """Nothing follows."""


def prefetch(source: Iterable[T], depth: int = 4) -> Generator[T]:
    """The same items, read ahead by one thread (decoding FLAC and hashing release the interpreter's lock)."""
    ready: queue.Queue[T | Exception | _End] = queue.Queue(depth)
    stopped = threading.Event()

    def read() -> None:
        try:
            for item in source:
                if not _put(ready, item, stopped):
                    return
            _put(ready, _End(), stopped)
        except Exception as error:  # noqa: BLE001 - raised again by the reader of the queue
            _put(ready, error, stopped)

    thread = threading.Thread(target=read, name="loader", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, _End):
                return
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()


def _put(ready: queue.Queue[Any], item: object, stopped: threading.Event) -> bool:
    while not stopped.is_set():
        try:
            ready.put(item, timeout=0.1)
            return True
        except queue.Full:
            continue
    return False
