"""Decoded samples of a class, in its order: read here, or by a process of the class beside this one.

    here       `ClassStream` → decode                                  in the trainer's loader thread
    a process  `ClassStream` → decode, some at once → chunks ═shared memory═► one by one, in the same order

Decoding takes a millisecond of a core, a part of it with the interpreter's lock: a thread of the trainer feeds some 800
windows a second, and keeps the trainer's Python from running meanwhile. A GPU may take more. So each class
has a process there, which reads its own shards as the thread would, no shard twice; `torch.utils.data.DataLoader` keeps
it. What comes, in which order, and from where a run goes on is the same either way, to the byte.
"""

from __future__ import annotations

import multiprocessing
import shutil
import signal
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from visavis.schemas import SAMPLES_PER_FRAME
from visavis.schemas.dyads import WindowClass
from visavis.schemas.errors import DatasetError
from visavis.schemas.manifest import Split
from visavis.schemas.pairs import PairRecord
from visavis.schemas.sample import Sample
from visavis.training.dataset import Dataset
from visavis.training.epochs import ClassStream
from visavis.training.shards import Members

ARRAYS = ("avatar_motion", "user_motion", "avatar_audio", "user_audio", "state", "valid", "reference")
SIDES = ("chosen", "rejected")
"""Of pairs, beside ARRAYS."""
CHUNK_BYTES = 2 * 2**20
"""Of arrays that are handed over at once: a container's shared memory is 64 MB unless it is told otherwise."""
_AHEAD = 2  # chunks
_THREADS = 4  # of a process: half of decoding a voice leaves the interpreter's lock
_PATIENCE = 30  # seconds from a request to end to the end, for a process that does not see that its work is over
_SHARED = Path("/dev/shm")  # noqa: S108 - where Linux has shared memory


@dataclass(frozen=True)
class Decoded:
    """What of a sample a batch is made of."""

    key: str
    arrays: Mapping[str, np.ndarray]
    pair: PairRecord | None

    @classmethod
    def of(cls, sample: Sample) -> Decoded:
        names = ARRAYS if sample.pair is None else (*ARRAYS, *SIDES)
        return cls(sample.key, {name: getattr(sample, name) for name in names}, sample.pair)


class Drawn(NamedTuple):
    """A sample, or why it cannot be read; `position` of the class is from where it goes on after it."""

    position: tuple[int, ...]
    key: str
    read: Decoded | DatasetError


@dataclass(frozen=True)
class ClassPart:
    """A rank's part of a class of a split, from a position on."""

    dataset: str
    sha256: str  # of the manifest
    split: Split
    label: WindowClass
    seed: int
    rank: int
    world_size: int
    position: tuple[int, ...]

    def stream(self, dataset: Dataset) -> ClassStream:
        return ClassStream(
            dataset, dataset.manifest.of(self.split, self.label), self.seed, self.rank, self.world_size, self.position,
            ThreadPoolExecutor(1, "shards"),
        )  # fmt: skip


def read_here(part: ClassPart, dataset: Dataset) -> Generator[Drawn]:
    """Endless. Raises DatasetError for what `ClassStream` raises it."""
    stream = part.stream(dataset)
    while True:
        key, members = next(stream)
        yield _read(dataset, stream.position, key, members)


def read_beside(part: ClassPart, dataset: Dataset) -> Generator[Drawn]:
    """As `read_here`, by a process that ends when this iterator is closed.

    Raises:
        DatasetError: also where that process was ended by somebody else.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    loader = DataLoader(
        _Reader(part, max(1, CHUNK_BYTES // _bytes(dataset))),
        batch_size=None,
        num_workers=1,
        prefetch_factor=_AHEAD,
        collate_fn=_as_it_is,
        multiprocessing_context=context,
        worker_init_fn=_begin,
    )
    chunks = iter(loader)
    while True:
        try:
            chunk = next(chunks)
        except (RuntimeError, OSError, EOFError) as error:  # however it is noticed
            raise DatasetError(f"the process that reads {part.label} windows ended ({error})") from error
        yield from chunk.drawn()
        if chunk.ended:
            raise DatasetError(chunk.ended)


def room_beside(dataset: Dataset, classes: int) -> bool:
    """Whether shared memory has room for what processes of so many classes hand over."""
    wanted = 2 * classes * (_AHEAD + 2) * max(CHUNK_BYTES, _bytes(dataset))
    return _SHARED.is_dir() and shutil.disk_usage(_SHARED).free >= wanted


def _bytes(dataset: Dataset) -> int:
    """Of a sample's voices and motions, as float32."""
    return 4 * dataset.manifest.window * (2 * SAMPLES_PER_FRAME + 4 * dataset.manifest.motion.dim)


@dataclass(frozen=True)
class _Chunk:
    """Samples in order. Arrays of those that could be read lie stacked in one piece of memory, as each piece that is
    shared takes a millisecond. ended: why none comes after them."""

    samples: Sequence[tuple[tuple[int, ...], str, PairRecord | DatasetError | None]]
    layout: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]
    memory: Tensor  # [bytes] uint8
    ended: str

    @classmethod
    def of(cls, found: Sequence[Drawn], ended: str) -> _Chunk:
        good = [each.read for each in found if isinstance(each.read, Decoded)]
        names = good[0].arrays if good else ()
        stacked = {name: np.stack([window.arrays[name] for window in good]) for name in names}
        layout = {name: (array.dtype, array.shape) for name, array in stacked.items()}
        memory = torch.empty(sum(_padded(array.nbytes) for array in stacked.values()), dtype=torch.uint8)
        for place, array in zip(_places(memory, layout).values(), stacked.values(), strict=True):
            place[...] = array
        rest = [(d.position, d.key, d.read.pair if isinstance(d.read, Decoded) else d.read) for d in found]
        return cls(rest, layout, memory, ended)

    def drawn(self) -> Iterator[Drawn]:
        arrays, good = _places(self.memory, self.layout), 0
        for position, key, rest in self.samples:
            if isinstance(rest, DatasetError):
                yield Drawn(position, key, rest)
                continue
            yield Drawn(position, key, Decoded(key, {name: array[good] for name, array in arrays.items()}, rest))
            good += 1


def _places(memory: Tensor, layout: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]) -> dict[str, np.ndarray]:
    """Arrays that lie in memory, one after the other."""
    places, first = {}, 0
    for name, (dtype, shape) in layout.items():
        places[name] = np.ndarray(shape, dtype, memory.numpy(), first)
        first += _padded(places[name].nbytes)
    return places


def _padded(size: int) -> int:
    return -(-size // 64) * 64


class _Reader(IterableDataset[_Chunk]):
    """Runs in the process of a class."""

    def __init__(self, part: ClassPart, chunk: int) -> None:
        self._part, self._chunk = part, chunk

    def __iter__(self) -> Iterator[_Chunk]:
        try:
            dataset = Dataset(self._part.dataset)
            if dataset.hash != self._part.sha256:
                raise DatasetError(f"{self._part.dataset} was changed while it was read")
            stream = self._part.stream(dataset)
        except DatasetError as error:
            yield _Chunk.of([], str(error))
            return
        ended = ""
        with ThreadPoolExecutor(_THREADS, "decode") as threads:
            while not ended:
                raw: list[tuple[tuple[int, ...], str, Members]] = []
                try:
                    while len(raw) < self._chunk:
                        key, members = next(stream)
                        raw.append((stream.position, key, members))
                except DatasetError as error:
                    ended = str(error)
                yield _Chunk.of(list(threads.map(lambda each: _read(dataset, *each), raw)), ended)


def _read(dataset: Dataset, position: tuple[int, ...], key: str, members: Members) -> Drawn:
    try:
        return Drawn(position, key, Decoded.of(dataset.decode(key, members)))
    except DatasetError as error:
        return Drawn(position, key, error)


def _as_it_is(chunk: Any) -> Any:
    return chunk


def _begin(_worker: int) -> None:
    """Ctrl-C, and what schedulers send to all processes, is for the trainer, which ends its step with what is read."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda _number, _frame: signal.alarm(_PATIENCE))
    torch.set_num_threads(1)
