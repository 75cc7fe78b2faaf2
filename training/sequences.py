"""Whole sequences, put together again from the windows of a split, and what a checkpoint makes of them.

A *sequence* is a stretch of a conversation in which one person is the avatar and every frame lies in some window of the
split: windows of one conversation and avatar, in the order of time, each beginning before the one ahead of it has ended
or just then. Frames that two windows share count once. Where windows were left out a new sequence begins, and after ten
minutes (`LONGEST_WINDOW`). The model generates a sequence as one stream, from its first frame to its last.

Classes lie in shards of their own, so a conversation lies in several. The split is read twice: once to see which
windows there are, then in an order in which conversations come together soon. Memory holds the conversations that are
not yet complete, undecoded, a batch with its sound, and the motion of all. Motion is in the codec's units.

Shape suffixes: T frames of a sequence, D dimensions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from visavis.schemas import SAMPLES_PER_FRAME
from visavis.schemas.errors import DatasetError, RunFailed, UsageError
from visavis.schemas.manifest import Manifest, ShardEntry, Split
from visavis.schemas.plain import load_record
from visavis.schemas.sample import LONGEST_WINDOW, SampleMeta
from visavis.schemas.sampling import Sampling, SamplingConfig
from visavis.schemas.train import Drop, SamplerConfig
from visavis.schemas.untrusted import parsing
from visavis.training.dataset import Dataset
from visavis.training.model import Listener
from visavis.training.rollouts import Rollouts
from visavis.training.sampler import rollout
from visavis.training.shards import Members

BATCH_FRAMES = 20_000
"""Frames of sequences that are held, with their sound, to be generated together (5 kB each)."""
_BATCH = 32  # sequences of one length that are generated together

Progress = Callable[[int, int, dict[str, float]], None]
"""Called with (sequences done, sequences in all, nothing)."""


class Side(NamedTuple):
    """A conversation, seen from one of its people."""

    conversation: str
    avatar: str
    user: str


@dataclass(frozen=True)
class Recorded:
    """A sequence as it was recorded. key: of its first window. state: as in `schemas.sample`. valid: bool [T], both
    faces are. Sound, float32 [640 · T], is let go after generation."""

    key: str
    side: Side
    truth: np.ndarray
    user: np.ndarray
    state: np.ndarray
    valid: np.ndarray
    reference: np.ndarray
    avatar_audio: np.ndarray
    user_audio: np.ndarray


@dataclass(frozen=True)
class Generated:
    """A sequence, and the motions [T, D] that were made for its user: by drop, one for each seed."""

    recorded: Recorded
    motions: Mapping[Drop, tuple[np.ndarray, ...]]


class Run(NamedTuple):
    """A sequence that is there to be read: where its windows start, in frames of the conversation."""

    side: Side
    starts: tuple[int, ...]


def runs_of(data: Dataset, split: Split, limit: int | None = None) -> tuple[list[Run], dict[str, set[Side]]]:
    """The sequences of a split, and by shard whose windows lie there. Reads all of it.

    Args:
        limit: so many sequences, evenly spread over all.

    Raises:
        UsageError: no samples in the split.
        DatasetError: a shard or a sample's description that is unreadable.
    """
    starts: defaultdict[Side, set[int]] = defaultdict(set)
    where: dict[str, set[Side]] = {}
    for entry in data.manifest.of(split):
        where[entry.path] = set()
        for key, members in data.groups(entry, data.fetch(entry)):
            side, start = _place(key, members)
            starts[side].add(start)
            where[entry.path].add(side)
    runs = [run for side, found in sorted(starts.items()) for run in _cut(side, sorted(found), data.manifest.window)]
    if not runs:
        raise UsageError(f"{data.location} has no {split} samples")
    if limit is not None and limit < len(runs):
        runs = [runs[i * len(runs) // limit] for i in range(limit)]
    return runs, where


def read_sequences(
    data: Dataset, split: Split, runs: Sequence[Run], where: Mapping[str, set[Side]]
) -> Iterator[Recorded]:
    """The sequences that `runs_of` found.

    Raises:
        DatasetError: a sample that is unreadable or has numbers that are not finite.
    """
    wanted: defaultdict[Side, list[Run]] = defaultdict(list)
    for run in runs:
        wanted[run.side].append(run)
    missing = {side: {start for run in some for start in run.starts} for side, some in wanted.items()}
    held: defaultdict[Side, dict[int, tuple[str, Members]]] = defaultdict(dict)
    for entry in _in_order(data.manifest.of(split), where, wanted):
        for key, members in data.groups(entry, data.fetch(entry)):
            side, start = _place(key, members)
            if start not in missing.get(side, ()):
                continue
            missing[side].remove(start)
            held[side][start] = key, dict(members)
            if not missing[side]:
                windows = held.pop(side)
                for run in wanted[side]:
                    yield _joined(data, run, windows)


def _place(key: str, members: Members) -> tuple[Side, int]:
    """Whose window it is, and the frame of the conversation at which it starts."""
    with parsing(lambda why: DatasetError(f"sample {key}: {why}")):
        if "meta.json" not in members:
            raise ValueError("member meta.json is missing")
        meta = load_record(members["meta.json"], SampleMeta)
    return Side(meta.conversation, meta.avatar, meta.user), meta.start


def _cut(side: Side, starts: Sequence[int], window: int) -> Iterator[Run]:
    """Stretches without a gap, of LONGEST_WINDOW frames at most."""
    run: list[int] = []
    for start in starts:
        if run and (start > run[-1] + window or start + window > run[0] + LONGEST_WINDOW):
            yield Run(side, tuple(run))
            run = []
        run.append(start)
    if run:
        yield Run(side, tuple(run))


def _in_order(
    entries: Iterable[ShardEntry], where: Mapping[str, set[Side]], wanted: Mapping[Side, object]
) -> list[ShardEntry]:
    """Shards with something that is wanted, those of one conversation near each other."""
    of = {entry.path: [side for side in where[entry.path] if side in wanted] for entry in entries}
    return sorted((entry for entry in entries if of[entry.path]), key=lambda entry: (min(of[entry.path]), entry.path))


def _joined(data: Dataset, run: Run, windows: Mapping[int, tuple[str, Members]]) -> Recorded:
    """The windows of a sequence as one."""
    samples = [data.decode(*windows[start]) for start in run.starts]
    parts: defaultdict[str, list[np.ndarray]] = defaultdict(list)
    end = run.starts[0]
    for start, sample in zip(run.starts, samples, strict=True):
        new = end - start  # frames of it that came before
        parts["truth"].append(sample.avatar_motion[new:])
        parts["user"].append(sample.user_motion[new:])
        parts["state"].append(sample.state[new:])
        parts["valid"].append(np.asarray(sample.valid[new:].all(axis=1)))
        parts["avatar_audio"].append(sample.avatar_audio[new * SAMPLES_PER_FRAME :])
        parts["user_audio"].append(sample.user_audio[new * SAMPLES_PER_FRAME :])
        end = start + len(sample.state)
    whole = {name: np.concatenate(found) for name, found in parts.items()}
    return Recorded(key=samples[0].key, side=run.side, reference=samples[0].reference, **whole)


def generate_sequences(
    model: Listener,
    recorded: Iterable[Recorded],
    total: int,
    sampler: SamplerConfig,
    seeds: Sequence[int],
    drops: Sequence[Drop] = ("full", "no_user"),
    progress: Progress | None = None,
    sampling: Sampling | None = None,
) -> list[Generated]:
    """What the model makes of sequences, those of one length together. The same sequence gets the same motion whatever
    else is there: noise depends on the seed and its key.

    sampling: precision, sequences together, graphs; without it float32 and 32, as they come.

    Raises:
        RunFailed: motion that is not finite.
    """
    made: list[Generated] = []
    size = _BATCH if sampling is None else sampling.batch
    sampled = partial(rollout, model) if sampling is None else Rollouts(model, sampling)
    for batch in _batches(recorded, size):
        motions = {drop: [_generated(model, sampled, batch, sampler, seed, drop) for seed in seeds] for drop in drops}
        for i, sequence in enumerate(batch):
            of = {drop: tuple(each[i] for each in found) for drop, found in motions.items()}
            silent = replace(sequence, avatar_audio=np.zeros(0, np.float32), user_audio=np.zeros(0, np.float32))
            made.append(Generated(silent, of))
        if progress is not None:
            progress(len(made), total, {})
    return made


def _batches(recorded: Iterable[Recorded], size: int) -> Iterator[list[Recorded]]:
    """Sequences of one length, of as many as BATCH_FRAMES hold."""
    held: defaultdict[int, list[Recorded]] = defaultdict(list)
    for sequence in recorded:
        held[len(sequence.truth)].append(sequence)
        for length in list(held):
            if len(held[length]) == size or sum(n * len(some) for n, some in held.items()) > BATCH_FRAMES:
                yield held.pop(length)
    yield from held.values()


def _generated(
    model: Listener,
    sampled: Callable[..., torch.Tensor],
    batch: Sequence[Recorded],
    sampler: SamplerConfig,
    seed: int,
    drop: Drop,
) -> np.ndarray:
    """Motion of sequences of one length, float32 [S, T, D]."""

    def stacked(name: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([getattr(each, name) for each in batch])).to(model.mean.device)

    voices = stacked("avatar_audio"), stacked("user_audio")
    config, keys = sampler.model_copy(update={"seed": seed}), [each.key for each in batch]
    made = sampled(*voices, stacked("user"), stacked("reference"), config, keys, drop)
    motion = np.asarray(made.cpu().numpy())
    fine = np.isfinite(motion).all(axis=(1, 2))
    if not fine.all():
        raise RunFailed(
            f"motion generated with conditions `{drop}` is not finite in the sequence that begins with"
            f" {keys[int(fine.argmin())]}; use an earlier checkpoint, or train again with a lower learning rate"
        )
    return motion


def checkpoint_sequences(
    checkpoint: Path,
    dataset: str,
    split: Split = "val",
    seeds: Sequence[int] = (0,),
    *,
    limit: int | None = None,
    encoder: str | None = None,
    sampling: SamplingConfig | None = None,
    progress: Progress | None = None,
) -> tuple[Manifest, Sampling, list[Generated]]:
    """Load a checkpoint and let it generate every sequence of a split, with its user and without. And how it did.

    Sequences are long, and held in memory with their sound: 32 of them together, if nothing else is said.

    Raises:
        UsageError: no samples in the split, a codec the model was not trained on, or a precision that the device lacks.
        DatasetError, RunFailed: as `read_sequences` and `generate_sequences`.
    """
    from visavis.training.generate import load_for
    from visavis.training.precision import settle

    loaded, model, data = load_for(checkpoint, dataset, encoder=encoder)
    runs, where = runs_of(data, split, limit)
    recorded = read_sequences(data, split, runs, where)
    settled = settle(sampling or SamplingConfig(), model.mean.device, on_gpu="tf32", usual=_BATCH)
    made = generate_sequences(
        model, recorded, len(runs), loaded.config.sampler, seeds, progress=progress, sampling=settled
    )
    return data.manifest, settled, made
