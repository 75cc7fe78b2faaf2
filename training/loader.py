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

import logging
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from visavis.schemas.errors import DatasetError, UsageError
from visavis.schemas.manifest import Split
from visavis.schemas.pairs import PairRecord
from visavis.schemas.sample import Sample
from visavis.schemas.words import counted
from visavis.training.dataset import Dataset, class_mixture
from visavis.training.readers import SIDES, ClassPart, Decoded, read_beside, read_here
from visavis.training.shapes import BD, BTD

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
BAD_IN_A_ROW = 100
"""Unreadable samples in a row after which a class is given up, however few different ones they are."""


@dataclass(frozen=True)
class Batch:
    """Windows as tensors; float32 unless said otherwise. Motion is in the codec's units."""

    keys: tuple[str, ...]
    avatar_motion: BTD
    user_motion: BTD
    avatar_audio: Float[Tensor, "B 640*T"]
    user_audio: Float[Tensor, "B 640*T"]
    state: UInt8[Tensor, "B T"]
    valid: Bool[Tensor, "B T 2"]  # avatar, user
    reference: BD
    chosen: BTD | None = None  # pairs only
    rejected: BTD | None = None  # pairs only
    records: tuple[PairRecord, ...] = ()  # pairs only: how each was made

    def to(self, device: torch.device) -> Batch:
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """In memory that a GPU copies from while the host goes on. Needs a GPU."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        changed: dict[str, Any] = {
            f.name: change(value) for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **changed)


class Loader:
    """Endless batches of a rank's part of a split, mixed by the manifest's plan.

    Iterating yields (batch, state): `state` is plain data (JSON) that `Loader(…, state=state)` of the same dataset,
    seed, rank and world_size goes on from.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        split: Split = "train",
        max_bad: int = 0,
        state: dict[str, Any] | None = None,
        beside: bool = False,
    ) -> None:
        """
        Args:
            batch: windows per batch of this rank.
            beside: each class is read and decoded by a process of its own, which `close` ends.
            max_bad: unreadable samples that are skipped (and named in `bad`) before DatasetError is raised; those
                met before `state` was taken count, too.

        Raises:
            UsageError: the split has no samples of any class that the plan mixes.
        """
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} of {world_size}")
        self.dataset, self.batch, self.max_bad = dataset, batch, max_bad
        self.mixture = class_mixture(dataset.manifest, split)
        if not self.mixture:
            raise UsageError(f"{dataset.location} has no {split} samples to draw from")
        state = state or {"bad": {}, **{label.value: [0, 0, 0] for label in self.mixture}}
        self.bad: dict[str, str] = dict(state["bad"])
        self._drawn = {label: state[label.value][0] for label in self.mixture}
        self._position = {label: tuple(state[label.value][1:]) for label in self.mixture}
        read = read_beside if beside else read_here
        self._classes = {
            label: read(
                ClassPart(dataset.location, dataset.hash, split, label, seed, rank, world_size, position), dataset
            )
            for label, position in self._position.items()
        }

    def state(self) -> dict[str, Any]:
        """Per class: samples drawn, epoch, samples of the rank's part of it that were looked at. And `bad`."""
        drawn = {label.value: [self._drawn[label], *position] for label, position in self._position.items()}
        return {"bad": dict(self.bad), **drawn}

    def close(self) -> None:
        for drawn in self._classes.values():
            drawn.close()

    def __iter__(self) -> Iterator[tuple[Batch, dict[str, Any]]]:
        while True:
            yield _batch([self._draw() for _ in range(self.batch)]), self.state()

    def _draw(self) -> Decoded:
        total = sum(self._drawn.values()) + 1
        label = max(self.mixture, key=lambda c: self.mixture[c] * total - self._drawn[c])
        self._drawn[label] += 1
        for _ in range(BAD_IN_A_ROW):
            self._position[label], key, read = next(self._classes[label])
            if isinstance(read, Decoded):
                return read
            if key not in self.bad:
                _LOG.warning("left out: %s", read)
            self.bad[key] = str(read)
            if len(self.bad) > self.max_bad:
                found = counted(len(self.bad), "unreadable sample")
                raise DatasetError(
                    f"{found} in {self.dataset.location}, {self.max_bad} tolerated; the last: {read}"
                ) from read
        raise DatasetError(f"{self.dataset.location}: {BAD_IN_A_ROW} {label} samples in a row were unreadable")


def collate(samples: Sequence[Sample]) -> Batch:
    """Decoded samples of one length as a batch."""
    return _batch([Decoded.of(sample) for sample in samples])


def _batch(windows: Sequence[Decoded]) -> Batch:
    pairs = all(window.pair is not None for window in windows)
    names = [name for name in windows[0].arrays if pairs or name not in SIDES]
    stacked = {name: torch.from_numpy(np.stack([window.arrays[name] for window in windows])) for name in names}
    records = tuple(window.pair for window in windows if window.pair is not None) if pairs else ()
    return Batch(keys=tuple(window.key for window in windows), records=records, **stacked)


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
