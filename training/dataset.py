"""A dataset's folder: its manifest read and accepted, its shards checked, its samples decoded. Needs no torch.

Shards are checked against their sha256 as they are read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from fsspec.implementations.local import LocalFileSystem

from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import DatasetError, UsageError
from visavis.schemas.manifest import (
    MANIFEST_BYTES,
    MANIFEST_NAME,
    Manifest,
    ShardEntry,
    Split,
    manifest_hash,
    parse_manifest,
)
from visavis.schemas.sample import Sample, decode_sample
from visavis.schemas.storage.faults import Blame, blame_of, retried
from visavis.schemas.storage.files import locate, read_whole
from visavis.schemas.storage.inside import read_inside
from visavis.schemas.untrusted import TooLarge, parsing
from visavis.schemas.words import counted
from visavis.training.shards import Members, samples_of

SHARDS = 8
"""Shards of a class that are read where a few windows stand for all; those of a conversation may all lie in one."""


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

        A read that breaks off is tried again (`schemas.storage.faults.WAITS`): a run of weeks outlives a store that is
        away for a minute.

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
